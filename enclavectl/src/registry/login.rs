//! `enclavectl registry login`: makes docker's own configuration lead to the broker.
//!
//! A registry for which docker has no helper yet gets ours, which asks the broker whenever docker asks it: nothing secret is written
//! anywhere. Where another helper keeps the user's credentials, they are given to it by docker's protocol (`store`), as `docker login` does.

use super::known::{self, Known};
use super::{Broker, CliError};
use crate::{print_json, tell};
use host_proxy::broker::project::Project;
use host_proxy::broker::provider::Action;
use host_proxy::broker::question::{Answer, Granted, Question, Wanted};
use oci::credentials;
use oci::reference::canonical_host;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

const OURS: &str = "redoubt";

#[derive(Debug, clap::Args)]
#[command(after_help = "Example, in a CI job:\n  \
    enclavectl registry login --broker https://redoubt.example.com:9443 --token-file \"$JWT_FILE\" --project my-app\n  \
    docker push 123456789012.dkr.ecr.us-east-1.amazonaws.com/apps/my-app:v1")]
pub(super) struct Args {
    #[command(flatten)]
    broker: Broker,
    /// The project whose images are pushed
    #[arg(long)]
    project: String,
    /// Ask for credentials that can pull and not push
    #[arg(long)]
    pull: bool,
    /// The registry that this must be about; replaces a login that docker has there
    #[arg(long)]
    registry: Option<String>,
    /// docker's configuration [default: $DOCKER_CONFIG/config.json, or ~/.docker/config.json]
    #[arg(long)]
    authfile: Option<PathBuf>,
    /// Use this program as the helper even if docker keeps its credentials with another
    #[arg(long)]
    own_helper: bool,
}

pub(super) async fn run(args: Args, as_json: bool) -> Result<(), CliError> {
    let access = args.broker.access()?;
    Project::parse(&args.project).map_err(|e| {
        CliError::new(
            Exit::Usage,
            e,
            "give the project's name alone: no registry, no tag",
        )
    })?;
    let action = if args.pull {
        Action::Pull
    } else {
        Action::Push
    };
    let question = Question {
        wanted: Wanted::Project(args.project.clone()),
        action,
    };
    let Answer {
        credentials: granted,
        repository,
    } = access.client(None)?.ask(&question).await?;
    let host = granted.registry_url.clone();
    if let Some(named) = args
        .registry
        .as_deref()
        .filter(|named| canonical_host(named) != canonical_host(&host))
    {
        let message = format!("the broker's registry is {host}, and not {named}");
        return Err(CliError::new(
            Exit::Refused,
            message,
            "check --broker and --registry",
        ));
    }
    if granted.username.is_empty() {
        tell(&format!(
            "nothing was set up: this broker says where to push and gives no credentials for {host}; log in there with 'docker login {host}'"
        ));
        return told(as_json, &granted, &repository, None);
    }
    let path = args.authfile.map_or_else(docker_config, Ok)?;
    let _lock = known::lock()?;
    let mut config = known::read_json(&path)?.unwrap_or_else(|| json!({}));
    let wrong = || {
        CliError::new(
            Exit::Data,
            format!("{}: no configuration of docker's", path.display()),
            "check this file",
        )
    };
    let settings = config.as_object_mut().ok_or_else(wrong)?;
    if args.registry.is_none() && has_login(settings, &host) {
        return Err(CliError::new(
            Exit::Refused,
            format!("docker has a login for {host} already, which the broker's would replace"),
            format!("log out there first, or say that you mean it with --registry {host}"),
        ));
    }
    if let Some(helper) =
        helper_of(settings, &host).filter(|helper| !args.own_helper && *helper != OURS)
    {
        let helper = helper.to_owned();
        credentials::store(&helper, &host, &granted.username, &granted.password)
            .await
            .map_err(|e| {
                CliError::new(
                    Exit::Unavailable,
                    e,
                    "check that helper, or use --own-helper",
                )
            })?;
        let minutes = granted
            .expires_in
            .map(|seconds| format!(", for {} minutes", seconds / 60));
        let minutes = minutes.unwrap_or_default();
        tell(&format!(
            "{host}: docker-credential-{helper} keeps the credentials for {repository}{minutes}"
        ));
        return told(as_json, &granted, &repository, Some(&helper));
    }
    let helpers = settings.entry("credHelpers").or_insert_with(|| json!({}));
    helpers
        .as_object_mut()
        .ok_or_else(wrong)?
        .insert(host.clone(), OURS.into());
    let before = known::remember(
        &host,
        Known {
            project: args.project.clone(),
            action,
            access,
        },
    )?;
    known::write_json(&path, &config)?;
    warn(&host, &args.project, before);
    tell(&format!(
        "{host}: docker-credential-redoubt asks the broker for {repository} each time; nothing is kept"
    ));
    told(as_json, &granted, &repository, Some(OURS))
}

