//! The broker's client: what a CI job, a developer's machine or a kubelet asks with.

use super::project::Project;
use super::{CredentialRequest, CredentialResponse, UNKNOWN};
use bytes::Bytes;
use explain::{Code, Explain, printable};
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, HeaderValue};
use oci::Secret;
use oci::https::{HttpResponse, Https, HttpsError, ServiceUrl};
use oci::reference::is_registry_host;
use serde::Deserialize;
use std::borrow::Cow;
use std::time::Duration;
use zeroize::Zeroizing;

/// The broker gives its provider 45 seconds.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How much of an error's text is shown, in characters.
const MAX_MESSAGE: usize = 300;

/// Why the broker gave no credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialRequestError {
    /// The token does not fit into a header.
    #[error("the token has characters that a header cannot carry")]
    Token,
    /// No answer: no connection, no TLS, or not in time.
    #[error("{url}: {source}")]
    Unreachable {
        /// The broker's.
        url: String,
        /// What failed.
        source: HttpsError,
    },
    /// The broker answered with an error.
    #[error("the broker answered {status}: {message}")]
    Refused {
        /// Of the HTTP answer.
        status: u16,
        /// The broker's own words, and the request's id in its log; at most 300 characters.
        message: String,
        /// The broker's own advice, at most 300 characters; empty if it gave none.
        next_step: String,
    },
    /// The answer, from this URL, is not that of this API.
    #[error("{0} does not answer like Redoubt's broker")]
    Unreadable(String),
}

/// What rustls's and hyper's messages mean for the caller.
fn unreachable_hint(problem: &str) -> &'static str {
    let hints = [
        (
            "CaUsedAsEndEntity",
            "The broker's certificate is a CA certificate; it needs a certificate with CA:FALSE, signed by its CA.",
        ),
        (
            "InvalidContentType",
            "The server does not speak TLS; http:// is accepted for loopback only.",
        ),
        (
            "invalid HTTP version",
            "The server seems to speak TLS; try https://.",
        ),
        (
            "UnknownIssuer",
            "Name the CA of its certificate with --ca-cert.",
        ),
    ];
    let hint = hints.iter().find(|(sign, _)| problem.contains(sign));
    hint.map_or(
        "Check the broker's URL, and that it is running.",
        |(_, hint)| hint,
    )
}

impl Explain for CredentialRequestError {
    fn code(&self) -> Code {
        match self {
            CredentialRequestError::Token => Code::RequestInvalid,
            CredentialRequestError::Unreachable { .. } => Code::BrokerUnreachable,
            CredentialRequestError::Refused {
                status, message, ..
            } => match status {
                400 => Code::RequestInvalid,
                401 => Code::TokenInvalid,
                404 if is_unknown(message) => Code::ProjectUnknown,
                404 => Code::NotFound,
                429 => Code::RateLimited,
                _ => Code::ProviderUnavailable,
            },
            CredentialRequestError::Unreadable(_) => Code::BrokerUnreachable,
        }
    }

    fn next_step(&self) -> Cow<'_, str> {
        let next_step = match self {
            CredentialRequestError::Token => "Check the token's file.",
            CredentialRequestError::Unreachable { source, .. } => {
                unreachable_hint(&source.to_string())
            }
            CredentialRequestError::Refused {
                status,
                message,
                next_step,
            } => match status {
                400 => "Check the name of the project.",
                401 => self.code().next_step(),
                404 if is_unknown(message) => {
                    "Check the name, and that the token (or a rule of the broker) allows this project."
                }
                404 => "Check the broker's URL: scheme, host and port.",
                429 | 503 | 504 => "Try again in a minute.",
                _ if next_step.is_empty() => "The reason is in the broker's log; ask its operator.",
                _ => next_step,
            },
            CredentialRequestError::Unreadable(_) => "Check the broker's URL.",
        };
        next_step.into()
    }

    fn is_retryable(&self) -> bool {
        matches!(
            self,
            CredentialRequestError::Refused {
                status: 429 | 503 | 504,
                ..
            }
        )
    }
}

/// The broker's own 404, and not that of some other server.
fn is_unknown(message: &str) -> bool {
    message.starts_with(UNKNOWN)
}

/// Asks one broker as one caller.
#[derive(Debug)]
pub struct BrokerClient {
    /// Makes the connections.
    pub https: Https,
    /// The broker's, without a path of the API.
    pub url: ServiceUrl,
    /// The caller's JSON Web Token.
    pub token: Secret,
}

