//! One request and its response, bounded in time and size.

use crate::error::PullError;
use crate::secret::Secret;
use crate::transport::{CONNECT_TIMEOUT, Endpoint, Http, Reach, connect};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::http::request::Builder;
use hyper::{Request, Response, Uri};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::timeout;

/// How long a registry may take to begin an answer, or to go on with one.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a manifest, a config or a token may take as a whole.
const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// The two ways to reach servers.
#[derive(Debug)]
pub(super) struct Clients {
    /// For the registry and its token service, which the operator named.
    pub(super) any: Http,
    /// For redirects: connects to no local address.
    pub(super) outward: Http,
    /// Hosts that may be reached without TLS.
    pub(super) plain_http: BTreeSet<String>,
}

impl Clients {
    pub(super) fn new(endpoint: &Endpoint) -> Result<Clients, PullError> {
        Ok(Clients {
            any: connect(endpoint, Reach::Everywhere)?,
            outward: connect(endpoint, Reach::Outward)?,
            plain_http: endpoint.plain_http.clone(),
        })
    }
}

/// What is asked of the registry, below `/v2/<repository>/`.
pub(crate) struct Get<'a> {
    pub(crate) path: String,
    pub(crate) accept: &'a [&'static str],
    /// First byte wanted; above 0 it becomes a Range request.
    pub(crate) offset: u64,
}

impl Get<'_> {
    /// Only blobs may be elsewhere.
    pub(super) fn is_blob(&self) -> bool {
        self.path.starts_with("blobs/")
    }

    pub(super) fn request(
        &self,
        uri: &Uri,
        authorization: Option<&Secret>,
    ) -> Result<Request<Full<Bytes>>, PullError> {
        let mut request = Request::get(uri);
        for accept in self.accept {
            request = request.header(header::ACCEPT, *accept);
        }
        if self.offset > 0 {
            request = request.header(header::RANGE, format!("bytes={}-", self.offset));
        }
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, sensitive(authorization)?);
        }
        finish(request, Full::default())
    }
}

pub(super) fn finish(
    request: Builder,
    body: Full<Bytes>,
) -> Result<Request<Full<Bytes>>, PullError> {
    request
        .body(body)
        .map_err(|e| PullError::invalid("the request", e))
}

/// A header value that no log shows.
pub(super) fn sensitive(secret: &Secret) -> Result<HeaderValue, PullError> {
    let mut value = HeaderValue::from_str(secret.expose()).map_err(|_| {
        PullError::Credentials("they have characters that a header cannot carry".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Sends a request and waits for the head of the response.
pub(super) async fn exchange(
    http: &Http,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, PullError> {
    let authority = request.uri().authority();
    let host = authority.map(ToString::to_string).unwrap_or_default();
    let limit = CONNECT_TIMEOUT + ANSWER_TIMEOUT;
    match timeout(limit, http.request(request)).await {
        Err(_) => Err(PullError::Timeout {
            host,
            seconds: limit.as_secs(),
        }),
        Ok(Err(error)) => Err(PullError::Unreachable {
            host,
            reason: innermost(&error),
        }),
        Ok(Ok(response)) => Ok(response),
    }
}

/// The next piece of a body; `None` at its end.
pub(crate) async fn next_chunk(
    host: &str,
    body: &mut Incoming,
) -> Result<Option<Bytes>, PullError> {
    let host = || host.to_owned();
    loop {
        let frame = timeout(ANSWER_TIMEOUT, body.frame()).await;
        let frame = frame.map_err(|_| PullError::Timeout {
            host: host(),
            seconds: ANSWER_TIMEOUT.as_secs(),
        })?;
        match frame {
            None => return Ok(None),
            Some(Err(error)) => {
                return Err(PullError::Unreachable {
                    host: host(),
                    reason: innermost(&error),
                });
            }
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// A small document from `host`, of at most `limit` bytes, within a minute.
pub(crate) async fn read_bounded(
    host: &str,
    response: Response<Incoming>,
    limit: usize,
    what: &str,
) -> Result<Vec<u8>, PullError> {
    let reading = timeout(DOCUMENT_TIMEOUT, read_to_end(host, response, limit, what)).await;
    reading.map_err(|_| PullError::Timeout {
        host: host.to_owned(),
        seconds: DOCUMENT_TIMEOUT.as_secs(),
    })?
}

async fn read_to_end(
    host: &str,
    response: Response<Incoming>,
    limit: usize,
    what: &str,
) -> Result<Vec<u8>, PullError> {
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(chunk) = next_chunk(host, &mut body).await? {
        if bytes.len() + chunk.len() > limit {
            return Err(PullError::TooLong {
                what: what.to_owned(),
                limit: limit as u64,
            });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// hyper wraps causes in causes; people want the last one.
fn innermost(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.last().unwrap_or(error).to_string()
}
