//! Answers that are no success: what the registry said, without what it must not repeat, and which
//! error that is.

use super::exchange::read_bounded;
use super::retry::{MAX_RETRY_AFTER, Outcome};
use super::target::Target;
use crate::auth::{self, Challenge};
use crate::error::PullError;
use crate::secret::{Credentials, Secret, basic};
use explain::Explain as _;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap};
use hyper::{Response, StatusCode};
use serde::Deserialize;
use std::time::Duration;

/// The longest error body that is read, in bytes.
const MAX_ERROR: usize = 16 * 1024;
/// What of it goes into an error, in characters.
const MAX_REASON: usize = 300;

/// A request that brought neither a success nor a redirect.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) error: PullError,
    /// What the registry said; empty where there was no response.
    pub(super) reason: String,
    /// The login that the registry asks for.
    pub(super) challenge: Option<Challenge>,
    status: Option<StatusCode>,
    retry_after: Option<Duration>,
}

impl Refusal {
    pub(super) async fn read(response: Response<Incoming>, target: &Target) -> Refusal {
        let challenge = auth::choose(response.headers());
        let retry_after = retry_after(response.headers());
        let status = response.status();
        let reason = read_reason(&target.host, response, target.credentials.as_ref()).await;
        Refusal {
            error: error(target, status, reason.clone()),
            reason,
            challenge,
            status: Some(status),
            retry_after,
        }
    }

    /// There was no response.
    pub(super) fn unanswered(error: PullError) -> Refusal {
        Refusal {
            error,
            reason: String::new(),
            challenge: None,
            status: None,
            retry_after: None,
        }
    }

    pub(super) fn outcome(&self) -> Outcome {
        Outcome {
            status: self.status,
            is_expired: self.reason.contains("expired"),
            is_retryable: self.error.is_retryable(),
            retry_after: self.retry_after,
        }
    }
}

/// The error that a status stands for.
pub(super) fn error(target: &Target, status: StatusCode, reason: String) -> PullError {
    let host = target.host.clone();
    match status.as_u16() {
        404 => PullError::NotFound {
            reference: format!("{host}/{}", target.repository),
            reason,
        },
        401 | 403 if target.credentials.is_some() => PullError::Unauthorized { host, reason },
        401 | 403 => PullError::CredentialsNeeded { host, reason },
        429 => PullError::RateLimited { host, reason },
        status => PullError::Status {
            host,
            status,
            reason,
        },
    }
}

/// What `host` said of its refusal. Where it said nothing, or nothing that can be read, the status.
pub(super) async fn read_reason(
    host: &str,
    response: Response<Incoming>,
    credentials: Option<&Credentials>,
) -> String {
    let status = response.status();
    // That the error cannot be read is no error of its own: the status is known.
    let body = read_bounded(host, response, MAX_ERROR, "an error")
        .await
        .unwrap_or_default();
    let reason = shorten(&without_secrets(message(&body), credentials));
    if reason.trim().is_empty() {
        status.to_string()
    } else {
        reason
    }
}

/// The distribution-spec's form ("Error Codes"), or the text as it came.
fn message(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(Errors { errors }) = serde_json::from_slice(body) else {
        return String::from_utf8_lossy(body).into_owned();
    };
    let each = errors
        .iter()
        .map(|Entry { code, message }| format!("{code}: {message}"));
    each.collect::<Vec<_>>().join("; ")
}

/// A server may repeat what it was sent; that must not come out of an error.
fn without_secrets(text: String, credentials: Option<&Credentials>) -> String {
    let secrets = match credentials {
        Some(Credentials::Password { username, password }) => {
            let basic = basic(username, password);
            let encoded = basic.expose().trim_start_matches("Basic ").to_owned();
            vec![password.clone(), Secret::new(encoded)]
        }
        Some(Credentials::IdentityToken(token)) => vec![token.clone()],
        None => Vec::new(),
    };
    let long_enough = secrets.iter().filter(|secret| secret.expose().len() >= 4);
    long_enough.fold(text, |text, secret| text.replace(secret.expose(), "…"))
}

fn shorten(text: &str) -> String {
    let plain = text.chars().filter(|c| !c.is_control());
    plain.take(MAX_REASON).collect()
}

/// Seconds only; the date form is treated as absent (RFC 9110, 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?;
    let seconds: u64 = value.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_holds_the_registrys_words_and_none_of_our_secrets() {
        let credentials = Credentials::Password {
            username: "alice".to_owned(),
            password: Secret::new("open-sesame"),
        };
        let body = br#"{"errors":[{"code":"DENIED","message":"no open-sesame YWxpY2U6b3Blbi1zZXNhbWU="},{"code":"X"}]}"#;
        assert_eq!(
            without_secrets(message(body), Some(&credentials)),
            "DENIED: no … …; X: "
        );
        assert_eq!(message(b"<html>"), "<html>");
        assert_eq!(shorten("a\r\n\u{1b}[2Jb"), "a[2Jb");
        assert_eq!(shorten(&"x".repeat(301)).len(), MAX_REASON);
    }

    #[test]
    fn a_wait_is_read_in_seconds_and_is_a_minute_at_most() {
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, value.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert_eq!(read("61"), Some(MAX_RETRY_AFTER));
        assert_eq!(read("Fri, 31 Dec 1999 23:59:59 GMT"), None);
    }
}
