//! Carries out a request for an enclave: record, config, secret, in that order. What was made is undone if a later step fails.

use super::admission::{Admitted, admit, admit_image};
use super::{Daemon, Rejected};
use crate::store::StoreError;
use api::{CreateEnclave, EnclaveId, Record, State, WorkloadRecord, now};
use explain::{Code, Explain};
use oci::Reference;
use secrets::{RegistryCredentials, SecretError};
use std::borrow::Cow;
use std::io;

/// Why an enclave was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The request makes no sense.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// The system has no randomness for an id.
    #[error("the system provides no randomness")]
    Random,
    /// The credentials cannot be stored.
    #[error("the credentials could not be stored: {0}")]
    Secret(#[from] SecretError),
    /// The sealed config cannot be stored.
    #[error("the config could not be stored: {0}")]
    Config(io::Error),
    /// The record cannot be stored, or its name is taken.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Explain for CreateError {
    fn code(&self) -> Code {
        match self {
            CreateError::Rejected(error) => error.code(),
            CreateError::Random => Code::Internal,
            CreateError::Secret(error) => error.code(),
            CreateError::Config(_) => Code::DiskFailed,
            CreateError::Store(error) => error.code(),
        }
    }

    fn next_step(&self) -> Cow<'_, str> {
        match self {
            CreateError::Rejected(error) => error.next_step(),
            CreateError::Secret(_) => "Check that the daemon may create secrets.".into(),
            _ => self.code().next_step().into(),
        }
    }
}

impl Daemon {
    /// Checks a request, stores its credentials, and queues the deploy.
    ///
    /// # Errors
    /// The request makes no sense, its name is taken, or something cannot be stored; then nothing of it is left.
    pub async fn create(&self, request: CreateEnclave) -> Result<Record, CreateError> {
        let launcher = self.context.config.launcher;
        let admitted = admit(request, launcher, |image| self.is_configured(image))?;
        let id = EnclaveId::random().map_err(|_| CreateError::Random)?;
        let mut record = self.new_record(id, &admitted);
        // The record comes first: a crash in between leaves a name to clean up by, never a secret that nothing points to.
        self.store.insert(record.clone()).await?;
        if let Some(config) = &admitted.config
            && let Err(error) = self.context.configs.store(&record.id, config)
        {
            self.store.remove(record.id).await?;
            return Err(CreateError::Config(error));
        }
        if let Some(credentials) = &admitted.credentials
            && let Err(error) = self.store_credentials(&mut record, credentials).await
        {
            self.undo(record).await?;
            return Err(error);
        }
        self.adopt(record.clone());
        Ok(record)
    }

    /// Whether `[registry]` covers an image.
    fn is_configured(&self, image: &Reference) -> bool {
        self.issuer()
            .is_some_and(|issuer| !issuer.projects_of(image).is_empty())
    }

    /// Checks the image that an enclave is to be redeployed to.
    pub(crate) fn check_image(&self, record: &Record, image: &str) -> Result<Reference, Rejected> {
        admit_image(image, record, |image| self.is_configured(image))
    }

    fn new_record(&self, id: EnclaveId, admitted: &Admitted) -> Record {
        let created_at = now();
        Record {
            id,
            name: admitted.name.clone(),
            state: State::PendingDeploy,
            generation: 1,
            provider: admitted.provider,
            debug: admitted.debug,
            source_type: admitted.source_type,
            image: admitted.image.clone(),
            image_digest: None,
            credentials_arn: None,
            spec: admitted.spec.clone(),
            measurements: None,
            attested: Vec::new(),
            config: admitted.config.as_ref().map(|config| config.record.clone()),
            ingress: Vec::new(),
            attestation: None,
            workload: WorkloadRecord::default(),
            updated_at: created_at.clone(),
            created_at,
        }
    }

    /// Stores the credentials, and their name in the record.
    async fn store_credentials(
        &self,
        record: &mut Record,
        credentials: &RegistryCredentials,
    ) -> Result<(), CreateError> {
        record.credentials_arn = Some(self.context.secrets.create(&record.id, credentials).await?);
        Ok(self.store.update(record.clone(), None).await?)
    }

    /// The secret may have been made although its answer was lost. One that cannot be deleted now is deleted by the enclave's task, which
    /// tries until it can.
    async fn undo(&self, mut record: Record) -> Result<(), CreateError> {
        self.context.configs.remove_others(&record.id, None);
        if self.context.secrets.delete(&record.id).await.is_ok() {
            return Ok(self.store.remove(record.id).await?);
        }
        record.set_state(State::PendingDestroy);
        if let Err(error) = self.store.update(record.clone(), None).await {
            tracing::error!(id = %record.id, %error, "a record could not be written");
        }
        self.adopt(record);
        Ok(())
    }
}
