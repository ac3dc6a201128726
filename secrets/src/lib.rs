//! Keeps registry credentials: in AWS Secrets Manager, or in encrypted files where there is no AWS.
//! A record holds only the name that a store gave; the credentials are fetched for a pull and
//! dropped after it. A [`Signer`] signs the request to KMS of an enclave, which gets no AWS
//! credentials itself, and [`examine_aws`] looks whether AWS gives what all this needs.
#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::missing_errors_doc)]

mod aws;
mod doctor;
mod file;
mod signer;

use api::EnclaveId;
use explain::{Code, Explain};
use oci::{Credentials, Secret};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use aws::{AwsConfig, AwsSecrets};
pub use doctor::{examine_aws, examine_metadata_service};
pub use file::FileSecrets;
pub use signer::{KmsConfig, NoCredentials, Signer};

/// Why a secret cannot be kept, read or deleted.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// There is no secret of this name.
    #[error("the secret '{0}' does not exist")]
    Missing(String),
    /// The service or the disk refused.
    #[error("the secret '{name}' cannot be {doing}: {reason}")]
    Failed {
        /// The secret's name.
        name: String,
        /// What was tried: `created`, `read`, `deleted`.
        doing: &'static str,
        /// The service's code and message, or the system's error. It holds no part of the secret.
        reason: String,
    },
    /// What is stored was not written by this crate, or was changed.
    #[error("the secret '{0}' does not hold registry credentials")]
    Unreadable(String),
}

impl Explain for SecretError {
    fn code(&self) -> Code {
        Code::SecretUnavailable
    }

    fn is_retryable(&self) -> bool {
        matches!(self, SecretError::Failed { .. })
    }
}

/// A place for registry credentials.
#[derive(Debug)]
pub enum SecretStore {
    /// AWS Secrets Manager.
    Aws(AwsSecrets),
    /// Encrypted files.
    File(FileSecrets),
}

impl SecretStore {
    /// Keeps credentials for an enclave and gives the name to find them by. Files are written
    /// before it returns; a request to AWS takes at most 30 seconds.
    ///
    /// # Errors
    /// [`SecretError::Failed`]: the service or the disk refused, or the secret exists already.
    pub async fn create(
        &self,
        id: &EnclaveId,
        credentials: &RegistryCredentials,
    ) -> Result<String, SecretError> {
        let text = credentials.to_json();
        match self {
            SecretStore::Aws(aws) => aws.create(id, &text).await,
            SecretStore::File(file) => file.create(id, &text),
        }
    }

    /// The credentials that `create` gave this name for. A request to AWS takes at most 30 seconds.
    ///
    /// # Errors
    /// [`SecretError::Missing`], [`SecretError::Unreadable`], or [`SecretError::Failed`] if the
    /// service or the disk refused.
    pub async fn fetch(&self, arn: &str) -> Result<RegistryCredentials, SecretError> {
        let text = match self {
            SecretStore::Aws(aws) => aws.fetch(arn).await?,
            SecretStore::File(file) => file.fetch(arn)?,
        };
        RegistryCredentials::from_json(&text).ok_or_else(|| SecretError::Unreadable(arn.to_owned()))
    }

    /// Deletes the enclave's secret; that there is none is no error.
    ///
    /// # Errors
    /// [`SecretError::Failed`]: the service or the disk refused.
    pub async fn delete(&self, id: &EnclaveId) -> Result<(), SecretError> {
        match self {
            SecretStore::Aws(aws) => aws.delete(id).await,
            SecretStore::File(file) => file.delete(id),
        }
    }
}

/// User name and password for one registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryCredentials {
    /// As the registry knows it.
    pub username: String,
    /// A password or an access token.
    pub password: Secret,
}

#[derive(Serialize)]
struct Written<'a> {
    username: &'a str,
    password: &'a str,
}

#[derive(Deserialize)]
struct Read {
    username: String,
    password: Secret,
}

impl RegistryCredentials {
    fn to_json(&self) -> Zeroizing<String> {
        let written = Written {
            username: &self.username,
            password: self.password.expose(),
        };
        Zeroizing::new(serde_json::to_string(&written).expect("two strings always serialise"))
    }

    fn from_json(text: &str) -> Option<RegistryCredentials> {
        let Read { username, password } = serde_json::from_str(text).ok()?;
        Some(RegistryCredentials { username, password })
    }
}

impl From<RegistryCredentials> for Credentials {
    fn from(RegistryCredentials { username, password }: RegistryCredentials) -> Credentials {
        Credentials::Password { username, password }
    }
}
