//! The broker's other end: what a CI job, a developer's machine or a kubelet asks with.

use super::project::Project;
use super::{CredentialRequest, CredentialResponse, UNKNOWN};
use bytes::Bytes;
use explain::{Code, Explain};
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, HeaderValue};
use oci::Secret;
use oci::https::{Https, HttpsError, ServiceUrl};
use oci::reference::is_registry_host;
use serde::Deserialize;
use std::borrow::Cow;
use std::time::Duration;
use zeroize::Zeroizing;

/// The broker itself gives its provider three quarters of a minute.
const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    #[error("the token has characters that a header cannot carry")]
    Token,
    #[error("{url}: {source}")]
    Unreachable { url: String, source: HttpsError },
    #[error("the broker answers {status}: {message}")]
    Refused { status: u16, message: String },
    #[error("{0} does not answer like Redoubt's broker")]
    Unreadable(String),
}

/// rustls and hyper say what they saw; what it means is another matter.
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

impl Explain for AskError {
    fn code(&self) -> Code {
        match self {
            AskError::Token => Code::RequestInvalid,
            AskError::Unreachable { .. } => Code::BrokerUnreachable,
            AskError::Refused { status: 400, .. } => Code::RequestInvalid,
            AskError::Refused { status: 401, .. } => Code::TokenInvalid,
            AskError::Refused {
                status: 404,
                message,
            } if is_unknown(message) => Code::ProjectUnknown,
            AskError::Refused { status: 404, .. } => Code::NotFound,
            AskError::Refused { status: 429, .. } => Code::RateLimited,
            AskError::Refused { .. } => Code::ProviderUnavailable,
            AskError::Unreadable(_) => Code::BrokerUnreachable,
        }
    }

    fn next_step(&self) -> Cow<'_, str> {
        match self {
            AskError::Token => "Check the token's file.",
            AskError::Unreachable { source, .. } => unreachable_hint(&source.to_string()),
            AskError::Refused { status: 400, .. } => "Check the name of the project.",
            AskError::Refused {
                status: 404,
                message,
            } if is_unknown(message) => {
                "Check the name, and that the token (or a rule of the broker) allows this project."
            }
            AskError::Refused { status: 404, .. } => {
                "Check the broker's URL: scheme, host and port."
            }
            AskError::Refused {
                status: 429 | 503 | 504,
                ..
            } => "Try again in a minute.",
            AskError::Refused { status: 401, .. } => self.code().next_step(),
            AskError::Refused { .. } => "The reason is in the broker's log; ask its operator.",
            AskError::Unreadable(_) => "Check the broker's URL.",
        }
        .into()
    }

    fn is_retryable(&self) -> bool {
        matches!(
            self,
            AskError::Refused {
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
    pub https: Https,
    pub url: ServiceUrl,
    pub token: Secret,
}

impl BrokerClient {
    pub async fn ask(&self, question: &CredentialRequest) -> Result<CredentialResponse, AskError> {
        let BrokerClient { https, url, token } = self;
        let bearer = Zeroizing::new(format!("Bearer {}", token.expose()));
        let mut bearer = HeaderValue::from_str(&bearer).map_err(|_| AskError::Token)?;
        bearer.set_sensitive(true);
        let unreachable = |source| AskError::Unreachable {
            url: url.as_str().to_owned(),
            source,
        };
        let request = hyper::Request::get(format!(
            "{}/registry/credentials?{}",
            url.as_str(),
            question.query()
        ))
        .header(AUTHORIZATION, bearer)
        .body(Full::new(Bytes::new()))
        .map_err(|e| unreachable(HttpsError::Failed(e.to_string())))?;
        let answer = https.send(request, TIMEOUT).await.map_err(unreachable)?;
        let unreadable = || AskError::Unreadable(url.as_str().to_owned());
        if answer.status.is_success() {
            let answer: CredentialResponse =
                serde_json::from_slice(&answer.body).map_err(|_| unreadable())?;
            // They go into docker's configuration and onto a terminal.
            let plain = is_registry_host(&answer.credentials.registry_url)
                && Project::parse(&answer.repository).is_ok();
            return plain.then_some(answer).ok_or_else(unreadable);
        }
        let Failed {
            error: Problem { message },
        } = serde_json::from_slice(&answer.body).map_err(|_| unreadable())?;
        let id = answer
            .headers
            .get("x-request-id")
            .and_then(|id| id.to_str().ok());
        let id = id
            .map(|id| format!(" (in its log as {id})"))
            .unwrap_or_default();
        let message = format!("{message}{id}")
            .chars()
            .filter(|c| !c.is_control())
            .take(300)
            .collect();
        Err(AskError::Refused {
            status: answer.status.as_u16(),
            message,
        })
    }
}

#[derive(Deserialize)]
struct Failed {
    error: Problem,
}

#[derive(Deserialize)]
struct Problem {
    message: String,
}
