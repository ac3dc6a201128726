//! `enclavectl registry login` and `logout`: register the broker as docker's source of credentials
//! for a registry.
//!
//! A registry for which docker has no helper yet gets ours, which asks the broker whenever docker
//! needs credentials: nothing secret is written anywhere. Where another helper keeps the user's
//! credentials, they are given to it by docker's protocol (`store`), as `docker login` does.

use super::access::{BrokerAccess, BrokerArgs};
use super::bindings::{self, BrokerBinding};
use super::docker_config::{DockerConfig, HELPER};
use super::helper::PROGRAM;
use crate::ui;
use api::credentials::project::Project;
use api::credentials::{Action, CredentialResponse, GrantedCredentials};
use explain::{CliError, Exit};
use oci::credentials;
use oci::reference::canonical_host;
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example, in a CI job:\n  \
    enclavectl registry login --broker https://redoubt.example.com:9443 --token-file \"$JWT_FILE\" --project my-app\n  \
    docker push 123456789012.dkr.ecr.us-east-1.amazonaws.com/apps/my-app:v1")]
pub(super) struct LoginArgs {
    #[command(flatten)]
    broker: BrokerArgs,
    /// The project whose images are pushed
    #[arg(long)]
    project: String,
    /// Request credentials that can pull but not push
    #[arg(long)]
    pull: bool,
    /// The registry that the broker must name; replaces a login that docker has for it
    #[arg(long)]
    registry: Option<String>,
    /// Docker's configuration [default: $DOCKER_CONFIG/config.json, or ~/.docker/config.json]
    #[arg(long)]
    authfile: Option<PathBuf>,
    /// Use docker-credential-redoubt even if docker already uses another credential helper
    #[arg(long)]
    own_helper: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct LogoutArgs {
    /// host or host:port
    registry: String,
    /// Docker's configuration [default: $DOCKER_CONFIG/config.json, or ~/.docker/config.json]
    #[arg(long)]
    authfile: Option<PathBuf>,
}

pub(super) async fn login(args: LoginArgs, json: bool) -> Result<(), CliError> {
    let binding = binding(&args)?;
    let client = binding.access.client(None)?;
    let response = client.ask(&binding.request()).await?;
    let host = response.credentials.registry_url.as_str();
    check_registry(args.registry.as_deref(), host)?;
    if response.credentials.username.is_empty() {
        ui::tell(&format!(
            "nothing was set up: this broker issues no credentials for {host}; \
             log in there with 'docker login {host}'"
        ));
        return report(json, &response, None);
    }
    let _lock = bindings::lock()?;
    let config = DockerConfig::load(args.authfile)?;
    if args.registry.is_none() && config.has_other_login(host) {
        return Err(CliError::new(
            Exit::Refused,
            format!("docker already has a login for {host}, which the broker's would replace"),
            format!("Log out there first, or confirm with --registry {host}."),
        ));
    }
    let other = config.helper(host).map(str::to_owned);
    let other = other.filter(|helper| !args.own_helper && helper != HELPER);
    match &other {
        Some(helper) => give(helper, &response).await?,
        None => register(config, binding, &response)?,
    }
    report(json, &response, Some(other.as_deref().unwrap_or(HELPER)))
}

fn binding(args: &LoginArgs) -> Result<BrokerBinding, CliError> {
    let access: BrokerAccess = args.broker.access()?;
    Project::parse(&args.project).map_err(|e| {
        let next_step = "Give the name of the project alone: no registry, no tag.";
        CliError::new(Exit::Usage, e, next_step)
    })?;
    let action = if args.pull {
        Action::Pull
    } else {
        Action::Push
    };
    Ok(BrokerBinding {
        project: args.project.clone(),
        action,
        access,
    })
}

/// A registry that was named must be the one that the broker has credentials for.
fn check_registry(named: Option<&str>, host: &str) -> Result<(), CliError> {
    match named {
        Some(named) if canonical_host(named) != canonical_host(host) => Err(CliError::new(
            Exit::Refused,
            format!("the broker's registry is {host}, not {named}"),
            "Check --broker and --registry.",
        )),
        _ => Ok(()),
    }
}

/// Gives the credentials to the helper that keeps the user's others.
async fn give(helper: &str, response: &CredentialResponse) -> Result<(), CliError> {
    let CredentialResponse {
        credentials,
        repository,
    } = response;
    let GrantedCredentials {
        registry_url: host,
        username,
        password,
        expires_in,
    } = credentials;
    credentials::store(helper, host, username, password)
        .await
        .map_err(|e| {
            let next_step = "Check that helper, or use --own-helper.";
            CliError::new(Exit::Unavailable, e, next_step)
        })?;
    let minutes = expires_in.map(|seconds| format!(", for {} minutes", seconds / 60));
    let minutes = minutes.unwrap_or_default();
    ui::tell(&format!(
        "{host}: docker-credential-{helper} keeps the credentials for {repository}{minutes}"
    ));
    Ok(())
}

/// Makes our own helper docker's helper for the registry.
fn register(
    mut config: DockerConfig,
    binding: BrokerBinding,
    response: &CredentialResponse,
) -> Result<(), CliError> {
    let host = &response.credentials.registry_url;
    let project = binding.project.clone();
    config.set_helper(host)?;
    let before = bindings::insert(host, binding)?;
    config.save()?;
    if let Some(before) = before.filter(|before| before.project != project) {
        ui::tell(&format!(
            "warning: until now {host} was bound to the project {}; \
             docker knows one login for each registry",
            before.project
        ));
    }
    if !is_on_path(PROGRAM) {
        let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("enclavectl"));
        ui::tell(&format!(
            "warning: docker needs this program on the PATH under another name: \
             ln -s {} /usr/local/bin/{PROGRAM}",
            program.display()
        ));
    }
    let repository = &response.repository;
    ui::tell(&format!(
        "{host}: {PROGRAM} asks the broker for {repository} each time; no credentials are stored"
    ));
    Ok(())
}

