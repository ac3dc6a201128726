//! docker's credential-helper protocol (docker-credential-helpers, "Development"): a verb as the argument, the registry on standard
//! input, the answer on standard output, and what went wrong there too, with exit code 1.
//!
//! Nothing is cached and nothing stored: each `get` asks the broker, which has a cache of its own.

use super::CliError;
use super::known::{self, Known, Source};
use crate::{print, tell};
use host_proxy::broker::question::Granted;
use oci::reference::canonical_host;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::process::ExitCode;
use zeroize::Zeroizing;

/// The name under which docker looks for it.
pub(crate) const PROGRAM: &str = "docker-credential-redoubt";
/// What docker takes for "go on without credentials" (`credentials.NewErrCredentialsNotFound`).
const NOT_FOUND: &str = "credentials not found in native keychain";
/// The longest name of a registry, in bytes.
const MAX_INPUT: u64 = 4096;

/// As docker calls it.
pub(crate) async fn answer(verb: Option<String>) -> ExitCode {
    let verb = verb.unwrap_or_default();
    match run(&verb).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(CliError { message, hint, .. }) => {
            let text = if message == NOT_FOUND {
                message
            } else {
                format!("{message}: {hint}")
            };
            let _ = print(&text);
            ExitCode::FAILURE
        }
    }
}

pub(super) async fn run(verb: &str) -> Result<(), CliError> {
    match verb {
        "get" => {
            let mut server = String::new();
            let read = std::io::stdin().take(MAX_INPUT).read_to_string(&mut server);
            read.map_err(|e| CliError::new(Exit::Usage, e, "the registry goes to standard input"))?;
            get(&server).await
        }
        "list" => list().await,
        "store" | "erase" => Err(CliError::new(
            Exit::Refused,
            format!("{PROGRAM} keeps no credentials"),
            "it asks the broker each time; 'enclavectl registry login' says which",
        )),
        _ => Err(CliError::new(
            Exit::Usage,
            format!("usage: {PROGRAM} get|list"),
            "docker calls this; see 'enclavectl registry login'",
        )),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Found<'a> {
    #[serde(rename = "ServerURL")]
    server_url: &'a str,
    username: &'a str,
    secret: &'a str,
}

async fn get(server: &str) -> Result<(), CliError> {
    let server = server.trim();
    let host = host_of(server);
    let not_found = || CliError::new(Exit::Refused, NOT_FOUND, "");
    let known = match known::read()? {
        Source::Environment(known) => known,
        Source::File(registries, half) => {
            let known = registries
                .into_iter()
                .find(|(name, _)| canonical_host(name) == host);
            let (_, known) = known.ok_or_else(|| match half {
                true => CliError::new(
                    Exit::Usage,
                    "only one of REDOUBT_BROKER and REDOUBT_PROJECT is set",
                    "set both, or log in with 'enclavectl registry login'",
                ),
                false => not_found(),
            })?;
            known
        }
    };
    let granted = ask(&known).await?;
    // A broker whose registry is another one has nothing to say to this.
    if granted.username.is_empty() || canonical_host(&granted.registry_url) != host {
        return Err(not_found());
    }
    let found = Found {
        server_url: server,
        username: &granted.username,
        secret: granted.password.expose(),
    };
    let json = Zeroizing::new(
        serde_json::to_string(&found)
            .map_err(|e| CliError::new(Exit::Bug, e, "please report this"))?,
    );
    print(&json)
}

async fn list() -> Result<(), CliError> {
    let mut users = BTreeMap::new();
    let all = match known::read()? {
        Source::Environment(known) => vec![known],
        Source::File(registries, _) => registries.into_values().collect(),
    };
    for known in all {
        // One broker that does not answer must not hide the others.
        match ask(&known).await {
            Ok(granted) if granted.username.is_empty() => {}
            Ok(granted) => drop(users.insert(granted.registry_url, granted.username)),
            Err(CliError { message, .. }) => {
                tell(&format!("{}: {message}", known.access.broker.as_str()))
            }
        }
    }
    print(
        &serde_json::to_string(&users)
            .map_err(|e| CliError::new(Exit::Bug, e, "please report this"))?,
    )
}

async fn ask(known: &Known) -> Result<Granted, CliError> {
    Ok(known
        .access
        .client(None)?
        .ask(&known.question())
        .await?
        .credentials)
}

/// docker gives some registries with a scheme and a path.
fn host_of(server: &str) -> String {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    canonical_host(rest.split('/').next().unwrap_or(rest))
}
