//! `[run] restart`: what happens when the program ends by itself.

use serde::{Deserialize, Serialize};

/// When the program is started once more, inside the same enclave and boundary. A program that the
/// host stops is never started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Its end is the enclave's.
    #[default]
    Never,
    /// It returned another code than 0, was ended by a signal, or became unhealthy.
    OnFailure,
    /// However it ended.
    Always,
}

impl RestartPolicy {
    pub(super) fn is_never(&self) -> bool {
        *self == RestartPolicy::Never
    }
}
