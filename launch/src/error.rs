//! Why an enclave could not be started.

use super::nitro::DriverError;
use explain::{Code, Explain};
use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

/// Why an enclave could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A program that launches need is not on this machine.
    #[error("{name} was not found; looked in {}", list(.tried))]
    Missing {
        name: &'static str,
        tried: Vec<PathBuf>,
    },
    /// A program cannot be executed.
    #[error("cannot start {name}: {source}")]
    Start {
        name: &'static str,
        source: io::Error,
    },
    /// A program ended before it was of use.
    #[error("{name} exited immediately ({status}): {output}")]
    Ended {
        name: &'static str,
        status: String,
        output: String,
    },
    /// A socket cannot be made, or was not.
    #[error("the socket {path} cannot be used: {source}")]
    Socket { path: PathBuf, source: io::Error },
    /// The path of a socket would be longer than the kernel takes (unix(7)).
    #[error("the socket path {path} is longer than {limit} bytes")]
    PathTooLong { path: PathBuf, limit: usize },
    /// There is not enough memory beside what other enclaves were promised.
    #[error("{asked_mib} MiB are required, and this machine has {free_mib} MiB left")]
    Memory { asked_mib: u64, free_mib: u64 },
    /// The free huge pages are too few. `free` lists them by size.
    #[error("{asked_mib} MiB of huge pages are required, and free are: {free}")]
    HugePages { asked_mib: u64, free: String },
    /// Too few whole cores of the CPU pool are left.
    #[error("{asked} CPUs in whole cores are required, and {free} of the pool's {pool} are left")]
    Cpus { asked: u32, free: u32, pool: u32 },
    /// The driver has no CPUs to give to enclaves.
    #[error("the CPU pool of the Nitro Enclaves driver is empty")]
    NoCpuPool,
    /// What the parent instance has for enclaves cannot be found out.
    #[error("cannot find out what this machine has for enclaves: {0}")]
    Host(io::Error),
    /// The enclave image cannot be read, or not to its end.
    #[error("the enclave image {path} cannot be read: {source}")]
    Image { path: PathBuf, source: io::Error },
    /// The enclave image does not fit into the enclave's memory.
    #[error("the enclave image has {image_mib} MiB, too much for an enclave with {memory_mib} MiB")]
    ImageTooLarge { image_mib: u64, memory_mib: u64 },
    /// The driver, or the kernel for it, refused a step.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The device chose a CID that vsock has no room for.
    #[error("the Nitro device gave the enclave the CID {0}, which vsock cannot reach")]
    Cid(u64),
    /// A port that enclaves connect to cannot be had.
    #[error("cannot listen on vsock port {port}: {source}")]
    Port { port: u32, source: io::Error },
    /// The end of the enclave could not be noticed.
    #[error("the enclave's descriptor cannot be watched: {0}")]
    Watch(io::Error),
    /// What asked for the enclave does not wait for it any more.
    #[error("the launch was given up")]
    GivenUp,
    /// This program was built for tests, and has no root to trust.
    #[cfg(feature = "test-root")]
    #[error("this is a test build without a usable test root: {0}")]
    TestRoot(String),
    /// Only Nitro has a debug mode.
    #[error("enclaves in QEMU have no debug mode")]
    DebugUnsupported,
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(", ")
}

impl Explain for LaunchError {
    fn code(&self) -> Code {
        match self {
            LaunchError::Missing { .. } => Code::LauncherMissing,
            LaunchError::Memory { .. } | LaunchError::HugePages { .. } => Code::OutOfMemory,
            LaunchError::Cpus { .. } | LaunchError::NoCpuPool => Code::OutOfCpus,
            LaunchError::Host(_) => Code::NitroUnavailable,
            LaunchError::Driver(error) => error.code(),
            LaunchError::ImageTooLarge { .. } | LaunchError::DebugUnsupported => Code::SpecInvalid,
            LaunchError::GivenUp => Code::DaemonStopping,
            #[cfg(feature = "test-root")]
            LaunchError::TestRoot(_) => Code::ConfigurationInvalid,
            LaunchError::Start { .. }
            | LaunchError::Ended { .. }
            | LaunchError::Socket { .. }
            | LaunchError::PathTooLong { .. }
            | LaunchError::Image { .. }
            | LaunchError::Cid(_)
            | LaunchError::Port { .. }
            | LaunchError::Watch(_) => Code::LaunchFailed,
        }
    }

    fn next_step(&self) -> Cow<'_, str> {
        let text = match self {
            LaunchError::PathTooLong { .. } => "Choose a shorter run_dir.",
            LaunchError::Missing {
                name: "vsock-switch",
                ..
            } => "Build it with scripts/build, and install it beside host-proxy.",
            LaunchError::HugePages { .. } => HUGE_PAGES,
            LaunchError::Cpus { .. } => CPUS,
            LaunchError::NoCpuPool => NO_POOL,
            LaunchError::Driver(error) => error.next_step(),
            LaunchError::ImageTooLarge { .. } => {
                "Raise [resources] memory_mib to four times the image, or use a smaller image."
            }
            LaunchError::Image { .. } => "Check the disk, and deploy again.",
            LaunchError::Port { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                PORT_TAKEN
            }
            LaunchError::Port { .. } => "Load the vsock driver with 'modprobe vsock'.",
            LaunchError::DebugUnsupported => "Leave --debug out: the console is shown without it.",
            _ => self.code().next_step(),
        };
        text.into()
    }

    fn is_retryable(&self) -> bool {
        match self {
            LaunchError::Memory { .. }
            | LaunchError::HugePages { .. }
            | LaunchError::Cpus { .. }
            | LaunchError::Port { .. } => true,
            LaunchError::Driver(error) => error.is_retryable(),
            _ => false,
        }
    }
}

const HUGE_PAGES: &str = "Lower [resources] memory_mib, stop another enclave, or raise memory_mib in \
    /etc/nitro_enclaves/allocator.yaml and run 'systemctl restart nitro-enclaves-allocator'.";
const CPUS: &str = "Lower [resources] cpus, stop another enclave, or raise cpu_count in \
    /etc/nitro_enclaves/allocator.yaml and run 'systemctl restart nitro-enclaves-allocator'.";
const NO_POOL: &str = "Set cpu_count in /etc/nitro_enclaves/allocator.yaml, and run \
    'systemctl enable --now nitro-enclaves-allocator'.";
const PORT_TAKEN: &str = "Stop the program that has it: usually 'nitro-cli run-enclave', which holds port 9000 \
    while it starts an enclave, or another host-proxy.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_names_the_usual_holder() {
        let port = |kind: io::ErrorKind| LaunchError::Port {
            port: 9000,
            source: kind.into(),
        };
        let taken = port(io::ErrorKind::AddrInUse);
        assert!(
            taken
                .to_string()
                .starts_with("cannot listen on vsock port 9000: ")
        );
        assert!(taken.next_step().contains("nitro-cli run-enclave"));
        assert!(taken.is_retryable());
        let unsupported = port(io::ErrorKind::Unsupported);
        assert!(unsupported.next_step().contains("modprobe vsock"));
    }
}
