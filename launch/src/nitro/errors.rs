//! What the driver of /dev/nitro_enclaves answers, as a person can use it: each step of a launch
//! and each error number with its meaning and the next step.
//!
//! The driver has numbers of its own, 256 to 275 (include/uapi/linux/nitro_enclaves.h). They lie
//! outside of every table of errno, so the raw number is kept.

use explain::Code;
use nix::libc;
use std::io;

/// A step of a launch that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{}: {}", .step.name(), meaning(*.step, .source))]
pub struct DriverError {
    /// What was tried.
    pub step: DriverStep,
    /// What the kernel answered; [`io::Error::raw_os_error`] is the raw number.
    pub source: io::Error,
}

/// The steps of a launch that the kernel can refuse, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriverStep {
    /// Opening /dev/nitro_enclaves.
    Open,
    /// NE_CREATE_VM
    CreateVm,
    /// NE_GET_IMAGE_LOAD_INFO
    ImageLoadInfo,
    /// mmap(2) of huge pages
    Map,
    /// Taking the pages that were mapped.
    Populate,
    /// NE_SET_USER_MEMORY_REGION
    AddMemory,
    /// NE_ADD_VCPU
    AddVcpu,
    /// NE_START_ENCLAVE
    Start,
}

impl DriverStep {
    /// All of them, in their order.
    pub const ALL: [DriverStep; 8] = [
        DriverStep::Open,
        DriverStep::CreateVm,
        DriverStep::ImageLoadInfo,
        DriverStep::Map,
        DriverStep::Populate,
        DriverStep::AddMemory,
        DriverStep::AddVcpu,
        DriverStep::Start,
    ];

    fn name(self) -> &'static str {
        match self {
            DriverStep::Open => "cannot open /dev/nitro_enclaves",
            DriverStep::CreateVm => "cannot create an enclave (NE_CREATE_VM)",
            DriverStep::ImageLoadInfo => {
                "cannot find out where the image belongs (NE_GET_IMAGE_LOAD_INFO)"
            }
            DriverStep::Map => "cannot map huge pages",
            DriverStep::Populate => "cannot take the huge pages that were mapped",
            DriverStep::AddMemory => {
                "cannot give memory to the enclave (NE_SET_USER_MEMORY_REGION)"
            }
            DriverStep::AddVcpu => "cannot give a CPU to the enclave (NE_ADD_VCPU)",
            DriverStep::Start => "cannot start the enclave (NE_START_ENCLAVE)",
        }
    }

    /// For the errors of `step`.
    pub(super) fn failed(self) -> impl Fn(io::Error) -> DriverError {
        move |source| DriverError { step: self, source }
    }
}

const ALLOCATOR: &str = "Set memory_mib and cpu_count in /etc/nitro_enclaves/allocator.yaml, and run 'systemctl restart nitro-enclaves-allocator'.";
const FEWER_PIECES: &str = "Use larger huge pages, or allocate them right after boot, when memory is in one piece: 'systemctl restart nitro-enclaves-allocator' after a reboot.";
const REPORT: &str =
    "Please report this with the last lines of 'dmesg': the launcher should not have asked for it.";
const DEVICE: &str =
    "Read 'dmesg'; stop enclaves that hang, and reboot the parent instance if every launch fails.";
const NO_DRIVER: &str = "Launch the instance with enclave options enabled, and load the driver with 'modprobe nitro_enclaves'.";
const POOL: &str = "Lower [resources] cpus, stop another enclave, or raise cpu_count in /etc/nitro_enclaves/allocator.yaml and restart nitro-enclaves-allocator.";
const HUGE_PAGES: &str = "Lower [resources] memory_mib, stop another enclave, or raise memory_mib in /etc/nitro_enclaves/allocator.yaml and restart nitro-enclaves-allocator.";

/// What a number means, for an operator.
fn meaning(step: DriverStep, source: &io::Error) -> String {
    let Some(errno) = source.raw_os_error() else {
        return source.to_string();
    };
    let text = match own_meaning(errno) {
        Some((name, text)) => return format!("{text} ({name}, {errno})"),
        None => plain_meaning(step, errno),
    };
    match text {
        Some(text) => format!("{text} ({source})"),
        None => source.to_string(),
    }
}

