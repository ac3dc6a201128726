//! Answers: JSON, text, streams and errors.

use api::ApiError;
use bytes::Bytes;
use explain::{Code, printable};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use std::convert::Infallible;

/// Characters of a foreign name that are quoted.
const MAX_SHOWN: usize = 100;

pub(super) type Body = BoxBody<Bytes, Infallible>;
/// An answer, or why there is none.
pub(super) type Answer = Result<Response<Body>, ApiError>;

pub(super) fn text(body: &'static str) -> Response<Body> {
    let body = Full::new(Bytes::from_static(body.as_bytes()));
    response(StatusCode::OK, "text/plain", body.boxed())
}

pub(super) fn json(status: StatusCode, value: &impl serde::Serialize) -> Response<Body> {
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    response(
        status,
        "application/json",
        Full::new(Bytes::from(bytes)).boxed(),
    )
}

pub(super) fn bytes(kind: &'static str, bytes: Vec<u8>) -> Response<Body> {
    response(StatusCode::OK, kind, Full::new(Bytes::from(bytes)).boxed())
}

pub(super) fn empty(status: StatusCode) -> Response<Body> {
    response(status, "text/plain", Full::default().boxed())
}

pub(super) fn error(error: &ApiError) -> Response<Body> {
    let status = StatusCode::from_u16(error.code.http_status());
    json(
        status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        &error.body(),
    )
}

pub(super) fn response(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

pub(super) fn no_enclave(name: &str) -> ApiError {
    ApiError::new(
        Code::EnclaveNotFound,
        format!("there is no enclave '{}'", shown(name)),
    )
}

pub(super) fn internal(error: &dyn std::fmt::Display) -> ApiError {
    ApiError::new(Code::Internal, error.to_string())
}

/// Foreign text, short and on one line.
pub(super) fn shown(name: &str) -> String {
    printable(name).chars().take(MAX_SHOWN).collect()
}
