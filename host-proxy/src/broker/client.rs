//! The broker's other end: what a CI job, a developer's machine or a kubelet asks with.

use super::project::Project;
use super::provider::is_registry_host;
use super::question::{Answer, Question};
use crate::https::{Https, HttpsError, ServiceUrl};
use bytes::Bytes;
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
        let unreachable = |source| AskError::Unreachable { url: url.as_str().to_owned(), source };
        let request =
            hyper::Request::get(format!("{}/registry/credentials?{}", url.as_str(), question.query()))
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
        let Failed { error: Problem { message } } =
            serde_json::from_slice(&answer.body).map_err(|_| unreadable())?;
        let id = answer.headers.get("x-request-id").and_then(|id| id.to_str().ok());
        let id = id.map(|id| format!(" (in its log as {id})")).unwrap_or_default();
        let message = format!("{message}{id}").chars().filter(|c| !c.is_control()).take(300).collect();
        Err(AskError::Refused { status: answer.status.as_u16(), message })
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
