//! System calls that have no safe wrapper. One function each.
//!
//! The ioctls and structs of /dev/nitro_enclaves are those of the kernel's
//! include/uapi/linux/nitro_enclaves.h; a test below compiles that header and compares.
#![allow(
    unsafe_code,
    reason = "the only file of this crate that may hold it; every block says why it is sound"
)]

use nix::libc::{self, c_int, c_long, c_ulong, c_void, off_t};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::Command;

/// The magic number of the driver's ioctls.
const MAGIC: u8 = 0xAE;
const NE_CREATE_VM: c_ulong = nix::request_code_read!(MAGIC, 0x20, size_of::<u64>());
const NE_ADD_VCPU: c_ulong = nix::request_code_readwrite!(MAGIC, 0x21, size_of::<u32>());
const NE_GET_IMAGE_LOAD_INFO: c_ulong =
    nix::request_code_readwrite!(MAGIC, 0x22, size_of::<ImageLoadInfo>());
const NE_SET_USER_MEMORY_REGION: c_ulong =
    nix::request_code_write!(MAGIC, 0x23, size_of::<UserMemoryRegion>());
const NE_START_ENCLAVE: c_ulong =
    nix::request_code_readwrite!(MAGIC, 0x24, size_of::<EnclaveStartInfo>());

const NE_EIF_IMAGE: u64 = 1;
const NE_DEFAULT_MEMORY_REGION: u64 = 0;
const NE_ENCLAVE_PRODUCTION_MODE: u64 = 0;
const NE_ENCLAVE_DEBUG_MODE: u64 = 1;

/// linux/mempolicy.h; the crate libc does not have it.
const MPOL_BIND: c_long = 2;

/// struct ne_image_load_info
#[repr(C)]
struct ImageLoadInfo {
    flags: u64,
    memory_offset: u64,
}

/// struct ne_user_memory_region
#[repr(C)]
struct UserMemoryRegion {
    flags: u64,
    memory_size: u64,
    userspace_addr: u64,
}

/// struct ne_enclave_start_info
#[repr(C)]
struct EnclaveStartInfo {
    flags: u64,
    enclave_cid: u64,
}

/// Has the kernel kill the child when the thread that starts it ends, so that nothing outlives a
/// daemon that was killed (prctl(2), PR_SET_PDEATHSIG). To be started from a thread that lives as
/// long as the daemon.
pub(crate) fn die_with_parent(command: &mut Command) {
    // SAFETY: the closure makes one system call and neither allocates nor takes a lock.
    unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) };
}

/// Watches a descriptor for reading and for its hang-up. To be called inside of a tokio runtime.
pub(crate) fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open and stays the same until it is dropped, which its new owner does
    // after it has stopped watching.
    let watched = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
    Ok(watched?)
}

/// Makes a slot for an enclave. The enclave lives as long as the descriptor; the number is the
/// driver's name for the slot. May block for as long as the device takes: 120 seconds.
pub(crate) fn create_vm(device: BorrowedFd<'_>) -> io::Result<(OwnedFd, u64)> {
    let mut slot: u64 = 0;
    // SAFETY: the kernel writes a u64, which lives until the call returns.
    let fd = unsafe { libc::ioctl(device.as_raw_fd(), NE_CREATE_VM, &raw mut slot) };
    checked(fd)?;
    // SAFETY: the kernel made this descriptor just now, and nothing else knows it.
    Ok((unsafe { OwnedFd::from_raw_fd(fd) }, slot))
}

/// Where in the enclave's memory its image belongs, in bytes.
pub(crate) fn image_load_offset(vm: BorrowedFd<'_>) -> io::Result<u64> {
    let mut info = ImageLoadInfo {
        flags: NE_EIF_IMAGE,
        memory_offset: 0,
    };
    // SAFETY: the kernel reads and writes this struct, which lives until the call returns.
    checked(unsafe { libc::ioctl(vm.as_raw_fd(), NE_GET_IMAGE_LOAD_INFO, &raw mut info) })?;
    Ok(info.memory_offset)
}

