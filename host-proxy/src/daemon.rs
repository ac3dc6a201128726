//! The daemon as a whole: opens what it needs, brings back what should run, takes orders, and stops cleanly.

use crate::broker::Issuer;
use crate::config::{Config, SecretsKind};
use crate::deploy::Context;
use crate::enclave::{self, Handle};
use crate::fault::{Code, Fault};
use crate::lifecycle::{Event, State, Status, step};
use crate::record::{EnclaveId, Provider, Record, SourceType, now};
use crate::sealed::{ConfigError, Configs, Incoming};
use crate::secrets::{AwsSecrets, FileSecrets, RegistryCredentials, SecretError, SecretStore};
use crate::store::{Store, StoreError};
use oci::Reference;
use oci::reference::canonical_host;
use nix::fcntl::{Flock, FlockArg};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use wire::spec::Spec;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot use {path}: {source}")]
    Folder { path: PathBuf, source: io::Error },
    #[error("another daemon uses {0}")]
    Locked(PathBuf),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the secret store: {0}")]
    Secrets(io::Error),
}

#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("{0}")]
    Invalid(String, &'static str),
    #[error("an enclave named '{0}' exists already")]
    NameTaken(String),
    #[error("the credentials could not be stored: {0}")]
    Secret(#[from] SecretError),
    #[error("the config could not be kept: {0}")]
    Config(io::Error),
    #[error(transparent)]
    Store(StoreError),
}

/// An order for an enclave, as the API takes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Create {
    pub name: String,
    pub image: String,
    pub provider: Option<Provider>,
    pub source_type: Option<SourceType>,
    pub registry_url: Option<String>,
    pub registry_username: Option<String>,
    pub registry_password: Option<oci::Secret>,
    /// The text of `enclave.toml`.
    #[serde(default)]
    pub spec: String,
    /// The sealed config in base64, if the spec asks for one.
    pub config: Option<String>,
}

type Enclaves = BTreeMap<EnclaveId, (Handle, JoinHandle<()>)>;

#[derive(Debug)]
pub struct Daemon {
    context: Arc<Context>,
    store: Store,
    enclaves: Arc<Mutex<Enclaves>>,
    stopping: watch::Sender<bool>,
    /// Held as long as the daemon lives: one daemon a state folder.
    _lock: Flock<File>,
}

const MAX_NAME: usize = 63;

