//! AWS credentials that enclaves ask KMS with: on an instance those of its role, from IMDSv2, fetched anew for each launch. They are no
//! secret from this machine; what they may decrypt is for the key's policy to say.

use crate::fault::{Code, Fault};
use aws_config::BehaviorVersion;
use aws_sdk_secretsmanager::config::ProvideCredentials as _;
use std::time::{Duration, SystemTime};
use tokio::time::timeout;
use wire::control::AwsCredentials;

const TIMEOUT: Duration = Duration::from_secs(15);
/// Longer than an enclave takes from its launch to KMS's answer.
const MIN_LIFE: Duration = Duration::from_secs(3 * 60);

pub(crate) async fn credentials() -> Result<AwsCredentials, Fault> {
    let hint = "give the instance a role, and the daemon a way to its metadata service; 'aws sts get-caller-identity' shows who it is";
    let missing = |problem: &dyn std::fmt::Display| {
        Fault::new(
            Code::AwsCredentialsMissing,
            format!("no AWS credentials to ask KMS with: {problem}"),
            hint,
        )
        .retryable()
    };
    let found = timeout(TIMEOUT, async {
        let shared = aws_config::load_defaults(BehaviorVersion::latest()).await;
        let provider = shared
            .credentials_provider()
            .ok_or_else(|| missing(&"nothing provides any"))?;
        provider
            .provide_credentials()
            .await
            .map_err(|e| missing(&e))
    })
    .await
    .map_err(|_| missing(&"nobody answered within 15 seconds"))??;
    if found
        .expiry()
        .is_some_and(|expiry| expiry < SystemTime::now() + MIN_LIFE)
    {
        return Err(missing(&"those that were found are about to expire"));
    }
    Ok(AwsCredentials {
        access_key_id: found.access_key_id().to_owned(),
        secret_access_key: found.secret_access_key().to_owned(),
        session_token: found.session_token().map(str::to_owned),
    })
}
