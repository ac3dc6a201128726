//! How the API says no: a status, and `{"error":{"code","message","next_step"}}`.

use explain::{Code, Explain};
use serde::{Deserialize, Serialize};

/// An error of the API, made from any error that implements [`Explain`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// What went wrong; it decides the HTTP status.
    pub code: Code,
    /// One sentence.
    pub message: String,
    /// What to do about it.
    pub next_step: String,
}

impl ApiError {
    /// With the general advice for the code.
    pub fn new(code: Code, message: impl Into<String>) -> ApiError {
        ApiError {
            code,
            message: message.into(),
            next_step: code.next_step().to_owned(),
        }
    }

    /// The body that goes with the status.
    pub fn body(&self) -> ErrorBody {
        let ApiError {
            code,
            message,
            next_step,
        } = self.clone();
        let error = ErrorFields {
            code: code.as_str().to_owned(),
            message,
            next_step,
        };
        ErrorBody { error }
    }
}

impl<E: Explain> From<E> for ApiError {
    fn from(error: E) -> ApiError {
        ApiError {
            code: error.code(),
            message: error.to_string(),
            next_step: error.next_step().into_owned(),
        }
    }
}

/// The JSON of an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    pub(crate) error: ErrorFields,
}

/// A client reads codes that it does not know, so the code is text here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ErrorFields {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) next_step: String,
}
