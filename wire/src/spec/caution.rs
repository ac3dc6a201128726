//! What a spec allows and a reader of it should know. Nothing here is an error.

use super::config::MeasuredConfig;
use super::variables::steers;

/// A measured choice that weakens what `[config]` promises.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigCaution {
    /// The config may set a variable that programs obey as code or configuration.
    #[error(
        "config.variables names {name}, which steers {what}: whoever seals a config can make the \
         enclave run other code"
    )]
    Variable {
        /// The variable.
        name: String,
        /// What it steers.
        what: &'static str,
    },
    /// The config is opened in debug mode too.
    #[error(
        "config.allow_debug is set: an enclave in debug mode opens the config, and its parent can \
         read its memory"
    )]
    Debug,
}

impl MeasuredConfig {
    /// What someone who builds or seals for this spec should be told.
    pub fn cautions(&self) -> Vec<ConfigCaution> {
        let variable = |name: &String| {
            steers(name).map(|what| ConfigCaution::Variable {
                name: name.clone(),
                what,
            })
        };
        let variables = self.variables.iter().filter_map(variable);
        let debug = self.allow_debug.then_some(ConfigCaution::Debug);
        variables.chain(debug).collect()
    }
}
