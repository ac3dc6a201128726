//! Why a switch or a guest's place in it cannot be had.

use std::io;
use std::path::PathBuf;

/// Why a switch cannot start, or a guest not be attached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SwitchError {
    /// The system refuses a thread or a descriptor.
    #[error("the vsock switch cannot start")]
    Start(#[source] io::Error),
    /// Another guest has this CID, and is attached.
    #[error("CID {0} is taken by another guest")]
    CidTaken(u32),
    /// A CID that no guest can have: 0 to 2, and 4294967295 (vsock(7)).
    #[error("CID {0} is reserved; guests have CIDs from 3 to 4294967294")]
    CidReserved(u32),
    /// A socket cannot be made.
    #[error("cannot listen on {}", path.display())]
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