/// The driver's own numbers.
fn own_meaning(errno: i32) -> Option<(&'static str, &'static str)> {
    Some(match errno {
        256 => ("NE_ERR_VCPU_ALREADY_USED", "the CPU is in use already"),
        257 => (
            "NE_ERR_VCPU_NOT_IN_CPU_POOL",
            "the CPU is not in the CPU pool, or another enclave has it",
        ),
        258 => (
            "NE_ERR_VCPU_INVALID_CPU_CORE",
            "the CPU's core is not one of the CPU pool",
        ),
        259 => (
            "NE_ERR_INVALID_MEM_REGION_SIZE",
            "the memory is not a multiple of 2 MiB",
        ),
        260 => (
            "NE_ERR_INVALID_MEM_REGION_ADDR",
            "the memory's addresses are invalid",
        ),
        261 => (
            "NE_ERR_UNALIGNED_MEM_REGION_ADDR",
            "the memory is not aligned to 2 MiB",
        ),
        262 => (
            "NE_ERR_MEM_REGION_ALREADY_USED",
            "the enclave has this memory already",
        ),
        263 => (
            "NE_ERR_MEM_NOT_HUGE_PAGE",
            "the memory is not in huge pages",
        ),
        264 => (
            "NE_ERR_MEM_DIFFERENT_NUMA_NODE",
            "the memory is on another NUMA node than the CPU pool",
        ),
        265 => (
            "NE_ERR_MEM_MAX_REGIONS",
            "the memory is in more pieces than the device takes for one enclave",
        ),
        266 => (
            "NE_ERR_NO_MEM_REGIONS_ADDED",
            "the enclave was given no memory",
        ),
        267 => ("NE_ERR_NO_VCPUS_ADDED", "the enclave was given no CPU"),
        268 => (
            "NE_ERR_ENCLAVE_MEM_MIN_SIZE",
            "the enclave was given less than 64 MiB",
        ),
        269 => (
            "NE_ERR_FULL_CORES_NOT_USED",
            "the enclave was given only a part of a core",
        ),
        270 => (
            "NE_ERR_NOT_IN_INIT_STATE",
            "the enclave was started already",
        ),
        271 => ("NE_ERR_INVALID_VCPU", "this machine has no such CPU"),
        272 => (
            "NE_ERR_NO_CPUS_AVAIL_IN_POOL",
            "the CPU pool is empty, or other enclaves have all of it",
        ),
        273 => (
            "NE_ERR_INVALID_PAGE_SIZE",
            "the memory is in pages that are no multiple of 2 MiB",
        ),
        274 => (
            "NE_ERR_INVALID_FLAG_VALUE",
            "the driver does not know a flag",
        ),
        275 => (
            "NE_ERR_INVALID_ENCLAVE_CID",
            "an enclave cannot have this CID",
        ),
        _ => return None,
    })
}

/// What errno(3) does not say well enough.
fn plain_meaning(step: DriverStep, errno: i32) -> Option<&'static str> {
    Some(match (step, errno) {
        (DriverStep::Open, libc::EACCES | libc::EPERM) => "this user may not use the driver",
        (_, libc::ENOENT | libc::ENODEV | libc::ENXIO) => "the driver is not there",
        (DriverStep::Map, libc::ENOMEM) => "too few huge pages are free",
        (DriverStep::Populate, libc::EFAULT | libc::ENOMEM) => {
            "the huge pages are gone, or a cgroup or NUMA node has too few"
        }
        (_, libc::ENOMEM) => "the kernel or the Nitro device is out of memory",
        (_, libc::EBUSY) => "the Nitro device is busy",
        (_, libc::EIO) => "the Nitro device failed, or another process made this enclave",
        (_, libc::ETIMEDOUT) => "the Nitro device did not answer within 120 seconds",
        (_, libc::ENOTTY) => "this is not the driver of Nitro Enclaves",
        (_, libc::EINVAL) => "the driver or the Nitro device does not accept this",
        (_, libc::EFAULT) => "the driver cannot reach this program's memory",
        (_, libc::ENOSPC) => "the Nitro device has no room for another enclave",
        (_, libc::EMFILE | libc::ENFILE) => "too many files are open",
        (_, libc::EINTR) => "the call was interrupted",
        _ => return None,
    })
}

impl DriverError {
    /// The raw number; 0 if it came from no system call.
    pub fn errno(&self) -> i32 {
        self.source.raw_os_error().unwrap_or_default()
    }

