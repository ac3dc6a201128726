//! Amazon ECR: a role assumed for one repository (STS AssumeRole with a session policy), and that session's authorization token.
//!
//! The role may reach every repository below the prefix; the session policy cuts that down to one, and to what pushing or pulling needs
//! (ECR user guide, "Pushing an image", "Repository policies"; STS API reference, AssumeRole).

use super::{Issued, Issuing, ProviderError, RegistryProvider, registry_host};
use api::credentials::Action;
use api::credentials::project::{Prefix, Project, Repository, on_registry};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_ecr::config::timeout::TimeoutConfig;
use aws_sdk_ecr::error::{ProvideErrorMetadata, SdkError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use explain::{chain, printable};
use oci::https::ServiceUrl;
use oci::{Reference, Secret};
use serde::{Deserialize, Deserializer, Serialize};
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Retries included.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(20);
/// What AWS's own retries did not get over takes longer.
const PAUSE: Duration = Duration::from_secs(60);
/// STS's limit for an inline session policy, in characters.
const MAX_POLICY: usize = 2048;
/// STS's limit for a session name, in characters; its letters are `[\w+=,.@-]`.
const MAX_SESSION_NAME: usize = 64;
const PULL: [&str; 2] = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"];
const PUSH: [&str; 5] = [
    "ecr:BatchCheckLayerAvailability",
    "ecr:InitiateLayerUpload",
    "ecr:UploadLayerPart",
    "ecr:CompleteLayerUpload",
    "ecr:PutImage",
];
/// What a role may be chained to (STS, "Role chaining"), and time enough: an authorization token outlives its session.
const SESSION_SECONDS: i32 = 3600;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EcrConfig {
    #[serde(deserialize_with = "region")]
    pub region: String,
    /// Twelve digits.
    #[serde(deserialize_with = "account")]
    pub account_id: String,
    #[serde(default)]
    pub repo_prefix: Prefix,
    /// Assumed first, if the daemon's own role may not assume the other.
    #[serde(default, deserialize_with = "optional_role")]
    pub role_arn: Option<String>,
    /// Assumed for each project, under its session policy.
    #[serde(deserialize_with = "role")]
    pub push_role_arn: String,
    /// Endpoints and hosts that are FIPS 140 validated.
    #[serde(default)]
    pub fips: bool,
    /// Those that are reached by IPv4 and IPv6.
    #[serde(default)]
    pub dual_stack: bool,
    /// For endpoints that are not AWS's.
    #[serde(default)]
    pub endpoint_url: Option<ServiceUrl>,
    /// For a registry that goes by another name than ECR's own: behind a proxy, say.
    #[serde(default, deserialize_with = "optional_host")]
    pub registry_url: Option<String>,
}

fn optional_host<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    registry_host(deserializer).map(Some)
}

/// It goes into ARNs and host names.
fn region<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let region = String::deserialize(deserializer)?;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    match !region.is_empty() && region.bytes().all(plain) {
        true => Ok(region),
        false => Err(serde::de::Error::custom("region is like us-east-1")),
    }
}

fn role<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let role = String::deserialize(deserializer)?;
    match role.starts_with("arn:") && role.contains(":role/") {
        true => Ok(role),
        false => Err(serde::de::Error::custom(
            "a role is arn:aws:iam::<account>:role/<name>",
        )),
    }
}

/// Empty for none: a layer must be able to take away what the one below says.
fn optional_role<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match String::deserialize(deserializer)? {
        role if role.is_empty() => Ok(None),
        text => role(serde::de::value::StringDeserializer::new(text)).map(Some),
    }
}

/// Digits are a number to TOML, unless they start with a zero.
fn account<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Account {
        Text(String),
        Number(u64),
    }
    let text = match Account::deserialize(deserializer)? {
        Account::Text(text) => text,
        Account::Number(number) => number.to_string(),
    };
    match text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit()) {
        true => Ok(text),
        false => Err(serde::de::Error::custom("account_id has twelve digits")),
    }
}