/// Undoes what [`login`] did.
pub(super) async fn logout(args: LogoutArgs) -> Result<(), CliError> {
    let LogoutArgs { registry, authfile } = args;
    let _lock = bindings::lock()?;
    let mut was_logged_in = bindings::remove(&registry)?;
    let mut config = DockerConfig::load(authfile)?;
    match config.helper(&registry).map(str::to_owned).as_deref() {
        Some(HELPER) => {
            was_logged_in |= config.remove_helper(&registry);
            config.save()?;
        }
        Some(helper) => {
            credentials::erase(helper, &registry).await.map_err(|e| {
                let next_step = "Check that helper; it may have had no credentials.";
                CliError::new(Exit::Unavailable, e, next_step)
            })?;
            was_logged_in = true;
        }
        None => {}
    }
    if !was_logged_in {
        return Err(CliError::new(
            Exit::Usage,
            format!("there is no login for {registry}"),
            "Give host or host:port, as docker names it.",
        ));
    }
    ui::tell(&format!(
        "{registry}: logged out; docker no longer asks the broker"
    ));
    Ok(())
}

/// The result as JSON, where that is asked for.
fn report(json: bool, response: &CredentialResponse, helper: Option<&str>) -> Result<(), CliError> {
    if !json {
        return Ok(());
    }
    let CredentialResponse {
        credentials,
        repository,
    } = response;
    ui::print_json(&json!({
        "registry_url": credentials.registry_url, "repository": repository, "helper": helper,
        "expires_in": credentials.expires_in,
    }))
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_that_was_named_must_be_the_brokers() {
        assert_eq!(check_registry(None, "r.example"), Ok(()));
        assert_eq!(check_registry(Some("R.example"), "r.example"), Ok(()));
        let error = check_registry(Some("other.example"), "r.example").unwrap_err();
        assert_eq!(error.exit, Exit::Refused);
    }
}
