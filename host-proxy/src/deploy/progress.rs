//! What pulling and building report while they run, as events.

use super::DeployEvent;
use api::Stage;
use oci::Digest;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// Progress is reported in steps of this many bytes.
const PROGRESS_STEP: u64 = 512 * 1024;

/// Turns what pull and build report into events. Called from several threads.
pub(super) struct Progress {
    events: mpsc::Sender<DeployEvent>,
    done: AtomicU64,
    total: AtomicU64,
    told: AtomicU64,
    verifying: std::sync::atomic::AtomicBool,
    resolved: std::sync::atomic::AtomicBool,
}

impl Progress {
    pub(super) fn new(events: mpsc::Sender<DeployEvent>) -> Progress {
        Progress {
            events,
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

    /// A full queue loses progress, never a result.
    fn report(&self, event: DeployEvent) {
        self.events.try_send(event).ok();
    }

    fn add(&self, stage: Stage, bytes: u64) -> bool {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let total = self.total.load(Ordering::Relaxed);
        let whole = done >= total;
        if whole || done.saturating_sub(self.told.load(Ordering::Relaxed)) >= PROGRESS_STEP {
            self.told.store(done, Ordering::Relaxed);
            self.report(DeployEvent::Progress {
                stage,
                done: done.min(total),
                total,
            });
        }
        whole
    }
}

impl oci::PullProgress for Progress {
    fn resolved(&self, digest: Digest, layers: &[u64]) {
        self.total.store(layers.iter().sum(), Ordering::Relaxed);
        self.resolved.store(true, Ordering::Relaxed);
        self.report(DeployEvent::Resolved(digest));
        self.report(DeployEvent::Entered(Stage::Pull));
    }

    fn received(&self, bytes: u64) {
        if self.add(Stage::Pull, bytes) && !self.verifying.swap(true, Ordering::Relaxed) {
            self.report(DeployEvent::Entered(Stage::Verify));
        }
    }
}

impl eif_builder::build::BuildProgress for Progress {
    fn merged(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
    }

    fn packed(&self, bytes: u64) {
        self.add(Stage::Build, bytes);
    }

    fn measuring(&self) {}
}
