//! The exit codes of this program; `--help` lists them.

use std::process::ExitCode;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum ExitStatus {
    /// The document is trusted, or was shown.
    Success = 0,
    /// The document is genuine or not, but not what the policy asks for.
    Rejected = 1,
    /// The document is malformed, or the command cannot be run.
    Unusable = 2,
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> ExitCode {
        ExitCode::from(status as u8)
    }
}
