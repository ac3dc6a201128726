//! Why the log cannot be written.

use explain::{Code, Explain};
use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// The log cannot be opened or written. What was to be written is not in it, and must not be done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AuditError {
    /// A file cannot be used.
    #[error("the audit log: {path}: {source}")]
    File {
        /// The file, or its directory.
        path: PathBuf,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// Another process writes this log.
    #[error("the audit log: another process writes to {0}")]
    Locked(PathBuf),
    /// The disk has not answered for 30 seconds.
    #[error("the audit log: the disk does not answer")]
    TimedOut,
    /// More lines wait than can be meant.
    #[error("the audit log: too many lines are waiting to be written")]
    Busy,
    /// The thread that writes has ended.
    #[error("the audit log is closed")]
    Closed,
}

impl AuditError {
    pub(crate) fn file(path: impl Into<PathBuf>, source: io::Error) -> AuditError {
        AuditError::File {
            path: path.into(),
            source: Arc::new(source),
        }
    }
}

impl Explain for AuditError {
    fn code(&self) -> Code {
        Code::AuditUnavailable
    }

    fn next_step(&self) -> Cow<'_, str> {
        match self {
            AuditError::Locked(_) => "Stop the other daemon, or set another state_dir.".into(),
            _ => self.code().next_step().into(),
        }
    }
}
