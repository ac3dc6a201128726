//! Why an enclave could not be started.

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
            LaunchError::Memory { .. } => Code::OutOfMemory,
            LaunchError::Start { .. }
            | LaunchError::Ended { .. }
            | LaunchError::Socket { .. }
            | LaunchError::PathTooLong { .. } => Code::LaunchFailed,
        }
    }

    fn next_step(&self) -> Cow<'_, str> {
        match self {
            LaunchError::PathTooLong { .. } => "Choose a shorter run_dir.".into(),
            _ => self.code().next_step().into(),
        }
    }

    fn is_retryable(&self) -> bool {
        matches!(self, LaunchError::Memory { .. })
    }
}
