//! Why the enclave gives up: a kind that the host has a next step for, and words for a person.

use wire::control::AbortReason;

#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub(crate) struct Fatal {
    pub(crate) failure: AbortReason,
    pub(crate) detail: String,
}

impl Fatal {
    pub(crate) fn new(failure: AbortReason, detail: impl Into<String>) -> Fatal {
        Fatal {
            failure,
            detail: detail.into(),
        }
    }

    /// For `map_err`: what was being done, and the error that ended it.
    pub(crate) fn of<E: std::fmt::Display>(
        failure: AbortReason,
        doing: impl std::fmt::Display,
    ) -> impl FnOnce(E) -> Fatal {
        move |error| Fatal::new(failure, format!("{doing}: {error}"))
    }
}
