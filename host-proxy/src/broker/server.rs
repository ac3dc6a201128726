//! `GET /registry/credentials?project=NAME[&action=pull]` with `Authorization: Bearer TOKEN`, and `GET /healthz`.
//!
//! | status | when |
//! |---|---|
//! | 200 | `{"credentials":{"registry_url","username","password","expires_in"},"repository"}`; `expires_in` is seconds, or null |
//! | 400 | the question is no question |
//! | 401 | the token is missing or not taken |
//! | 404 | there is no such project, or it is not this caller's: nobody learns which |
//! | 429 | too many questions |
//! | 502, 503 | the registry's service refused, or did not answer |

use super::BrokerConfig;
use super::cache::Cache;
use super::project::Project;
use super::provider::{self, Action, Issued, ProviderError, RegistryConfig, RegistryProvider};
use super::token::{KeyError, Tokens};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

const MAX_CONNECTIONS: usize = 1024;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(120);
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);
const MAX_HEADERS: usize = 16 * 1024;
/// Subjects whose pace is remembered.
const MAX_SUBJECTS: usize = 10_000;
const MINUTE: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("broker.listen is set, and there is no [registry]")]
    NoRegistry,
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error(
        "{0} is no loopback address: credentials would go over the network in the clear; set broker.tls_cert and broker.tls_key"
    )]
    Plain(SocketAddr),
    #[error("{path}: {problem}")]
    Tls { path: PathBuf, problem: String },
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
}

/// The listener, and what it answers with.
#[derive(Debug)]
pub struct Broker {
    listener: TcpListener,
    config: BrokerConfig,
    desk: Arc<Desk>,
}

#[derive(Debug)]
struct Desk {
    tokens: Tokens,
    provider: Box<dyn RegistryProvider>,
    cache: Cache,
    pace: Mutex<BTreeMap<String, (Instant, u32)>>,
    rate_per_minute: u32,
}

impl Broker {
    /// `None` if nobody asked for one.
    pub async fn start(
        config: &BrokerConfig,
        registry: Option<&RegistryConfig>,
    ) -> Result<Option<Broker>, StartError> {
        let Some(address) = config.listen else { return Ok(None) };
        let registry = registry.ok_or(StartError::NoRegistry)?;
        if config.tls_cert.as_os_str().is_empty() && !address.ip().is_loopback() {
            return Err(StartError::Plain(address));
        }
        let desk = Desk {
            tokens: Tokens::new(config)?,
            provider: provider::from_config(registry).await,
            cache: Cache::default(),
            pace: Mutex::default(),
            rate_per_minute: config.rate_per_minute,
        };
        acceptor(config)?;
        let listener =
            TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })?;
        Ok(Some(Broker { listener, config: config.clone(), desk: Arc::new(desk) }))
    }

    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the task is dropped. The certificate is read for each connection: a new one needs no restart.
    pub async fn serve(self) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let Ok((stream, _)) = self.listener.accept().await else {
                sleep(PAUSE_AFTER_ERROR).await;
                continue;
            };
            let (desk, acceptor) = (self.desk.clone(), acceptor(&self.config));
            connections.spawn(async move {
                let _slot = slot;
                match acceptor {
                    Ok(None) => converse(stream, desk).await,
                    Ok(Some(acceptor)) => {
                        if let Ok(Ok(tls)) = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                            converse(tls, desk).await;
                        }
                    }
                    Err(error) => tracing::warn!(%error, "the broker's certificate cannot be used"),
                }
            });
        }
    }
}

/// `None` without TLS.
fn acceptor(config: &BrokerConfig) -> Result<Option<TlsAcceptor>, StartError> {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let (cert, key) = (&config.tls_cert, &config.tls_key);
    if cert.as_os_str().is_empty() {
        return Ok(None);
    }
    let wrong = |path: &PathBuf, e: &dyn std::fmt::Display| StartError::Tls {
        path: path.clone(),
        problem: e.to_string(),
    };
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(cert).map_err(|e| wrong(cert, &e))?.collect();
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| wrong(key, &e))?;
    let settings =
        rustls::ServerConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .map_err(|e| wrong(cert, &e))?
            .with_no_client_auth()
            .with_single_cert(chain.map_err(|e| wrong(cert, &e))?, private)
            .map_err(|e| wrong(cert, &e))?;
    Ok(Some(TlsAcceptor::from(Arc::new(settings))))
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
        .serve_connection(TokioIo::new(stream), service);
    let _ = timeout(CONNECTION_TIMEOUT, connection).await;
}

/// What the caller hears if there is nothing to give: a status and a sentence.
struct Refusal(StatusCode, String);

