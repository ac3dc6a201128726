//! What the answer to a call without effect means.

use crate::aws::reason;
use api::Finding;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};

/// How such a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Access {
    /// It was let through, or refused for a reason that comes after the check of rights.
    Granted(String),
    /// The right is missing.
    Denied(String),
    /// The service refused for another reason.
    Refused(String),
    /// The service did not answer.
    Unreachable(String),
    /// There are no credentials or there is no region to call it with.
    NoRequest(String),
}

/// Reads an error. `harmless` are the codes that only callers with the right are given.
pub(super) fn access<E: ProvideErrorMetadata, R>(
    error: &SdkError<E, R>,
    harmless: &[&str],
) -> Access {
    let text = reason(error);
    match error {
        SdkError::ServiceError(_) => {
            let code = error.code().unwrap_or_default();
            if harmless.contains(&code) {
                Access::Granted(String::new())
            } else if code.starts_with("AccessDenied") {
                Access::Denied(text)
            } else {
                Access::Refused(text)
            }
        }
        SdkError::TimeoutError(_) | SdkError::ResponseError(_) => Access::Unreachable(text),
        SdkError::DispatchFailure(failure)
            if failure.as_connector_error().is_some_and(|e| !e.is_other()) =>
        {
            Access::Unreachable(text)
        }
        _ => Access::NoRequest("there are no AWS credentials to ask with, or no region".to_owned()),
    }
}

/// The finding of a call that says nothing of rights.
pub(super) fn transport(what: &str, access: &Access) -> Finding {
    match access {
        Access::Unreachable(reason) => Finding::wrong(
            what,
            format!("it cannot be reached: {reason}"),
            "Check aws.region, the instance's way out, and the VPC endpoint if there is one.",
        ),
        Access::Granted(text)
        | Access::Denied(text)
        | Access::Refused(text)
        | Access::NoRequest(text) => Finding::not_checked(what, text),
    }
}
