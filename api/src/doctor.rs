//! What a machine needs to run enclaves, and whether it has it.

use serde::{Deserialize, Serialize};

/// One line of `GET /v1/doctor`, `enclavectl doctor` and `host-proxy doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at, in a word or two: `kernel`, `huge pages`, `configuration`.
    pub what: String,
    /// Whether it will do.
    pub outcome: Outcome,
    /// What was found, what is wrong, or why it could not be checked.
    pub detail: String,
    /// What to do if it will not do.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_step: Option<String>,
    /// Shell commands for root that do it, in their order; empty if no command can.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub fix: Vec<String>,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is as it should be.
    Passed,
    /// It is missing or unusable.
    Failed,
    /// It may be either: it could not be looked at.
    NotChecked,
}

impl Finding {
    fn new(what: impl Into<String>, outcome: Outcome, detail: impl Into<String>) -> Finding {
        Finding {
            what: what.into(),
            outcome,
            detail: detail.into(),
            next_step: None,
            fix: Vec::new(),
        }
    }

    /// It is there.
    pub fn passed(what: impl Into<String>, detail: impl Into<String>) -> Finding {
        Finding::new(what, Outcome::Passed, detail)
    }

    /// It could not be looked at: `why` completes "not checked: ".
    pub fn not_checked(what: impl Into<String>, why: impl Into<String>) -> Finding {
        Finding::new(what, Outcome::NotChecked, why)
    }

    /// It is missing or unusable.
    pub fn failed(what: impl Into<String>, error: &impl explain::Explain) -> Finding {
        Finding::wrong(what, error.to_string(), error.next_step())
    }

    /// The same for what has no error of its own.
    pub fn wrong(
        what: impl Into<String>,
        detail: impl Into<String>,
        next_step: impl Into<String>,
    ) -> Finding {
        Finding {
            next_step: Some(next_step.into()),
            ..Finding::new(what, Outcome::Failed, detail)
        }
    }

    /// The same with commands that fix it, in their order: one line each.
    #[must_use]
    pub fn with_fix<C: Into<String>>(self, commands: impl IntoIterator<Item = C>) -> Finding {
        Finding {
            fix: commands.into_iter().map(Into::into).collect(),
            ..self
        }
    }

    /// Whether something is to be done about it.
    pub fn is_failed(&self) -> bool {
        self.outcome == Outcome::Failed
    }
}

/// `✓ what: detail`, `- what: not checked: why`, or `✗ what: detail` and the next step on a second
/// line.
impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Finding {
            what,
            outcome,
            detail,
            next_step,
            fix: _,
        } = self;
        match outcome {
            Outcome::Passed => write!(f, "✓ {what}: {detail}")?,
            Outcome::Failed => write!(f, "✗ {what}: {detail}")?,
            Outcome::NotChecked => write!(f, "- {what}: not checked: {detail}")?,
        }
        next_step
            .iter()
            .try_for_each(|step| write!(f, "\n    {step}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_shows_its_outcome_and_keeps_it_in_json() {
        let findings = [
            Finding::passed("kernel", "/lib/bzImage"),
            Finding::wrong("driver", "it is not loaded", "Load it.").with_fix(["modprobe x"]),
            Finding::not_checked("imds", "no answer"),
        ];
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "✓ kernel: /lib/bzImage",
                "✗ driver: it is not loaded\n    Load it.",
                "- imds: not checked: no answer",
            ]
        );
        let json = serde_json::to_string(&findings).unwrap();
        assert!(json.contains(r#""fix":["modprobe x"]"#), "{json}");
        assert!(json.contains(r#""outcome":"not_checked""#), "{json}");
        let again: Vec<Finding> = serde_json::from_str(&json).unwrap();
        assert_eq!(again, findings);
    }
}
