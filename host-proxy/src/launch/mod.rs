//! Starts enclaves and reaches into them.

mod console;
pub mod qemu;
mod vsock;

pub use qemu::{Qemu, Running};
pub use vsock::{Listeners, Vsock};

use crate::fault::{Code, Fault};
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error("{name} was not found; looked at {}", tried.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "))]
    Missing {
        name: &'static str,
        tried: Vec<PathBuf>,
    },
    #[error("cannot start {name}: {source}")]
    Start {
        name: &'static str,
        source: std::io::Error,
    },
    #[error("{name} ended at once ({status}): {output}")]
    Ended {
        name: &'static str,
        status: String,
        output: String,
    },
    #[error("the socket {path} cannot be used: {source}")]
    Socket {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{asked_mib} MiB are asked for, and this machine has {free_mib} MiB to give")]
    Memory { asked_mib: u64, free_mib: u64 },
}

impl From<LaunchError> for Fault {
    fn from(error: LaunchError) -> Fault {
        let message = error.to_string();
        match error {
            LaunchError::Missing { .. } => Fault::new(
                Code::QemuMissing,
                message,
                "build the sandbox with scripts/sandbox, or name its folder with qemu.folder in the configuration",
            ),
            LaunchError::Memory { .. } => Fault::new(
                Code::OutOfMemory,
                message,
                "ask for less with [resources] memory_mib, or stop another enclave",
            )
            .retryable(),
            LaunchError::Start { .. } | LaunchError::Ended { .. } | LaunchError::Socket { .. } => {
                Fault::new(
                    Code::LaunchFailed,
                    message,
                    "look at the daemon's journal; 'enclavectl doctor' checks what a launch needs",
                )
            }
        }
    }
}