/// Of what may surprise.
fn warn(host: &str, project: &str, before: Option<Known>) {
    if let Some(before) = before.filter(|before| before.project != project) {
        let earlier = before.project;
        tell(&format!(
            "warning: {host} led to the project {earlier} until now, and docker knows one for a registry"
        ));
    }
    if !is_on_path("docker-credential-redoubt") {
        let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("enclavectl"));
        tell(&format!(
            "warning: docker needs this program on the PATH by another name: ln -s {} /usr/local/bin/docker-credential-redoubt",
            program.display()
        ));
    }
}

/// One that is not ours. Where a helper keeps them all, docker notes the registry among `auths` too.
fn has_login(settings: &Map<String, Value>, host: &str) -> bool {
    let named = |table: &str| settings.get(table).and_then(|entries| entries.get(host));
    match named("credHelpers").and_then(Value::as_str) {
        Some(helper) => helper != OURS,
        None => named("auths").is_some(),
    }
}

/// Takes back what [`run`] wrote.
pub(super) async fn undo(registry: &str, authfile: Option<PathBuf>) -> Result<(), CliError> {
    let path = authfile.map_or_else(docker_config, Ok)?;
    let _lock = known::lock()?;
    let mut is_ours = known::forget(registry)?;
    let mut config = known::read_json(&path)?.unwrap_or_default();
    let helper = config
        .as_object()
        .and_then(|settings| helper_of(settings, registry))
        .map(str::to_owned);
    match helper.as_deref() {
        Some(OURS) => {
            if let Some(helpers) = config.get_mut("credHelpers").and_then(Value::as_object_mut) {
                is_ours |= helpers.remove(registry).is_some();
            }
            known::write_json(&path, &config)?;
        }
        Some(helper) => {
            credentials::erase(helper, registry)
                .await
                .map_err(|e| CliError::new(Exit::Unavailable, e, "it may not have had any"))?;
            is_ours = true;
        }
        None => {}
    }
    if !is_ours {
        let message = format!("there was no login for {registry}");
        return Err(CliError::new(
            Exit::Usage,
            message,
            "give host or host:port, as docker names it",
        ));
    }
    tell(&format!("{registry}: docker asks the broker no more"));
    Ok(())
}

fn told(
    as_json: bool,
    granted: &Granted,
    repository: &str,
    helper: Option<&str>,
) -> Result<(), CliError> {
    if !as_json {
        return Ok(());
    }
    let Granted {
        registry_url,
        expires_in,
        ..
    } = granted;
    print_json(&json!({
        "registry_url": registry_url, "repository": repository, "helper": helper, "expires_in": expires_in,
    }))
}

fn docker_config() -> Result<PathBuf, CliError> {
    let folder = match std::env::var_os("DOCKER_CONFIG").filter(|folder| !folder.is_empty()) {
        Some(folder) => PathBuf::from(folder),
        None => known::home()?.join(".docker"),
    };
    Ok(folder.join("config.json"))
}

/// The registry's own helper, or the one for all (docker's order).
fn helper_of<'a>(config: &'a Map<String, Value>, host: &str) -> Option<&'a str> {
    let own = config
        .get("credHelpers")
        .and_then(|helpers| helpers.get(host));
    own.or_else(|| config.get("credsStore"))
        .and_then(Value::as_str)
        .filter(|helper| !helper.is_empty())
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
