//! The exit codes of all commands, in one place.

use std::process::ExitCode;

/// How a command ended. 64 and above are those of sysexits.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Exit {
    /// Done. For `attest`: the document is trusted.
    Success = 0,
    /// The command worked and the answer is no. `enclavectl`: the enclave is FAILED. `attest`: the
    /// document is not trusted. `eif-builder policy --check`: the key is open.
    Negative = 1,
    /// `attest` alone: the document or the command line cannot be read.
    Unreadable = 2,
    /// `EX_USAGE`: the command line is wrong.
    Usage = 64,
    /// `EX_DATAERR`: the input is wrong.
    Data = 65,
    /// `EX_UNAVAILABLE`: a service, a disk or the daemon is not available.
    Unavailable = 69,
    /// `EX_SOFTWARE`: a defect of Redoubt.
    Bug = 70,
    /// `EX_NOPERM`: refused.
    Refused = 77,
    /// `EX_CONFIG`: configuration, or a file that it names, is wrong.
    Config = 78,
}

impl Exit {
    /// All of them, in order.
    pub const ALL: [Exit; 9] = [
        Exit::Success,
        Exit::Negative,
        Exit::Unreadable,
        Exit::Usage,
        Exit::Data,
        Exit::Unavailable,
        Exit::Bug,
        Exit::Refused,
        Exit::Config,
    ];

    /// The number that the shell sees.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// What it means, in a few words, for `--help` and `docs/errors.md`.
    pub fn meaning(self) -> &'static str {
        match self {
            Exit::Success => "success",
            Exit::Negative => {
                "the enclave is FAILED, the document is not trusted, or the key policy is open"
            }
            Exit::Unreadable => "attest only: the document or the command line cannot be read",
            Exit::Usage => "usage error",
            Exit::Data => "invalid input",
            Exit::Unavailable => "something needed is unavailable",
            Exit::Bug => "internal error",
            Exit::Refused => "refused",
            Exit::Config => "configuration error",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.number())
    }
}
