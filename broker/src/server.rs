//! `GET /registry/credentials?project=NAME[&action=pull]` with `Authorization: Bearer TOKEN`, and `GET /healthz`. In place of the project
//! the name of an image can be given: `?image=HOST/PATH`, which is how a kubelet asks.
//!
//! | status | when |
//! |---|---|
//! | 200 | `{"credentials":{"registry_url","username","password","expires_in"},"repository"}`; `expires_in` is seconds, or null |
//! | 400 | the question is no question |
//! | 401 | the token is missing or not taken |
//! | 404 | there is no such project, or it is not this caller's: nobody learns which |
//! | 429 | too many questions |
//! | 502 | the registry's service refused: its operator must look |
//! | 503, 504 | it is busy or out of order, or did not answer in time; or tokens cannot be checked now |
//!
//! Every answer has the question's id in `x-request-id`, and the audit log has it too.

use super::BrokerConfig;
use super::issuer::Issuer;
use super::keys::KeyError;
use super::limits::{MINUTE, Pace, Peers};
use super::provider::{Issued, ProviderError};
use super::tls::{Tls, TlsError};
use super::token::{TokenError, Tokens};
use api::credentials::project::Project;
use api::credentials::{
    CredentialRequest, CredentialResponse, GrantedCredentials, UNKNOWN, Wanted,
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use oci::https::Https;
use oci::{Reference, Secret};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

const MAX_CONNECTIONS: usize = 1024;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than a provider may take.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(75);
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);
const MAX_HEADERS: usize = 16 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("broker.listen is set, and there is no [registry]")]
    NoRegistry,
    #[error("[registry]: {0}")]
    Registry(ProviderError),
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error(
        "{0} is no loopback address: credentials would go over the network in the clear; set broker.tls_cert and broker.tls_key"
    )]
    Plain(SocketAddr),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("cannot listen on {address}: {problem}")]
    Listen {
        address: SocketAddr,
        problem: std::io::Error,
    },
    #[error("broker.rate_per_minute is 0: nobody could ask")]
    Rate,
}

/// The listener, and what it answers with.
#[derive(Debug)]
pub struct Broker {
    listener: TcpListener,
    tls: Option<Tls>,
    desk: Arc<Desk>,
}

#[derive(Debug)]
struct Desk {
    tokens: Tokens,
    issuer: Arc<Issuer>,
    pace: Pace,
}

impl Broker {
    /// Whether it could start with this configuration, as far as can be told without listening.
    pub async fn check(
        config: &BrokerConfig,
        has_registry: bool,
        https: &Https,
    ) -> Result<(), StartError> {
        match config.listen {
            Some(address) => prepare(config, address, has_registry, https)
                .await
                .map(drop),
            None => Ok(()),
        }
    }

    /// `None` if nobody asked for one.
    pub async fn start(
        config: &BrokerConfig,
        issuer: Option<Arc<Issuer>>,
        https: &Https,
    ) -> Result<Option<Broker>, StartError> {
        let Some(address) = config.listen else {
            return Ok(None);
        };
        let (tokens, tls) = prepare(config, address, issuer.is_some(), https).await?;
        let issuer = issuer.ok_or(StartError::NoRegistry)?;
        let desk = Desk {
            tokens,
            issuer,
            pace: Pace::new(config.rate_per_minute),
        };
        let listener = TcpListener::bind(address)
            .await
            .map_err(|problem| StartError::Listen { address, problem })?;
        Ok(Some(Broker {
            listener,
            tls,
            desk: Arc::new(desk),
        }))
    }

    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the task is dropped.
    pub async fn serve(self) {
        let Broker {
            listener,
            mut tls,
            desk,
        } = self;
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let peers = Peers::default();
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let Ok(slot) = slots.clone().acquire_owned().await else {
                return;
            };
            let Ok((stream, peer)) = listener.accept().await else {
                sleep(PAUSE_AFTER_ERROR).await;
                continue;
            };
            // One peer does not take the slots of all; on loopback there may be a proxy that speaks for many.
            let place = peers.enter(peer.ip());
            if place.is_none() && !peer.ip().is_loopback() {
                continue;
            }
            let (desk, acceptor) = (desk.clone(), tls.as_mut().map(Tls::acceptor));
            connections.spawn(async move {
                let (_slot, _place) = (slot, place);
                match acceptor {
                    None => converse(stream, desk).await,
                    Some(acceptor) => {
                        if let Ok(Ok(tls)) =
                            timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await
                        {
                            converse(tls, desk).await;
                        }
                    }
                }
            });
        }
    }
}

