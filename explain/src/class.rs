//! The six kinds of failure, as sysexits.h tells them apart.

use crate::Exit;

/// Whose turn it is after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The caller asked for something that cannot be meant: correct the request.
    Usage,
    /// Input has the wrong content: an image, a document, a sealed config.
    Data,
    /// Something outside does not work now: a registry, a disk, the daemon.
    Unavailable,
    /// It was understood and refused: credentials, a policy, or a state does not allow it.
    Refused,
    /// Configuration or a file that it names is wrong.
    Config,
    /// A defect of Redoubt.
    Bug,
}

impl Class {
    /// The exit code of a command that fails with this class.
    pub fn exit(self) -> Exit {
        match self {
            Class::Usage => Exit::Usage,
            Class::Data => Exit::Data,
            Class::Unavailable => Exit::Unavailable,
            Class::Refused => Exit::Refused,
            Class::Config => Exit::Config,
            Class::Bug => Exit::Bug,
        }
    }
}
