//! Why an enclave is FAILED, in the words of the person who has to act: a code for programs, a
//! message, and the next step.

use crate::Stage;
use explain::{Code, Explain, printable};
use serde::{Deserialize, Serialize};

/// A failure as it is stored in a record and served by the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployError {
    /// What went wrong.
    pub code: Code,
    /// The stage of the deploy in which it happened; `None` if it happened later.
    pub stage: Option<Stage>,
    /// Whether the same deploy may succeed later without any change.
    pub retryable: bool,
    /// One line, at most 2000 characters.
    pub message: String,
    /// What to do about it.
    pub next_step: String,
}

impl DeployError {
    /// Messages quote registries, images and enclaves: control characters are removed, and long
    /// ones are cut.
    pub fn new(code: Code, message: impl AsRef<str>, next_step: impl Into<String>) -> DeployError {
        DeployError {
            code,
            stage: None,
            retryable: false,
            message: printable(message.as_ref()),
            next_step: next_step.into(),
        }
    }

    /// The same failure, worth another attempt.
    #[must_use]
    pub fn retryable(self) -> DeployError {
        DeployError {
            retryable: true,
            ..self
        }
    }

    /// The same failure, of this stage.
    #[must_use]
    pub fn at(self, stage: Stage) -> DeployError {
        DeployError {
            stage: Some(stage),
            ..self
        }
    }

    /// A defect of ours.
    pub fn internal(error: impl std::fmt::Display) -> DeployError {
        let message = format!("this should not happen: {error}");
        DeployError::new(Code::Internal, message, Code::Internal.next_step())
    }
}

impl<E: Explain> From<E> for DeployError {
    fn from(error: E) -> DeployError {
        let stored = DeployError::new(error.code(), error.to_string(), error.next_step());
        DeployError {
            retryable: error.is_retryable(),
            ..stored
        }
    }
}