/// All that can be wrong before there is a listener.
async fn prepare(
    config: &BrokerConfig,
    address: SocketAddr,
    has_registry: bool,
    https: &Https,
) -> Result<(Tokens, Option<Tls>), StartError> {
    if !has_registry {
        return Err(StartError::NoRegistry);
    }
    if config.rate_per_minute == 0 {
        return Err(StartError::Rate);
    }
    let tls = Tls::open(&config.tls_cert, &config.tls_key)?;
    if tls.is_none() && !address.ip().is_loopback() {
        return Err(StartError::Plain(address));
    }
    Ok((Tokens::new(config, https).await?, tls))
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin + Send, desk: Arc<Desk>) {
    let service = service_fn(|request| {
        let desk = desk.clone();
        async move { Ok::<_, Infallible>(desk.answer(&request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADERS)
        // A job asks once; who stays would hold a place.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let _ = timeout(CONNECTION_TIMEOUT, connection).await;
}

/// What the caller hears if there is nothing to give.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    message: String,
    retry_after: Option<Duration>,
}

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Refusal {
        Refusal {
            status,
            message: message.into(),
            retry_after: None,
        }
    }

    fn later(message: impl Into<String>, retry_after: Duration) -> Refusal {
        Refusal {
            retry_after: Some(retry_after),
            ..Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message)
        }
    }
}

/// What the service said stays in the log: it is the operator's, under this id.
fn explain(error: &ProviderError, id: &str) -> Refusal {
    match error {
        ProviderError::Project(_) | ProviderError::NoProject(_) => {
            Refusal::new(StatusCode::NOT_FOUND, UNKNOWN)
        }
        ProviderError::Denied(_) => Refusal::new(
            StatusCode::BAD_GATEWAY,
            format!("the registry's service refuses; tell the broker's operator: {id}"),
        ),
        ProviderError::Throttled { retry_after, .. } => Refusal::later(
            format!("the registry's service was asked too often; try again: {id}"),
            *retry_after,
        ),
        ProviderError::TimedOut(_) => Refusal::new(
            StatusCode::GATEWAY_TIMEOUT,
            format!("the registry's service did not answer in time; try again: {id}"),
        ),
        ProviderError::Unavailable(_) => Refusal::later(
            format!("the registry's service is out of order; try again: {id}"),
            MINUTE,
        ),
    }
}

/// RFC 6750, 2.1; the scheme's case does not matter (RFC 9110, 11.1).
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

impl Desk {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/healthz") => response(StatusCode::OK, "text/plain", "ok\n"),
            (&Method::GET, "/registry/credentials") => {
                let id = request_id();
                let mut response = match self.credentials(request, &id).await {
                    Ok(body) => response(
                        StatusCode::OK,
                        "application/json",
                        Bytes::copy_from_slice(&body),
                    ),
                    Err(refused) => refusal(&refused),
                };
                self.issuer.metrics().answered(response.status());
                if let Ok(id) = HeaderValue::from_str(&id) {
                    response.headers_mut().insert("x-request-id", id);
                }
                response
            }
            (_, "/registry/credentials" | "/healthz") => refusal(&Refusal::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "this is done with GET",
            )),
            _ => refusal(&Refusal::new(
                StatusCode::NOT_FOUND,
                "there is /registry/credentials?project=NAME",
            )),
        }
    }

    async fn credentials(
        &self,
        request: &Request<Incoming>,
        id: &str,
    ) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        let unauthorized = || Refusal::new(StatusCode::UNAUTHORIZED, "a valid token is needed");
        let header = request
            .headers()
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let token = header.and_then(bearer).ok_or_else(unauthorized)?;
        let caller = self.tokens.caller(token).await.map_err(|why| {
            // The token's own words may be among them.
            let reason = why.to_string().escape_debug().take(200).collect::<String>();
            tracing::info!(target: "audit", id, reason, "a token was refused");
            match why {
                TokenError::NoKeys => Refusal::later("tokens cannot be checked now", MINUTE),
                _ => unauthorized(),
            }
        })?;
        let subject = caller.subject.escape_debug().take(200).collect::<String>();
        // Whoever an issuer of the whole world signs for is nobody here, and counts nowhere.
        if caller.is_nobody() {
            tracing::info!(target: "audit", subject, id, "no project is this caller's");
            return Err(Refusal::new(StatusCode::NOT_FOUND, UNKNOWN));
        }
        if !self.pace.allows(&caller.subject, Instant::now()) {
            tracing::info!(target: "audit", subject, id, "too many questions");
            return Err(Refusal {
                retry_after: Some(MINUTE),
                ..Refusal::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "too many questions; wait a minute",
                )
            });
        }
        let question = CredentialRequest::parse(request.uri().query().unwrap_or_default());
        let CredentialRequest { wanted, action } =
            question.map_err(|none| Refusal::new(StatusCode::BAD_REQUEST, none.to_string()))?;
        let candidates = match &wanted {
            Wanted::Project(name) => Project::parse(name).into_iter().collect(),
            Wanted::Image(name) => match Reference::parse(name) {
                Ok(image) => self.issuer.projects_of(&image),
                Err(_) => Vec::new(),
            },
        };
        let (Wanted::Project(name) | Wanted::Image(name)) = wanted;
        let project = candidates.into_iter().find(|project| caller.may(project)).ok_or_else(|| {
            let name = name.escape_debug().take(300).collect::<String>();
            tracing::info!(target: "audit", subject, id, project = name, "no such project, or not this caller's");
            Refusal::new(StatusCode::NOT_FOUND, UNKNOWN)
        })?;
        let issued = self.issuer.credentials(&project, action).await.map_err(|error| {
            let (project, action) = (project.as_str(), action.as_str());
            tracing::warn!(target: "audit", subject, id, project, action, %error, "no credentials");
            explain(&error, id)
        })?;
        let expires_in = issued.expires_at.map(|at| {
            at.duration_since(SystemTime::now())
                .unwrap_or_default()
                .as_secs()
        });
        let expires_at = issued.ends();
        let action = action.as_str();
        let what = if issued.login.is_some() {
            "credentials issued"
        } else {
            "told where to push"
        };
        tracing::info!(target: "audit", subject, id, project = project.as_str(), action, expires_at, "{what}");
        Ok(body(issued, expires_in, project.as_str()))
    }
}

