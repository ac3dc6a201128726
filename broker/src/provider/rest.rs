//! What providers with a JSON API share: one request, and what its refusals mean.

use super::ProviderError;
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

const TIMEOUT: Duration = Duration::from_secs(15);
/// The longest token or password file, in bytes.
const MAX_SECRET: u64 = 64 * 1024;
/// Deleting what is over must not keep the caller, who has what he asked for; the rest is for the next time.
const TIDY_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_TIDIED: usize = 10;
/// What to wait for if a service does not say, and the most that is believed.
const PAUSE: Duration = Duration::from_secs(60);
const MAX_PAUSE: u64 = 3600;

/// A service's API, spoken to as somebody.
#[derive(Debug)]
pub(super) struct Rest<'a> {
    pub(super) https: &'a Https,
    /// Its name, for messages.
    pub(super) service: &'static str,
    pub(super) base: String,
    pub(super) authorization: (HeaderName, HeaderValue),
}

impl Rest<'_> {
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

    /// Deletes what is over, as far as it goes.
    pub(super) async fn tidy(
        &self,
        over: impl Future<Output = Result<Vec<String>, ProviderError>>,
    ) {
        let deleting = async {
            for path in over.await?.iter().take(MAX_TIDIED) {
                match self.delete(path).await {
                    // Somebody else was faster.
                    Ok(()) | Err(ProviderError::NoProject(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        match timeout(TIDY_TIMEOUT, deleting).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(service = self.service, %error, "credentials that are over stay in its list")
            }
            Err(_) => tracing::warn!(
                service = self.service,
                "credentials that are over stay in its list: it is slow"
            ),
        }
    }

    /// What never ends is not given out.
    pub(super) async fn take_back(&self, path: &str) -> ProviderError {
        let service = self.service;
        match self.delete(path).await {
            Ok(()) => ProviderError::Unavailable(format!(
                "{service} made a credential that never expires; it was deleted"
            )),
            Err(error) => {
                tracing::error!(service, path, %error, "a credential that never expires could not be deleted: delete it by hand");
                ProviderError::Unavailable(format!(
                    "{service} made a credential that never expires: {path}"
                ))
            }
        }
    }

    /// serde's message could quote a secret: the place is enough.
    fn read<T: DeserializeOwned>(&self, answer: &HttpResponse) -> Result<T, ProviderError> {
        serde_json::from_slice(&answer.body).map_err(|e| {
            let Rest { service, .. } = self;
            ProviderError::Unavailable(format!(
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
        let Rest {
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
            .map_err(|e| ProviderError::Denied(format!("{service}: {e}")))?;
        let answer = https
            .send(request, TIMEOUT)
            .await
            .map_err(|error| match error {
                HttpsError::TimedOut(_) => ProviderError::TimedOut(format!("{service}: {error}")),
                _ => ProviderError::Unavailable(format!("{service}: {error}")),
            })?;
        match answer.status.is_success() {
            true => Ok(answer),
            false => Err(refusal(service, &answer)),
        }
    }
}

fn refusal(service: &str, answer: &HttpResponse) -> ProviderError {
    let HttpResponse {
        status,
        headers,
        body,
    } = answer;
    let message = format!("{service} answers {}{}", status.as_u16(), said(body));
    match *status {
        StatusCode::NOT_FOUND => ProviderError::NoProject(message),
        StatusCode::TOO_MANY_REQUESTS => {
            let seconds = headers
                .get(RETRY_AFTER)
                .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
            let retry_after =
                seconds.map_or(PAUSE, |seconds| Duration::from_secs(seconds.min(MAX_PAUSE)));
            ProviderError::Throttled {
                message,
                retry_after,
            }
        }
        status if status.is_client_error() => ProviderError::Denied(message),
        _ => ProviderError::Unavailable(message),
    }
}

/// The service's own words, in the shapes that GitLab and Harbor use; nothing of a page of HTML.
fn said(body: &[u8]) -> String {
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        return String::new();
    };
    let places = [
        "/error_description",
        "/message",
        "/error",
        "/errors/0/message",
    ];
    let Some(words) = places.iter().find_map(|place| value.pointer(place)) else {
        return String::new();
    };
    let words = words
        .as_str()
        .map_or_else(|| words.to_string(), str::to_owned);
    format!(": {}", printable(&words))
}

/// A token or password from its file, as it is now: who changes it need not restart anything.
pub(super) async fn secret(path: &Path) -> Result<Secret, ProviderError> {
    let wrong = |problem: &dyn std::fmt::Display| {
        ProviderError::Denied(format!("{}: {problem}", path.display()))
    };
    let len = tokio::fs::metadata(path)
        .await
        .map_err(|e| wrong(&e))?
        .len();
    if len > MAX_SECRET {
        return Err(wrong(&format!("longer than {MAX_SECRET} bytes")));
    }
    let text = zeroize::Zeroizing::new(
        tokio::fs::read_to_string(path)
            .await
            .map_err(|e| wrong(&e))?,
    );
    match text.trim() {
        "" => Err(wrong(&"empty")),
        secret => Ok(Secret::new(secret)),
    }
}

/// A header value that no log shows.
pub(super) fn sensitive(text: &str) -> Result<HeaderValue, ProviderError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        ProviderError::Denied("a token or password has letters that no header can carry".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(value)
}
