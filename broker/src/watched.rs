//! Files named by the configuration that may change under a running daemon: key sets, secrets,
//! rules and certificates.

use explain::{Code, Explain};
use std::borrow::Cow;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// A key set or a rule file has some KiB. In bytes.
const MAX_FILE: u64 = 1 << 20;
/// Files are looked at no more often than this, however many ask.
const PAUSE: Duration = Duration::from_secs(1);

/// A file named by the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WatchedFileError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is longer than 1 MiB.
    #[error("{path}: longer than {MAX_FILE} bytes")]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// It holds something else than it should.
    #[error("{path}: {problem}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl WatchedFileError {
    pub(super) fn content(path: &Path, problem: impl std::fmt::Display) -> WatchedFileError {
        WatchedFileError::Content {
            path: path.to_owned(),
            problem: problem.to_string().trim_end().to_owned(),
        }
    }

    fn read(path: &Path, source: std::io::Error) -> WatchedFileError {
        WatchedFileError::Read {
            path: path.to_owned(),
            source,
        }
    }
}

impl Explain for WatchedFileError {
    fn code(&self) -> Code {
        Code::ConfigurationInvalid
    }

    fn next_step(&self) -> Cow<'_, str> {
        match self {
            WatchedFileError::Read { .. } => {
                "Check that the file exists and that the daemon may read it, or correct its path in [broker]."
            }
            WatchedFileError::TooLong { .. } => "Check that [broker] names the right file.",
            WatchedFileError::Content { .. } => "Correct the file.",
        }
        .into()
    }
}

/// A whole file, if it is not too long. It may hold a secret.
pub(super) fn read_bounded(path: &Path) -> Result<Zeroizing<Vec<u8>>, WatchedFileError> {
    let wrong = |source| WatchedFileError::read(path, source);
    if fs::metadata(path).map_err(wrong)?.len() > MAX_FILE {
        return Err(WatchedFileError::TooLong {
            path: path.to_owned(),
        });
    }
    fs::read(path).map(Zeroizing::new).map_err(wrong)
}

/// What distinguishes one state of a file from another: inode, length and time of change, which a
/// new owner or mode sets too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    len: u64,
    changed: (i64, i64),
}

/// `None` if there is no file.
pub(super) fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    let changed = (metadata.ctime(), metadata.ctime_nsec());
    Some(Stamp {
        inode: metadata.ino(),
        len: metadata.len(),
        changed,
    })
}

/// Some files that are read together.
#[derive(Debug)]
pub(super) struct Watch {
    paths: Vec<PathBuf>,
    looked: Instant,
    /// Of the files as they were last read; empty if reading failed.
    seen: Vec<Option<Stamp>>,
}

impl Watch {
    /// To be called before they are read, so that no change is missed.
    pub(super) fn new(paths: Vec<PathBuf>) -> Watch {
        Watch {
            seen: stamps(&paths),
            looked: Instant::now(),
            paths,
        }
    }

    /// Reads the files again if they changed, or if that failed the last time; `None` if there is
    /// nothing new.
    pub(super) fn reread<T, E>(
        &mut self,
        read: impl FnOnce() -> Result<T, E>,
    ) -> Option<Result<T, E>> {
        if self.looked.elapsed() < PAUSE {
            return None;
        }
        self.looked = Instant::now();
        let seen = stamps(&self.paths);
        if seen == self.seen {
            return None;
        }
        let result = read();
        self.seen = if result.is_ok() { seen } else { Vec::new() };
        Some(result)
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Option<Stamp>> {
    paths.iter().map(|path| stamp(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_tried_again_and_what_is_read_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "1").unwrap();
        let mut watch = Watch::new(vec![path.clone()]);
        let mut look = |result: Result<u8, ()>| {
            watch.looked = Instant::now() - PAUSE;
            watch.reread(|| result)
        };
        assert_eq!(look(Ok(1)), None);
        std::fs::write(&path, "22").unwrap();
        assert_eq!(look(Err(())), Some(Err(())));
        assert_eq!(look(Ok(2)), Some(Ok(2)), "without another change");
        assert_eq!(look(Ok(3)), None);
        // Another file with the same length and times.
        let other = directory.path().join("other");
        std::fs::copy(&path, &other).unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(look(Ok(4)), Some(Ok(4)));
        assert_eq!(watch.reread(|| Ok::<u8, ()>(5)), None, "not so soon");
    }
}