/// Gives a part of a mapping to an enclave. It must be in huge pages. The kernel keeps the pages
/// until the enclave's descriptor is closed, whatever becomes of the mapping.
pub(crate) fn set_user_memory_region(
    vm: BorrowedFd<'_>,
    memory: &Mapping,
    offset: usize,
    len: usize,
) -> io::Result<()> {
    let region = UserMemoryRegion {
        flags: NE_DEFAULT_MEMORY_REGION,
        memory_size: len as u64,
        userspace_addr: memory.at(offset, len)? as u64,
    };
    // SAFETY: the kernel reads this struct. What it names lies in a mapping that is alive, and of
    // which this program holds no reference: that the pages change or vanish breaks none.
    checked(unsafe { libc::ioctl(vm.as_raw_fd(), NE_SET_USER_MEMORY_REGION, &raw const region) })
}

/// Gives a CPU to an enclave, and tells which; 0 lets the driver choose.
pub(crate) fn add_vcpu(vm: BorrowedFd<'_>, cpu: u32) -> io::Result<u32> {
    let mut cpu = cpu;
    // SAFETY: the kernel reads and writes a u32, which lives until the call returns.
    checked(unsafe { libc::ioctl(vm.as_raw_fd(), NE_ADD_VCPU, &raw mut cpu) })?;
    Ok(cpu)
}

/// Starts an enclave, and tells its CID; 0 lets the device choose. May block for as long as the
/// device takes: 120 seconds.
pub(crate) fn start_enclave(vm: BorrowedFd<'_>, cid: u64, debug: bool) -> io::Result<u64> {
    let mut info = EnclaveStartInfo {
        flags: if debug {
            NE_ENCLAVE_DEBUG_MODE
        } else {
            NE_ENCLAVE_PRODUCTION_MODE
        },
        enclave_cid: cid,
    };
    // SAFETY: the kernel reads and writes this struct, which lives until the call returns.
    checked(unsafe { libc::ioctl(vm.as_raw_fd(), NE_START_ENCLAVE, &raw mut info) })?;
    Ok(info.enclave_cid)
}

/// The raw number stays in the error: those of the driver (256 to 275) are outside of every table.
fn checked(result: c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A range of addresses with memory in it. No reference to that memory exists, so nothing can be
/// read or written through one: the kernel fills it. Dropping it unmaps.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// What was mapped, which may begin below what is used.
    base: usize,
    mapped: usize,
    start: usize,
    len: usize,
}

