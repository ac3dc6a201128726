//! docker's credential-helper protocol (docker-credential-helpers, "Development"): a verb as the
//! argument, the registry on standard input, the answer on standard output, and errors there too,
//! with exit code 1.
//!
//! Nothing is cached and nothing stored: each `get` asks the broker, which has a cache of its own.

use super::bindings::{Bindings, BrokerBinding};
use crate::ui;
use api::credentials::GrantedCredentials;
use explain::{CliError, Exit};
use oci::reference::canonical_host;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;
use zeroize::Zeroizing;

/// The name under which docker looks for it.
pub(super) const PROGRAM: &str = "docker-credential-redoubt";
/// What docker takes for "go on without credentials" (`credentials.NewErrCredentialsNotFound`).
const NOT_FOUND: &str = "credentials not found in native keychain";
/// The longest name of a registry, in bytes.
const MAX_INPUT: u64 = 4096;

/// The verb, if this process was started under the helper's name; empty if there is none. docker
/// finds its helpers by their names.
pub(crate) fn called_by_docker(mut arguments: impl Iterator<Item = OsString>) -> Option<String> {
    let program = arguments.next()?;
    let is_helper = Path::new(&program).file_name() == Some(PROGRAM.as_ref());
    is_helper.then(|| {
        let verb = arguments.next().unwrap_or_default();
        verb.to_string_lossy().into_owned()
    })
}

/// As docker calls it.
pub(crate) async fn answer(verb: &str) -> ExitCode {
    let Err(CliError {
        message, next_step, ..
    }) = run(verb).await
    else {
        return ExitCode::SUCCESS;
    };
    // docker compares this one message as a whole.
    let text = if message == NOT_FOUND {
        message
    } else {
        format!("{message}. {next_step}")
    };
    // The exit code is all that is left if standard output is closed.
    ui::print(&text).ok();
    ExitCode::FAILURE
}

pub(super) async fn run(verb: &str) -> Result<(), CliError> {
    match verb {
        "get" => {
            let mut server = String::new();
            let read = std::io::stdin().take(MAX_INPUT).read_to_string(&mut server);
            read.map_err(|e| {
                CliError::new(Exit::Usage, e, "Write the registry to standard input.")
            })?;
            get(&server).await
        }
        "list" => list().await,
        "store" | "erase" => Err(CliError::new(
            Exit::Refused,
            format!("{PROGRAM} keeps no credentials"),
            "It asks the broker each time; choose the broker with 'enclavectl registry login'.",
        )),
        _ => Err(CliError::new(
            Exit::Usage,
            format!("usage: {PROGRAM} get|list"),
            "Set it up with 'enclavectl registry login'; docker then calls it.",
        )),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct HelperCredentials<'a> {
    #[serde(rename = "ServerURL")]
    server_url: &'a str,
    username: &'a str,
    secret: &'a str,
}

async fn get(server: &str) -> Result<(), CliError> {
    let server = server.trim();
    let host = host_of(server);
    let binding = binding_of(Bindings::load()?, &host)?;
    let granted = ask(&binding).await?;
    // A broker whose registry is another one has no credentials for this one.
    if granted.username.is_empty() || canonical_host(&granted.registry_url) != host {
        return Err(not_found());
    }
    let credentials = HelperCredentials {
        server_url: server,
        username: &granted.username,
        secret: granted.password.expose(),
    };
    let json = serde_json::to_string(&credentials).map(Zeroizing::new);
    ui::print(&json.map_err(CliError::bug)?)
}

fn not_found() -> CliError {
    CliError::new(Exit::Refused, NOT_FOUND, "")
}

/// The binding for a registry, given by its canonical name.
fn binding_of(bindings: Bindings, host: &str) -> Result<BrokerBinding, CliError> {
    match bindings {
        Bindings::Environment(binding) => Ok(binding),
        Bindings::File {
            registries,
            is_environment_incomplete,
        } => {
            let mut registries = registries.into_iter();
            match registries.find(|(name, _)| canonical_host(name) == host) {
                Some((_, binding)) => Ok(binding),
                None if is_environment_incomplete => Err(CliError::new(
                    Exit::Usage,
                    "only one of REDOUBT_BROKER and REDOUBT_PROJECT is set",
                    "Set both, or log in with 'enclavectl registry login'.",
                )),
                None => Err(not_found()),
            }
        }
    }
}

async fn list() -> Result<(), CliError> {
    let bindings = match Bindings::load()? {
        Bindings::Environment(binding) => vec![binding],
        Bindings::File { registries, .. } => registries.into_values().collect(),
    };
    let mut users = BTreeMap::new();
    for binding in bindings {
        // One broker that does not answer must not hide the others.
        match ask(&binding).await {
            Ok(granted) if granted.username.is_empty() => {}
            Ok(granted) => drop(users.insert(granted.registry_url, granted.username)),
            Err(CliError { message, .. }) => {
                let broker = binding.access.broker.as_str();
                ui::tell(&format!("{broker}: {message}"));
            }
        }
    }
    ui::print(&serde_json::to_string(&users).map_err(CliError::bug)?)
}

async fn ask(binding: &BrokerBinding) -> Result<GrantedCredentials, CliError> {
    let client = binding.access.client(None)?;
    Ok(client.ask(&binding.request()).await?.credentials)
}

/// docker gives some registries with a scheme and a path.
fn host_of(server: &str) -> String {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    canonical_host(rest.split('/').next().unwrap_or(rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::bindings::Registries;

    #[test]
    fn the_second_name_makes_it_dockers_helper() {
        let called = |arguments: &[&str]| called_by_docker(arguments.iter().map(OsString::from));
        let get = Some("get".to_owned());
        assert_eq!(called(&["docker-credential-redoubt", "get"]), get);
        assert_eq!(called(&["/usr/bin/docker-credential-redoubt", "get"]), get);
        assert_eq!(called(&["docker-credential-redoubt"]), Some(String::new()));
        assert_eq!(called(&["enclavectl", "get"]), None);
        assert_eq!(called(&[]), None);
    }

    #[test]
    fn a_registry_is_found_however_docker_writes_it() {
        for server in [
            "R.example:5000",
            "https://r.example:5000",
            "http://r.example:5000/v2/",
        ] {
            assert_eq!(host_of(server), "r.example:5000", "{server}");
        }
    }

    #[test]
    fn an_incomplete_environment_is_named_only_where_no_login_answers() {
        let text = r#"{"R.example":{"project":"p","action":"pull","broker":"https://b.example"}}"#;
        let registries: Registries = serde_json::from_str(text).unwrap();
        let find = |host: &str, is_environment_incomplete: bool| {
            let bindings = Bindings::File {
                registries: registries.clone(),
                is_environment_incomplete,
            };
            binding_of(bindings, host).map(|binding| binding.project)
        };
        assert_eq!(find("r.example", true), Ok("p".to_owned()));
        assert_eq!(find("other.example", false), Err(not_found()));
        let error = find("other.example", true).unwrap_err();
        assert!(error.message.starts_with("only one of"), "{error}");
    }
}
