//! Orders: each is in the audit log before it is carried out, and once more with what became of it.

use super::respond::{Answer, empty, internal, json};
use crate::daemon::Daemon;
use crate::enclave::{Handle, OrderError};
use api::{ApiError, Record};
use audit::{Actor, AuditAction, AuditEntry};
use explain::Code;
use hyper::StatusCode;
use std::future::Future;

/// Writes an order down, carries it out, and writes down how that went.
pub(super) async fn carry_out(
    daemon: &Daemon,
    (action, by): (AuditAction, Actor),
    describe: impl FnOnce(AuditEntry) -> AuditEntry,
    work: impl Future<Output = Result<Record, ApiError>> + Send + 'static,
) -> Result<Record, ApiError> {
    let order = daemon.audit().begin(action, by, describe).await?;
    // A task of its own: a caller that hangs up must leave neither half of an enclave nor half of
    // what is written of it.
    let ordered = tokio::spawn(async move {
        let result = work.await;
        match &result {
            Ok(record) => order.accepted(|entry| entry.record(record)).await,
            Err(error) => order.refused(error.code).await,
        }
        result
    });
    ordered.await.map_err(|e| internal(&e))?
}

/// An order to an enclave that is there.
pub(super) async fn to_enclave<F>(
    daemon: &Daemon,
    who: (AuditAction, Actor),
    handle: Handle,
    order: impl FnOnce(Handle) -> F,
) -> Answer
where
    F: Future<Output = Result<Record, OrderError>> + Send + 'static,
{
    let record = handle.record();
    let ordered = order(handle);
    let work = async move { Ok(ordered.await?) };
    let record = carry_out(daemon, who, |entry| entry.record(&record), work).await?;
    Ok(json(StatusCode::ACCEPTED, &record))
}

/// Issued credentials are not given out again.
pub(super) async fn forget_credentials(daemon: &Daemon, by: Actor) -> Answer {
    let issuer = daemon.issuer().ok_or_else(no_registry)?;
    let action = AuditAction::ForgetCredentials;
    let order = daemon.audit().begin(action, by, |entry| entry).await?;
    issuer.invalidate();
    order.accepted(|entry| entry).await;
    Ok(empty(StatusCode::NO_CONTENT))
}

fn no_registry() -> ApiError {
    ApiError {
        next_step: "Check its configuration with 'host-proxy check-config'.".to_owned(),
        ..ApiError::new(
            Code::NotFound,
            "the daemon has no [registry], and so no issued credentials",
        )
    }
}
