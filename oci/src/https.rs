//! Requests to services of the operator's that are not AWS: a key set, GitLab, Harbor, and the
//! broker for its own clients. Bounded in time and size, no redirects, and TLS everywhere but on
//! loopback.

use crate::error::PullError;
use crate::transport::{Endpoint, Http, Reach, connect};
use bytes::Bytes;
use explain::{Code, Explain, chain};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{HeaderMap, Request, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::timeout;
use zeroize::Zeroizing;

/// The longest answer that is read, in bytes.
const MAX_BODY: usize = 1 << 20;

/// Why a service gave no response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpsError {
    /// Not a [`ServiceUrl`]. Holds at most 200 characters of the text, and nothing that stood
    /// before an `@`.
    #[error("{0} is not an https:// URL without a query; http:// is for loopback only")]
    Address(String),
    /// The file of CA certificates cannot be used.
    #[error("the CA certificate in {}: {problem}", path.display())]
    Ca {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// No whole response within this time.
    #[error("no answer within {} seconds", .0.as_secs())]
    TimedOut(Duration),
    /// No connection, no TLS, or a response that cannot be read: the error chain.
    #[error("{0}")]
    Failed(String),
}

impl Explain for HttpsError {
    fn code(&self) -> Code {
        match self {
            HttpsError::Address(_) => Code::ConfigurationInvalid,
            HttpsError::Ca { .. } => Code::CaInvalid,
            HttpsError::TimedOut(_) | HttpsError::Failed(_) => Code::ProviderUnavailable,
        }
    }

    fn next_step(&self) -> Cow<'_, str> {
        match self {
            HttpsError::Address(_) => {
                "Write https://HOST[:PORT][/PATH], without a user name, a query or a fragment."
            }
            HttpsError::Ca { .. } => self.code().next_step(),
            HttpsError::TimedOut(_) | HttpsError::Failed(_) => {
                "Check the service's URL, and that it is running."
            }
        }
        .into()
    }

    fn is_retryable(&self) -> bool {
        matches!(self, HttpsError::TimedOut(_) | HttpsError::Failed(_))
    }
}

/// Where a service is: `https://host[:port][/path]`, or `http://` on loopback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceUrl(String);

impl ServiceUrl {
    /// Reads a URL; a slash at its end is dropped.
    ///
    /// # Errors
    /// [`HttpsError::Address`]: another scheme, plain HTTP beyond loopback, a user name, a query or
    /// a fragment.
    pub fn parse(text: &str) -> Result<ServiceUrl, HttpsError> {
        // A password before the host must not get into a message.
        let wrong = || {
            HttpsError::Address(
                text.rsplit('@')
                    .next()
                    .unwrap_or(text)
                    .chars()
                    .take(200)
                    .collect(),
            )
        };
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let host = uri.host().ok_or_else(wrong)?;
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let on_loopback =
            name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let carried = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => on_loopback,
            _ => false,
        };
        let plain = uri.query().is_none() && !text.contains(['@', '#']);
        if carried && plain {
            Ok(ServiceUrl(text.trim_end_matches('/').to_owned()))
        } else {
            Err(wrong())
        }
    }

    /// The URL, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Host, and port if there is one.
    pub fn authority(&self) -> &str {
        let rest = self
            .0
            .split_once("://")
            .map_or(self.0.as_str(), |(_, rest)| rest);
        rest.split('/').next().unwrap_or(rest)
    }
}

impl TryFrom<String> for ServiceUrl {
    type Error = HttpsError;
    fn try_from(text: String) -> Result<Self, HttpsError> {
        ServiceUrl::parse(&text)
    }
}

impl From<ServiceUrl> for String {
    fn from(url: ServiceUrl) -> String {
        url.0
    }
}

/// What a service answered, whatever its status.
#[derive(Debug)]
pub struct HttpResponse {
    /// Not only successes: the caller judges.
    pub status: StatusCode,
    /// All headers.
    pub headers: HeaderMap,
    /// At most 1 MiB. It may hold a secret, and is wiped when dropped.
    pub body: Zeroizing<Vec<u8>>,
}