impl Desk {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/healthz") => response(StatusCode::OK, "text/plain", "ok\n".to_owned()),
            (&Method::GET, "/registry/credentials") => match self.credentials(request).await {
                Ok(body) => response(StatusCode::OK, "application/json", body),
                Err(Refusal(status, message)) => refusal(status, &message),
            },
            (_, "/registry/credentials" | "/healthz") => {
                refusal(StatusCode::METHOD_NOT_ALLOWED, "this is done with GET")
            }
            _ => refusal(StatusCode::NOT_FOUND, "there is /registry/credentials?project=NAME"),
        }
    }

    async fn credentials(&self, request: &Request<Incoming>) -> Result<String, Refusal> {
        let unauthorized = || Refusal(StatusCode::UNAUTHORIZED, "a valid token is needed".to_owned());
        let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| value.strip_prefix("Bearer ")).ok_or_else(unauthorized)?;
        let caller = self.tokens.caller(token.trim()).map_err(|why| {
            tracing::info!(target: "audit", %why, "a token was refused");
            unauthorized()
        })?;
        let (subject, id) = (caller.subject.escape_debug().take(200).collect::<String>(), request_id());
        if !self.in_pace(&caller.subject, Instant::now()) {
            return Err(Refusal(
                StatusCode::TOO_MANY_REQUESTS,
                "too many questions; wait a minute".to_owned(),
            ));
        }
        let (name, action) = question(request.uri().query().unwrap_or_default())?;
        let project = Project::parse(&name).ok().filter(|project| caller.may(project)).ok_or_else(|| {
            tracing::info!(target: "audit", subject, id, project = %name.escape_debug(), "no such project, or not this caller's");
            Refusal(StatusCode::NOT_FOUND, "there is no such project".to_owned())
        })?;
        let issued = self.cache.credentials(self.provider.as_ref(), &project, action, SystemTime::now).await;
        let issued = issued.map_err(|error| {
            tracing::warn!(target: "audit", subject, id, project = project.as_str(), ?action, %error, "no credentials");
            match error {
                ProviderError::Project(_) => Refusal(StatusCode::NOT_FOUND, "there is no such project".to_owned()),
                ProviderError::Denied(_) => {
                    Refusal(StatusCode::BAD_GATEWAY, format!("the registry's service refuses; tell its operator: {id}"))
                }
                ProviderError::Unavailable(_) => {
                    Refusal(StatusCode::SERVICE_UNAVAILABLE, format!("the registry's service does not answer; try again: {id}"))
                }
            }
        })?;
        let expires_in =
            issued.expires_at.map(|at| at.duration_since(SystemTime::now()).unwrap_or_default().as_secs());
        tracing::info!(target: "audit", subject, id, project = project.as_str(), ?action, expires_in, "credentials issued");
        Ok(body(&issued, expires_in, &project))
    }

    /// So many questions in a minute, counted from the first.
    fn in_pace(&self, subject: &str, now: Instant) -> bool {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        if pace.len() >= MAX_SUBJECTS {
            pace.retain(|_, (since, _)| now.duration_since(*since) < MINUTE);
        }
        let (since, count) = pace.entry(subject.to_owned()).or_insert((now, 0));
        if now.duration_since(*since) >= MINUTE {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count <= self.rate_per_minute
    }
}

fn question(query: &str) -> Result<(String, Action), Refusal> {
    let bad =
        || Refusal(StatusCode::BAD_REQUEST, "ask for ?project=NAME, and &action=pull or push".to_owned());
    let (mut project, mut action) = (None, None);
    for pair in query.split('&') {
        let earlier = match pair.split_once('=').ok_or_else(bad)? {
            // A project's letters need no escapes but for the slash.
            ("project", name) => project.replace(name.replace("%2F", "/").replace("%2f", "/")).is_some(),
            ("action", "pull") => action.replace(Action::Pull).is_some(),
            ("action", "push") => action.replace(Action::Push).is_some(),
            _ => return Err(bad()),
        };
        if earlier {
            return Err(bad());
        }
    }
    Ok((project.ok_or_else(bad)?, action.unwrap_or_default()))
}

fn body(issued: &Issued, expires_in: Option<u64>, project: &Project) -> String {
    let Issued { registry_url, login, expires_at: _ } = issued;
    let (username, password) =
        login.as_ref().map_or(("", ""), |(user, password)| (user.as_str(), password.expose()));
    serde_json::json!({
        "credentials": { "registry_url": registry_url, "username": username, "password": password, "expires_in": expires_in },
        "repository": project.as_str(),
    })
    .to_string()
}

/// Names a question in the audit log and in what the caller hears of a failure.
fn request_id() -> String {
    let mut bytes = [0; 8];
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    hex::encode(bytes)
}

fn refusal(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    let body = serde_json::json!({ "error": { "message": message } }).to_string();
    let mut response = response(status, "application/json", body);
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("60"));
    }
    response
}

fn response(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_has_one_project_and_one_action() {
        let ask = |query: &str| question(query).map_err(|Refusal(status, _)| status.as_u16());
        assert_eq!(ask("project=my-app"), Ok(("my-app".to_owned(), Action::Push)));
        assert_eq!(ask("action=pull&project=a%2Fb"), Ok(("a/b".to_owned(), Action::Pull)));
        for bad in
            ["", "project", "action=pull", "project=a&project=b", "project=a&action=delete", "project=a&x=1"]
        {
            assert_eq!(ask(bad), Err(400), "{bad}");
        }
    }
}
