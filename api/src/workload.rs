//! What the agent of an enclave reports of its workload. Claims of the enclave, not facts.

use crate::now;
use serde::{Deserialize, Serialize};
use wire::control::{FromAgent, WorkloadExit, WorkloadHealth};

/// Longest text of an enclave that is kept, in characters.
const MAX_DETAIL: usize = 500;

/// What is known of the workload of the enclave that runs, or that ran last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadRecord {
    /// How many times it was started once more.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub restarts: u64,
    /// How it ended the last time.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_exit: Option<ExitRecord>,
    /// Its health, if its spec or image has a check.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub health: Option<HealthRecord>,
    /// Lines of output that were dropped in the enclave, because this host was too slow.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub dropped_lines: u64,
}

/// How a program ended: `{"code": 7}` or `{"signal": 9}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExitRecord {
    /// It returned this code.
    Code(u8),
    /// It was ended by this signal.
    Signal(u8),
}

/// The health of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthRecord {
    /// What it is.
    pub state: HealthState,
    /// What the check found that made it so; empty at a start.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub detail: String,
    /// Since when, RFC 3339: the host's time.
    pub since: String,
}

/// As Docker names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthState {
    /// No check has succeeded yet.
    Starting,
    /// It works.
    Healthy,
    /// As many checks failed in a row as the spec allows.
    Unhealthy,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl WorkloadRecord {
    /// Nothing was reported.
    pub fn is_empty(&self) -> bool {
        *self == WorkloadRecord::default()
    }

    /// Takes in what a message of the agent says of the workload, if it says anything; says whether
    /// it did.
    pub fn note(&mut self, message: &FromAgent) -> bool {
        match message {
            FromAgent::Restarted { exit, count } => {
                self.restarts = u64::from(*count);
                self.last_exit = Some((*exit).into());
            }
            FromAgent::Exited { status } => self.last_exit = Some((*status).into()),
            FromAgent::Health { state, detail } => {
                let printable = detail.chars().filter(|c| !c.is_control());
                self.health = Some(HealthRecord {
                    state: (*state).into(),
                    detail: printable.take(MAX_DETAIL).collect(),
                    since: now(),
                });
            }
            FromAgent::Log { dropped, .. } if *dropped > 0 => {
                self.dropped_lines = self.dropped_lines.saturating_add(*dropped);
            }
            _ => return false,
        }
        true
    }
}

impl From<WorkloadExit> for ExitRecord {
    fn from(exit: WorkloadExit) -> ExitRecord {
        match exit {
            WorkloadExit::Code(code) => ExitRecord::Code(code),
            WorkloadExit::Signal(signal) => ExitRecord::Signal(signal),
        }
    }
}

impl From<WorkloadHealth> for HealthState {
    fn from(health: WorkloadHealth) -> HealthState {
        match health {
            WorkloadHealth::Starting => HealthState::Starting,
            WorkloadHealth::Healthy => HealthState::Healthy,
            WorkloadHealth::Unhealthy => HealthState::Unhealthy,
        }
    }
}

impl std::fmt::Display for ExitRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ExitRecord::Code(code) => write!(f, "exit code {code}"),
            ExitRecord::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

impl std::fmt::Display for HealthState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            HealthState::Starting => "starting",
            HealthState::Healthy => "healthy",
            HealthState::Unhealthy => "unhealthy",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_an_agent_reports_is_kept_without_what_steers_a_terminal() {
        let mut record = WorkloadRecord::default();
        assert!(!record.note(&FromAgent::Alive));
        assert!(record.is_empty());
        let dropped = FromAgent::Log {
            dropped: u64::MAX,
            lines: Vec::new(),
        };
        for message in [
            FromAgent::Restarted {
                exit: WorkloadExit::Signal(9),
                count: 2,
            },
            FromAgent::Health {
                state: WorkloadHealth::Unhealthy,
                detail: format!("\x1b[2Jno{}", "x".repeat(1000)),
            },
            dropped.clone(),
            dropped,
        ] {
            assert!(record.note(&message));
        }
        let mut shown = serde_json::to_value(&record).unwrap();
        let detail = shown["health"]["detail"].take();
        assert_eq!(detail.as_str().unwrap().len(), 500);
        assert!(detail.as_str().unwrap().starts_with("[2Jnoxx"));
        shown["health"] = shown["health"]["state"].take();
        let expected = json!({
            "restarts": 2, "last_exit": { "signal": 9 }, "health": "unhealthy", "dropped_lines": u64::MAX,
        });
        assert_eq!(shown, expected);
    }
}