impl Mapping {
    /// Sets addresses aside, aligned to a power of two. There is no memory behind them yet.
    pub(crate) fn reserve(len: usize, align: usize) -> io::Result<Mapping> {
        let mapped = len.checked_add(align).ok_or(libc::ENOMEM);
        let mapped = mapped.map_err(io::Error::from_raw_os_error)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: the kernel chooses addresses that nothing uses.
        let base =
            unsafe { libc::mmap(std::ptr::null_mut(), mapped, libc::PROT_NONE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = base as usize;
        Ok(Mapping {
            base,
            mapped,
            start: base.next_multiple_of(align),
            len,
        })
    }

    /// Puts zeroed memory behind a part of the addresses: in huge pages of `1 << shift` bytes, or
    /// without a shift in pages of the usual size. Huge pages are set aside by the kernel, and
    /// taken when they are populated.
    pub(crate) fn place(&self, offset: usize, len: usize, shift: Option<u32>) -> io::Result<()> {
        let address = self.at(offset, len)?;
        let huge = match shift {
            // 6 bits hold the shift (linux/mman.h).
            Some(shift) => libc::MAP_HUGETLB | ((shift & 0x3f) as c_int) << libc::MAP_HUGE_SHIFT,
            None => 0,
        };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | huge;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the addresses are this mapping's own, and nothing refers to what was there.
        let placed = unsafe { libc::mmap(address, len, access, flags, -1, 0) };
        if placed == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Keeps it out of core dumps and of child processes.
    pub(crate) fn keep_private(&self) -> io::Result<()> {
        self.advise(0, self.len, libc::MADV_DONTDUMP)?;
        self.advise(0, self.len, libc::MADV_DONTFORK)
    }

    /// Takes the pages of a part now. Where there are none, that is an error (EFAULT) and no
    /// SIGBUS.
    pub(crate) fn populate(&self, offset: usize, len: usize) -> io::Result<()> {
        self.advise(offset, len, libc::MADV_POPULATE_WRITE)
    }

    fn advise(&self, offset: usize, len: usize, advice: c_int) -> io::Result<()> {
        let address = self.at(offset, len)?;
        // SAFETY: none of the advice given above changes what the memory holds.
        checked(unsafe { libc::madvise(address, len, advice) })
    }

    /// Has pages come from one NUMA node only (mbind(2)); for pages that are not populated yet.
    pub(crate) fn bind_to_node(&self, node: u32) -> io::Result<()> {
        let mut mask = [0 as c_ulong; 16];
        let bits = c_ulong::BITS;
        let word = mask.get_mut((node / bits) as usize);
        *word.ok_or(io::ErrorKind::InvalidInput)? |= 1 << (node % bits);
        // The kernel takes one bit less than it is told.
        let max_node = mask.len() * bits as usize + 1;
        // SAFETY: the kernel reads the mask, which lives until the call returns.
        let result = unsafe {
            libc::syscall(
                libc::SYS_mbind,
                self.start,
                self.len,
                MPOL_BIND,
                mask.as_ptr(),
                max_node,
                0,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Reads from a file into a part, and tells how many bytes; 0 at the file's end.
    pub(crate) fn read_at(
        &self,
        offset: usize,
        len: usize,
        file: &File,
        at: u64,
    ) -> io::Result<usize> {
        let address = self.at(offset, len)?;
        let at = off_t::try_from(at).map_err(io::Error::other)?;
        // SAFETY: the kernel writes into this mapping, of which no reference exists; where no page
        // can be had it reports EFAULT.
        let read = unsafe { libc::pread(file.as_raw_fd(), address, len, at) };
        usize::try_from(read).map_err(|_| io::Error::last_os_error())
    }

    /// The address of a part, if it is one.
    fn at(&self, offset: usize, len: usize) -> io::Result<*mut c_void> {
        let end = offset.checked_add(len).filter(|end| *end <= self.len);
        end.ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.start + offset) as *mut c_void)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `reserve`, and no reference into it exists. It cannot
        // fail: it ends where mappings end.
        unsafe { libc::munmap(self.base as *mut c_void, self.mapped) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;
    use std::os::fd::AsFd as _;
    use std::process::Command;

    /// What the kernel's own header says, one number a line.
    const PROGRAM: &str = r#"
        #include <linux/nitro_enclaves.h>
        #include <linux/mempolicy.h>
        #include <stddef.h>
        #include <stdio.h>
        #include <sys/ioctl.h>
        #define P(n) printf("%lu\n", (unsigned long)(n))
        int main(void) {
            P(NE_CREATE_VM); P(NE_ADD_VCPU); P(NE_GET_IMAGE_LOAD_INFO);
            P(NE_SET_USER_MEMORY_REGION); P(NE_START_ENCLAVE);
            P(NE_EIF_IMAGE); P(NE_DEFAULT_MEMORY_REGION);
            P(NE_ENCLAVE_PRODUCTION_MODE); P(NE_ENCLAVE_DEBUG_MODE); P(MPOL_BIND);
            P(sizeof(struct ne_image_load_info));
            P(offsetof(struct ne_image_load_info, flags));
            P(offsetof(struct ne_image_load_info, memory_offset));
            P(sizeof(struct ne_user_memory_region));
            P(offsetof(struct ne_user_memory_region, flags));
            P(offsetof(struct ne_user_memory_region, memory_size));
            P(offsetof(struct ne_user_memory_region, userspace_addr));
            P(sizeof(struct ne_enclave_start_info));
            P(offsetof(struct ne_enclave_start_info, flags));
            P(offsetof(struct ne_enclave_start_info, enclave_cid));
        }"#;

    #[test]
    fn numbers_and_layouts_are_those_of_the_kernels_header() {
        let directory = tempfile::tempdir().unwrap();
        let (source, program) = (directory.path().join("p.c"), directory.path().join("p"));
        std::fs::write(&source, PROGRAM).unwrap();
        let mut compiler = Command::new("cc");
        compiler.arg("-o").arg(&program).arg(&source);
        assert!(compiler.status().unwrap().success());
        let output = Command::new(&program).output().unwrap().stdout;
        let numbers: Vec<u64> = String::from_utf8(output)
            .unwrap()
            .lines()
            .map(|line| line.parse().unwrap())
            .collect();
        let ours = [
            NE_CREATE_VM,
            NE_ADD_VCPU,
            NE_GET_IMAGE_LOAD_INFO,
            NE_SET_USER_MEMORY_REGION,
            NE_START_ENCLAVE,
            NE_EIF_IMAGE,
            NE_DEFAULT_MEMORY_REGION,
            NE_ENCLAVE_PRODUCTION_MODE,
            NE_ENCLAVE_DEBUG_MODE,
            MPOL_BIND as u64,
            size_of::<ImageLoadInfo>() as u64,
            offset_of!(ImageLoadInfo, flags) as u64,
            offset_of!(ImageLoadInfo, memory_offset) as u64,
            size_of::<UserMemoryRegion>() as u64,
            offset_of!(UserMemoryRegion, flags) as u64,
            offset_of!(UserMemoryRegion, memory_size) as u64,
            offset_of!(UserMemoryRegion, userspace_addr) as u64,
            size_of::<EnclaveStartInfo>() as u64,
            offset_of!(EnclaveStartInfo, flags) as u64,
            offset_of!(EnclaveStartInfo, enclave_cid) as u64,
        ];
        assert_eq!(numbers, ours);
    }

    #[test]
    fn what_is_no_enclave_device_says_so() {
        let null = File::options().read(true).write(true).open("/dev/null");
        let null = null.unwrap();
        let memory = Mapping::reserve(4096, 4096).unwrap();
        let errors = [
            create_vm(null.as_fd()).map(drop),
            image_load_offset(null.as_fd()).map(drop),
            set_user_memory_region(null.as_fd(), &memory, 0, 4096),
            add_vcpu(null.as_fd(), 0).map(drop),
            start_enclave(null.as_fd(), 0, false).map(drop),
        ];
        for error in errors {
            assert_eq!(error.unwrap_err().raw_os_error(), Some(libc::ENOTTY));
        }
    }

    #[test]
    fn a_mapping_takes_a_file_in_place_and_nothing_beyond_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        std::fs::write(&path, [7; 5000]).unwrap();
        let file = File::open(&path).unwrap();
        let align = 1 << 21;
        let memory = Mapping::reserve(1 << 21, align).unwrap();
        assert_eq!(memory.at(0, 0).unwrap() as usize % align, 0);
        memory.place(0, 1 << 20, None).unwrap();
        memory.keep_private().unwrap();
        memory.bind_to_node(0).unwrap();
        memory.populate(0, 1 << 20).unwrap();
        assert_eq!(memory.read_at(8192, 6000, &file, 0).unwrap(), 5000);
        assert_eq!(memory.read_at(8192, 6000, &file, 5000).unwrap(), 0);
        // Where there is no memory, the kernel says so.
        let absent = memory.read_at(1 << 20, 100, &file, 0).unwrap_err();
        assert_eq!(absent.raw_os_error(), Some(libc::EFAULT));
        let outside = memory.read_at((1 << 21) - 10, 11, &file, 0).unwrap_err();
        assert_eq!(outside.kind(), io::ErrorKind::InvalidInput);
        assert!(memory.place(usize::MAX, 2, None).is_err());
    }
}
