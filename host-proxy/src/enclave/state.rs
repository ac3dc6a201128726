//! What an enclave's task works with.

use super::Order;
use crate::deploy::{Context, DeployEvent, Replacement, ServingEnclave};
use crate::store::Store;
use api::{ConfigRecord, DeployError, EnclaveEvent, Record, WorkloadRecord};
use launch::{Logs, Vsock};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

/// How often a record is written for what its workload does: the enclave decides how much it says.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// What the task works with.
#[derive(Debug)]
pub(super) struct Enclave {
    pub(super) record: Record,
    /// Its own files: spooled layers, and the EIF while it is built.
    pub(super) directory: PathBuf,
    pub(super) context: Arc<Context>,
    pub(super) store: Store,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) stopping: watch::Receiver<bool>,
    pub(super) view: watch::Sender<Record>,
    pub(super) vsock: watch::Sender<Option<Vsock>>,
    pub(super) events: broadcast::Sender<EnclaveEvent>,
    pub(super) logs: Logs,
    pub(super) deploying: Option<Deploying>,
    pub(super) serving: Option<ServingEnclave>,
    /// What the enclave that serves says of its workload.
    pub(super) workload: Option<Reported>,
    pub(super) replacing: Option<Replacing>,
    /// Enclaves that were replaced, and get time to end.
    pub(super) ending: JoinSet<()>,
    /// The deploy under way takes the place of an enclave that had to end first: if it fails, that one comes back.
    pub(super) is_risky: bool,
}

/// What an enclave says of its workload, taken in at a pace that the host sets.
#[derive(Debug)]
pub(super) struct Reported {
    latest: watch::Receiver<WorkloadRecord>,
    not_before: Instant,
}

impl Reported {
    /// All of it is news.
    pub(super) fn new(mut latest: watch::Receiver<WorkloadRecord>) -> Reported {
        latest.mark_changed();
        Reported {
            latest,
            not_before: Instant::now(),
        }
    }

    /// Waits for news; never returns once the enclave has said its last.
    pub(super) async fn changed(&mut self) {
        sleep_until(self.not_before).await;
        if self.latest.changed().await.is_err() {
            std::future::pending().await
        }
    }

    pub(super) fn take(&mut self) -> WorkloadRecord {
        self.not_before = Instant::now() + WRITE_EVERY;
        self.latest.borrow_and_update().clone()
    }
}

/// A deploy under way.
#[derive(Debug)]
pub(super) struct Deploying {
    pub(super) task: JoinHandle<Result<ServingEnclave, DeployError>>,
    pub(super) events: mpsc::Receiver<DeployEvent>,
}

/// The next enclave, which is prepared and boots while the old one serves.
#[derive(Debug)]
pub(super) struct Replacing {
    pub(super) task: JoinHandle<Result<Replacement, DeployError>>,
    pub(super) change: Change,
    pub(super) generation: u64,
}

/// What a replacement is for.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// The same code with another config.
    Config(ConfigRecord),
    /// Other code, or the same again.
    Release,
    /// Only to see what a redeploy would bring.
    DryRun,
}
