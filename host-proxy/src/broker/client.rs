//! The broker's other end: what a CI job, a developer's machine or a kubelet asks with.

use super::project::Project;
use super::provider::is_registry_host;
use super::question::{Answer, Question, UNKNOWN};
use crate::https::{Https, HttpsError, ServiceUrl};
use bytes::Bytes;
use eif_builder::failure::Failure;
use eif_builder::image::Secret;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, HeaderValue};
use serde::Deserialize;
use std::time::Duration;
use zeroize::Zeroizing;

/// The broker itself gives its provider three quarters of a minute.
const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    #[error("the token has letters that no header can carry")]
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
            "the broker's certificate is an authority's own: it needs one with CA:FALSE that its authority signed",
        ),
        (
            "InvalidContentType",
            "nobody speaks TLS there: http:// perhaps, which is for loopback only",
        ),
        (
            "invalid HTTP version",
            "it seems to speak TLS: https:// perhaps",
        ),
        (
            "UnknownIssuer",
            "name the authority of its certificate with --ca-cert",
        ),
    ];
    let hint = hints.iter().find(|(sign, _)| problem.contains(sign));
    hint.map_or(
        "check the broker's address, and that it runs",
        |(_, hint)| hint,
    )
}

/// As a command line says it.
impl From<AskError> for Failure {
    fn from(error: AskError) -> Failure {
        let (code, hint) = match &error {
            AskError::Token => (64, "check the token's file"),
            AskError::Unreachable { source, .. } => (69, unreachable_hint(&source.to_string())),
            AskError::Refused { status: 401, .. } => (
                77,
                "check that the token has not expired, and that it is for this broker (aud, iss)",
            ),
            AskError::Refused {
                status: 404,
                message,
            } if !message.starts_with(UNKNOWN) => {
                (64, "check the broker's address: scheme, host and port")
            }
            AskError::Refused { status: 404, .. } => (
                77,
                "check the name, and that the token (or a rule of the broker's) allows this project",
            ),
            AskError::Refused {
                status: 429 | 503 | 504,
                ..
            } => (69, "try again in a minute"),
            AskError::Refused { status: 400, .. } => (64, "check the name of the project"),
            AskError::Refused { .. } => (69, "its operator finds the reason in the broker's log"),
            AskError::Unreadable(_) => (69, "check the broker's address"),
        };
        Failure::new(code, error, hint)
    }
}

/// Asks one broker as one caller.
#[derive(Debug)]
pub struct BrokerClient {
    pub https: Https,
    pub url: ServiceUrl,
    pub token: Secret,
}

impl BrokerClient {
    pub async fn ask(&self, question: &Question) -> Result<Answer, AskError> {
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
            let answer: Answer = serde_json::from_slice(&answer.body).map_err(|_| unreadable())?;
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
