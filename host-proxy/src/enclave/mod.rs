//! One task owns one enclave: its record, its deploy, its processes. Everything else sends it orders and watches.
//!
//! [`Handle`] is how others reach the task; `task` is its loop, `steps` what it does, `replace` how another enclave takes over, `release` which
//! code that is.

mod release;
mod replace;
mod state;
mod steps;
mod task;

use self::state::Enclave;
use crate::deploy::{Context, Target};
use crate::lifecycle::Refused;
use crate::sealed::CheckedConfig;
use crate::store::{Store, StoreError};
use api::{EnclaveEvent, Record};
use explain::{Code, Explain};
use launch::attest::{self, FetchError};
use launch::{Logs, Vsock};
use oci::Reference;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

const QUEUE: usize = 16;
const EVENTS: usize = 256;

type Answer = oneshot::Sender<Result<Record, OrderError>>;

/// An order to the task.
enum Order {
    Redeploy(Box<Target>, Answer),
    DryRun(Box<Target>, Answer),
    Rollback(Answer),
    Destroy(Answer),
    ReplaceConfig(Box<CheckedConfig>, Answer),
}

/// How others reach the task. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    orders: mpsc::Sender<Order>,
    record: watch::Receiver<Record>,
    vsock: watch::Receiver<Option<Vsock>>,
    events: broadcast::Sender<EnclaveEvent>,
    logs: Logs,
}

/// Why an order was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// The enclave's state does not allow it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It cannot be made to last.
    #[error("the order cannot be stored: {0}")]
    Store(#[from] StoreError),
    /// It never ran anything else.
    #[error("there is nothing to go back to: the enclave was attested with one image only")]
    NoRollback,
    /// Its config cannot be made to last.
    #[error("the config cannot be stored: {0}")]
    Config(std::io::Error),
    /// The task is ending.
    #[error("the daemon is stopping, or the enclave is gone")]
    Stopping,
}

impl Explain for OrderError {
    fn code(&self) -> Code {
        match self {
            OrderError::Refused(_) | OrderError::NoRollback => Code::StateConflict,
            OrderError::Store(error) => error.code(),
            OrderError::Config(_) => Code::DiskFailed,
            OrderError::Stopping => Code::DaemonStopping,
        }
    }
}

impl Handle {
    /// The record as it is now.
    pub fn record(&self) -> Record {
        self.record.borrow().clone()
    }

    /// What the workload prints.
    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    /// What happens from now on.
    pub fn events(&self) -> broadcast::Receiver<EnclaveEvent> {
        self.events.subscribe()
    }

    /// Resolves, pulls, builds and launches again, with another image if one is given. An enclave that runs serves until the next one
    /// is attested.
    pub async fn redeploy(&self, image: Option<Reference>) -> Result<Record, OrderError> {
        let target = self.target(image);
        self.order(|answer| Order::Redeploy(target, answer)).await
    }

    /// Finds out what [`Handle::redeploy`] would launch; an event says it.
    pub async fn dry_run(&self, image: Option<Reference>) -> Result<Record, OrderError> {
        let target = self.target(image);
        self.order(|answer| Order::DryRun(target, answer)).await
    }

    /// Launches what was attested before, from the EIF that was kept.
    pub async fn rollback(&self) -> Result<Record, OrderError> {
        self.order(Order::Rollback).await
    }

    fn target(&self, image: Option<Reference>) -> Box<Target> {
        let image = image.unwrap_or_else(|| self.record.borrow().image.clone());
        Box::new(Target::new(image))
    }

    /// Ends the enclave for good.
    pub async fn destroy(&self) -> Result<Record, OrderError> {
        self.order(Order::Destroy).await
    }

    /// Gives the enclave another config. One that is deployed serves until the next one is attested.
    pub async fn replace_config(&self, config: CheckedConfig) -> Result<Record, OrderError> {
        self.order(|answer| Order::ReplaceConfig(Box::new(config), answer))
            .await
    }

    async fn order(&self, order: impl FnOnce(Answer) -> Order) -> Result<Record, OrderError> {
        let (answer, result) = oneshot::channel();
        self.orders
            .send(order(answer))
            .await
            .map_err(|_| OrderError::Stopping)?;
        result.await.map_err(|_| OrderError::Stopping)?
    }

    /// A fresh document of the running enclave; `None` if none is deployed.
    pub async fn attestation(&self, nonce: Option<&[u8]>) -> Option<Result<Vec<u8>, FetchError>> {
        let vsock = self.vsock.borrow().clone()?;
        Some(attest::fetch(&vsock, nonce).await)
    }
}

/// Starts the task for a record, at the state that the record is in.
pub(crate) fn spawn(
    record: Record,
    directory: PathBuf,
    context: Arc<Context>,
    store: Store,
    stopping: watch::Receiver<bool>,
) -> (Handle, JoinHandle<()>) {
    let (sender, orders) = mpsc::channel(QUEUE);
    let (view, viewed) = watch::channel(record.clone());
    let (vsock, reachable) = watch::channel(None);
    let (events, _) = broadcast::channel(EVENTS);
    let logs = Logs::default();
    let handle = Handle {
        orders: sender,
        record: viewed,
        vsock: reachable,
        events: events.clone(),
        logs: logs.clone(),
    };
    let enclave = Enclave {
        record,
        directory,
        context,
        store,
        orders,
        stopping,
        view,
        vsock,
        events,
        logs,
        deploying: None,
        serving: None,
        workload: None,
        replacing: None,
        ending: Default::default(),
        is_risky: false,
    };
    (handle, tokio::spawn(enclave.run()))
}
