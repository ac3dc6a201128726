//! Why a switch or a guest's place in it cannot be had.

use explain::{Code, Explain};
use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

/// Why a switch cannot start, or a guest not be attached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SwitchError {
    /// The system refuses a thread or a descriptor.
    #[error("the vsock switch cannot start: {0}")]
    Start(#[source] io::Error),
    /// Another guest has this CID, and is attached.
    #[error("CID {0} is taken by another guest")]
    CidTaken(u32),
    /// A CID that no guest can have: 0 to 2, and 4294967295 (vsock(7)).
    #[error("CID {0} is reserved; guests have CIDs from 3 to 4294967294")]
    CidReserved(u32),
    /// A socket cannot be made.
    #[error("cannot listen on {}: {source}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The switch's thread has ended, which it does only by a panic.
    #[error("the vsock switch has ended")]
    Ended,
}

impl Explain for SwitchError {
    fn code(&self) -> Code {
        match self {
            SwitchError::CidTaken(_) | SwitchError::CidReserved(_) => Code::RequestInvalid,
            SwitchError::Listen { .. } => Code::DiskFailed,
            SwitchError::Start(_) | SwitchError::Ended => Code::LaunchFailed,
        }
    }

    fn next_step(&self) -> Cow<'_, str> {
        match self {
            SwitchError::CidTaken(_) | SwitchError::CidReserved(_) => "Choose another CID.".into(),
            SwitchError::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                "Choose another path, or remove the file if no other program listens there.".into()
            }
            SwitchError::Listen { .. } => {
                "Choose a path of at most 107 bytes in a directory that exists and is writable."
                    .into()
            }
            SwitchError::Start(_) => {
                "Raise the limits of open files and threads, or stop other programs.".into()
            }
            SwitchError::Ended => "This is a bug; please report it.".into(),
        }
    }
}
