//! What pulling and building tell while they run, as notes.

use super::Note;
use crate::lifecycle::Stage;
use oci::Digest;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// Progress is told in steps of this many bytes.
const PROGRESS_STEP: u64 = 512 * 1024;

/// Turns what pull and build tell into notes. Called from several threads; a full queue loses progress, never a result.
pub(super) struct Progress {
    notes: mpsc::Sender<Note>,
    done: AtomicU64,
    total: AtomicU64,
    told: AtomicU64,
    verifying: std::sync::atomic::AtomicBool,
    resolved: std::sync::atomic::AtomicBool,
}

impl Progress {
    pub(super) fn new(notes: mpsc::Sender<Note>) -> Progress {
        Progress {
            notes,
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
            told: AtomicU64::new(0),
            verifying: false.into(),
            resolved: false.into(),
        }
    }

    /// How far a pull came.
    pub(super) fn stage(&self) -> Stage {
        match (
            self.resolved.load(Ordering::Relaxed),
            self.verifying.load(Ordering::Relaxed),
        ) {
            (false, _) => Stage::Resolve,
            (true, false) => Stage::Pull,
            (true, true) => Stage::Verify,
        }
    }

    fn add(&self, stage: Stage, bytes: u64) -> bool {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let total = self.total.load(Ordering::Relaxed);
        let whole = done >= total;
        if whole || done.saturating_sub(self.told.load(Ordering::Relaxed)) >= PROGRESS_STEP {
            self.told.store(done, Ordering::Relaxed);
            let _ = self.notes.try_send(Note::Progress {
                stage,
                done: done.min(total),
                total,
            });
        }
        whole
    }
}

impl oci::Progress for Progress {
    fn resolved(&self, digest: Digest, layers: &[u64]) {
        self.total.store(layers.iter().sum(), Ordering::Relaxed);
        self.resolved.store(true, Ordering::Relaxed);
        let _ = self.notes.try_send(Note::Resolved(digest));
        let _ = self.notes.try_send(Note::Entered(Stage::Pull));
    }

    fn received(&self, bytes: u64) {
        if self.add(Stage::Pull, bytes) && !self.verifying.swap(true, Ordering::Relaxed) {
            let _ = self.notes.try_send(Note::Entered(Stage::Verify));
        }
    }
}

impl eif_builder::build::Progress for Progress {
    fn merged(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
    }

    fn packed(&self, bytes: u64) {
        self.add(Stage::Build, bytes);
    }

    fn measuring(&self) {}
}
