//! Checks of what the daemon needs of AWS, by calls that change nothing. What no such call can show
//! is said to be not checked.

mod access;
mod imds;
mod role;

pub use imds::examine_metadata_service;

use self::access::{Access, access, transport};
use crate::aws::{AwsConfig, load};
use crate::signer::KmsConfig;
use api::Finding;
use aws_config::SdkConfig;
use aws_sdk_kms::types::DataKeySpec;
use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

const IDENTITY: &str = "AWS identity";
const STORE: &str = "Secrets Manager";
const STORE_WRITES: &str = "Secrets Manager, writing";
const KEY: &str = "KMS key";
/// How long all checks have.
const LIMIT: Duration = Duration::from_secs(5);
/// No enclave's id is like this, so that no secret has the name.
const NO_SECRET: &str = "doctor-looks-for-a-secret-that-does-not-exist";

/// Looks at the identity that the daemon has at AWS, at Secrets Manager if credentials are kept
/// there, and at the KMS key and the role for enclaves if they are configured. Changes nothing: it
/// reads a secret that does not exist, asks KMS for a dry run, and assumes the role for a session
/// without rights. Takes 5 seconds at most.
pub async fn examine_aws(config: &AwsConfig, kms: &KmsConfig, keeps_secrets: bool) -> Vec<Finding> {
    let deadline = Instant::now() + LIMIT;
    match timeout_at(deadline, load(config, LIMIT, LIMIT)).await {
        Ok(shared) => examine(&shared, config, kms, keeps_secrets, deadline).await,
        Err(_) => {
            let why = "region and credentials were not found within 5 seconds";
            vec![Finding::not_checked(IDENTITY, why)]
        }
    }
}

async fn examine(
    shared: &SdkConfig,
    config: &AwsConfig,
    kms: &KmsConfig,
    keeps_secrets: bool,
    deadline: Instant,
) -> Vec<Finding> {
    let has_key = !config.kms_key.is_empty();
    let role = kms.role_arn.as_str();
    let (identity, store, key, assumed) = tokio::join!(
        within(deadline, identity(shared)),
        within_if(keeps_secrets, deadline, read_nothing(shared, config)),
        within_if(has_key, deadline, dry_run(shared, config)),
        within_if(!role.is_empty(), deadline, role::assume(shared, role)),
    );
    let arn = match &identity {
        Access::Granted(arn) => Some(arn.as_str()),
        _ => None,
    };
    let region = shared.region().map_or("*", |region| region.as_ref());
    let fix = arn.and_then(|arn| policy_fix(arn, region, &config.secret_prefix));
    let mut findings = vec![of_identity(&identity)];
    findings.extend(
        store
            .iter()
            .flat_map(|store| of_store(store, config, fix.clone())),
    );
    findings.extend(key.iter().map(|key| of_key(key, &config.kms_key)));
    findings.extend(assumed.iter().map(|found| role::of_role(found, role)));
    findings
}

async fn within(deadline: Instant, call: impl Future<Output = Access>) -> Access {
    let answer = timeout_at(deadline, call).await;
    answer.unwrap_or_else(|_| Access::Unreachable("no answer within 5 seconds".to_owned()))
}

async fn within_if(
    is_wanted: bool,
    deadline: Instant,
    call: impl Future<Output = Access>,
) -> Option<Access> {
    if is_wanted {
        return Some(within(deadline, call).await);
    }
    None
}

/// Who the daemon is. This call needs no right (STS API reference, GetCallerIdentity).
async fn identity(shared: &SdkConfig) -> Access {
    let client = aws_sdk_sts::Client::new(shared);
    match client.get_caller_identity().send().await {
        Ok(identity) => Access::Granted(identity.arn.unwrap_or_default()),
        Err(error) => access(&error, &[]),
    }
}

/// Reads a secret below the prefix that does not exist: who may not read is told so instead.
async fn read_nothing(shared: &SdkConfig, config: &AwsConfig) -> Access {
    let name = format!("{}/{NO_SECRET}", config.secret_prefix);
    let client = aws_sdk_secretsmanager::Client::new(shared);
    match client.get_secret_value().secret_id(name).send().await {
        Ok(_) => Access::Granted(String::new()),
        Err(error) => access(&error, &["ResourceNotFoundException"]),
    }
}

