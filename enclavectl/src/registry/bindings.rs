//! Which broker and which project stand behind a registry on this machine: what `login` writes and
//! the helper reads. `$XDG_CONFIG_HOME/redoubt/registries.json`; it holds names of files, never a
//! secret.

use super::access::{BrokerAccess, BrokerArgs};
use super::json_file;
use api::credentials::{Action, CredentialRequest, CredentialScope};
use explain::{CliError, Exit};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Where the credentials of one registry come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BrokerBinding {
    pub(super) project: String,
    pub(super) action: Action,
    #[serde(flatten)]
    pub(super) access: BrokerAccess,
}

impl BrokerBinding {
    pub(super) fn request(&self) -> CredentialRequest {
        CredentialRequest {
            scope: CredentialScope::Project(self.project.clone()),
            action: self.action,
        }
    }
}

/// By registry, as `login` was told its name.
pub(super) type Registries = BTreeMap<String, BrokerBinding>;

/// What this process goes by.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Bindings {
    /// The environment, for a job that has one project.
    Environment(BrokerBinding),
    /// All that `login` wrote.
    File {
        registries: Registries,
        /// The environment names a broker without a project, or a project without a broker.
        is_environment_incomplete: bool,
    },
}

impl Bindings {
    pub(super) fn load() -> Result<Bindings, CliError> {
        let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let (broker, project) = (variable("REDOUBT_BROKER"), variable("REDOUBT_PROJECT"));
        match (broker, project) {
            (Some(broker), Some(project)) => {
                let access = BrokerArgs {
                    broker,
                    token_file: variable("REDOUBT_BROKER_TOKEN_FILE").map(PathBuf::from),
                    ca_cert: variable("REDOUBT_BROKER_CA").map(PathBuf::from),
                }
                .access()?;
                Ok(Bindings::Environment(BrokerBinding {
                    project,
                    action: Action::Push,
                    access,
                }))
            }
            (broker, project) => Ok(Bindings::File {
                registries: read(&path()?)?,
                is_environment_incomplete: broker.is_some() || project.is_some(),
            }),
        }
    }
}

/// `$XDG_CONFIG_HOME`, or `.config` at home (XDG base directory specification).
fn path() -> Result<PathBuf, CliError> {
    let directory = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|directory| directory.is_absolute());
    let directory = match directory {
        Some(directory) => directory,
        None => json_file::home()?.join(".config"),
    };
    Ok(directory.join("redoubt/registries.json"))
}

fn read(path: &Path) -> Result<Registries, CliError> {
    let Some(value) = json_file::read(path)? else {
        return Ok(Registries::new());
    };
    serde_json::from_value(value).map_err(|e| json_file::malformed(path, &e))
}

fn write(path: &Path, registries: &Registries) -> Result<(), CliError> {
    let value = serde_json::to_value(registries).map_err(CliError::bug)?;
    json_file::write(path, &value)
}

/// Adds a binding, and returns the one that it replaces.
pub(super) fn insert(
    registry: &str,
    binding: BrokerBinding,
) -> Result<Option<BrokerBinding>, CliError> {
    let path = path()?;
    let mut registries = read(&path)?;
    let before = registries.insert(registry.to_owned(), binding);
    write(&path, &registries)?;
    Ok(before)
}

/// Removes a binding; `false` if there was none.
pub(super) fn remove(registry: &str) -> Result<bool, CliError> {
    let path = path()?;
    let mut registries = read(&path)?;
    let existed = registries.remove(registry).is_some();
    if existed {
        write(&path, &registries)?;
    }
    Ok(existed)
}

/// Keeps two logins at once from losing each other's changes, until it is dropped. Blocks while
/// another one holds it.
pub(super) fn lock() -> Result<File, CliError> {
    let path = path()?.with_extension("lock");
    let wrong = |e: std::io::Error| {
        let message = format!("{}: {e}", path.display());
        CliError::new(Exit::Unavailable, message, "Check that it is writable.")
    };
    json_file::create_parent(&path).map_err(wrong)?;
    let file = File::create(&path).map_err(wrong)?;
    file.lock().map_err(wrong)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_is_stored_as_earlier_versions_stored_it() {
        let text = r#"{"r.example":{"project":"my-app","action":"push","broker":"https://b.example:9443","token_file":"/jwt"}}"#;
        let registries: Registries = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&registries).unwrap(), text);
        let request = registries["r.example"].request();
        assert_eq!(request.query(), "project=my-app&action=push");
    }
}
