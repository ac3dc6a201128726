//! What a request does.

use super::orders;
use super::respond::{Answer, Body, bytes, internal, json, no_enclave};
use crate::daemon::{Daemon, Rejected};
use crate::doctor;
use crate::enclave::Handle;
use crate::sealed::CheckedConfig;
use api::{ApiError, CreateEnclave, RedeployEnclave, ReplaceConfig};
use audit::{Actor, AuditAction, AuditEntry};
use explain::Code;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::{Response, StatusCode};
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use zeroize::Zeroizing;

/// The largest request, in bytes: a spec has 256 KiB, a password some thousand.
const MAX_BODY: usize = 1024 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn metrics(daemon: &Daemon) -> Response<Body> {
    let text = daemon.issuer().map(|issuer| issuer.metrics().text());
    let text = text.unwrap_or_else(|| "# EOF\n".to_owned());
    bytes(broker::MEDIA_TYPE, text.into_bytes())
}

pub(super) async fn doctor(daemon: &Arc<Daemon>) -> Answer {
    let context = daemon.context();
    let findings = doctor::examine(&context.config, &context.launchers).await;
    Ok(json(StatusCode::OK, &findings))
}

pub(super) async fn list(daemon: &Daemon) -> Answer {
    Ok(json(StatusCode::OK, &daemon.store().list().await?))
}

/// An enclave that was destroyed is remembered for a while.
pub(super) async fn show(daemon: &Daemon, name: &str) -> Answer {
    if let Some(handle) = daemon.find(name) {
        return Ok(json(StatusCode::OK, &handle.record()));
    }
    let found = daemon.store().find(name.to_owned()).await?;
    let record = found.ok_or_else(|| no_enclave(name))?;
    Ok(json(StatusCode::OK, &record))
}

pub(super) async fn create(daemon: &Arc<Daemon>, by: Actor, body: Incoming) -> Answer {
    let request: CreateEnclave = read(body).await?;
    let (name, image) = (request.name.clone(), request.image.clone());
    let describe = |entry: AuditEntry| entry.enclave(None, Some(&name)).image(&image);
    let creating = daemon.clone();
    let work = async move { Ok(creating.create(request).await?) };
    let record = orders::carry_out(daemon, (AuditAction::Create, by), describe, work).await?;
    Ok(json(StatusCode::CREATED, &record))
}

pub(super) async fn replace_config(
    daemon: &Daemon,
    by: Actor,
    handle: Handle,
    body: Incoming,
) -> Answer {
    let ReplaceConfig { config } = read(body).await?;
    let checked =
        CheckedConfig::check(&handle.record().spec, Some(&config)).map_err(Rejected::from)?;
    let checked = checked.ok_or_else(|| internal(&"a config was provided and is gone"))?;
    let order = |handle: Handle| async move { handle.replace_config(checked).await };
    orders::to_enclave(daemon, (AuditAction::Configure, by), handle, order).await
}

pub(super) async fn redeploy(daemon: &Daemon, by: Actor, handle: Handle, body: Incoming) -> Answer {
    let RedeployEnclave { image, dry_run } = read_or_default(body).await?;
    let record = handle.record();
    let image = image.map(|image| daemon.check_image(&record, &image));
    let image = image.transpose()?;
    let order = |handle: Handle| async move {
        if dry_run {
            handle.dry_run(image).await
        } else {
            handle.redeploy(image).await
        }
    };
    orders::to_enclave(daemon, (AuditAction::Redeploy, by), handle, order).await
}

pub(super) async fn attestation(handle: &Handle, query: &str) -> Answer {
    let nonce = nonce(query)?;
    let status = handle.record().state.status();
    let answer = handle.attestation(nonce.as_deref()).await;
    let answer = answer.ok_or_else(|| ApiError {
        next_step: "Wait until it is DEPLOYED: only a deployed enclave can attest.".to_owned(),
        ..ApiError::new(Code::StateConflict, format!("the enclave is {status}"))
    })?;
    Ok(bytes("application/cbor", answer?))
}

fn nonce(query: &str) -> Result<Option<Vec<u8>>, ApiError> {
    let invalid = |message: &str| ApiError {
        next_step: "Use ?nonce= with up to 2048 hexadecimal digits.".to_owned(),
        ..ApiError::new(Code::RequestInvalid, message)
    };
    if query.is_empty() {
        return Ok(None);
    }
    let digits = query
        .strip_prefix("nonce=")
        .ok_or_else(|| invalid("the only parameter is nonce"))?;
    let nonce = hex::decode(digits)
        .ok()
        .filter(|nonce| nonce.len() <= wire::MAX_NONCE);
    nonce
        .map(Some)
        .ok_or_else(|| invalid("the nonce is not hexadecimal, or too long"))
}

/// A request's JSON.
async fn read<T: DeserializeOwned>(body: Incoming) -> Result<T, ApiError> {
    parse(&receive(body).await?)
}

/// A request's JSON, or what an empty body means.
async fn read_or_default<T: DeserializeOwned + Default>(body: Incoming) -> Result<T, ApiError> {
    let bytes = receive(body).await?;
    if bytes.is_empty() {
        return Ok(T::default());
    }
    parse(&bytes)
}

fn invalid(message: String) -> ApiError {
    ApiError::new(Code::RequestInvalid, message)
}

async fn receive(body: Incoming) -> Result<Zeroizing<Vec<u8>>, ApiError> {
    let collected = timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await;
    let collected = collected.map_err(|_| {
        ApiError::new(
            Code::RequestTimeout,
            "the request did not end within 10 seconds",
        )
    })?;
    let bytes = collected
        .map_err(|e| invalid(e.to_string()))?
        .to_bytes()
        .to_vec();
    Ok(Zeroizing::new(bytes))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // serde's message could quote the password: the place is enough.
    serde_json::from_slice(bytes).map_err(|e| {
        let (line, column) = (e.line(), e.column());
        let kind = kind(&e);
        invalid(format!(
            "the request cannot be read (line {line}, column {column}): {kind}"
        ))
    })
}

fn kind(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        serde_json::error::Category::Data => "a field is unknown, missing or of the wrong type",
        _ => "it is not JSON",
    }
}
