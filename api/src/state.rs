//! Where an enclave is in its life. What may happen next is the daemon's business.

use crate::{DeployError, Stage};
use serde::{Deserialize, Serialize};

/// The name of a state, as it is shown and stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// The deploy is queued.
    PendingDeploy,
    /// The deploy is under way, in some [`Stage`].
    Deploying,
    /// The enclave runs, and a fresh attestation document matched the build.
    Deployed,
    /// The deploy failed, or the enclave ended; the failure says why.
    Failed,
    /// The termination is queued.
    PendingDestroy,
    /// The enclave is being ended, and its credentials and files are being deleted.
    Destroying,
    /// Nothing of it is left but this record.
    Destroyed,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Status::PendingDeploy => "PENDING_DEPLOY",
            Status::Deploying => "DEPLOYING",
            Status::Deployed => "DEPLOYED",
            Status::Failed => "FAILED",
            Status::PendingDestroy => "PENDING_DESTROY",
            Status::Destroying => "DESTROYING",
            Status::Destroyed => "DESTROYED",
        })
    }
}

/// Where an enclave is in its life. In JSON: `status`, and beside it `stage` or `failure` where the
/// status has one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
#[expect(missing_docs, reason = "each variant is explained at its Status")]
pub enum State {
    PendingDeploy,
    Deploying(Stage),
    Deployed,
    Failed(DeployError),
    PendingDestroy,
    Destroying,
    Destroyed,
}

impl State {
    /// Its name.
    pub fn status(&self) -> Status {
        match self {
            State::PendingDeploy => Status::PendingDeploy,
            State::Deploying(_) => Status::Deploying,
            State::Deployed => Status::Deployed,
            State::Failed(_) => Status::Failed,
            State::PendingDestroy => Status::PendingDestroy,
            State::Destroying => Status::Destroying,
            State::Destroyed => Status::Destroyed,
        }
    }

    /// The stage of a deploy under way.
    pub fn stage(&self) -> Option<Stage> {
        match self {
            State::Deploying(stage) => Some(*stage),
            _ => None,
        }
    }

    /// Why it is FAILED, if it is.
    pub fn failure(&self) -> Option<&DeployError> {
        match self {
            State::Failed(failure) => Some(failure),
            _ => None,
        }
    }

    /// Whether it is DESTROYED or on its way there: it never comes back.
    pub fn is_ending(&self) -> bool {
        matches!(
            self,
            State::PendingDestroy | State::Destroying | State::Destroyed
        )
    }
}

/// A state in JSON.
#[derive(Serialize, Deserialize)]
struct Fields {
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    stage: Option<Stage>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    failure: Option<DeployError>,
}

/// DEPLOYING without a stage, or FAILED without a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("status {0} lacks its stage or failure")]
pub struct IncompleteState(Status);

impl TryFrom<Fields> for State {
    type Error = IncompleteState;
    fn try_from(
        Fields {
            status,
            stage,
            failure,
        }: Fields,
    ) -> Result<State, IncompleteState> {
        Ok(match status {
            Status::PendingDeploy => State::PendingDeploy,
            Status::Deploying => State::Deploying(stage.ok_or(IncompleteState(status))?),
            Status::Deployed => State::Deployed,
            Status::Failed => State::Failed(failure.ok_or(IncompleteState(status))?),
            Status::PendingDestroy => State::PendingDestroy,
            Status::Destroying => State::Destroying,
            Status::Destroyed => State::Destroyed,
        })
    }
}

impl From<State> for Fields {
    fn from(state: State) -> Fields {
        Fields {
            status: state.status(),
            stage: state.stage(),
            failure: state.failure().cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use explain::Code;

    #[test]
    fn a_state_has_what_its_status_needs() {
        let failure = DeployError::new(Code::Internal, "m", "n").at(Stage::Pull);
        for state in [
            State::Deploying(Stage::Pull),
            State::Deployed,
            State::Failed(failure),
        ] {
            let json = serde_json::to_string(&state).unwrap();
            assert_eq!(
                serde_json::from_str::<State>(&json).unwrap(),
                state,
                "{json}"
            );
        }
        let json = serde_json::to_value(State::Deploying(Stage::Pull)).unwrap();
        assert_eq!(
            json,
            serde_json::json!({ "status": "DEPLOYING", "stage": "pull" })
        );
        for status in ["DEPLOYING", "FAILED"] {
            let text = format!(r#"{{"status":"{status}"}}"#);
            let error = serde_json::from_str::<State>(&text)
                .unwrap_err()
                .to_string();
            assert_eq!(error, format!("status {status} lacks its stage or failure"));
        }
    }
}
