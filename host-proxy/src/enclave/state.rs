//! What an enclave's task works with.

use super::Order;
use crate::deploy::{AttestedEnclave, Context, DeployEvent, ServingEnclave};
use crate::logs::Logs;
use crate::store::Store;
use api::{ConfigRecord, DeployError, EnclaveEvent, Record};
use eif_builder::build::Built;
use launch::Vsock;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

/// What the task works with.
#[derive(Debug)]
pub(super) struct Enclave {
    pub(super) record: Record,
    /// Its own files: spooled layers and the EIF.
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
    pub(super) replacing: Option<Replacing>,
    /// Enclaves that were replaced, and get time to end.
    pub(super) ending: JoinSet<()>,
    /// The next deploy launches this instead of pulling and building.
    pub(super) relaunch: Option<Built>,
}

/// A deploy under way.
#[derive(Debug)]
pub(super) struct Deploying {
    pub(super) task: JoinHandle<Result<ServingEnclave, DeployError>>,
    pub(super) events: mpsc::Receiver<DeployEvent>,
}

/// The next enclave, which boots with another config while the old one serves.
#[derive(Debug)]
pub(super) struct Replacing {
    pub(super) task: JoinHandle<Result<AttestedEnclave, DeployError>>,
    pub(super) config: ConfigRecord,
    pub(super) generation: u64,
}
