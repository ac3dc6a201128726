//! The credentials that requests to KMS are signed with: those of the daemon, or of a session that
//! may decrypt one enclave's config and nothing else.

use crate::aws::{AwsConfig, load, reason};
use aws_config::BehaviorVersion;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future::ProvideCredentials as Future;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use explain::{Code, Explain};
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};
use tokio::time::timeout;
use wire::sealed::Header;

const TIMEOUT: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than an enclave takes from its launch to KMS's answer.
const MIN_LIFE: Duration = Duration::from_secs(3 * 60);
/// The least that STS gives, in seconds (STS API reference, AssumeRole).
const SESSION_SECONDS: i32 = 900;
/// STS's limit for a session policy, in characters (STS API reference, AssumeRole).
const MAX_POLICY: usize = 2048;
/// STS's limit for a session name, in characters (STS API reference, AssumeRole).
const MAX_SESSION_NAME: usize = 64;

/// `[kms]` of the daemon's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KmsConfig {
    /// ARN of a role that is assumed for each launch, for nothing but the key and the encryption
    /// context of its sealed config; empty to sign with the daemon's own credentials.
    pub role_arn: String,
}

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

/// Where the credentials for a config with this header come from.
pub(super) async fn provider(
    aws: &AwsConfig,
    kms: &KmsConfig,
    header: &Header,
) -> Result<SharedCredentialsProvider, NoCredentials> {
    let missing = |problem: &str| NoCredentials(problem.to_owned());
    if kms.role_arn.is_empty() {
        let loading = aws_config::load_defaults(BehaviorVersion::latest());
        let shared = timeout(TIMEOUT, loading).await;
        let shared = shared.map_err(|_| missing("no answer within 15 seconds"))?;
        let provider = shared.credentials_provider();
        return provider.ok_or_else(|| missing("no provider is configured"));
    }
    let policy = session_policy(header);
    if policy.chars().count() > MAX_POLICY {
        let problem = "the encryption context is too long for a session policy; shorten \
                       config.context, or leave kms.role_arn empty";
        return Err(missing(problem));
    }
    let loading = timeout(TIMEOUT, load(aws, CONNECT_TIMEOUT, TIMEOUT)).await;
    let shared = loading.map_err(|_| missing("no answer within 15 seconds"))?;
    Ok(SharedCredentialsProvider::new(AssumedRole {
        sts: aws_sdk_sts::Client::new(&shared),
        role: kms.role_arn.clone(),
        name: session_name(&header.name),
        policy,
    }))
}

/// Credentials that are fetched again when they are about to expire.
pub(super) struct CachedCredentials {
    provider: SharedCredentialsProvider,
    cached: Option<Credentials>,
}

impl std::fmt::Debug for CachedCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CachedCredentials(…)")
    }
}

impl CachedCredentials {
    pub(super) fn new(provider: SharedCredentialsProvider) -> CachedCredentials {
        CachedCredentials {
            provider,
            cached: None,
        }
    }

    pub(super) async fn current(&mut self) -> Result<Credentials, NoCredentials> {
        if let Some(cached) = self.cached.as_ref().filter(|cached| lasts(cached)) {
            return Ok(cached.clone());
        }
        let asked = timeout(TIMEOUT, self.provider.provide_credentials()).await;
        let found = asked
            .map_err(|_| NoCredentials("no answer within 15 seconds".to_owned()))?
            .map_err(|error| NoCredentials(describe(&error)))?;
        if !lasts(&found) {
            let problem = "those that were found are about to expire";
            return Err(NoCredentials(problem.to_owned()));
        }
        Ok(self.cached.insert(found).clone())
    }
}

fn lasts(credentials: &Credentials) -> bool {
    let end = SystemTime::now() + MIN_LIFE;
    credentials.expiry().is_none_or(|expiry| expiry >= end)
}

/// What a role could not be assumed for is in the source; of other providers the first line is
/// enough.
fn describe(error: &CredentialsError) -> String {
    let refused = std::error::Error::source(error).and_then(|e| e.downcast_ref::<Refused>());
    refused.map_or_else(|| error.to_string(), ToString::to_string)
}

/// A session of a role, limited to one config.
#[derive(Debug)]
struct AssumedRole {
    sts: aws_sdk_sts::Client,
    role: String,
    name: String,
    policy: String,
}

/// Why STS gave no session. It holds no part of an answer that was not understood.
#[derive(Debug, thiserror::Error)]
#[error("the role {role} cannot be assumed: {reason}")]
struct Refused {
    role: String,
    reason: String,
}

