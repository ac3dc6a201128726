//! What providers with a JSON API share: one request, and the meaning of its error answers.

use super::error::ProviderError;
use bytes::Bytes;
use explain::printable;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, StatusCode};
use oci::Secret;
use oci::https::{HttpResponse, Https, HttpsError};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::future::Future;
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;
use zeroize::Zeroizing;

const TIMEOUT: Duration = Duration::from_secs(15);
/// The longest token or password file, in bytes.
const MAX_SECRET: u64 = 64 * 1024;
/// Deleting expired credentials must not delay the caller, whose own are issued already; what is
/// left is deleted with the next request.
const DELETE_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_DELETED: usize = 10;
/// How long to wait if a service does not specify it.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(60);
/// The longest wait that is taken from a service, in seconds.
const MAX_RETRY_AFTER: u64 = 3600;

/// A service's API, as one of its users.
#[derive(Debug)]
pub(super) struct RestApi<'a> {
    pub(super) https: &'a Https,
    /// Its name, for messages.
    pub(super) service: &'static str,
    /// Comes before the path of each request.
    pub(super) base: String,
    pub(super) authorization: (HeaderName, HeaderValue),
}

impl RestApi<'_> {
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ProviderError> {
        self.read(&self.send(Method::GET, path, None).await?)
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<T, ProviderError> {
        self.read(&self.send(Method::POST, path, Some(body)).await?)
    }

    pub(super) async fn delete(&self, path: &str) -> Result<(), ProviderError> {
        self.send(Method::DELETE, path, None).await.map(drop)
    }

    /// Deletes what `expired` lists, as far as it goes.
    pub(super) async fn delete_expired(
        &self,
        expired: impl Future<Output = Result<Vec<String>, ProviderError>>,
    ) {
        let deleting = async {
            for path in expired.await?.iter().take(MAX_DELETED) {
                match self.delete(path).await {
                    // Another daemon was faster.
                    Ok(()) | Err(ProviderError::NoProject { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        let service = self.service;
        match timeout(DELETE_TIMEOUT, deleting).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(service, %error, "expired credentials could not be deleted");
            }
            Err(_) => {
                tracing::warn!(service, "expired credentials could not be deleted in time");
            }
        }
    }

    /// Deletes a credential that the service issued without an expiry: such are not handed out.
    pub(super) async fn revoke(&self, path: &str) -> ProviderError {
        let service = self.service;
        let Err(error) = self.delete(path).await else {
            return ProviderError::unavailable(format!(
                "{service} issued a credential that never expires; it was deleted"
            ));
        };
        tracing::error!(service, path, %error, "a credential that never expires could not be deleted: delete it by hand");
        ProviderError::unavailable(format!(
            "{service} issued a credential that never expires: {path}"
        ))
    }

    /// serde's message could quote a secret: the position is enough.
    fn read<T: DeserializeOwned>(&self, answer: &HttpResponse) -> Result<T, ProviderError> {
        serde_json::from_slice(&answer.body).map_err(|e| {
            let RestApi { service, .. } = self;
            ProviderError::unavailable(format!(
                "{service}'s answer is not what its API promises (line {}, column {})",
                e.line(),
                e.column()
            ))
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<HttpResponse, ProviderError> {
        let RestApi {
            https,
            service,
            base,
            authorization: (name, value),
        } = self;
        let request = Request::builder()
            .method(method)
            .uri(format!("{base}{path}"))
            .header(name, value)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(
                body.map(Value::to_string).unwrap_or_default(),
            )))
            .map_err(|e| ProviderError::denied(format!("{service}: {e}")))?;
        let answer = https
            .send(request, TIMEOUT)
            .await
            .map_err(|error| match error {
                HttpsError::TimedOut(_) => ProviderError::timed_out(format!("{service}: {error}")),
                _ => ProviderError::unavailable(format!("{service}: {error}")),
            })?;
        if answer.status.is_success() {
            Ok(answer)
        } else {
            Err(error_of(service, &answer))
        }
    }
}

/// What an answer without success means.
fn error_of(service: &str, answer: &HttpResponse) -> ProviderError {
    let HttpResponse {
        status,
        headers,
        body,
    } = answer;
    let message = format!("{service} answered {}{}", status.as_u16(), quoted(body));
    match *status {
        StatusCode::NOT_FOUND => ProviderError::NoProject { message },
        StatusCode::TOO_MANY_REQUESTS => {
            let seconds = headers
                .get(RETRY_AFTER)
                .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
            let retry_after = seconds.map_or(DEFAULT_RETRY_AFTER, |seconds| {
                Duration::from_secs(seconds.min(MAX_RETRY_AFTER))
            });
            ProviderError::Throttled {
                message,
                retry_after,
            }
        }
        status if status.is_client_error() => ProviderError::Denied { message },
        _ => ProviderError::Unavailable { message },
    }
}

/// The message in an answer, in the forms that GitLab and Harbor use; nothing of an HTML page.
fn quoted(body: &[u8]) -> String {
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        return String::new();
    };
    let pointers = [
        "/error_description",
        "/message",
        "/error",
        "/errors/0/message",
    ];
    let Some(message) = pointers.iter().find_map(|pointer| value.pointer(pointer)) else {
        return String::new();
    };
    let message = message
        .as_str()
        .map_or_else(|| message.to_string(), str::to_owned);
    format!(": {}", printable(&message))
}

/// Reads a token or password from its file, for each use: a changed one needs no restart.
pub(super) async fn read_secret(path: &Path) -> Result<Secret, ProviderError> {
    let wrong = |problem: &dyn std::fmt::Display| {
        ProviderError::denied(format!("{}: {problem}", path.display()))
    };
    let metadata = tokio::fs::metadata(path).await.map_err(|e| wrong(&e))?;
    if metadata.len() > MAX_SECRET {
        return Err(wrong(&format!("longer than {MAX_SECRET} bytes")));
    }
    let text = tokio::fs::read_to_string(path)
        .await
        .map(Zeroizing::new)
        .map_err(|e| wrong(&e))?;
    match text.trim() {
        "" => Err(wrong(&"empty")),
        secret => Ok(Secret::new(secret)),
    }
}

/// A header value that no log shows.
pub(super) fn sensitive_header(text: &str) -> Result<HeaderValue, ProviderError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        ProviderError::denied("a token or password has characters that a header cannot carry")
    })?;
    value.set_sensitive(true);
    Ok(value)
}