/// Asks whether a data key could be made, without making one (KMS developer guide, "Test your
/// permissions"). An endpoint that knows no dry run makes one, which is dropped.
async fn dry_run(shared: &SdkConfig, config: &AwsConfig) -> Access {
    let client = aws_sdk_kms::Client::new(shared);
    let asked = client
        .generate_data_key()
        .key_id(&config.kms_key)
        .key_spec(DataKeySpec::Aes256)
        .dry_run(true);
    match asked.send().await {
        Ok(_) => Access::Granted(String::new()),
        Err(error) => access(&error, &["DryRunOperationException"]),
    }
}

fn of_identity(identity: &Access) -> Finding {
    match identity {
        Access::Granted(arn) => Finding::passed(IDENTITY, arn),
        Access::Denied(reason) | Access::Refused(reason) => Finding::wrong(
            IDENTITY,
            format!("AWS does not accept the credentials: {reason}"),
            "Check the instance's role and clock; the role is in the instance profile.",
        ),
        Access::NoRequest(reason) => Finding::wrong(
            IDENTITY,
            reason,
            "Attach an instance profile with a role to the instance, and set aws.region.",
        ),
        // Only this check needs STS.
        Access::Unreachable(reason) => Finding::not_checked(IDENTITY, reason),
    }
}

fn of_store(store: &Access, config: &AwsConfig, fix: Option<[String; 2]>) -> Vec<Finding> {
    let prefix = &config.secret_prefix;
    let finding = match store {
        Access::Granted(_) => {
            Finding::passed(STORE, format!("answers, and {prefix}/* may be read"))
        }
        Access::Denied(reason) => Finding::wrong(
            STORE,
            format!("secrets below {prefix}/ may not be read: {reason}"),
            format!(
                "Allow the role secretsmanager:CreateSecret, TagResource, GetSecretValue and DeleteSecret on {prefix}/*."
            ),
        )
        .with_fix(fix.into_iter().flatten()),
        other => transport(STORE, other),
    };
    let why =
        "testing secretsmanager:CreateSecret, TagResource and DeleteSecret would change something";
    vec![finding, Finding::not_checked(STORE_WRITES, why)]
}

fn of_key(key: &Access, name: &str) -> Finding {
    match key {
        Access::Granted(_) => Finding::passed(KEY, format!("{name} may be used for data keys")),
        Access::Denied(reason) => Finding::wrong(
            KEY,
            format!("{name} may not be used: {reason}"),
            "Allow the role kms:GenerateDataKey and kms:Decrypt in the key's policy, or in its own.",
        ),
        Access::Refused(reason) => Finding::wrong(
            KEY,
            format!("{name} cannot be used: {reason}"),
            "Check aws.kms_key and aws.region, and that the key is enabled.",
        ),
        other => transport(KEY, other),
    }
}

/// Commands that give an assumed role its rights in Secrets Manager. Not for the role itself to
/// run: it has no rights in IAM.
fn policy_fix(arn: &str, region: &str, prefix: &str) -> Option<[String; 2]> {
    let mut parts = arn.splitn(6, ':');
    let (_, partition, _, _, account) = (
        parts.next()?,
        parts.next()?,
        parts.next()?,
        parts.next()?,
        parts.next()?,
    );
    let role = parts
        .next()?
        .strip_prefix("assumed-role/")?
        .split('/')
        .next()?;
    let policy = serde_json::json!({ "Version": "2012-10-17", "Statement": [{
        "Effect": "Allow",
        "Action": ["secretsmanager:CreateSecret", "secretsmanager:TagResource",
            "secretsmanager:GetSecretValue", "secretsmanager:DeleteSecret"],
        "Resource": format!("arn:{partition}:secretsmanager:{region}:{account}:secret:{prefix}/*"),
    }]});
    Some([
        "# With an AWS administrator's credentials:".to_owned(),
        format!(
            "aws iam put-role-policy --role-name {} --policy-name redoubt-secrets --policy-document {}",
            quoted(role),
            quoted(&policy.to_string())
        ),
    ])
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests;
