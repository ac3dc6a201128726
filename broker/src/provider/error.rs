//! Why a provider issued no credentials.

use api::credentials::project::ProjectError;
use explain::{Code, Explain};
use std::borrow::Cow;
use std::time::Duration;

/// Why there are no credentials for a project. Messages quote the registry's own service: they
/// belong into the operator's log, not into an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// The name is no project of this provider.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// The service has no such project.
    #[error("{message}")]
    NoProject {
        /// The service's answer.
        message: String,
    },
    /// The service refuses, or the daemon's configuration is wrong: asking again does not help.
    #[error("{message}")]
    Denied {
        /// The service's answer, or what is wrong.
        message: String,
    },
    /// The service received too many requests.
    #[error("{message}")]
    Throttled {
        /// The service's answer.
        message: String,
        /// How long to wait.
        retry_after: Duration,
    },
    /// The service did not answer in time.
    #[error("{message}")]
    TimedOut {
        /// Which request, and how long it was waited for.
        message: String,
    },
    /// The service is out of order, or its answer cannot be used. It may work later.
    #[error("{message}")]
    Unavailable {
        /// What it answered, or why it did not.
        message: String,
    },
    /// What the service issued had expired already.
    #[error("the registry's service issued an expired token")]
    IssuedExpired,
}

impl ProviderError {
    pub(crate) fn denied(message: impl Into<String>) -> ProviderError {
        let message = message.into();
        ProviderError::Denied { message }
    }

    pub(crate) fn timed_out(message: impl Into<String>) -> ProviderError {
        let message = message.into();
        ProviderError::TimedOut { message }
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> ProviderError {
        let message = message.into();
        ProviderError::Unavailable { message }
    }
}

impl Explain for ProviderError {
    fn code(&self) -> Code {
        match self {
            ProviderError::Project(_) | ProviderError::NoProject { .. } => Code::ProjectUnknown,
            ProviderError::Denied { .. } => Code::ProviderRefused,
            ProviderError::Throttled { .. } => Code::RateLimited,
            ProviderError::TimedOut { .. }
            | ProviderError::Unavailable { .. }
            | ProviderError::IssuedExpired => Code::ProviderUnavailable,
        }
    }

    fn next_step(&self) -> Cow<'_, str> {
        match self {
            ProviderError::Project(_) | ProviderError::NoProject { .. } => {
                "Check the project's name, and that the registry has this project."
            }
            ProviderError::IssuedExpired => {
                "Check this machine's clock, and that of the registry's service."
            }
            _ => self.code().next_step(),
        }
        .into()
    }

    fn is_retryable(&self) -> bool {
        match self {
            ProviderError::Project(_)
            | ProviderError::NoProject { .. }
            | ProviderError::Denied { .. } => false,
            ProviderError::Throttled { .. }
            | ProviderError::TimedOut { .. }
            | ProviderError::Unavailable { .. }
            | ProviderError::IssuedExpired => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_its_code_and_only_passing_ones_are_retryable() {
        let throttled = ProviderError::Throttled {
            message: String::new(),
            retry_after: Duration::from_secs(1),
        };
        let no_project = ProviderError::NoProject {
            message: String::new(),
        };
        for (error, code, is_retryable) in [
            (ProjectError::Grammar.into(), Code::ProjectUnknown, false),
            (no_project, Code::ProjectUnknown, false),
            (ProviderError::denied(""), Code::ProviderRefused, false),
            (throttled, Code::RateLimited, true),
            (
                ProviderError::timed_out(""),
                Code::ProviderUnavailable,
                true,
            ),
            (
                ProviderError::unavailable(""),
                Code::ProviderUnavailable,
                true,
            ),
            (
                ProviderError::IssuedExpired,
                Code::ProviderUnavailable,
                true,
            ),
        ] {
            assert_eq!(
                (error.code(), error.is_retryable()),
                (code, is_retryable),
                "{error:?}"
            );
        }
    }
}