impl BrokerClient {
    /// One request; it takes at most 60 seconds.
    ///
    /// # Errors
    /// The broker does not answer, refuses, or is not Redoubt's.
    pub async fn ask(
        &self,
        request: &CredentialRequest,
    ) -> Result<CredentialResponse, CredentialRequestError> {
        let BrokerClient { https, url, token } = self;
        let unreachable = |source| CredentialRequestError::Unreachable {
            url: url.as_str().to_owned(),
            source,
        };
        let url_of_request = format!("{}/registry/credentials?{}", url.as_str(), request.query());
        let request = hyper::Request::get(url_of_request)
            .header(AUTHORIZATION, bearer(token)?)
            .body(Full::new(Bytes::new()))
            .map_err(|e| unreachable(HttpsError::Failed(e.to_string())))?;
        let answer = https.send(request, TIMEOUT).await.map_err(unreachable)?;
        let unreadable = || CredentialRequestError::Unreadable(url.as_str().to_owned());
        if answer.status.is_success() {
            granted(&answer).ok_or_else(unreadable)
        } else {
            Err(refused(&answer).unwrap_or_else(unreadable))
        }
    }
}

/// The header of RFC 6750, section 2.1, hidden from logs.
fn bearer(token: &Secret) -> Result<HeaderValue, CredentialRequestError> {
    let bearer = Zeroizing::new(format!("Bearer {}", token.expose()));
    let mut bearer = HeaderValue::from_str(&bearer).map_err(|_| CredentialRequestError::Token)?;
    bearer.set_sensitive(true);
    Ok(bearer)
}

/// `None` for a body that is not this API's.
fn granted(answer: &HttpResponse) -> Option<CredentialResponse> {
    let response: CredentialResponse = serde_json::from_slice(&answer.body).ok()?;
    // They go into docker's configuration and onto a terminal.
    let is_plain = is_registry_host(&response.credentials.registry_url)
        && Project::parse(&response.repository).is_ok();
    is_plain.then_some(response)
}

/// `None` for a body that is not this API's.
fn refused(answer: &HttpResponse) -> Option<CredentialRequestError> {
    let RefusalBody { error } = serde_json::from_slice(&answer.body).ok()?;
    let id = answer
        .headers
        .get("x-request-id")
        .and_then(|id| id.to_str().ok());
    let id = id
        .map(|id| format!(" (in its log as {id})"))
        .unwrap_or_default();
    let shown = |text: &str| printable(text).chars().take(MAX_MESSAGE).collect();
    Some(CredentialRequestError::Refused {
        status: answer.status.as_u16(),
        message: shown(&format!("{}{id}", error.message)),
        next_step: shown(&error.next_step),
    })
}

/// The body of an error, as brokers of all versions write it.
#[derive(Deserialize)]
struct RefusalBody {
    error: RefusalFields,
}

#[derive(Deserialize)]
struct RefusalFields {
    message: String,
    #[serde(default)]
    next_step: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> HttpResponse {
        let mut headers = hyper::HeaderMap::new();
        headers.insert("x-request-id", HeaderValue::from_static("0a"));
        HttpResponse {
            status: hyper::StatusCode::from_u16(status).unwrap(),
            headers,
            body: Zeroizing::new(body.as_bytes().to_vec()),
        }
    }

    #[test]
    fn an_error_is_read_with_and_without_advice_and_cannot_steer_a_terminal() {
        let long = "x".repeat(400);
        for (body, message, next_step) in [
            (r#"{"error":{"message":"no"}}"#, "no (in its log as 0a)", ""),
            (
                r#"{"error":{"code":"NEW","message":"no\u001b[2J","next_step":"Wait.\n"}}"#,
                "no[2J (in its log as 0a)",
                "Wait.",
            ),
            (
                &format!(r#"{{"error":{{"message":"{long}","next_step":"{long}"}}}}"#),
                &long[..300],
                &long[..300],
            ),
        ] {
            let expected = CredentialRequestError::Refused {
                status: 502,
                message: message.to_owned(),
                next_step: next_step.to_owned(),
            };
            assert_eq!(refused(&answer(502, body)), Some(expected), "{body}");
        }
        for foreign in ["", "<html>", "{}", r#"{"message":"no"}"#] {
            assert_eq!(refused(&answer(404, foreign)), None, "{foreign}");
        }
    }

    #[test]
    fn what_the_broker_does_not_know_is_told_apart_from_a_wrong_url() {
        let code = |message: &str| {
            let body = format!(r#"{{"error":{{"message":"{message}"}}}}"#);
            refused(&answer(404, &body)).unwrap().code()
        };
        assert_eq!(code(UNKNOWN), Code::ProjectUnknown);
        assert_eq!(code("no such page"), Code::NotFound);
    }
}
