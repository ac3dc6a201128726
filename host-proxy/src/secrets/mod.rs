//! Where registry credentials live: in AWS Secrets Manager, or in encrypted files where there is no AWS.
//! A record holds only the name that a store gave; the credentials are fetched for a pull and dropped after it.

mod aws;
mod file;

use api::EnclaveId;
use explain::{Code, Explain};
use oci::{Credentials, Secret};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use aws::{AwsConfig, AwsSecrets};
pub use file::FileSecrets;

#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("the secret '{0}' does not exist")]
    Missing(String),
    #[error("the secret '{name}' cannot be {doing}: {reason}")]
    Failed {
        name: String,
        doing: &'static str,
        reason: String,
    },
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

#[derive(Debug)]
pub enum SecretStore {
    Aws(AwsSecrets),
    File(FileSecrets),
}

impl SecretStore {
    /// Keeps credentials for an enclave and gives the name to find them by.
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

    pub async fn fetch(&self, arn: &str) -> Result<RegistryCredentials, SecretError> {
        let text = match self {
            SecretStore::Aws(aws) => aws.fetch(arn).await?,
            SecretStore::File(file) => file.fetch(arn)?,
        };
        RegistryCredentials::from_json(&text).ok_or_else(|| SecretError::Unreadable(arn.to_owned()))
    }

    /// Deletes the enclave's secret; that there is none is no error.
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
    pub username: String,
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
