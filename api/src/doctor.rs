//! What a machine needs to run enclaves, and whether it has it.

use serde::{Deserialize, Serialize};

/// One line of `GET /v1/doctor`, `enclavectl doctor` and `host-proxy doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at: `kernel`, `agent`, `launcher`, `configuration`.
    pub what: String,
    /// Whether it will do.
    pub passed: bool,
    /// What was found, or what is wrong.
    pub detail: String,
    /// What to do if it will not do.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_step: Option<String>,
}

impl Finding {
    /// It is there.
    pub fn passed(what: impl Into<String>, detail: impl Into<String>) -> Finding {
        Finding {
            what: what.into(),
            passed: true,
            detail: detail.into(),
            next_step: None,
        }
    }

    /// It is missing or unusable.
    pub fn failed(what: impl Into<String>, error: &impl explain::Explain) -> Finding {
        Finding {
            what: what.into(),
            passed: false,
            detail: error.to_string(),
            next_step: Some(error.next_step().into_owned()),
        }
    }
}

/// `✓ what: detail`, or `✗ what: detail` and the next step on a second line.
impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Finding {
            what,
            passed,
            detail,
            next_step,
        } = self;
        let mark = if *passed { '✓' } else { '✗' };
        write!(f, "{mark} {what}: {detail}")?;
        next_step
            .iter()
            .try_for_each(|step| write!(f, "\n    {step}"))
    }
}
