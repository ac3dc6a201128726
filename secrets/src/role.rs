//! AWS credentials that enclaves ask KMS with: on an instance those of its role, from IMDSv2, fetched
//! again for each launch. They are no secret from this machine; the key's policy decides what they
//! may decrypt.

use aws_config::BehaviorVersion;
use aws_sdk_secretsmanager::config::ProvideCredentials as _;
use explain::{Code, Explain};
use std::time::{Duration, SystemTime};
use tokio::time::timeout;
use wire::control::AwsCredentials;

const TIMEOUT: Duration = Duration::from_secs(15);
/// Longer than an enclave takes from its launch to KMS's answer.
const MIN_LIFE: Duration = Duration::from_secs(3 * 60);

/// Why there are none.
#[derive(Debug, thiserror::Error)]
#[error("no AWS credentials to call KMS with: {0}")]
pub struct NoCredentials(String);

impl Explain for NoCredentials {
    fn code(&self) -> Code {
        Code::AwsCredentialsMissing
    }

    fn is_retryable(&self) -> bool {
        true
    }
}

/// Fetches them, within 15 seconds.
///
/// # Errors
/// There are none, or they expire within 3 minutes.
pub async fn credentials() -> Result<AwsCredentials, NoCredentials> {
    let missing = |problem: &str| NoCredentials(problem.to_owned());
    let found = timeout(TIMEOUT, async {
        let shared = aws_config::load_defaults(BehaviorVersion::latest()).await;
        let provider = shared.credentials_provider();
        let provider = provider.ok_or_else(|| missing("no provider is configured"))?;
        provider
            .provide_credentials()
            .await
            .map_err(|e| missing(&e.to_string()))
    })
    .await
    .map_err(|_| missing("no answer within 15 seconds"))??;
    if found
        .expiry()
        .is_some_and(|expiry| expiry < SystemTime::now() + MIN_LIFE)
    {
        return Err(missing("those that were found are about to expire"));
    }
    Ok(AwsCredentials {
        access_key_id: found.access_key_id().to_owned().into(),
        secret_access_key: found.secret_access_key().to_owned().into(),
        session_token: found.session_token().map(|token| token.to_owned().into()),
    })
}