impl Daemon {
    /// Opens the store and brings every enclave back to where it should be.
    pub async fn start(
        config: Config,
        issuer: Option<Arc<Issuer>>,
    ) -> Result<Arc<Daemon>, StartError> {
        let state = config.state_dir.clone();
        for folder in [
            &state,
            &config.run_dir,
            &state.join("enclaves"),
            &state.join("configs"),
        ] {
            std::fs::create_dir_all(folder).map_err(|source| StartError::Folder {
                path: folder.clone(),
                source,
            })?;
        }
        let lock = lock(&state)?;
        let store = Store::open(&state.join("redoubt.db"))?;
        let secrets = match config.secrets {
            SecretsKind::Aws => SecretStore::Aws(AwsSecrets::new(config.aws.clone()).await),
            SecretsKind::File => {
                let opened = FileSecrets::open(&state.join("secrets"), &state.join("secrets.key"));
                SecretStore::File(opened.map_err(StartError::Secrets)?)
            }
        };
        let configs = Configs::new(state.join("configs"));
        let context = Arc::new(Context {
            config,
            secrets,
            configs,
            issuer,
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

    fn folder(&self, id: &EnclaveId) -> PathBuf {
        self.context
            .config
            .state_dir
            .join("enclaves")
            .join(id.as_str())
    }

    /// What an earlier daemon left: nothing of it runs any more, since its enclaves die with it.
    async fn recover(&self) -> Result<(), StartError> {
        let records = self.store.list().await?;
        let known: BTreeSet<String> = records
            .iter()
            .filter(|r| r.status != Status::Destroyed)
            .map(|r| r.id.to_string())
            .collect();
        sweep(&self.context.config.state_dir.join("enclaves"), |_| false);
        sweep(&self.context.config.run_dir, |name| !name.starts_with("e-"));
        sweep(&self.context.config.state_dir.join("secrets"), |name| {
            name.strip_suffix(".sealed")
                .is_none_or(|id| known.contains(id))
        });
        let configs: BTreeSet<String> = records
            .iter()
            .filter(|r| r.status != Status::Destroyed)
            .filter_map(|r| Some(format!("{}.{}", r.id, r.config.as_ref()?.sha256)))
            .collect();
        sweep(&self.context.config.state_dir.join("configs"), |name| {
            configs.contains(name)
        });
        for mut record in records {
            if record.status == Status::Destroyed {
                continue;
            }
            if let Ok(Some((state, _))) = step(&record.state(), Event::Recovered) {
                record.set_state(&state);
            }
            if record.status == Status::PendingDeploy
                && record.source_type == SourceType::PrivateRegistry
                && record.credentials_arn.is_none()
            {
                // The daemon died between the record and its secret; a secret that was half made goes.
                let _ = self.context.secrets.delete(&record.id).await;
                let fault = Fault::new(
                    Code::SecretUnavailable,
                    "the credentials were never stored",
                    "terminate this enclave and create it again",
                );
                record.set_state(&State::Failed(fault));
            }
            tracing::info!(id = %record.id, name = record.name, status = %record.status, "recovered");
            self.store.update(record.clone(), None).await?;
            self.adopt(record);
        }
        Ok(())
    }

    fn adopt(&self, record: Record) {
        let id = record.id.clone();
        let folder = self.folder(&id);
        let (handle, task) = enclave::spawn(
            record,
            folder,
            self.context.clone(),
            self.store.clone(),
            self.stopping.subscribe(),
        );
        let (enclaves, own) = (self.enclaves.clone(), id.clone());
        let mut living = self.enclaves.lock().unwrap_or_else(PoisonError::into_inner);
        // An enclave that is destroyed takes its handle with it, and so ends whoever follows its log.
        let task = tokio::spawn(async move {
            let _ = task.await;
            enclaves
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&own);
        });
        living.insert(id, (handle, task));
    }

    /// Checks an order, stores its credentials, and queues the deploy.
    pub async fn create(&self, order: Create) -> Result<Record, CreateError> {
        let Create {
            name,
            image,
            provider,
            source_type,
            registry_url,
            registry_username,
            registry_password,
            spec,
            config,
        } = order;
        check_name(&name)?;
        let reference = Reference::parse(&image)
            .map_err(|e| CreateError::Invalid(e.to_string(), "correct the image reference"))?;
        let manifest = Spec::parse(&spec).map_err(|e| {
            CreateError::Invalid(format!("enclave.toml: {e}"), "correct enclave.toml")
        })?;
        let config = check_config(&manifest, config.as_deref())?;
        if let Some(url) = &registry_url {
            check_registry(url, &reference)?;
        }
        let credentials = match (registry_username, registry_password) {
            (Some(username), Some(password)) => Some(RegistryCredentials { username, password }),
            (None, None) => None,
            _ => {
                return Err(CreateError::Invalid(
                    "a user name needs a password, and a password a user name".to_owned(),
                    "give both",
                ));
            }
        };
        let configured = self
            .issuer()
            .is_some_and(|issuer| !issuer.projects_of(&reference).is_empty());
        let source_type = check_source(source_type, credentials.is_some(), configured)?;
        let id = EnclaveId::random().map_err(|_| {
            CreateError::Invalid("the system gives no randomness".to_owned(), "try again")
        })?;
        let mut record = Record {
            id: id.clone(),
            name,
            status: Status::PendingDeploy,
            stage: None,
            fault: None,
            provider: provider.unwrap_or(self.context.config.launcher),
            source_type,
            image: reference.to_string(),
            image_digest: None,
            credentials_arn: None,
            spec,
            measurements: None,
            config: config.as_ref().map(|incoming| incoming.record.clone()),
            ingress: Vec::new(),
            attestation: None,
            created_at: now(),
            updated_at: now(),
        };
        // The record comes first: a crash in between leaves a name to clean up by, never a secret that nobody knows of.
        self.store
            .insert(record.clone())
            .await
            .map_err(|error| match error {
                StoreError::NameTaken(name) => CreateError::NameTaken(name),
                other => CreateError::Store(other),
            })?;
        if let Some(incoming) = &config
            && let Err(error) = self.context.configs.keep(&id, incoming)
        {
            self.store.remove(id).await.map_err(CreateError::Store)?;
            return Err(CreateError::Config(error));
        }
        if let Some(credentials) = credentials {
            let kept = self.keep(&mut record, &credentials).await;
            if let Err(error) = kept {
                self.context.configs.forget_others(&id, None);
                // It may have been made although its answer was lost.
                match self.context.secrets.delete(&id).await {
                    Ok(()) => self.store.remove(id).await.map_err(CreateError::Store)?,
                    Err(_) => {
                        record.set_state(&State::PendingDestroy);
                        let _ = self.store.update(record.clone(), None).await;
                        self.adopt(record);
                    }
                }
                return Err(error);
            }
        }
        self.adopt(record.clone());
        Ok(record)
    }

    /// Stores the credentials, and their name in the record.
    async fn keep(
        &self,
        record: &mut Record,
        credentials: &RegistryCredentials,
    ) -> Result<(), CreateError> {
        record.credentials_arn = Some(self.context.secrets.create(&record.id, credentials).await?);
        self.store
            .update(record.clone(), None)
            .await
            .map_err(CreateError::Store)
    }

    /// By id, or by name among the living.
    pub fn find(&self, id_or_name: &str) -> Option<Handle> {
        let enclaves = self.enclaves.lock().unwrap_or_else(PoisonError::into_inner);
        let matches = |handle: &Handle| {
            let record = handle.record();
            record.id.as_str() == id_or_name
                || (record.name == id_or_name && record.status != Status::Destroyed)
        };
        enclaves
            .values()
            .map(|(handle, _)| handle)
            .find(|handle| matches(handle))
            .cloned()
    }

    /// All living enclaves, oldest first.
    pub async fn list(&self) -> Result<Vec<Record>, StoreError> {
        let all = self.store.list().await?;
        Ok(all
            .into_iter()
            .filter(|record| record.status != Status::Destroyed)
            .collect())
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What makes credentials for the configured registry.
    pub fn issuer(&self) -> Option<&Issuer> {
        self.context.issuer.as_deref()
    }

    /// Stops every enclave, gracefully and all at once. The records stay: the next start brings them back.
    pub async fn stop(&self) {
        self.stopping.send_replace(true);
        let tasks =
            std::mem::take(&mut *self.enclaves.lock().unwrap_or_else(PoisonError::into_inner));
        for (_, (_, task)) in tasks {
            let _ = task.await;
        }
    }
}

fn lock(state: &Path) -> Result<Flock<File>, StartError> {
    let path = state.join("lock");
    let file = File::create(&path).map_err(|source| StartError::Folder {
        path: path.clone(),
        source,
    })?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| StartError::Locked(state.to_owned()))
}

/// Removes what is in a folder, but for the names to keep.
fn sweep(folder: &Path, keep: impl Fn(&str) -> bool) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if keep(&entry.file_name().to_string_lossy()) {
            continue;
        }
        let path = entry.path();
        let removed = if path.is_dir() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        match removed {
            Ok(()) => tracing::info!(path = %path.display(), "removed what an earlier daemon left"),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot remove what an earlier daemon left")
            }
        }
    }
}

