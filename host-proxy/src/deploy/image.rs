//! From the registry to an enclave image.

use super::progress::Progress;
use super::{Context, DeployEvent, DeployRequest, Stages};
use crate::config::BuildConfig;
use api::credentials::Action;
use api::{DeployError, SourceType, Stage};
use audit::{Actor, AuditAction, AuditEntry, AuditOutcome};
use broker::provider::ProviderError;
use eif_builder::artifacts;
use eif_builder::build::{self, Built, DEFAULT_CMDLINE, Inputs};
use explain::Code;
use oci::pull::{self, DEFAULT_MAX_UNPACKED, PullRequest};
use oci::{Credentials, Digest, Endpoint, Platform, PullError, VerifiedImage};
use secrets::SecretError;
use std::path::PathBuf;
use std::sync::Arc;

/// What an enclave image is made of beside the container image.
pub(super) struct Artifacts {
    kernel: PathBuf,
    agent: PathBuf,
}

impl Artifacts {
    /// The configured paths, or the usual places.
    pub(super) fn find(config: &BuildConfig) -> Result<Artifacts, DeployError> {
        let missing = |error| DeployError::from(error).at(Stage::Build);
        let kernel = config.find(artifacts::KERNEL).map_err(missing)?;
        let agent = config.find(artifacts::AGENT).map_err(missing)?;
        Ok(Artifacts { kernel, agent })
    }
}

/// Pulls, verifies and builds, into the request's directory. An image that was resolved before is pulled by its digest.
pub(super) async fn build(
    context: &Context,
    request: &DeployRequest,
    stages: &mut Stages,
) -> Result<(Built, Digest), DeployError> {
    let Artifacts { kernel, agent } = Artifacts::find(&context.config.build)?;
    stages.enter(Stage::Credentials).await;
    let credentials = fetch_credentials(context, request).await?;
    stages.enter(Stage::Resolve).await;
    let image = pull_image(context, request, credentials, stages).await?;
    let digest = image.digest();
    stages.report(DeployEvent::Resolved(digest)).await;
    stages.enter(Stage::Build).await;
    let inputs = Inputs {
        kernel,
        agent,
        cmdline: DEFAULT_CMDLINE.to_owned(),
        spec: request.spec.clone(),
        build_time: 0,
    };
    let output = request.directory.join("image.eif");
    let built = build_image(image, inputs, output, stages).await?;
    Ok((built, digest))
}

async fn fetch_credentials(
    context: &Context,
    request: &DeployRequest,
) -> Result<Option<Credentials>, DeployError> {
    if request.source_type == SourceType::ConfiguredRegistry {
        return issue_credentials(context, request).await;
    }
    let Some(arn) = &request.credentials_arn else {
        return Ok(None);
    };
    let fetched = context.secrets.fetch(arn).await.map_err(|error| {
        let retryable = matches!(error, SecretError::Failed { .. });
        DeployError {
            retryable,
            ..error.into()
        }
    })?;
    Ok(Some(fetched.into()))
}

/// Credentials that are good for this pull and a few hours, and are stored nowhere.
async fn issue_credentials(
    context: &Context,
    request: &DeployRequest,
) -> Result<Option<Credentials>, DeployError> {
    let gone = || {
        DeployError::new(
            Code::SecretUnavailable,
            "[registry] of the daemon's configuration no longer has credentials for this image",
            "Restore it, or terminate the enclave and create it again with credentials.",
        )
    };
    let issuer = context.issuer.as_ref().ok_or_else(gone)?;
    let mut last = gone();
    for project in issuer.projects_of(&request.target.image) {
        match issuer.credentials(&project, Action::Pull).await {
            Ok(issued) => {
                let (enclave, expires_at) = (&request.id, issued.expiry_rfc3339());
                let project = project.as_str();
                let entry = AuditEntry::new(
                    AuditAction::Credentials,
                    AuditOutcome::Issued,
                    Actor::daemon(),
                )
                .enclave(Some(enclave.as_str()), None)
                .image(&request.target.image.to_string())
                .credentials(project, "pull", expires_at.as_deref());
                let written = context.audit.record(entry).await;
                written.map_err(|error| DeployError::from(error).retryable())?;
                tracing::info!(target: "audit", %enclave, project, action = "pull", expires_at, "credentials issued for a deploy");
                let login = issued.login;
                return Ok(
                    login.map(|(username, password)| Credentials::Password { username, password })
                );
            }
            // Perhaps the name goes on below a project.
            Err(error @ ProviderError::NoProject { .. }) => last = not_issued(error),
            Err(error) => return Err(not_issued(error)),
        }
    }
    Err(last)
}

