//! AWS Secrets Manager: one secret an enclave, `PREFIX/ID`, tagged, under the KMS key of the
//! operator's choice.

use super::SecretError;
use api::EnclaveId;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::Region;
use aws_sdk_secretsmanager::config::timeout::TimeoutConfig;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_secretsmanager::types::Tag;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use zeroize::Zeroizing;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Retries included.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(30);

/// `[aws]` of the daemon's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AwsConfig {
    /// The instance's own region if empty.
    pub region: String,
    /// For endpoints that are not AWS's; empty for AWS.
    pub endpoint_url: String,
    /// Key for the secrets; empty for the account's default key.
    pub kms_key: String,
    /// First part of the secrets' names.
    pub secret_prefix: String,
}

/// A client of Secrets Manager.
#[derive(Debug)]
pub struct AwsSecrets {
    client: Client,
    config: AwsConfig,
}

impl AwsSecrets {
    /// Credentials come from the usual places, on an instance from its role. Makes no request to
    /// Secrets Manager yet.
    pub async fn new(config: AwsConfig) -> AwsSecrets {
        let shared = load(&config, CONNECT_TIMEOUT, OPERATION_TIMEOUT).await;
        AwsSecrets {
            client: Client::new(&shared),
            config,
        }
    }

    fn name(&self, id: &EnclaveId) -> String {
        format!("{}/{id}", self.config.secret_prefix)
    }

    pub(super) async fn create(
        &self,
        id: &EnclaveId,
        text: &Zeroizing<String>,
    ) -> Result<String, SecretError> {
        let name = self.name(id);
        let tag = Tag::builder()
            .key("redoubt:enclave")
            .value(id.as_str())
            .build();
        let key = Some(self.config.kms_key.clone()).filter(|key| !key.is_empty());
        let created = self
            .client
            .create_secret()
            .name(&name)
            .description("Registry credentials of a Redoubt enclave; deleted with it")
            .set_kms_key_id(key)
            .secret_string(text.as_str())
            .tags(tag)
            .send()
            .await
            .map_err(|e| failed(&name, "created", &e))?;
        created.arn.ok_or(SecretError::Missing(name))
    }

    pub(super) async fn fetch(&self, arn: &str) -> Result<Zeroizing<String>, SecretError> {
        let fetched = self.client.get_secret_value().secret_id(arn).send().await;
        let fetched = fetched.map_err(|error| match error.as_service_error() {
            Some(service) if service.is_resource_not_found_exception() => {
                SecretError::Missing(arn.to_owned())
            }
            _ => failed(arn, "fetched", &error),
        })?;
        fetched
            .secret_string
            .map(Zeroizing::new)
            .ok_or_else(|| SecretError::Unreadable(arn.to_owned()))
    }

    /// At once and for good: credentials of an enclave that is gone have no use.
    pub(super) async fn delete(&self, id: &EnclaveId) -> Result<(), SecretError> {
        let name = self.name(id);
        let deleted = self
            .client
            .delete_secret()
            .secret_id(&name)
            .force_delete_without_recovery(true)
            .send()
            .await;
        match deleted {
            Ok(_) => Ok(()),
            Err(error) => match error.as_service_error() {
                Some(service) if service.is_resource_not_found_exception() => Ok(()),
                _ => Err(failed(&name, "deleted", &error)),
            },
        }
    }
}

/// What clients of AWS's services have in common. `operation` includes retries.
pub(crate) async fn load(config: &AwsConfig, connect: Duration, operation: Duration) -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(connect)
        .operation_timeout(operation)
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).timeout_config(timeouts);
    if !config.region.is_empty() {
        loader = loader.region(Region::new(config.region.clone()));
    }
    if !config.endpoint_url.is_empty() {
        loader = loader.endpoint_url(&config.endpoint_url);
    }
    loader.load().await
}

fn failed<E: ProvideErrorMetadata, R>(
    name: &str,
    doing: &'static str,
    error: &SdkError<E, R>,
) -> SecretError {
    SecretError::Failed {
        name: name.to_owned(),
        doing,
        reason: reason(error),
    }
}

/// Code and message of the service, or the kind of failure: the SDK's full text may hold the
/// answer's body, and that the secret.
pub(crate) fn reason<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> String {
    match error {
        SdkError::ServiceError(_) => {
            format!(
                "{}: {}",
                error.code().unwrap_or("error"),
                error.message().unwrap_or("the service gave no reason")
            )
        }
        SdkError::TimeoutError(_) => "the service did not answer in time".to_owned(),
        SdkError::DispatchFailure(failure) => match failure.as_connector_error() {
            Some(connector) => format!("the service cannot be reached: {connector}"),
            None => "the service cannot be reached".to_owned(),
        },
        SdkError::ResponseError(_) => {
            "the service answered something that cannot be read".to_owned()
        }
        _ => "the request could not be made; check region and AWS credentials".to_owned(),
    }
}
