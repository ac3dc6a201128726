//! Docker's `config.json`: which credential helper it uses for a registry.

use super::json_file;
use explain::{CliError, Exit};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// Our helper's name in docker's configuration; docker runs `docker-credential-` and this.
pub(super) const HELPER: &str = "redoubt";

/// Docker's configuration as it is, with everything in it that this program does not know.
#[derive(Debug)]
pub(super) struct DockerConfig {
    path: PathBuf,
    settings: Map<String, Value>,
}

impl DockerConfig {
    /// That file, or `$DOCKER_CONFIG/config.json`, or `~/.docker/config.json`. A missing one is
    /// empty.
    pub(super) fn load(path: Option<PathBuf>) -> Result<DockerConfig, CliError> {
        let path = path.map_or_else(default_path, Ok)?;
        match json_file::read(&path)? {
            None => Ok(DockerConfig {
                path,
                settings: Map::new(),
            }),
            Some(Value::Object(settings)) => Ok(DockerConfig { path, settings }),
            Some(_) => Err(DockerConfig {
                path,
                settings: Map::new(),
            }
            .wrong()),
        }
    }

    fn wrong(&self) -> CliError {
        let message = format!("{}: not a docker configuration", self.path.display());
        CliError::new(Exit::Data, message, "Check this file.")
    }

    pub(super) fn save(self) -> Result<(), CliError> {
        json_file::write(&self.path, &Value::Object(self.settings))
    }

    /// The registry's own helper, or the one for all (docker's order).
    pub(super) fn helper(&self, registry: &str) -> Option<&str> {
        let settings = &self.settings;
        let helpers = settings.get("credHelpers");
        let own = helpers.and_then(|helpers| helpers.get(registry));
        own.or_else(|| settings.get("credsStore"))
            .and_then(Value::as_str)
            .filter(|helper| !helper.is_empty())
    }

    /// Whether docker has a login that is not ours. Where a helper keeps them all, docker notes the
    /// registry among `auths` too.
    pub(super) fn has_other_login(&self, registry: &str) -> bool {
        let entry = |table: &str| {
            self.settings
                .get(table)
                .and_then(|entries| entries.get(registry))
        };
        match entry("credHelpers").and_then(Value::as_str) {
            Some(helper) => helper != HELPER,
            None => entry("auths").is_some(),
        }
    }

    /// Makes docker use our helper for a registry.
    pub(super) fn set_helper(&mut self, registry: &str) -> Result<(), CliError> {
        let helpers = self
            .settings
            .entry("credHelpers")
            .or_insert_with(|| json!({}));
        let Some(helpers) = helpers.as_object_mut() else {
            return Err(self.wrong());
        };
        helpers.insert(registry.to_owned(), HELPER.into());
        Ok(())
    }

    /// Removes the registry's own helper; `false` if it had none.
    pub(super) fn remove_helper(&mut self, registry: &str) -> bool {
        let helpers = self.settings.get_mut("credHelpers");
        let helpers = helpers.and_then(Value::as_object_mut);
        helpers.is_some_and(|helpers| helpers.remove(registry).is_some())
    }
}

fn default_path() -> Result<PathBuf, CliError> {
    let directory = std::env::var_os("DOCKER_CONFIG").filter(|directory| !directory.is_empty());
    let directory = match directory {
        Some(directory) => PathBuf::from(directory),
        None => json_file::home()?.join(".docker"),
    };
    Ok(directory.join("config.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(settings: Value) -> DockerConfig {
        let Value::Object(settings) = settings else {
            panic!("an object")
        };
        DockerConfig {
            path: PathBuf::new(),
            settings,
        }
    }

    #[test]
    fn a_registrys_own_helper_comes_before_the_one_for_all() {
        let config = config(json!({ "credsStore": "all", "credHelpers": { "r": "own", "e": "" } }));
        assert_eq!(config.helper("r"), Some("own"));
        assert_eq!(config.helper("other"), Some("all"));
        assert_eq!(config.helper("e"), None);
    }

    #[test]
    fn our_own_login_is_no_other_login() {
        let mut config = config(json!({ "auths": { "a": {} }, "credHelpers": { "h": "other" } }));
        assert!(config.has_other_login("a") && config.has_other_login("h"));
        for registry in ["a", "h", "new"] {
            config.set_helper(registry).unwrap();
            assert!(!config.has_other_login(registry), "{registry}");
        }
        assert!(config.remove_helper("new"));
        assert!(!config.remove_helper("new"));
        assert!(!config.has_other_login("new"));
    }
}
