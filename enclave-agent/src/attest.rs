//! HTTP for relying parties, on port 9004: `GET /attestation?nonce=HEX` and `GET /healthz`. Every
//! client may ask.

use crate::gates::Findings;
use crate::listen::{self, Vsock};
use crate::nsm::{Nsm, Question};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

const MAX_CONNECTIONS: usize = 32;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) fn serve(nsm: Arc<dyn Nsm>, findings: Findings) -> io::Result<()> {
    let listener = Vsock::bind(wire::ATTESTATION_PORT)?;
    listen::spawn(listener, MAX_CONNECTIONS, move |stream| {
        let (nsm, findings) = (nsm.clone(), findings.clone());
        async move {
            let service = service_fn(|request| {
                let answer = answer(nsm.as_ref(), &findings, &request);
                std::future::ready(Ok::<_, Infallible>(answer))
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(stream), service);
            // How a connection ends concerns the client only.
            timeout(CONNECTION_TIMEOUT, connection).await.ok();
        }
    });
    Ok(())
}

fn answer(
    nsm: &dyn Nsm,
    findings: &Findings,
    request: &Request<Incoming>,
) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is supported\n");
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, format!("ok\n{findings}{}", memory())),
        "/attestation" => attestation(nsm, request.uri().query()),
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

fn attestation(nsm: &dyn Nsm, query: Option<&str>) -> Response<Full<Bytes>> {
    let nonce = match nonce(query) {
        Ok(nonce) => nonce,
        Err(error) => return text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    };
    let question = Question {
        nonce,
        public_key: None,
    };
    match nsm.attest(question) {
        Ok(document) => response(StatusCode::OK, "application/cbor", document.into()),
        Err(error) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    response(status, "text/plain", body.into())
}

fn response(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response.headers_mut().insert(
        CACHE_CONTROL,
        hyper::header::HeaderValue::from_static("no-store"),
    );
    response
}

/// Why a query asks for nothing that can be given.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum QueryError {
    #[error("the only parameter is nonce, in hexadecimal digits")]
    UnknownParameter,
    #[error("the nonce is not in hexadecimal digits")]
    NotHexadecimal,
    #[error("the nonce is longer than {limit} bytes", limit = wire::MAX_NONCE)]
    TooLong,
}

fn nonce(query: Option<&str>) -> Result<Option<Vec<u8>>, QueryError> {
    let Some(query) = query else { return Ok(None) };
    let digits = query
        .strip_prefix("nonce=")
        .ok_or(QueryError::UnknownParameter)?;
    let nonce = hex::decode(digits).map_err(|_| QueryError::NotHexadecimal)?;
    if nonce.len() > wire::MAX_NONCE {
        return Err(QueryError::TooLong);
    }
    Ok(Some(nonce))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_hexadecimal_and_bounded() {
        assert_eq!(nonce(None), Ok(None));
        assert_eq!(nonce(Some("nonce=0aFF")), Ok(Some(vec![10, 255])));
        assert_eq!(
            nonce(Some(&format!("nonce={}", "00".repeat(1024)))),
            Ok(Some(vec![0; 1024]))
        );
        let long = format!("nonce={}", "00".repeat(1025));
        for (bad, error) in [
            ("nonce=0", QueryError::NotHexadecimal),
            ("nonce=zz", QueryError::NotHexadecimal),
            ("x=1", QueryError::UnknownParameter),
            ("nonce=00&x=1", QueryError::NotHexadecimal),
            (&long, QueryError::TooLong),
        ] {
            assert_eq!(nonce(Some(bad)), Err(error), "{bad}");
        }
    }
}
