//! The daemon as a whole: opens what it needs, brings back what should run, takes orders, and stops cleanly.
//!
//! `admission` decides whether a request makes sense, `create` carries it out, `recover` is the start after an end of any kind.

mod admission;
mod create;
mod recover;

pub use admission::Rejected;
pub use create::CreateError;

use crate::config::{DaemonConfig, SecretsKind};
use crate::deploy::{Context, Eifs};
use crate::enclave::{self, Handle};
use crate::sealed::SealedConfigs;
use crate::store::{Store, StoreError};
use api::{EnclaveId, Record, State};
use audit::{AuditError, AuditLog};
use broker::Issuer;
use explain::{Class, Code, Explain};
use launch::Launchers;
use nix::fcntl::{Flock, FlockArg};
use secrets::{AwsSecrets, FileSecrets, SecretStore};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Why the daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A directory cannot be made, or a file in it.
    #[error("cannot use {path}: {source}")]
    Directory { path: PathBuf, source: io::Error },
    /// One daemon a state directory.
    #[error("another daemon uses {0}")]
    Locked(PathBuf),
    /// The database cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No order could be written down.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The encrypted files cannot be opened.
    #[error("the secret store: {0}")]
    Secrets(io::Error),
}

impl Explain for StartError {
    fn code(&self) -> Code {
        match self {
            StartError::Directory { .. } | StartError::Secrets(_) => Code::DiskFailed,
            StartError::Locked(_) => Code::StateConflict,
            StartError::Store(error) => error.code(),
            StartError::Audit(error) => error.code(),
        }
    }

    /// Whatever it is, the daemon is not available.
    fn class(&self) -> Class {
        Class::Unavailable
    }

    fn next_step(&self) -> Cow<'_, str> {
        match self {
            StartError::Directory { .. } => {
                "Run it as the daemon's user, or set state_dir and run_dir to directories of your own.".into()
            }
            StartError::Locked(_) => "Stop the other one, or set another state_dir.".into(),
            StartError::Audit(error) => error.next_step(),
            _ => self.code().next_step().into(),
        }
    }
}

type Enclaves = BTreeMap<EnclaveId, (Handle, JoinHandle<()>)>;

/// The daemon.
#[derive(Debug)]
pub struct Daemon {
    context: Arc<Context>,
    store: Store,
    enclaves: Arc<Mutex<Enclaves>>,
    stopping: watch::Sender<bool>,
    /// Held as long as the daemon lives.
    _lock: Flock<File>,
}

impl Daemon {
    /// Opens the store and brings every enclave back to where it should be.
    ///
    /// # Errors
    /// Another daemon uses the state directory, or something in it cannot be used.
    pub async fn start(
        config: DaemonConfig,
        issuer: Option<Arc<Issuer>>,
        launchers: Launchers,
    ) -> Result<Arc<Daemon>, StartError> {
        let state = config.state_dir.clone();
        let directories = [
            state.clone(),
            config.run_dir.clone(),
            state.join("enclaves"),
            state.join("configs"),
            state.join("eifs"),
        ];
        for path in directories {
            std::fs::create_dir_all(&path)
                .map_err(|source| StartError::Directory { path, source })?;
        }
        let lock = lock(&state)?;
        let audit = AuditLog::open(&state.join("audit"))?;
        let store = Store::open(&state.join("redoubt.db"))?;
        let secrets = open_secrets(&config).await?;
        let configs = SealedConfigs::new(state.join("configs"));
        let context = Arc::new(Context {
            audit,
            config,
            secrets,
            configs,
            eifs: Eifs::new(state.join("eifs")),
            issuer,
            launchers,
        });
        let daemon = Daemon {
            context,
            store,
            enclaves: Arc::default(),
            stopping: watch::channel(false).0,
            _lock: lock,
        };
        daemon.recover().await?;
        Ok(Arc::new(daemon))
    }

    fn directory(&self, id: &EnclaveId) -> PathBuf {
        self.context
            .config
            .state_dir
            .join("enclaves")
            .join(id.as_str())
    }

    /// Starts the task that owns an enclave.
    fn adopt(&self, record: Record) {
        let id = record.id.clone();
        let (context, store) = (self.context.clone(), self.store.clone());
        let stopping = self.stopping.subscribe();
        let (handle, task) = enclave::spawn(record, self.directory(&id), context, store, stopping);
        let (enclaves, own) = (self.enclaves.clone(), id.clone());
        let mut living = self.living();
        // An enclave that is destroyed takes its handle with it, and so ends whoever follows its log.
        let task = tokio::spawn(async move {
            if let Err(error) = task.await {
                tracing::error!(id = %own, %error, "the task of an enclave ended badly");
            }
            enclaves
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&own);
        });
        living.insert(id, (handle, task));
    }

    fn living(&self) -> std::sync::MutexGuard<'_, Enclaves> {
        self.enclaves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// By id, or by name among those that are not destroyed.
    pub fn find(&self, id_or_name: &str) -> Option<Handle> {
        let matches = |handle: &&Handle| {
            let record = handle.record();
            record.id.as_str() == id_or_name
                || (record.name == id_or_name && record.state != State::Destroyed)
        };
        self.living()
            .values()
            .map(|(handle, _)| handle)
            .find(matches)
            .cloned()
    }

    /// Records and events.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Where orders are written before they are carried out.
    pub fn audit(&self) -> &AuditLog {
        &self.context.audit
    }

    /// What all deploys share.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// What issues credentials for the configured registry.
    pub fn issuer(&self) -> Option<&Issuer> {
        self.context.issuer.as_deref()
    }

    /// Stops every enclave, gracefully and all at once. The records stay: the next start brings them back.
    pub async fn stop(&self) {
        self.stopping.send_replace(true);
        let tasks = std::mem::take(&mut *self.living());
        for (_, (_, task)) in tasks {
            // It ended, whichever way.
            task.await.ok();
        }
    }
}

fn lock(state: &Path) -> Result<Flock<File>, StartError> {
    let path = state.join("lock");
    let file = File::create(&path).map_err(|source| StartError::Directory { path, source })?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| StartError::Locked(state.to_owned()))
}

async fn open_secrets(config: &DaemonConfig) -> Result<SecretStore, StartError> {
    let state = &config.state_dir;
    match config.secrets {
        SecretsKind::Aws => Ok(SecretStore::Aws(AwsSecrets::new(config.aws.clone()).await)),
        SecretsKind::File => {
            let opened = FileSecrets::open(&state.join("secrets"), &state.join("secrets.key"));
            Ok(SecretStore::File(opened.map_err(StartError::Secrets)?))
        }
    }
}