    pub(crate) fn code(&self) -> Code {
        match (self.step, self.errno()) {
            (_, 257 | 272) => Code::OutOfCpus,
            (DriverStep::Map | DriverStep::Populate, libc::ENOMEM | libc::EFAULT) => {
                Code::OutOfMemory
            }
            (DriverStep::Open, _) | (_, libc::ENODEV | libc::ENXIO | libc::ENOTTY) => {
                Code::NitroUnavailable
            }
            _ => Code::LaunchFailed,
        }
    }

    pub(crate) fn next_step(&self) -> &'static str {
        match (self.step, self.errno()) {
            (_, 256 | 257 | 272) => POOL,
            (_, 258 | 269) => ALLOCATOR,
            (_, 264) => {
                "Have huge pages and CPU pool allocated on one NUMA node: 'systemctl restart nitro-enclaves-allocator' does."
            }
            (_, 265) => FEWER_PIECES,
            (_, 263 | 273) => ALLOCATOR,
            (_, 259..=262 | 266..=268 | 270 | 271 | 274 | 275) => REPORT,
            (DriverStep::Open, libc::EACCES | libc::EPERM) => {
                "Add the daemon's user to the group 'ne' ('usermod -aG ne USER'), and restart the daemon."
            }
            (_, libc::ENOENT | libc::ENODEV | libc::ENXIO | libc::ENOTTY) => NO_DRIVER,
            (DriverStep::Map, libc::ENOMEM) => HUGE_PAGES,
            (DriverStep::Populate, libc::EFAULT | libc::ENOMEM) => HUGE_PAGES,
            (_, libc::EMFILE | libc::ENFILE) => {
                "Raise LimitNOFILE of the daemon's systemd unit, and restart it."
            }
            (_, libc::EINVAL | libc::EFAULT) => REPORT,
            _ => DEVICE,
        }
    }

    /// Whether it may work later although nothing was changed.
    pub(crate) fn is_retryable(&self) -> bool {
        const LATER: [i32; 5] = [
            libc::EBUSY,
            libc::ENOMEM,
            libc::ETIMEDOUT,
            libc::ENOSPC,
            libc::EINTR,
        ];
        matches!(self.code(), Code::OutOfMemory | Code::OutOfCpus) || LATER.contains(&self.errno())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn error(step: DriverStep, errno: i32) -> DriverError {
        step.failed()(io::Error::from_raw_os_error(errno))
    }

    #[test]
    fn each_of_the_drivers_numbers_has_a_meaning_of_its_own_at_each_step() {
        for step in DriverStep::ALL {
            let texts: BTreeSet<String> = (256..=275).map(|n| error(step, n).to_string()).collect();
            assert_eq!(texts.len(), 20);
            for (text, errno) in (256..=275).map(|n| (error(step, n).to_string(), n)) {
                assert!(text.starts_with(step.name()), "{text}");
                assert!(text.ends_with(&format!(", {errno})")), "{text}");
                assert!(text.contains("NE_ERR_"), "{text}");
            }
        }
        // The next one is not known, and not lost either.
        let unknown = error(DriverStep::Start, 276).to_string();
        assert!(unknown.contains("276"), "{unknown}");
    }

    #[test]
    fn the_next_step_is_what_helps() {
        use DriverStep::{AddMemory, AddVcpu, CreateVm, Map, Open, Populate, Start};
        for (step, errno, code, next) in [
            (Open, libc::EACCES, Code::NitroUnavailable, "group 'ne'"),
            (Open, libc::ENOENT, Code::NitroUnavailable, "modprobe"),
            (CreateVm, libc::ENOTTY, Code::NitroUnavailable, "modprobe"),
            (CreateVm, 272, Code::OutOfCpus, "cpu_count"),
            (Map, libc::ENOMEM, Code::OutOfMemory, "memory_mib"),
            (Populate, libc::EFAULT, Code::OutOfMemory, "memory_mib"),
            (AddMemory, 265, Code::LaunchFailed, "larger huge pages"),
            (AddMemory, 264, Code::LaunchFailed, "one NUMA node"),
            (AddMemory, libc::EFAULT, Code::LaunchFailed, "dmesg"),
            (AddVcpu, 269, Code::LaunchFailed, "allocator"),
            (Start, libc::ETIMEDOUT, Code::LaunchFailed, "reboot"),
            (CreateVm, libc::EMFILE, Code::LaunchFailed, "LimitNOFILE"),
        ] {
            let error = error(step, errno);
            assert_eq!(error.code(), code, "{error}");
            assert!(error.next_step().contains(next), "{error}: {next}");
        }
    }
}
