//! HTTP for relying parties, on port 9004: `GET /attestation?nonce=HEX` and `GET /healthz`. Anybody may ask.

use crate::accept;
use crate::nsm::{Nsm, Question};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

const MAX_CONNECTIONS: usize = 32;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) fn serve(nsm: Arc<dyn Nsm>) -> io::Result<()> {
    let listener = accept::vsock(wire::ATTESTATION_PORT)?;
    accept::serve(listener, MAX_CONNECTIONS, move |stream| {
        let nsm = nsm.clone();
        async move {
            let service = service_fn(|request| {
                std::future::ready(Ok::<_, Infallible>(answer(nsm.as_ref(), &request)))
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(stream), service);
            let _ = timeout(CONNECTION_TIMEOUT, connection).await;
        }
    });
    Ok(())
}

fn answer(nsm: &dyn Nsm, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/attestation" => match nonce(request.uri().query()) {
            Err(problem) => text(StatusCode::BAD_REQUEST, problem),
            Ok(nonce) => match nsm.attest(Question {
                nonce,
                public_key: None,
            }) {
                Ok(document) => response(StatusCode::OK, "application/cbor", document.into()),
                Err(problem) => response(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "text/plain",
                    format!("{problem}\n").into(),
                ),
            },
        },
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /attestation?nonce=HEX and /healthz\n",
        ),
    }
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    response(status, "text/plain", Bytes::from_static(body.as_bytes()))
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

fn nonce(query: Option<&str>) -> Result<Option<Vec<u8>>, &'static str> {
    let Some(query) = query else { return Ok(None) };
    let digits = query
        .strip_prefix("nonce=")
        .ok_or("the only parameter is nonce, in hexadecimal digits\n")?;
    let nonce = hex::decode(digits).map_err(|_| "the nonce is not in hexadecimal digits\n")?;
    match nonce.len() <= wire::MAX_NONCE {
        true => Ok(Some(nonce)),
        false => Err("the nonce is longer than 1024 bytes\n"),
    }
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
        for bad in [
            "nonce=0",
            "nonce=zz",
            "x=1",
            "nonce=00&x=1",
            &format!("nonce={}", "00".repeat(1025)),
        ] {
            assert!(nonce(Some(bad)).is_err(), "{bad}");
        }
    }
}
