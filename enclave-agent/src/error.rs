//! Why the enclave gives up: a reason that the host has a next step for, and words for a person.

use std::fmt::Display;
use wire::control::AbortReason;

/// Ends the life of the enclave. The host is sent both fields.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub(crate) struct BootError {
    pub(crate) reason: AbortReason,
    pub(crate) detail: String,
}

impl BootError {
    pub(crate) fn new(reason: AbortReason, detail: impl Into<String>) -> BootError {
        BootError {
            reason,
            detail: detail.into(),
        }
    }

    /// For `map_err`: what was being done, and the error that ended it.
    pub(crate) fn of<E: Display>(
        reason: AbortReason,
        doing: impl Display,
    ) -> impl FnOnce(E) -> BootError {
        move |error| BootError::new(reason, format!("{doing}: {error}"))
    }
}
