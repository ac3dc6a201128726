//! How a failed pull ends the command.

use explain::{CliError, Exit};
use oci::PullError;

/// The exit code and the next step of a failed pull.
pub(super) fn pull_error(error: &PullError) -> CliError {
    let exit = match error {
        PullError::Unauthorized { .. }
        | PullError::CredentialsNeeded { .. }
        | PullError::Realm { .. }
        | PullError::Redirect { .. } => Exit::Refused,
        PullError::Unreachable { .. }
        | PullError::Timeout { .. }
        | PullError::RateLimited { .. }
        | PullError::Status { .. }
        | PullError::NotFound { .. }
        | PullError::Disk { .. } => Exit::Unavailable,
        PullError::Credentials(_) | PullError::Authority(_) => Exit::Config,
        PullError::NoPlatform { .. }
        | PullError::Invalid { .. }
        | PullError::DigestMismatch { .. }
        | PullError::TooLong { .. }
        | PullError::TooShort { .. } => Exit::Data,
    };
    CliError::new(exit, error, error.hint())
}
