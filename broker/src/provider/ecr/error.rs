//! What errors of STS and ECR mean.

use crate::provider::error::ProviderError;
use aws_sdk_ecr::error::{ProvideErrorMetadata, SdkError};
use explain::{chain, printable};
use std::time::Duration;

/// What AWS's own retries could not overcome takes longer.
const RETRY_AFTER: Duration = Duration::from_secs(60);
/// Codes that asking again does not change (STS and ECR API references, "Common Errors").
const DENIED: [&str; 11] = [
    "AccessDenied",
    "AccessDeniedException",
    "MalformedPolicyDocument",
    "PackedPolicyTooLarge",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "ExpiredTokenException",
    "RegionDisabledException",
    "ValidationError",
];
const THROTTLED: [&str; 4] = [
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "TooManyRequestsException",
];

/// What failed while `doing` (a verb and its object).
pub(super) fn provider_error<E>(doing: &str, error: &SdkError<E>) -> ProviderError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let service_error = error.as_service_error();
    let code = service_error
        .and_then(ProvideErrorMetadata::code)
        .unwrap_or_default();
    // Never DisplayErrorContext: it shows the answer's body, and with it tokens and keys.
    let message = match service_error.and_then(ProvideErrorMetadata::message) {
        Some(message) => format!("cannot {doing}: {code}: {message}"),
        None => format!("cannot {doing}: {}", chain(error)),
    };
    let message = printable(&message);
    if DENIED.contains(&code) {
        ProviderError::Denied { message }
    } else if THROTTLED.contains(&code) {
        ProviderError::Throttled {
            message,
            retry_after: RETRY_AFTER,
        }
    } else if matches!(error, SdkError::TimeoutError(_)) {
        ProviderError::TimedOut { message }
    } else {
        ProviderError::Unavailable { message }
    }
}
