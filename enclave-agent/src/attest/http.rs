//! One HTTP/1.1 request on a connection, and the forms of its answer.

use crate::nsm::{AskError, NsmError, seconds};
use aws_nitro_enclaves_nsm_api::api::ErrorCode;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

pub(super) type Response = hyper::Response<Full<Bytes>>;

const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than a question to the NSM may take.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// Of a request's head, in bytes: three fields of 1024 bytes each, in hexadecimal, and room.
const MAX_HEAD: usize = 16 * 1024;

/// Answers one request, and closes.
pub(super) async fn serve<S, F, A>(stream: S, answer: F)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    F: Fn(Request<Incoming>) -> A,
    A: Future<Output = Response>,
{
    let service = service_fn(|request| {
        let answer = answer(request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .keep_alive(false)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    // How a connection ends concerns the client only.
    timeout(CONNECTION_TIMEOUT, connection).await.ok();
}

pub(super) fn document(asked: Result<Bytes, AskError>) -> Response {
    match asked {
        Ok(document) => response(StatusCode::OK, "application/cbor", document),
        Err(error) => refusal(&error),
    }
}

/// A register that is locked is the one error of the NSM that a client can do something about.
pub(super) fn refusal(error: &AskError) -> Response {
    match error {
        AskError::Busy(wait) => {
            let mut response = text(StatusCode::TOO_MANY_REQUESTS, format!("{error}\n"));
            let wait = HeaderValue::from(seconds(wait));
            response.headers_mut().insert(RETRY_AFTER, wait);
            response
        }
        AskError::Nsm(nsm) if matches!(**nsm, NsmError::Code(ErrorCode::ReadOnlyIndex)) => {
            text(StatusCode::CONFLICT, "the register is locked\n")
        }
        AskError::Nsm(_) | AskError::Timeout => {
            text(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n"))
        }
    }
}

pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Response {
    response(status, "text/plain", body.into())
}

fn response(status: StatusCode, kind: &'static str, body: Bytes) -> Response {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