impl EcrConfig {
    /// Partition and domain (botocore, `partitions.json`).
    fn partition(&self) -> (&'static str, &'static str) {
        const PARTITIONS: [(&str, &str, &str); 7] = [
            ("cn-", "aws-cn", "amazonaws.com.cn"),
            ("us-gov-", "aws-us-gov", "amazonaws.com"),
            ("eusc-", "aws-eusc", "amazonaws.eu"),
            ("us-iso-", "aws-iso", "c2s.ic.gov"),
            ("us-isob-", "aws-iso-b", "sc2s.sgov.gov"),
            ("eu-isoe-", "aws-iso-e", "cloud.adc-e.uk"),
            ("us-isof-", "aws-iso-f", "csp.hci.ic.gov"),
        ];
        let found = PARTITIONS
            .iter()
            .find(|(prefix, ..)| self.region.starts_with(prefix));
        found.map_or(("aws", "amazonaws.com"), |(_, partition, domain)| {
            (partition, domain)
        })
    }

    /// ECR user guide, "Private registry", and "Dual-stack and FIPS endpoints".
    fn host(&self) -> String {
        let EcrConfig {
            account_id,
            region,
            registry_url,
            ..
        } = self;
        if let Some(host) = registry_url {
            return host.clone();
        }
        let fips = if self.fips { "-fips" } else { "" };
        match (self.dual_stack, self.partition()) {
            (true, ("aws-cn", _)) => {
                format!("{account_id}.dkr-ecr{fips}.{region}.on.amazonwebservices.com.cn")
            }
            (true, _) => format!("{account_id}.dkr-ecr{fips}.{region}.on.aws"),
            (false, (_, domain)) => format!("{account_id}.dkr.ecr{fips}.{region}.{domain}"),
        }
    }

    fn session_policy(
        &self,
        repository: &Repository,
        action: Action,
    ) -> Result<String, ProviderError> {
        let actions: Vec<&str> = match action {
            Action::Pull => PULL.to_vec(),
            Action::Push => [PULL.as_slice(), PUSH.as_slice()].concat(),
        };
        let EcrConfig {
            region, account_id, ..
        } = self;
        let (partition, _) = self.partition();
        let arn = format!(
            "arn:{partition}:ecr:{region}:{account_id}:repository/{}",
            repository.as_str()
        );
        let policy = serde_json::json!({ "Version": "2012-10-17", "Statement": [
            { "Effect": "Allow", "Action": "ecr:GetAuthorizationToken", "Resource": "*" },
            { "Effect": "Allow", "Action": actions, "Resource": arn },
        ] })
        .to_string();
        match policy.len() <= MAX_POLICY {
            true => Ok(policy),
            false => Err(ProviderError::Denied(format!(
                "the session policy is longer than {MAX_POLICY} characters"
            ))),
        }
    }
}

/// What CloudTrail shows of who it was.
fn session_name(project: &Project) -> String {
    let allowed = |c: char| {
        if c.is_ascii_alphanumeric() || "+=,.@-_".contains(c) {
            c
        } else {
            '-'
        }
    };
    let name: String = format!("redoubt-{}", project.as_str())
        .chars()
        .map(allowed)
        .collect();
    name.chars().take(MAX_SESSION_NAME).collect()
}

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
            .map_err(|e| explain("assume the role", &e))?;
        let session = answer.credentials.ok_or_else(|| {
            ProviderError::Unavailable("STS answered without credentials".to_owned())
        })?;
        let credentials = aws_credential_types::Credentials::new(
            session.access_key_id,
            session.secret_access_key,
            Some(session.session_token),
            SystemTime::try_from(session.expiration).ok(),
            "assumed for a project",
        );
        Ok(self.acting_as(credentials))
    }

    async fn token(&self, project: &Project, action: Action) -> Result<Issued, ProviderError> {
        let repository = self.config.repo_prefix.join(project)?;
        let policy = self.config.session_policy(&repository, action)?;
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
            .map_err(|e| explain("get an authorization token", &e))?;
        let data = answer
            .authorization_data
            .unwrap_or_default()
            .into_iter()
            .next();
        let unusable = || ProviderError::Unavailable("ECR answered without a token".to_owned());
        let data = data.ok_or_else(unusable)?;
        let login = data
            .authorization_token
            .as_deref()
            .and_then(login)
            .ok_or_else(unusable)?;
        let expires_at = data
            .expires_at
            .and_then(|at| SystemTime::try_from(at).ok())
            .ok_or_else(unusable)?;
        Ok(Issued {
            registry_url: self.config.host(),
            login: Some(login),
            expires_at: Some(expires_at),
        })
    }
}

