//! How the broker refuses a request: status, code, message and next step.

use crate::limits::MINUTE;
use crate::provider::ProviderError;
use api::credentials::{ParseRequestError, UNKNOWN};
use audit::AuditError;
use explain::{Code, Explain};
use hyper::StatusCode;
use std::borrow::Cow;
use std::time::Duration;

/// Why a request is refused, as the caller may know it. What the registry's service answered stays
/// in the log, under the request's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CredentialError {
    #[error("there is nothing at this path; ask for /registry/credentials?project=NAME")]
    NoSuchPath,
    #[error("only GET is allowed here")]
    WrongMethod,
    #[error(transparent)]
    Query(#[from] ParseRequestError),
    #[error("a valid token is required")]
    Unauthorized,
    #[error("tokens cannot be checked now")]
    KeysUnavailable,
    /// One for what does not exist and what belongs to others: callers must not learn which.
    #[error("{UNKNOWN}")]
    UnknownProject,
    #[error("too many requests; wait a minute")]
    RateLimited,
    #[error("the registry's service refused to issue credentials")]
    ProviderRefused { id: String },
    #[error("the registry's service received too many requests")]
    ProviderThrottled { retry_after: Duration },
    #[error("the registry's service did not answer in time")]
    ProviderTimedOut,
    #[error("the registry's service is out of order")]
    ProviderUnavailable,
    /// Its paths and sources are the operator's to know: the journal has them.
    #[error("the audit log cannot be written")]
    Audit,
}

impl From<AuditError> for CredentialError {
    fn from(error: AuditError) -> CredentialError {
        tracing::error!(%error, "no credentials are handed out");
        CredentialError::Audit
    }
}

impl CredentialError {
    /// What the caller may know of a provider's error.
    pub(super) fn from_provider(error: &ProviderError, id: &str) -> CredentialError {
        match error {
            ProviderError::Project(_) | ProviderError::NoProject { .. } => {
                CredentialError::UnknownProject
            }
            ProviderError::Denied { .. } => CredentialError::ProviderRefused { id: id.to_owned() },
            ProviderError::Throttled { retry_after, .. } => CredentialError::ProviderThrottled {
                retry_after: *retry_after,
            },
            ProviderError::TimedOut { .. } => CredentialError::ProviderTimedOut,
            ProviderError::Unavailable { .. } | ProviderError::IssuedExpired => {
                CredentialError::ProviderUnavailable
            }
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            CredentialError::Query(_) => StatusCode::BAD_REQUEST,
            CredentialError::Unauthorized => StatusCode::UNAUTHORIZED,
            CredentialError::NoSuchPath | CredentialError::UnknownProject => StatusCode::NOT_FOUND,
            CredentialError::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            CredentialError::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            CredentialError::ProviderRefused { .. } => StatusCode::BAD_GATEWAY,
            CredentialError::KeysUnavailable
            | CredentialError::ProviderThrottled { .. }
            | CredentialError::ProviderUnavailable
            | CredentialError::Audit => StatusCode::SERVICE_UNAVAILABLE,
            CredentialError::ProviderTimedOut => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// For the header `Retry-After`.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            CredentialError::KeysUnavailable
            | CredentialError::RateLimited
            | CredentialError::ProviderUnavailable
            | CredentialError::Audit => Some(MINUTE),
            CredentialError::ProviderThrottled { retry_after } => Some(*retry_after),
            _ => None,
        }
    }
}

impl Explain for CredentialError {
    fn code(&self) -> Code {
        match self {
            CredentialError::NoSuchPath => Code::NotFound,
            CredentialError::WrongMethod => Code::MethodNotAllowed,
            CredentialError::Query(_) => Code::RequestInvalid,
            CredentialError::Unauthorized => Code::TokenInvalid,
            CredentialError::UnknownProject => Code::ProjectUnknown,
            CredentialError::RateLimited => Code::RateLimited,
            CredentialError::ProviderRefused { .. } => Code::ProviderRefused,
            CredentialError::KeysUnavailable
            | CredentialError::ProviderThrottled { .. }
            | CredentialError::ProviderTimedOut
            | CredentialError::ProviderUnavailable => Code::ProviderUnavailable,
            CredentialError::Audit => Code::AuditUnavailable,
        }
    }

    fn next_step(&self) -> Cow<'_, str> {
        match self {
            CredentialError::NoSuchPath => "Check the path.".into(),
            CredentialError::WrongMethod => "Use GET.".into(),
            CredentialError::Query(_) => "Correct the query.".into(),
            CredentialError::ProviderRefused { id } => {
                format!("Ask the broker's operator; its log has the reason under {id}.").into()
            }
            CredentialError::Audit => "Tell the broker's operator, and try again later.".into(),
            _ => self.code().next_step().into(),
        }
    }

    fn is_retryable(&self) -> bool {
        matches!(
            self,
            CredentialError::RateLimited
                | CredentialError::KeysUnavailable
                | CredentialError::ProviderThrottled { .. }
                | CredentialError::ProviderTimedOut
                | CredentialError::ProviderUnavailable
                | CredentialError::Audit
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_its_status() {
        let of = |error| {
            CredentialError::from_provider(&error, "id")
                .status()
                .as_u16()
        };
        let message = String::new;
        let no_project = ProviderError::NoProject { message: message() };
        assert_eq!(of(no_project), 404);
        assert_eq!(of(ProviderError::denied(message())), 502);
        assert_eq!(of(ProviderError::unavailable(message())), 503);
        assert_eq!(of(ProviderError::IssuedExpired), 503);
        assert_eq!(of(ProviderError::timed_out(message())), 504);
        let retry_after = Duration::from_secs(7);
        let throttled = ProviderError::Throttled {
            message: message(),
            retry_after,
        };
        let throttled = CredentialError::from_provider(&throttled, "id");
        assert_eq!(
            (throttled.status().as_u16(), throttled.retry_after()),
            (503, Some(retry_after))
        );
        assert_eq!(CredentialError::Unauthorized.status().as_u16(), 401);
        assert_eq!(CredentialError::RateLimited.status().as_u16(), 429);
        let query = CredentialError::Query(ParseRequestError);
        assert_eq!(query.status().as_u16(), 400);
    }

    #[test]
    fn callers_do_not_hear_what_the_service_answered() {
        let secret = ProviderError::denied("403 words of the service");
        let told = CredentialError::from_provider(&secret, "0a");
        let body = serde_json::to_string(&api::ApiError::from(told).body()).unwrap();
        assert_eq!(
            body,
            r#"{"error":{"code":"PROVIDER_REFUSED","message":"the registry's service refused to issue credentials","next_step":"Ask the broker's operator; its log has the reason under 0a."}}"#
        );
    }
}
