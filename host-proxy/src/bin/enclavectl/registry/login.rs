//! `enclavectl registry login`: makes docker's own configuration lead to the broker.
//!
//! A registry for which docker has no helper yet gets ours, which asks the broker whenever docker asks it: nothing secret is written
//! anywhere. Where another helper keeps the user's credentials, they are given to it by docker's protocol (`store`), as `docker login` does.

use super::known::{self, Known};
use super::{Broker, Failure};
use crate::{print_json, tell};
use eif_builder::image::credentials;
use host_proxy::broker::provider::Action;
use host_proxy::broker::question::{Answer, Granted, Question, Wanted};
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
    /// docker's configuration [default: $DOCKER_CONFIG/config.json, or ~/.docker/config.json]
    #[arg(long)]
    authfile: Option<PathBuf>,
    /// Use this program as the helper even if docker keeps its credentials with another
    #[arg(long)]
    own_helper: bool,
}

pub(super) async fn run(args: Args, as_json: bool) -> Result<(), Failure> {
    let access = args.broker.access()?;
    let action = if args.pull { Action::Pull } else { Action::Push };
    let question = Question { wanted: Wanted::Project(args.project.clone()), action };
    let Answer { credentials: granted, repository } = access.client(None)?.ask(&question).await?;
    let host = granted.registry_url.clone();
    if granted.username.is_empty() {
        tell(&format!("{host} has credentials of its own: log in there with 'docker login {host}'"));
        return told(as_json, &granted, &repository, None);
    }
    let path = match args.authfile {
        Some(path) => path,
        None => docker_config()?,
    };
    let mut config = known::read_json(&path)?.unwrap_or_else(|| json!({}));
    let wrong =
        || Failure::new(65, format!("{}: no configuration of docker's", path.display()), "check this file");
    let config_map = config.as_object_mut().ok_or_else(wrong)?;
    match helper_of(config_map, &host).filter(|helper| !args.own_helper && *helper != OURS) {
        Some(helper) => {
            let helper = helper.to_owned();
            credentials::store(&helper, &host, &granted.username, &granted.password)
                .await
                .map_err(|e| Failure::new(69, e, "check that helper, or use --own-helper"))?;
            let minutes = granted.expires_in.map(|seconds| format!(", for {} minutes", seconds / 60));
            tell(&format!(
                "{host}: docker-credential-{helper} keeps the credentials for {repository}{}",
                minutes.unwrap_or_default()
            ));
            told(as_json, &granted, &repository, Some(&helper))
        }
        None => {
            let helpers = config_map.entry("credHelpers").or_insert_with(|| json!({}));
            helpers.as_object_mut().ok_or_else(wrong)?.insert(host.clone(), OURS.into());
            known::remember(&host, Known { project: args.project, action, access })?;
            known::write_json(&path, &config)?;
            tell(&format!(
                "{host}: docker-credential-redoubt asks the broker for {repository} each time; nothing is kept"
            ));
            if !is_on_path("docker-credential-redoubt") {
                tell(
                    "warning: docker looks for docker-credential-redoubt on the PATH: link this program there by that name",
                );
            }
            told(as_json, &granted, &repository, Some(OURS))
        }
    }
}

fn told(as_json: bool, granted: &Granted, repository: &str, helper: Option<&str>) -> Result<(), Failure> {
    if !as_json {
        return Ok(());
    }
    let Granted { registry_url, expires_in, .. } = granted;
    print_json(&json!({
        "registry_url": registry_url, "repository": repository, "helper": helper, "expires_in": expires_in,
    }))
}

fn docker_config() -> Result<PathBuf, Failure> {
    let folder = match std::env::var_os("DOCKER_CONFIG").filter(|folder| !folder.is_empty()) {
        Some(folder) => PathBuf::from(folder),
        None => known::home()?.join(".docker"),
    };
    Ok(folder.join("config.json"))
}

/// The registry's own helper, or the one for all (docker's order).
fn helper_of<'a>(config: &'a Map<String, Value>, host: &str) -> Option<&'a str> {
    let own = config.get("credHelpers").and_then(|helpers| helpers.get(host));
    own.or_else(|| config.get("credsStore")).and_then(Value::as_str).filter(|helper| !helper.is_empty())
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
