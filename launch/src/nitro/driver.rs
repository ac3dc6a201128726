//! The parent instance as a launch uses it: what it has, its huge pages, and the driver. A trait,
//! so that tests put a fake in its place.

use super::errors::{DriverError, DriverStep};
use super::host::{HostResources, Sysfs};
use super::pages::{Piece, Plan};
use crate::sys::{self, Mapping};
use nix::libc;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

pub(super) const DEVICE: &str = "/dev/nitro_enclaves";

/// A machine that enclaves can be carved out of.
pub(super) trait Parent: std::fmt::Debug + Send + Sync {
    /// What there is right now.
    fn resources(&self) -> io::Result<HostResources>;

    /// Sets the pages of a plan aside: no other mapping gets them until this one is dropped.
    fn map(&self, plan: &Plan, node: Option<u32>) -> io::Result<Box<dyn Memory>>;

    /// Looks whether the driver is there and may be used.
    fn check_driver(&self) -> Result<(), DriverError>;

    /// A slot for an enclave. Blocks for 120 seconds at most.
    fn create_vm(&self) -> Result<Box<dyn Vm>, DriverError>;
}

/// Memory for one enclave. Dropping it unmaps.
pub(super) trait Memory: std::fmt::Debug + Send + Sync {
    fn mapping(&self) -> &Mapping;

    /// Takes the pages of a piece now.
    fn populate(&self, piece: Piece) -> io::Result<()>;
}

/// A slot of the driver, and the enclave in it once it is started. Dropping it ends the enclave,
/// and blocks until it is gone: for 120 seconds at most. Its descriptor hangs up (POLLHUP) when the
/// enclave ends by itself.
pub(super) trait Vm: std::fmt::Debug + Send + AsFd {
    /// Where in the enclave's memory its image belongs, in bytes.
    fn image_load_offset(&self) -> io::Result<u64>;

    fn add_memory(&self, memory: &dyn Memory, piece: Piece) -> io::Result<()>;

    /// Takes a CPU from the pool: the next one of a core that was begun, or the first of another.
    fn add_vcpu(&self) -> io::Result<u32>;

    /// Starts the enclave, and tells the CID that the device chose. Blocks for 120 seconds at most.
    fn start(&self, debug: bool) -> io::Result<u64>;
}

/// This machine.
#[derive(Debug)]
pub(super) struct ThisInstance(Sysfs);

impl Default for ThisInstance {
    fn default() -> ThisInstance {
        ThisInstance(Sysfs::new("/"))
    }
}

/// Opens the driver's device as launches do.
pub(super) fn open_device() -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .open(Path::new(DEVICE))
}

impl Parent for ThisInstance {
    fn resources(&self) -> io::Result<HostResources> {
        self.0.resources()
    }

    fn map(&self, plan: &Plan, node: Option<u32>) -> io::Result<Box<dyn Memory>> {
        let memory = Mapping::reserve(bytes(plan.bytes())?, bytes(plan.align())?)?;
        let mut offset = 0;
        for run in plan.runs() {
            let len = run.size * run.count;
            memory.place(bytes(offset)?, bytes(len)?, Some(run.size.trailing_zeros()))?;
            offset += len;
        }
        if let Some(node) = node
            && let Err(error) = memory.bind_to_node(node)
        {
            // The pages may be on that node all the same; if not, the driver says so.
            tracing::warn!(node, %error, "huge pages cannot be bound to the CPU pool's NUMA node");
        }
        memory.keep_private()?;
        Ok(Box::new(memory))
    }

    fn check_driver(&self) -> Result<(), DriverError> {
        open_device().map(drop).map_err(DriverStep::Open.failed())
    }

    fn create_vm(&self) -> Result<Box<dyn Vm>, DriverError> {
        let device = open_device().map_err(DriverStep::Open.failed())?;
        let created = sys::create_vm(device.as_fd());
        let (fd, slot) = created.map_err(DriverStep::CreateVm.failed())?;
        tracing::debug!(slot, "a slot for an enclave");
        Ok(Box::new(Slot(fd)))
    }
}

impl Memory for Mapping {
    fn mapping(&self) -> &Mapping {
        self
    }

    fn populate(&self, piece: Piece) -> io::Result<()> {
        match Mapping::populate(self, bytes(piece.offset)?, bytes(piece.len)?) {
            // Linux before 5.14 cannot do that. There the driver takes the pages one by one, and
            // reports those that it cannot have.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            result => result,
        }
    }
}

/// The descriptor of a slot: another process that holds it could go on waiting for the enclave's
/// end, and decides when it ends.
#[derive(Debug)]
struct Slot(OwnedFd);

impl AsFd for Slot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Vm for Slot {
    fn image_load_offset(&self) -> io::Result<u64> {
        sys::image_load_offset(self.0.as_fd())
    }

    fn add_memory(&self, memory: &dyn Memory, piece: Piece) -> io::Result<()> {
        let (offset, len) = (bytes(piece.offset)?, bytes(piece.len)?);
        sys::set_user_memory_region(self.0.as_fd(), memory.mapping(), offset, len)
    }

    fn add_vcpu(&self) -> io::Result<u32> {
        sys::add_vcpu(self.0.as_fd(), 0)
    }

    fn start(&self, debug: bool) -> io::Result<u64> {
        sys::start_enclave(self.0.as_fd(), 0, debug)
    }
}

pub(super) fn bytes(number: u64) -> io::Result<usize> {
    usize::try_from(number).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::super::memory;
    use super::super::pages::{Pages, UNIT, plan};
    use super::*;

    /// Needs no more than the kernel's own pages; where there are none, it is skipped.
    #[test]
    fn real_huge_pages_are_set_aside_filled_and_given_back() {
        let sizes = Path::new("/sys/kernel/mm/hugepages");
        let count = |name: &str| {
            let path = sizes.join("hugepages-2048kB").join(name);
            let text = std::fs::read_to_string(path).unwrap_or_default();
            text.trim().parse::<u64>().unwrap_or_default()
        };
        if count("free_hugepages") < count("resv_hugepages") + 32 {
            eprintln!("skipped: 32 free huge pages of 2 MiB are needed");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("eif");
        std::fs::write(&image, vec![7; 3 << 20]).unwrap();
        let plan = plan(32 * UNIT, &Pages::from([(UNIT, 32)])).unwrap();
        let memory = ThisInstance::default().map(&plan, None).unwrap();
        memory::fill(&*memory, &plan, &image, 8 << 20).unwrap();
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        assert!(maps.contains("Private_Hugetlb:   65536 kB"), "{maps}");
    }
}
