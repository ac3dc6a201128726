//! Amazon ECR: a role assumed for one repository (STS AssumeRole with a session policy), and that
//! session's authorization token.
//!
//! The role may reach every repository below the prefix; the session policy limits it to one, and
//! to what pushing or pulling needs (STS API reference, AssumeRole).

mod config;
mod error;
mod policy;

pub use config::EcrConfig;

use super::error::ProviderError;
use super::issue::{IssueFuture, IssuedCredentials, RegistryProvider};
use api::credentials::Action;
use api::credentials::project::{Project, on_registry};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_ecr::config::timeout::TimeoutConfig;
use aws_sdk_ecr::operation::get_authorization_token::GetAuthorizationTokenOutput;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use error::provider_error;
use oci::{Reference, Secret};
use policy::{session_name, session_policy};
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Retries included.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(20);
/// The most that a chained role may have (IAM user guide, "Role chaining"), and enough: an
/// authorization token outlives its session.
const SESSION_SECONDS: i32 = 3600;

/// The provider of `type = "ecr"`.
#[derive(Debug)]
pub(super) struct Ecr {
    config: EcrConfig,
    shared: SdkConfig,
}

impl Ecr {
    /// AWS credentials come from the usual places, on an instance from its role.
    pub(super) async fn new(config: EcrConfig) -> Ecr {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_timeout(OPERATION_TIMEOUT)
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(config.region.clone()))
            .timeout_config(timeouts);
        loader = match &config.endpoint_url {
            Some(url) => loader.endpoint_url(url.as_str()),
            None => loader
                .use_fips(config.fips)
                .use_dual_stack(config.dual_stack),
        };
        Ecr {
            shared: loader.load().await,
            config,
        }
    }

    /// The same settings with other credentials.
    fn acting_as(&self, credentials: aws_credential_types::Credentials) -> SdkConfig {
        let builder = self.shared.clone().into_builder();
        builder
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .build()
    }

    async fn assume(
        &self,
        shared: &SdkConfig,
        role: &str,
        name: &str,
        policy: Option<String>,
    ) -> Result<SdkConfig, ProviderError> {
        let answer = aws_sdk_sts::Client::new(shared)
            .assume_role()
            .role_arn(role)
            .role_session_name(name)
            .duration_seconds(SESSION_SECONDS)
            .set_policy(policy)
            .send()
            .await
            .map_err(|e| provider_error("assume the role", &e))?;
        let session = answer
            .credentials
            .ok_or_else(|| ProviderError::unavailable("STS answered without credentials"))?;
        let credentials = aws_credential_types::Credentials::new(
            session.access_key_id,
            session.secret_access_key,
            Some(session.session_token),
            SystemTime::try_from(session.expiration).ok(),
            "assumed for a project",
        );
        Ok(self.acting_as(credentials))
    }

    async fn token(
        &self,
        project: &Project,
        action: Action,
    ) -> Result<IssuedCredentials, ProviderError> {
        let repository = self.config.repo_prefix.join(project)?;
        let policy = session_policy(&self.config, &repository, action)?;
        let name = session_name(project);
        let own = match &self.config.role_arn {
            Some(role) => Some(self.assume(&self.shared, role, &name, None).await?),
            None => None,
        };
        let shared = own.as_ref().unwrap_or(&self.shared);
        let session = self
            .assume(shared, &self.config.push_role_arn, &name, Some(policy))
            .await?;
        let answer = aws_sdk_ecr::Client::new(&session)
            .get_authorization_token()
            .send()
            .await
            .map_err(|e| provider_error("get an authorization token", &e))?;
        let (login, expires_at) = token_of(answer)
            .ok_or_else(|| ProviderError::unavailable("ECR answered without a token"))?;
        Ok(IssuedCredentials {
            registry_url: self.config.host(),
            login: Some(login),
            expires_at: Some(expires_at),
        })
    }
}

impl RegistryProvider for Ecr {
    fn issue<'a>(&'a self, project: &'a Project, action: Action) -> IssueFuture<'a> {
        Box::pin(self.token(project, action))
    }

    fn projects_of(&self, image: &Reference) -> Vec<Project> {
        let name = on_registry(&self.config.host(), image);
        name.and_then(|name| self.config.repo_prefix.project_of(name))
            .into_iter()
            .collect()
    }
}

/// Login and expiry.
fn token_of(answer: GetAuthorizationTokenOutput) -> Option<((String, Secret), SystemTime)> {
    let data = answer
        .authorization_data
        .unwrap_or_default()
        .into_iter()
        .next()?;
    let login = login(data.authorization_token.as_deref()?)?;
    Some((login, SystemTime::try_from(data.expires_at?).ok()?))
}

/// User name and password: the base64 of `user:password`.
fn login(token: &str) -> Option<(String, Secret)> {
    let decoded = Zeroizing::new(STANDARD.decode(token).ok()?);
    let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((user.to_owned(), Secret::new(password)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authorization_token_holds_user_and_password() {
        assert_eq!(
            login("QVdTOnBhOnNz").unwrap(),
            ("AWS".to_owned(), Secret::new("pa:ss"))
        );
        assert!(login("?").is_none());
    }
}