fn check_name(name: &str) -> Result<(), CreateError> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let good = (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(allowed)
        && !name.starts_with('-')
        && !name.ends_with('-')
        && EnclaveId::try_from(name.to_owned()).is_err();
    match good {
        true => Ok(()),
        false => Err(CreateError::Invalid(
            "a name is 1 to 63 lower-case letters, digits and '-' between them".to_owned(),
            "choose another name",
        )),
    }
}

/// Where the credentials for the image come from, in words of the order or of its own accord.
fn check_source(
    wanted: Option<SourceType>,
    has_credentials: bool,
    is_configured: bool,
) -> Result<SourceType, CreateError> {
    let invalid = |message: &str, hint| Err(CreateError::Invalid(message.to_owned(), hint));
    match (wanted, has_credentials) {
        (Some(SourceType::PrivateRegistry), false) => invalid(
            "a private registry needs credentials",
            "give --registry-username and --registry-password-stdin",
        ),
        (Some(SourceType::ConfiguredRegistry), true) => invalid(
            "the configured registry makes its own credentials",
            "leave them out, or leave --source-type out",
        ),
        (Some(SourceType::ConfiguredRegistry), false) if !is_configured => invalid(
            "[registry] of the daemon's configuration has no credentials for this image",
            "check its host, and its prefix or namespace; or give credentials",
        ),
        (_, true) => Ok(SourceType::PrivateRegistry),
        (None | Some(SourceType::ConfiguredRegistry), false) if is_configured => {
            Ok(SourceType::ConfiguredRegistry)
        }
        (_, false) => Ok(SourceType::PublicRegistry),
    }
}

