//! For relying parties, on vsock port 9004: `GET /attestation?nonce=HEX` and `GET /healthz`. Every
//! client may ask.

use super::http::{self, Response, text};
use super::query;
use crate::bucket::Bucket;
use crate::gates::Findings;
use crate::listen::{self, Paced, Vsock};
use crate::nsm::{Question, Requester};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use std::{fs, io};

/// At a time; more wait in the kernel's queue. Twice what the host lets through from outside, so that
/// its own requests have a place.
const MAX_CONNECTIONS: usize = 64;
/// Each takes a tenth of a millisecond of the agent's one thread (measured with a refusal, its client
/// included): a fiftieth of its time, however many come.
const CONNECTIONS_A_SECOND: u32 = 200;

pub(crate) fn serve(nsm: Requester, findings: Findings) -> io::Result<()> {
    let listener = Vsock::bind(wire::ATTESTATION_PORT)?;
    let bucket = Bucket::new(CONNECTIONS_A_SECOND, CONNECTIONS_A_SECOND);
    let listener = Paced::new(listener, bucket);
    listen::spawn(listener, MAX_CONNECTIONS, move |stream| {
        let (nsm, findings) = (nsm.clone(), findings.clone());
        async move { http::serve(stream, |request| answer(&nsm, &findings, request)).await }
    });
    Ok(())
}

async fn answer(nsm: &Requester, findings: &Findings, request: Request<Incoming>) -> Response {
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is supported\n");
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, format!("ok\n{findings}{}", memory())),
        "/attestation" => attestation(nsm, request.uri().query()).await,
        _ => text(
            StatusCode::NOT_FOUND,
            "not found; try /attestation?nonce=HEX or /healthz\n",
        ),
    }
}

/// What the agent takes of the enclave's memory, as the kernel counts it.
fn memory() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    resident.map_or_else(String::new, |resident| {
        format!("agent: {} in memory\n", resident.trim())
    })
}

async fn attestation(nsm: &Requester, query: Option<&str>) -> Response {
    match query::parse(query, [("nonce", wire::MAX_NONCE)]) {
        Ok([nonce]) => {
            let question = Question {
                nonce,
                ..Question::default()
            };
            http::document(nsm.attest(question).await)
        }
        Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}