impl AssumedRole {
    async fn assume(&self) -> Result<Credentials, CredentialsError> {
        let refused = |reason: String| {
            CredentialsError::provider_error(Refused {
                role: self.role.clone(),
                reason,
            })
        };
        let answer = self
            .sts
            .assume_role()
            .role_arn(&self.role)
            .role_session_name(&self.name)
            .duration_seconds(SESSION_SECONDS)
            .policy(&self.policy)
            .send()
            .await
            .map_err(|error| refused(reason(&error)))?;
        let session = answer
            .credentials
            .ok_or_else(|| refused("STS answered without credentials".to_owned()))?;
        Ok(Credentials::new(
            session.access_key_id,
            session.secret_access_key,
            Some(session.session_token),
            SystemTime::try_from(session.expiration).ok(),
            "assumed for an enclave",
        ))
    }
}

impl ProvideCredentials for AssumedRole {
    fn provide_credentials<'a>(&'a self) -> Future<'a>
    where
        Self: 'a,
    {
        Future::new(self.assume())
    }
}

/// What a session may do at most, whatever its role may: decrypt with this key in this context (KMS
/// developer guide, "kms:EncryptionContext:context-key").
fn session_policy(header: &Header) -> String {
    let condition = |(name, value): (String, String)| {
        let name = format!("kms:EncryptionContext:{name}");
        // A `${` in a value would be a policy variable (IAM user guide, "Policy variables").
        (name, serde_json::Value::from(value.replace("${", "${$}{")))
    };
    let conditions: serde_json::Map<_, _> = header
        .encryption_context()
        .into_iter()
        .map(condition)
        .collect();
    serde_json::json!({ "Version": "2012-10-17", "Statement": [{
        "Effect": "Allow",
        "Action": "kms:Decrypt",
        "Resource": header.kms_key,
        "Condition": { "StringEquals": conditions },
    }]})
    .to_string()
}

/// What CloudTrail shows of the session.
fn session_name(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "+=,.@-_".contains(c);
    format!("redoubt-{name}")
        .chars()
        .map(|c| if allowed(c) { c } else { '-' })
        .take(MAX_SESSION_NAME)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::request::tests::{KEY, header};
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_session_may_open_one_config_and_nothing_else() {
        let policy: Value = serde_json::from_str(&session_policy(&header())).unwrap();
        let expected = json!({ "Version": "2012-10-17", "Statement": [{
            "Effect": "Allow",
            "Action": "kms:Decrypt",
            "Resource": KEY,
            "Condition": { "StringEquals": {
                "kms:EncryptionContext:app": "orders",
                "kms:EncryptionContext:name": "orders",
                "kms:EncryptionContext:version": "7",
            } },
        }]});
        assert_eq!(policy, expected);
    }

    #[test]
    fn a_value_is_no_policy_variable() {
        let mut header = header();
        header
            .context
            .insert("app".to_owned(), "${aws:x}$*".to_owned());
        let policy = session_policy(&header);
        assert!(policy.contains(r#""${$}{aws:x}$*""#), "{policy}");
    }

    #[tokio::test]
    async fn a_context_that_no_session_policy_holds_is_refused_before_sts_is_asked() {
        let mut header = header();
        let kms = KmsConfig {
            role_arn: "arn:aws:iam::111122223333:role/decrypt".to_owned(),
        };
        header
            .context
            .insert("app".to_owned(), "x".repeat(MAX_POLICY));
        let refused = provider(&AwsConfig::default(), &kms, &header).await;
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("too long for a session policy"), "{error}");
    }

    #[test]
    fn session_names_are_what_sts_takes() {
        assert_eq!(session_name("Bestellungen/ö"), "redoubt-Bestellungen--");
        assert_eq!(session_name(&"a".repeat(200)).len(), MAX_SESSION_NAME);
    }

    /// Gives a key that lasts this much longer than it must, and one more with each call.
    #[derive(Debug, Default)]
    struct Counting {
        calls: std::sync::atomic::AtomicU64,
        life: Duration,
    }

    impl ProvideCredentials for Counting {
        fn provide_credentials<'a>(&'a self) -> Future<'a>
        where
            Self: 'a,
        {
            let number = self.calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let expiry = SystemTime::now() + self.life;
            let name = format!("AKIA{number}");
            Future::ready(Ok(Credentials::new(name, "s", None, Some(expiry), "test")))
        }
    }

    async fn two_keys(life: Duration) -> [Result<String, String>; 2] {
        let provider = Counting {
            life,
            ..Counting::default()
        };
        let mut cached = CachedCredentials::new(SharedCredentialsProvider::new(provider));
        let mut next = async || {
            let found = cached.current().await;
            found
                .map(|found| found.access_key_id().to_owned())
                .map_err(|error| error.to_string())
        };
        [next().await, next().await]
    }

    #[tokio::test]
    async fn credentials_are_kept_while_they_last() {
        let key = |name: &str| Ok(name.to_owned());
        let hour = Duration::from_secs(3600);
        assert_eq!(two_keys(hour).await, [key("AKIA0"), key("AKIA0")]);
        let expired = two_keys(MIN_LIFE / 2).await;
        let missing =
            "no AWS credentials to call KMS with: those that were found are about to expire";
        assert_eq!(expired, [Err(missing.to_owned()), Err(missing.to_owned())]);
    }
}
