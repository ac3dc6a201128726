//! What a spec allows and a reader of it should know. Nothing here is an error.

use super::config::MeasuredConfig;
use super::measured::MeasuredSpec;
use super::security::{Capability, SecurityRules};
use super::variables::steers;

/// A measured choice that weakens what an enclave promises.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Caution {
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
    /// Nothing stands between the workload and the agent.
    #[error(
        "security.privileged is set: the workload can take over the agent, and no other rule of the \
         spec binds it"
    )]
    Privileged,
    /// Processes of the workload may look into one another.
    #[error("security.capabilities names SYS_PTRACE: processes of the workload can trace others")]
    Trace,
    /// The enclave runs in debug mode too.
    #[error(
        "security.allow_debug is set: the enclave also runs in debug mode, where its registers prove \
         nothing"
    )]
    DebugMode,
}

impl MeasuredSpec {
    /// What someone who builds this spec, or relies on it, should be told.
    pub fn cautions(&self) -> Vec<Caution> {
        let config = self.config.as_ref().map(MeasuredConfig::cautions);
        let mut cautions = self.security.cautions();
        cautions.extend(config.unwrap_or_default());
        cautions
    }
}

impl SecurityRules {
    fn cautions(&self) -> Vec<Caution> {
        let trace = self.capabilities.contains(&Capability::SysPtrace);
        [
            (self.privileged, Caution::Privileged),
            (trace, Caution::Trace),
            (self.allow_debug, Caution::DebugMode),
        ]
        .into_iter()
        .filter_map(|(is_so, caution)| is_so.then_some(caution))
        .collect()
    }
}

impl MeasuredConfig {
    /// What someone who builds or seals for this spec should be told.
    pub fn cautions(&self) -> Vec<Caution> {
        let variable = |name: &String| {
            steers(name).map(|what| Caution::Variable {
                name: name.clone(),
                what,
            })
        };
        let variables = self.variables.iter().filter_map(variable);
        let debug = self.allow_debug.then_some(Caution::Debug);
        variables.chain(debug).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{ImageDefaults, Spec};

    #[test]
    fn what_loosens_the_boundary_is_cautioned_about() {
        let cautions = |text: &str| {
            let spec = Spec::parse(text).unwrap();
            spec.resolve(ImageDefaults::any()).unwrap().cautions()
        };
        assert_eq!(cautions(""), []);
        assert_eq!(
            cautions(
                "[security]\nprivileged = true\nallow_debug = true\ncapabilities = ['SYS_PTRACE']"
            ),
            [Caution::Privileged, Caution::Trace, Caution::DebugMode]
        );
    }
}
