//! What this machine needs to run enclaves, one finding each. The daemon answers with it, and `host-proxy doctor` prints it without one.

use crate::config::DaemonConfig;
use api::Finding;
use eif_builder::artifacts::{self, ArtifactError};
use launch::Launchers;
use std::path::PathBuf;

/// Looks for the kernel, the agent, and what launches need. Blocks on the disk.
pub fn examine(config: &DaemonConfig, launchers: &Launchers) -> Vec<Finding> {
    let configuration = format!(
        "secrets in {}, launcher {}",
        json_word(&config.secrets),
        json_word(&config.launcher)
    );
    vec![
        artifact("kernel", config.build.find(artifacts::KERNEL)),
        artifact("agent", config.build.find(artifacts::AGENT)),
        Finding::passed("configuration", configuration),
        launchers
            .of(config.launcher)
            .preflight()
            .unwrap_or_else(|error| Finding::failed("launcher", &error)),
    ]
}

fn artifact(what: &str, found: Result<PathBuf, ArtifactError>) -> Finding {
    match found {
        Ok(path) => Finding::passed(what, path.display().to_string()),
        Err(error) => Finding::failed(what, &error),
    }
}

/// A value as the configuration spells it.
fn json_word(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}