/// Names a question in the audit log and in what the caller hears of a failure.
fn request_id() -> String {
    let mut bytes = [0; 8];
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    hex::encode(bytes)
}

fn refusal(
    Refusal {
        status,
        message,
        retry_after,
    }: &Refusal,
) -> Response<Full<Bytes>> {
    let body = serde_json::json!({ "error": { "message": message } }).to_string();
    let mut response = response(*status, "application/json", body);
    if *status == StatusCode::UNAUTHORIZED {
        response
            .headers_mut()
            .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(pause) = retry_after {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(pause.as_secs()));
    }
    response
}

fn response(
    status: StatusCode,
    kind: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The answer's JSON. Empty user name and password: users log in at the registry themselves.
fn body(issued: Issued, expires_in: Option<u64>, project: &str) -> Zeroizing<Vec<u8>> {
    let Issued {
        registry_url,
        login,
        expires_at: _,
    } = issued;
    let (username, password) = login.unwrap_or_else(|| (String::new(), Secret::new("")));
    let response = CredentialResponse {
        credentials: GrantedCredentials {
            registry_url,
            username,
            password,
            expires_in,
        },
        repository: project.to_owned(),
    };
    Zeroizing::new(serde_json::to_vec(&response).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_is_bearer() {
        assert_eq!(bearer("Bearer a.b.c"), Some("a.b.c"));
        assert_eq!(bearer("bearer  a "), Some("a"));
        assert!(bearer("Basic a").is_none() && bearer("Bearer").is_none());
    }

    #[test]
    fn each_failure_has_its_status() {
        let of = |error| explain(&error, "id").status.as_u16();
        let text = String::new;
        assert_eq!(of(ProviderError::NoProject(text())), 404);
        assert_eq!(of(ProviderError::Denied(text())), 502);
        assert_eq!(of(ProviderError::Unavailable(text())), 503);
        assert_eq!(of(ProviderError::TimedOut(text())), 504);
        let retry_after = Duration::from_secs(7);
        let throttled = explain(
            &ProviderError::Throttled {
                message: text(),
                retry_after,
            },
            "id",
        );
        assert_eq!(
            (throttled.status.as_u16(), throttled.retry_after),
            (503, Some(retry_after))
        );
    }
}

impl explain::Explain for StartError {
    fn code(&self) -> explain::Code {
        explain::Code::ConfigurationInvalid
    }
}
