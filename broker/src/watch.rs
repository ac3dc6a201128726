//! Files that may change under a running daemon.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// They are not looked at more often than this, whoever asks.
const PAUSE: Duration = Duration::from_secs(1);

/// What tells one state of a file from another: a new inode, length, or time of change, which a new owner or mode sets too.
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

#[derive(Debug)]
pub(super) struct Watch {
    paths: Vec<PathBuf>,
    looked: Instant,
    /// Of the files as they were last read; empty if that failed.
    seen: Vec<Option<Stamp>>,
}

impl Watch {
    /// Before they are read, so that no change is missed.
    pub(super) fn new(paths: Vec<PathBuf>) -> Watch {
        Watch {
            seen: stamps(&paths),
            looked: Instant::now(),
            paths,
        }
    }

    /// Reads the files again if they changed, or if that failed the last time; `None` if there is nothing new.
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
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
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
        let other = folder.path().join("other");
        std::fs::copy(&path, &other).unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(look(Ok(4)), Some(Ok(4)));
        assert_eq!(watch.reread(|| Ok::<u8, ()>(5)), None, "not so soon");
    }
}
