//! What happened to an enclave.

use crate::{DeployError, Release, Stage, State};
use serde::{Deserialize, Serialize};

/// One line of `GET …/events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EnclaveEvent {
    /// The enclave's state changed.
    Status {
        /// When, RFC 3339.
        at: String,
        /// The order that it belongs to: see [`Record::generation`](crate::Record::generation).
        generation: u64,
        /// The state since then.
        #[serde(flatten)]
        state: State,
    },
    /// Another sealed config took effect while the enclave was deployed, or failed to: then the one
    /// before still runs.
    Config {
        /// When, RFC 3339.
        at: String,
        /// The order that brought the config.
        generation: u64,
        /// The config's own version.
        version: u64,
        /// Why it was not taken.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        failure: Option<DeployError>,
    },
    /// A redeploy, a rollback or a dry run ended that was ordered while the enclave kept running,
    /// or stayed as it was.
    Release {
        /// When, RFC 3339.
        at: String,
        /// The order that it belongs to.
        generation: u64,
        /// Nothing was to be launched: the release is what a redeploy would bring.
        #[serde(skip_serializing_if = "std::ops::Not::not", default)]
        dry_run: bool,
        /// What runs now, or would run.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        release: Option<Box<Release>>,
        /// Why there is none; what ran before goes on.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        failure: Option<DeployError>,
    },
    /// How far a stage is; sent while it runs, not stored.
    Progress {
        /// Which stage.
        stage: Stage,
        /// Bytes done.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
}
