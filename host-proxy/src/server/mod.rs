//! HTTP/1.1 and JSON on a unix socket. Who may connect is decided by the socket's owner and mode; who did what is in the audit log.
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/enclaves` | 201 and the record; the deploy is queued |
//! | `GET /v1/enclaves` | all records |
//! | `GET /v1/enclaves/{id or name}` | one record |
//! | `DELETE /v1/enclaves/{…}` | 202 and the record; the enclave is being destroyed |
//! | `POST /v1/enclaves/{…}/redeploy` | 202 and the record; `{"image": "…", "dry_run": true}`, both optional |
//! | `POST /v1/enclaves/{…}/rollback` | 202 and the record; what was attested before comes back |
//! | `PUT /v1/enclaves/{…}/config` | 202 and the record; `{"config": "<base64>"}` replaces the sealed config |
//! | `GET /v1/enclaves/{…}/events` | JSON lines: what happened, and with `?follow` what happens |
//! | `GET /v1/enclaves/{…}/logs` | JSON lines: the workload's output, with `?follow` as it comes |
//! | `GET /v1/enclaves/{…}/attestation?nonce=HEX` | a fresh document, application/cbor |
//! | `GET /v1/doctor` | what this machine needs to run enclaves, and whether it has it |
//! | `GET /healthz` | `ok` |
//! | `DELETE /v1/registry/credentials` | 204; issued credentials are not given out again |
//! | `GET /metrics` | the credential broker's counters, for Prometheus |
//!
//! Errors are `{"error":{"code","message","next_step"}}` with a fitting status (`docs/errors.md`).
//!
//! `routes` finds the handler, `handlers` do what is asked, `orders` writes to the audit log who ordered it, `stream` goes on for as long as the client listens, `respond` writes answers.

mod handlers;
mod orders;
mod respond;
mod routes;
mod stream;

use crate::daemon::Daemon;
use audit::Actor;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};
use wire::io::Overflow;

const MAX_CONNECTIONS: usize = 128;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Binds the socket, for the owner and its group. A socket on which nothing listens any more is replaced.
///
/// # Errors
/// A daemon listens there already, or the directory cannot be written.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Serves until the future is dropped.
pub async fn serve(listener: UnixListener, daemon: Arc<Daemon>) {
    let handle = move |stream| converse(stream, daemon.clone());
    wire::io::serve(listener, MAX_CONNECTIONS, Overflow::Wait, handle).await;
}

async fn converse(stream: UnixStream, daemon: Arc<Daemon>) {
    let peer = stream.peer_cred().ok();
    let service = service_fn(|request| {
        let daemon = daemon.clone();
        async move { Ok::<_, Infallible>(answer(&daemon, peer, request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "an API connection ended");
    }
}

/// Whatever changes something is a line of the journal too; `orders` writes the audit log.
async fn answer(
    daemon: &Arc<Daemon>,
    peer: Option<UCred>,
    request: Request<Incoming>,
) -> Response<respond::Body> {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let (uid, pid) = (
        peer.map(|peer| peer.uid()),
        peer.and_then(|peer| peer.pid()),
    );
    let answer = routes::dispatch(daemon, request, Actor::process(uid, pid)).await;
    let response = answer.unwrap_or_else(|error| respond::error(&error));
    if method != Method::GET {
        let status = response.status().as_u16();
        tracing::info!(target: "audit", uid, pid, %method, path, status, "API");
    }
    response
}
