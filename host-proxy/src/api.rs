//! HTTP/1.1 and JSON on a unix socket. Who may connect is decided by the socket's owner and mode; who did what is in the audit log.
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/enclaves` | 201 and the record; the deploy is queued |
//! | `GET /v1/enclaves` | all records |
//! | `GET /v1/enclaves/{id or name}` | one record |
//! | `DELETE /v1/enclaves/{…}` | 202 and the record; the enclave is being destroyed |
//! | `POST /v1/enclaves/{…}/redeploy` | 202 and the record |
//! | `PUT /v1/enclaves/{…}/config` | 202 and the record; `{"config": "<base64>"}` replaces the sealed config |
//! | `GET /v1/enclaves/{…}/events` | JSON lines: what happened, and with `?follow` what happens |
//! | `GET /v1/enclaves/{…}/logs` | the workload's output, with `?follow` as it comes |
//! | `GET /v1/enclaves/{…}/attestation?nonce=HEX` | a fresh document, application/cbor |
//! | `GET /healthz` | `ok` |
//! | `DELETE /v1/registry/credentials` | 204; credentials that were issued are not given out again |
//! | `GET /metrics` | what the credential broker counts, for Prometheus |
//!
//! Errors are `{"error":{"message","hint"}}` with a fitting status.

use crate::broker;
use crate::daemon::{Create, CreateError, Daemon, check_config};
use crate::enclave::{Handle, OrderError};
use crate::lifecycle::Status;
use crate::record::{EnclaveEvent, Record};
use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::net::unix::UCred;
use tokio::sync::{Semaphore, broadcast};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use wire::spec::Spec;
use zeroize::Zeroizing;

/// The largest request, in bytes: a spec has 256 KiB, a password some thousand.
const MAX_BODY: usize = 1024 * 1024;
const MAX_CONNECTIONS: usize = 128;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);
const STREAM_QUEUE: usize = 16;

type Body = BoxBody<Bytes, Infallible>;

/// Binds the socket, for the owner and its group. A socket that nobody listens on any more is replaced.
pub fn bind(path: &Path) -> std::io::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(std::io::ErrorKind::AddrInUse.into());
    }
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Serves until the task is dropped.
pub async fn serve(listener: UnixListener, daemon: Arc<Daemon>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            sleep(PAUSE_AFTER_ERROR).await;
            continue;
        };
        let peer = stream.peer_cred().ok();
        let daemon = daemon.clone();
        connections.spawn(async move {
            let service = service_fn(|request| {
                let daemon = daemon.clone();
                async move { Ok::<_, Infallible>(route(&daemon, peer, request).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an API connection ended");
            }
            drop(slot);
        });
    }
}

/// An error as it goes out.
struct Problem {
    status: StatusCode,
    message: String,
    hint: String,
}

impl Problem {
    fn new(status: StatusCode, message: impl Into<String>, hint: impl Into<String>) -> Problem {
        Problem {
            status,
            message: message.into(),
            hint: hint.into(),
        }
    }
}

async fn route(
    daemon: &Arc<Daemon>,
    peer: Option<UCred>,
    request: Request<Incoming>,
) -> Response<Body> {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let answer = dispatch(daemon, request).await;
    let response = answer.unwrap_or_else(
        |Problem {
             status,
             message,
             hint,
         }| {
            json(
                status,
                &serde_json::json!({ "error": { "message": message, "hint": hint } }),
            )
        },
    );
    if method != Method::GET {
        let (uid, pid) = (
            peer.map(|peer| peer.uid()),
            peer.and_then(|peer| peer.pid()),
        );
        tracing::info!(target: "audit", uid, pid, %method, path, status = response.status().as_u16(), "API");
    }
    response
}

async fn dispatch(
    daemon: &Arc<Daemon>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let find = |name: &str| {
        let missing = || {
            Problem::new(
                StatusCode::NOT_FOUND,
                format!("there is no enclave '{}'", shown(name)),
                "see 'enclavectl list'",
            )
        };
        daemon.find(name).ok_or_else(missing)
    };
    match (request.method(), parts.as_slice()) {
        (&Method::GET, ["healthz"]) => Ok(text("ok\n")),
        (&Method::GET, ["metrics"]) => {
            let text = daemon
                .issuer()
                .map(|issuer| issuer.metrics().text())
                .unwrap_or_else(|| "# EOF\n".to_owned());
            Ok(response(
                StatusCode::OK,
                broker::MEDIA_TYPE,
                Full::new(Bytes::from(text)).boxed(),
            ))
        }
        (&Method::GET, ["v1", "enclaves"]) => {
            let list = daemon.list().await.map_err(|e| internal(&e))?;
            Ok(json(StatusCode::OK, &list))
        }
        (&Method::POST, ["v1", "enclaves"]) => create(daemon, request.into_body()).await,
        (&Method::GET, ["v1", "enclaves", name]) => match daemon.find(name) {
            Some(handle) => Ok(json(StatusCode::OK, &handle.record())),
            None => stored(daemon, name).await,
        },
        (&Method::DELETE, ["v1", "enclaves", name]) => accepted(find(name)?.destroy().await),
        (&Method::POST, ["v1", "enclaves", name, "redeploy"]) => {
            accepted(find(name)?.redeploy().await)
        }
        (&Method::PUT, ["v1", "enclaves", name, "config"]) => {
            configure(&find(name)?, request.into_body()).await
        }
        (&Method::GET, ["v1", "enclaves", name, "events"]) => {
            events(daemon, find(name)?, query == "follow").await
        }
        (&Method::GET, ["v1", "enclaves", name, "logs"]) => {
            Ok(logs(&find(name)?, query == "follow"))
        }
        (&Method::GET, ["v1", "enclaves", name, "attestation"]) => {
            attestation(&find(name)?, &query).await
        }
        (&Method::DELETE, ["v1", "registry", "credentials"]) => {
            let issuer = daemon.issuer().ok_or_else(|| {
                Problem::new(
                    StatusCode::NOT_FOUND,
                    "the daemon has no [registry], and so no credentials to forget",
                    "look at its configuration with 'host-proxy check-config'",
                )
            })?;
            issuer.forget();
            Ok(response(
                StatusCode::NO_CONTENT,
                "text/plain",
                Full::default().boxed(),
            ))
        }
        (
            _,
            ["v1", "registry", "credentials"] | ["healthz" | "metrics"] | ["v1", "enclaves", ..],
        ) => Err(Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "this is not done with that method",
            "see the API's documentation",
        )),
        _ => Err(Problem::new(
            StatusCode::NOT_FOUND,
            "there is nothing here",
            "see the API's documentation",
        )),
    }
}

fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(100).collect()
}

fn internal(error: &dyn std::fmt::Display) -> Problem {
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        error.to_string(),
        "look at the daemon's journal",
    )
}

/// An order in JSON.
async fn read<T: DeserializeOwned>(body: Incoming) -> Result<T, Problem> {
    let bad = |message: String| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            message,
            "see the API's documentation",
        )
    };
    let collected = timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await;
    let collected = collected.map_err(|_| {
        Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "the request did not end",
            "send it whole",
        )
    })?;
    let bytes = Zeroizing::new(
        collected
            .map_err(|e| bad(e.to_string()))?
            .to_bytes()
            .to_vec(),
    );
    // serde's message could quote the password: the place is enough.
    serde_json::from_slice(&bytes).map_err(|e| {
        bad(format!(
            "the order cannot be read (line {}, column {}): {}",
            e.line(),
            e.column(),
            kind(&e)
        ))
    })
}

/// `PUT …/config`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Configure {
    config: String,
}

async fn configure(handle: &Handle, body: Incoming) -> Result<Response<Body>, Problem> {
    let Configure { config } = read(body).await?;
    let manifest = Spec::parse(&handle.record().spec).map_err(|e| internal(&e))?;
    let checked = check_config(&manifest, Some(&config)).map_err(|error| match error {
        CreateError::Invalid(message, hint) => Problem::new(StatusCode::BAD_REQUEST, message, hint),
        other => internal(&other),
    })?;
    let incoming = checked.ok_or_else(|| internal(&"a config was given and is gone"))?;
    accepted(handle.configure(incoming).await)
}

async fn create(daemon: &Arc<Daemon>, body: Incoming) -> Result<Response<Body>, Problem> {
    let order: Create = read(body).await?;
    // A task of its own: a caller that hangs up must not leave half of an enclave behind.
    let creating = daemon.clone();
    let created = tokio::spawn(async move { creating.create(order).await }).await;
    let record = created.map_err(|e| internal(&e))?.map_err(|error| {
        let message = error.to_string();
        match error {
            CreateError::Invalid(_, hint) => Problem::new(StatusCode::BAD_REQUEST, message, hint),
            CreateError::NameTaken(_) => Problem::new(
                StatusCode::CONFLICT,
                message,
                "choose another name, or terminate that enclave first",
            ),
            CreateError::Secret(_) => Problem::new(
                StatusCode::BAD_GATEWAY,
                message,
                "check that the daemon may create secrets",
            ),
            CreateError::Store(_) | CreateError::Config(_) => internal(&message),
        }
    })?;
    Ok(json(StatusCode::CREATED, &record))
}

fn kind(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        serde_json::error::Category::Data => "a field is unknown, missing or of the wrong type",
        _ => "it is not JSON",
    }
}

/// An enclave that was destroyed is remembered for a while.
async fn stored(daemon: &Daemon, name: &str) -> Result<Response<Body>, Problem> {
    let found = daemon
        .store()
        .find(name.to_owned())
        .await
        .map_err(|e| internal(&e))?;
    let missing = || {
        Problem::new(
            StatusCode::NOT_FOUND,
            format!("there is no enclave '{}'", shown(name)),
            "see 'enclavectl list'",
        )
    };
    found
        .map(|record| json(StatusCode::OK, &record))
        .ok_or_else(missing)
}

fn accepted(result: Result<Record, OrderError>) -> Result<Response<Body>, Problem> {
    match result {
        Ok(record) => Ok(json(StatusCode::ACCEPTED, &record)),
        Err(OrderError::Refused(refused)) => Err(Problem::new(
            StatusCode::CONFLICT,
            refused.to_string(),
            "wait until it has settled; 'enclavectl events --follow' shows when",
        )),
        Err(error @ (OrderError::Store(_) | OrderError::Config(_))) => Err(internal(&error)),
        Err(OrderError::Stopping) => Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the daemon is stopping, or the enclave is gone",
            "try again",
        )),
    }
}

async fn attestation(handle: &Handle, query: &str) -> Result<Response<Body>, Problem> {
    let bad = |message| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            message,
            "use ?nonce= and up to 2048 hexadecimal digits",
        )
    };
    let nonce = match query {
        "" => None,
        other => {
            let digits = other
                .strip_prefix("nonce=")
                .ok_or_else(|| bad("the only parameter is nonce"))?;
            Some(
                hex::decode(digits)
                    .ok()
                    .filter(|nonce| nonce.len() <= wire::MAX_NONCE)
                    .ok_or_else(|| bad("the nonce is not hexadecimal, or too long"))?,
            )
        }
    };
    let status = handle.record().status;
    let answer = handle.attestation(nonce.as_deref()).await;
    let answer = answer.ok_or_else(|| {
        Problem::new(
            StatusCode::CONFLICT,
            format!("the enclave is {status}"),
            "only a deployed enclave can attest",
        )
    })?;
    let document = answer.map_err(|e| {
        Problem::new(
            StatusCode::BAD_GATEWAY,
            e.to_string(),
            "see 'enclavectl show'",
        )
    })?;
    Ok(response(
        StatusCode::OK,
        "application/cbor",
        Full::new(Bytes::from(document)).boxed(),
    ))
}

async fn events(daemon: &Daemon, handle: Handle, follow: bool) -> Result<Response<Body>, Problem> {
    // Subscribed before the stored ones are read, so that none is missed in between; one may come twice.
    let live = handle.events();
    let record = handle.record();
    let past = daemon
        .store()
        .events(record.id.clone())
        .await
        .map_err(|e| internal(&e))?;
    let ended = record.status == Status::Destroyed;
    let (sender, body) = Channel::<Bytes, Infallible>::new(STREAM_QUEUE);
    tokio::spawn(stream_events(
        sender,
        past,
        (follow && !ended).then_some(live),
    ));
    Ok(response(
        StatusCode::OK,
        "application/x-ndjson",
        body.boxed(),
    ))
}

async fn stream_events(
    mut sender: Sender<Bytes, Infallible>,
    past: Vec<EnclaveEvent>,
    live: Option<broadcast::Receiver<EnclaveEvent>>,
) {
    let line = |event: &EnclaveEvent| {
        let mut json = serde_json::to_vec(event).unwrap_or_default();
        json.push(b'\n');
        Bytes::from(json)
    };
    for event in &past {
        if sender.send_data(line(event)).await.is_err() {
            return;
        }
    }
    let Some(mut live) = live else { return };
    let last = past.last().cloned();
    loop {
        match live.recv().await {
            Ok(event) if Some(&event) == last.as_ref() => {}
            Ok(event) => {
                let end = matches!(
                    event,
                    EnclaveEvent::Status {
                        status: Status::Destroyed,
                        ..
                    }
                );
                if sender.send_data(line(&event)).await.is_err() || end {
                    return;
                }
            }
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

fn logs(handle: &Handle, follow: bool) -> Response<Body> {
    let (past, live) = handle.logs().follow();
    let (mut sender, body) = Channel::<Bytes, Infallible>::new(STREAM_QUEUE);
    tokio::spawn(async move {
        for piece in past {
            if sender.send_data(piece.bytes.into()).await.is_err() {
                return;
            }
        }
        if !follow {
            return;
        }
        let mut live = live;
        loop {
            let bytes = match live.recv().await {
                Ok(piece) => piece.bytes,
                Err(broadcast::error::RecvError::Lagged(n)) => {
                    format!("[{n} pieces of output came too fast]\n").into_bytes()
                }
                Err(broadcast::error::RecvError::Closed) => return,
            };
            if sender.send_data(bytes.into()).await.is_err() {
                return;
            }
        }
    });
    response(StatusCode::OK, "application/octet-stream", body.boxed())
}

fn text(body: &'static str) -> Response<Body> {
    response(
        StatusCode::OK,
        "text/plain",
        Full::new(Bytes::from_static(body.as_bytes())).boxed(),
    )
}

fn json(status: StatusCode, value: &impl serde::Serialize) -> Response<Body> {
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    response(
        status,
        "application/json",
        Full::new(Bytes::from(bytes)).boxed(),
    )
}

fn response(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
