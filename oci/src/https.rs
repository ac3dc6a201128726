//! Requests to services of the operator's that are not AWS: a key set, GitLab, Harbor, and the broker for its own clients.
//! Bounded in time and size, no redirects, and TLS everywhere but on loopback.

use crate::{Endpoint, Http};
use bytes::Bytes;
use explain::chain;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{HeaderMap, Request, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;
use zeroize::Zeroizing;

/// The longest answer that is read, in bytes.
const MAX_BODY: usize = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpsError {
    #[error("{0} is not an https:// address without query; http:// is for loopback only")]
    Address(String),
    #[error("the authority in {path}: {problem}")]
    Authority { path: String, problem: String },
    #[error("no answer within {} seconds", .0.as_secs())]
    TimedOut(Duration),
    #[error("{0}")]
    Failed(String),
}

/// Where a service is: `https://host[:port][/path]`, or `http://` on loopback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceUrl(String);

impl ServiceUrl {
    pub fn parse(text: &str) -> Result<ServiceUrl, HttpsError> {
        // A password before the host would not belong into a message.
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
        match carried && plain {
            true => Ok(ServiceUrl(text.trim_end_matches('/').to_owned())),
            false => Err(wrong()),
        }
    }

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

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// It may hold a secret.
    pub body: Zeroizing<Vec<u8>>,
}

#[derive(Debug, Clone)]
pub struct Https(Http);

impl Https {
    /// Trusts the system's authorities, and those in a PEM file; an empty path is none.
    pub fn new(ca_cert: &Path) -> Result<Https, HttpsError> {
        let wrong = |problem: &dyn std::fmt::Display| HttpsError::Authority {
            path: ca_cert.display().to_string(),
            problem: problem.to_string(),
        };
        let ca_cert = match ca_cert.as_os_str().is_empty() {
            true => None,
            false => Some(std::fs::read(ca_cert).map_err(|e| wrong(&e))?),
        };
        let endpoint = Endpoint {
            ca_cert,
            ..Endpoint::default()
        };
        endpoint.client().map(Https).map_err(|e| wrong(&e))
    }

    pub async fn send(
        &self,
        request: Request<Full<Bytes>>,
        limit: Duration,
    ) -> Result<Answer, HttpsError> {
        let exchange = async {
            let response = self
                .0
                .request(request)
                .await
                .map_err(|e| HttpsError::Failed(chain(&e)))?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, MAX_BODY).collect().await;
            let body =
                body.map_err(|e| HttpsError::Failed(format!("the answer cannot be read: {e}")))?;
            let body = Zeroizing::new(body.to_bytes().to_vec());
            Ok(Answer {
                status: parts.status,
                headers: parts.headers,
                body,
            })
        };
        timeout(limit, exchange)
            .await
            .map_err(|_| HttpsError::TimedOut(limit))?
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
}

impl explain::Explain for HttpsError {
    fn code(&self) -> explain::Code {
        explain::Code::ConfigurationInvalid
    }
}