impl RegistryProvider for Ecr {
    fn issue<'a>(&'a self, project: &'a Project, action: Action) -> Issuing<'a> {
        Box::pin(self.token(project, action))
    }

    fn projects_of(&self, image: &Reference) -> Vec<Project> {
        let name = on_registry(&self.config.host(), image);
        name.and_then(|name| self.config.repo_prefix.project_of(name))
            .into_iter()
            .collect()
    }
}

/// base64 of `user:password`.
fn login(token: &str) -> Option<(String, Secret)> {
    let decoded = Zeroizing::new(STANDARD.decode(token).ok()?);
    let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((user.to_owned(), Secret::new(password)))
}

fn explain<E>(doing: &str, error: &SdkError<E>) -> ProviderError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let code = error
        .as_service_error()
        .and_then(ProvideErrorMetadata::code)
        .unwrap_or_default();
    // Never DisplayErrorContext: it shows the answer's body, and with it tokens and keys.
    let said = match error
        .as_service_error()
        .and_then(ProvideErrorMetadata::message)
    {
        Some(message) => format!("cannot {doing}: {code}: {message}"),
        None => format!("cannot {doing}: {}", chain(error)),
    };
    let said = printable(&said);
    match (error, code) {
        (
            _,
            "AccessDenied"
            | "AccessDeniedException"
            | "MalformedPolicyDocument"
            | "PackedPolicyTooLarge"
            | "InvalidClientTokenId"
            | "UnrecognizedClientException"
            | "SignatureDoesNotMatch"
            | "ExpiredToken"
            | "ExpiredTokenException"
            | "RegionDisabledException"
            | "ValidationError",
        ) => ProviderError::Denied(said),
        (
            _,
            "Throttling"
            | "ThrottlingException"
            | "RequestLimitExceeded"
            | "TooManyRequestsException",
        ) => ProviderError::Throttled {
            message: said,
            retry_after: PAUSE,
        },
        (SdkError::TimeoutError(_), _) => ProviderError::TimedOut(said),
        _ => ProviderError::Unavailable(said),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(region: &str, fips: bool, dual_stack: bool) -> EcrConfig {
        EcrConfig {
            region: region.to_owned(),
            account_id: "123456789012".to_owned(),
            repo_prefix: Prefix::try_from("rise/".to_owned()).unwrap(),
            role_arn: None,
            push_role_arn: "arn:aws:iam::123456789012:role/push".to_owned(),
            fips,
            dual_stack,
            endpoint_url: None,
            registry_url: None,
        }
    }

    fn project(name: &str) -> Project {
        Project::parse(name).unwrap()
    }

    #[test]
    fn hosts_and_arns_follow_the_partition() {
        for (region, fips, dual, host) in [
            (
                "us-east-1",
                false,
                false,
                "123456789012.dkr.ecr.us-east-1.amazonaws.com",
            ),
            (
                "us-gov-west-1",
                true,
                false,
                "123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com",
            ),
            (
                "cn-north-1",
                false,
                false,
                "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
            ),
            (
                "eu-west-1",
                false,
                true,
                "123456789012.dkr-ecr.eu-west-1.on.aws",
            ),
            (
                "us-east-1",
                true,
                true,
                "123456789012.dkr-ecr-fips.us-east-1.on.aws",
            ),
            (
                "eusc-de-east-1",
                false,
                false,
                "123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu",
            ),
            (
                "us-isob-east-1",
                false,
                false,
                "123456789012.dkr.ecr.us-isob-east-1.sc2s.sgov.gov",
            ),
        ] {
            assert_eq!(config(region, fips, dual).host(), host);
        }
        for (region, partition) in [
            ("us-east-1", "aws"),
            ("cn-north-1", "aws-cn"),
            ("us-gov-west-1", "aws-us-gov"),
        ] {
            let config = config(region, false, false);
            let repository = config.repo_prefix.join(&project("my-app")).unwrap();
            let policy = config.session_policy(&repository, Action::Push).unwrap();
            let arn =
                format!("\"arn:{partition}:ecr:{region}:123456789012:repository/rise/my-app\"");
            assert!(policy.contains(&arn), "{policy}");
        }
    }

    #[test]
    fn a_session_may_push_or_pull_one_repository_and_nothing_else() {
        let config = config("us-east-1", false, false);
        let statements = |action| {
            let repository = config.repo_prefix.join(&project("my-app")).unwrap();
            let policy = config.session_policy(&repository, action).unwrap();
            serde_json::from_str::<serde_json::Value>(&policy).unwrap()["Statement"].clone()
        };
        let pull = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"];
        let push = [
            "ecr:BatchCheckLayerAvailability",
            "ecr:InitiateLayerUpload",
            "ecr:UploadLayerPart",
            "ecr:CompleteLayerUpload",
            "ecr:PutImage",
        ];
        for (action, actions) in [
            (Action::Pull, pull.to_vec()),
            (Action::Push, [&pull[..], &push].concat()),
        ] {
            let expected = serde_json::json!([
                { "Effect": "Allow", "Action": "ecr:GetAuthorizationToken", "Resource": "*" },
                { "Effect": "Allow", "Action": actions, "Resource": "arn:aws:ecr:us-east-1:123456789012:repository/rise/my-app" },
            ]);
            assert_eq!(statements(action), expected);
        }
        let endless = EcrConfig {
            region: "r".repeat(MAX_POLICY),
            ..config.clone()
        };
        let repository = config.repo_prefix.join(&project("my-app")).unwrap();
        assert!(matches!(
            endless.session_policy(&repository, Action::Pull),
            Err(ProviderError::Denied(_))
        ));
        // The longest name that there is still fits.
        let longest = config.repo_prefix.join(&project(&"a".repeat(251))).unwrap();
        assert!(config.session_policy(&longest, Action::Push).unwrap().len() <= MAX_POLICY);
    }

    #[test]
    fn session_names_are_what_sts_takes() {
        assert_eq!(session_name(&project("team/my-app")), "redoubt-team-my-app");
        assert_eq!(session_name(&project(&"a".repeat(200))).len(), 64);
    }

    #[test]
    fn account_ids_have_twelve_digits_however_they_are_written() {
        let parse = |id: &str| {
            let text =
                format!("region = 'r'\naccount_id = {id}\npush_role_arn = 'arn:aws:iam::1:role/x'");
            toml::from_str::<EcrConfig>(&text).map(|config| config.account_id)
        };
        assert_eq!(parse("123456789012").unwrap(), "123456789012");
        assert_eq!(parse("'012345678901'").unwrap(), "012345678901");
        let region =
            "region = 'us-*'\naccount_id = '123456789012'\npush_role_arn = 'arn:aws:iam::1:role/x'";
        assert!(toml::from_str::<EcrConfig>(region).is_err());
        assert!(
            toml::from_str::<EcrConfig>(
                "region = 'r'\naccount_id = '123456789012'\npush_role_arn = 'x'"
            )
            .is_err()
        );
        assert!(parse("1").is_err() && parse("'12345678901x'").is_err());
        assert_eq!(
            login("QVdTOnBhOnNz").unwrap(),
            ("AWS".to_owned(), Secret::new("pa:ss"))
        );
        assert!(login("?").is_none());
    }
}