/// What an order brings must fit its spec.
pub(crate) fn check_config(
    manifest: &Spec,
    encoded: Option<&str>,
) -> Result<Option<Incoming>, CreateError> {
    Incoming::check(manifest, encoded).map_err(|error| {
        let hint = match &error {
            ConfigError::Missing => "give it with --config; 'enclavectl seal' makes one",
            ConfigError::NotAsked => "add [config] to enclave.toml, or leave the config out",
            ConfigError::Spec(_) => "correct enclave.toml",
            _ => "seal it again for this spec ('enclavectl seal')",
        };
        CreateError::Invalid(error.to_string(), hint)
    })
}

/// The credentials must belong to the image's registry, or they would go to a stranger.
fn check_registry(url: &str, reference: &Reference) -> Result<(), CreateError> {
    let host = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"))
        .unwrap_or(url);
    let host = host.split('/').next().unwrap_or(host);
    match canonical_host(host) == reference.host() {
        true => Ok(()),
        false => Err(CreateError::Invalid(
            format!(
                "the credentials are for {host}, but the image is on {}",
                reference.host()
            ),
            "use the registry host of the image reference",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_go_to_the_images_own_registry_only() {
        let reference = Reference::parse("registry-1.docker.io/my-org/app:v1").unwrap();
        for url in [
            "docker.io",
            "registry-1.docker.io",
            "https://index.docker.io/v1/",
        ] {
            assert!(check_registry(url, &reference).is_ok(), "{url}");
        }
        assert!(check_registry("ghcr.io", &reference).is_err());
    }

    #[test]
    fn an_order_says_where_credentials_come_from_or_leaves_it_open() {
        use SourceType::{ConfiguredRegistry, PrivateRegistry, PublicRegistry};
        let source = |wanted, has_credentials, is_configured| {
            check_source(wanted, has_credentials, is_configured).map_err(|e| e.to_string())
        };
        assert_eq!(source(None, false, false), Ok(PublicRegistry));
        assert_eq!(source(None, false, true), Ok(ConfiguredRegistry));
        assert_eq!(
            source(Some(PublicRegistry), false, true),
            Ok(PublicRegistry)
        );
        assert_eq!(source(None, true, true), Ok(PrivateRegistry));
        assert_eq!(
            source(Some(ConfiguredRegistry), false, true),
            Ok(ConfiguredRegistry)
        );
        assert!(source(Some(ConfiguredRegistry), false, false).is_err());
        assert!(source(Some(ConfiguredRegistry), true, true).is_err());
        assert!(source(Some(PrivateRegistry), false, true).is_err());
    }

    #[test]
    fn a_name_cannot_be_taken_for_an_id_or_a_path() {
        assert!(check_name("my-app-2").is_ok());
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a/b",
            "..",
            "e-0123456789abcdef",
            &"a".repeat(64),
        ] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