/// To a deploy, the provider is the registry.
fn not_issued(error: ProviderError) -> DeployError {
    let message = format!("no credentials for the configured registry: {error}");
    match error {
        ProviderError::Project(_)
        | ProviderError::NoProject { .. }
        | ProviderError::Denied { .. } => DeployError::new(
            Code::RegistryUnauthorized,
            message,
            "Check [registry] in the daemon's configuration, and the permissions of its role or account; or create the enclave with \
                 credentials, or with --source-type public-registry.",
        ),
        ProviderError::Throttled { .. }
        | ProviderError::TimedOut { .. }
        | ProviderError::Unavailable { .. }
        | ProviderError::IssuedExpired => {
            let next_step = "Redeploy in a few minutes.";
            DeployError::new(Code::RegistryUnreachable, message, next_step).retryable()
        }
    }
}

async fn pull_image(
    context: &Context,
    request: &DeployRequest,
    credentials: Option<Credentials>,
    stages: &mut Stages,
) -> Result<VerifiedImage, DeployError> {
    let pull = PullRequest {
        reference: request.target.reference(),
        platform: Platform::linux_amd64(),
        credentials,
        endpoint: endpoint(context).await?,
        work_dir: request.directory.clone(),
        max_unpacked: DEFAULT_MAX_UNPACKED,
    };
    let progress = Arc::new(Progress::new(stages.events.clone()));
    let pulled = pull::pull(pull, progress.clone()).await;
    stages.current = progress.stage();
    let issuer = context.issuer.as_ref();
    let issuer = issuer.filter(|_| request.source_type == SourceType::ConfiguredRegistry);
    if let (Err(error @ PullError::Unauthorized { .. }), Some(issuer)) = (&pulled, issuer) {
        // They were revoked, or expired on the way: the next deploy gets others.
        let projects = issuer.projects_of(&request.target.image);
        projects
            .iter()
            .for_each(|project| issuer.invalidate_one(project, Action::Pull));
        let next_step = "Redeploy: the daemon issues new credentials. If they are refused too, check the permissions of its role or account.";
        let code = Code::RegistryUnauthorized;
        return Err(DeployError::new(code, error.to_string(), next_step).retryable());
    }
    Ok(pulled?)
}

async fn endpoint(context: &Context) -> Result<Endpoint, DeployError> {
    let config = &context.config.pull;
    let plain_http = config.plain_http.clone();
    if config.ca_cert.as_os_str().is_empty() {
        return Ok(Endpoint {
            plain_http,
            ca_cert: None,
        });
    }
    let pem = tokio::fs::read(&config.ca_cert).await.map_err(|e| {
        let message = format!("{}: {e}", config.ca_cert.display());
        let next_step = "Correct pull.ca_cert in the daemon's configuration.";
        DeployError::new(Code::ConfigurationInvalid, message, next_step)
    })?;
    Ok(Endpoint {
        plain_http,
        ca_cert: Some(pem),
    })
}

async fn build_image(
    image: VerifiedImage,
    inputs: Inputs,
    output: PathBuf,
    stages: &Stages,
) -> Result<Built, DeployError> {
    let progress = Progress::new(stages.events.clone());
    let building =
        tokio::task::spawn_blocking(move || build::build(&image, &inputs, &output, &progress));
    Ok(building.await.map_err(DeployError::internal)??)
}