/// A client for services of the operator's. A clone shares its connections.
#[derive(Debug, Clone)]
pub struct Https(Http);

impl Https {
    /// Trusts the system's CAs and those in a PEM file; an empty path is none. Blocks: it reads
    /// both from the disk.
    ///
    /// # Errors
    /// [`HttpsError::Ca`]: the file cannot be read, or holds something that is not a certificate.
    pub fn new(ca_cert: &Path) -> Result<Https, HttpsError> {
        let wrong = |problem: &dyn std::fmt::Display| HttpsError::Ca {
            path: ca_cert.to_owned(),
            problem: problem.to_string(),
        };
        let pem = if ca_cert.as_os_str().is_empty() {
            None
        } else {
            Some(std::fs::read(ca_cert).map_err(|e| wrong(&e))?)
        };
        let endpoint = Endpoint {
            ca_cert: pem,
            ..Endpoint::default()
        };
        let http = connect(&endpoint, Reach::Everywhere).map_err(|error| match error {
            PullError::Ca(problem) => wrong(&problem),
            other => wrong(&other),
        })?;
        Ok(Https(http))
    }

    /// Sends a request and reads the response, both within `limit`. Any status is a response;
    /// redirects are not followed. Cancel-safe for the client; the service may have acted on the
    /// request.
    ///
    /// # Errors
    /// [`HttpsError::TimedOut`] after `limit`. [`HttpsError::Failed`]: no connection, no TLS, or a
    /// body longer than 1 MiB.
    pub async fn send(
        &self,
        request: Request<Full<Bytes>>,
        limit: Duration,
    ) -> Result<HttpResponse, HttpsError> {
        timeout(limit, self.exchange(request))
            .await
            .map_err(|_| HttpsError::TimedOut(limit))?
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<HttpResponse, HttpsError> {
        let response = self.0.request(request).await;
        let response = response.map_err(|e| HttpsError::Failed(chain(&e)))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await;
        let body =
            body.map_err(|e| HttpsError::Failed(format!("the answer cannot be read: {e}")))?;
        Ok(HttpResponse {
            status: parts.status,
            headers: parts.headers,
            body: Zeroizing::new(body.to_bytes().to_vec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_the_machine_without_tls() {
        for good in [
            "https://h",
            "https://h:8443/gitlab",
            "http://127.0.0.1:1",
            "http://localhost/x",
            "http://[::1]:80",
        ] {
            assert!(ServiceUrl::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "http://h",
            "http://127.0.0.1.evil.example",
            "http://10.0.0.1",
            "ftp://h",
            "h",
            "",
            "https://u:p@h",
            "https://h?x",
            "https://h#x",
        ] {
            assert!(ServiceUrl::parse(bad).is_err(), "{bad}");
        }
        let url = ServiceUrl::parse("https://h:8443/gitlab/").unwrap();
        assert_eq!(
            (url.as_str(), url.authority()),
            ("https://h:8443/gitlab", "h:8443")
        );
    }

    #[test]
    fn a_wrong_url_or_ca_is_the_configurations_fault_and_silence_may_pass() {
        use explain::Exit;
        let ca = Https::new(Path::new("/no/such/file.pem")).unwrap_err();
        assert!(
            ca.to_string()
                .starts_with("the CA certificate in /no/such/file.pem: ")
        );
        for (error, exit, is_retryable) in [
            (
                ServiceUrl::parse("http://h").unwrap_err(),
                Exit::Config,
                false,
            ),
            (ca, Exit::Config, false),
            (
                HttpsError::TimedOut(Duration::from_secs(5)),
                Exit::Unavailable,
                true,
            ),
            (HttpsError::Failed("x".to_owned()), Exit::Unavailable, true),
        ] {
            let found = (error.class().exit(), error.is_retryable());
            assert_eq!(found, (exit, is_retryable), "{error}");
            assert!(error.next_step().ends_with('.'), "{error}");
        }
        let secret = ServiceUrl::parse("https://u:hunter2@h").unwrap_err();
        assert!(!secret.to_string().contains("hunter2"));
    }
}
