//! Files that may change under a running daemon.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

/// They are not looked at more often than this, whoever asks.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Watch {
    paths: Vec<PathBuf>,
    looked: Instant,
    seen: Vec<Option<SystemTime>>,
}

impl Watch {
    /// Before they are read, so that no change is missed.
    pub(super) fn new(paths: Vec<PathBuf>) -> Watch {
        Watch { seen: modified(&paths), looked: Instant::now(), paths }
    }

    /// Whether one of them is another since it was last looked at.
    pub(super) fn changed(&mut self) -> bool {
        if self.looked.elapsed() < PAUSE {
            return false;
        }
        self.looked = Instant::now();
        let seen = modified(&self.paths);
        let changed = seen != self.seen;
        self.seen = seen;
        changed
    }
}

fn modified(paths: &[PathBuf]) -> Vec<Option<SystemTime>> {
    let time = |path: &PathBuf| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    paths.iter().map(time).collect()
}
