//! Everything that can go wrong between a reference and a verified image, and what to do about it.

use super::reference::RegistryKind;
use super::{Digest, Platform};

#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error("{host} refused the credentials: {reason}")]
    Unauthorized { host: String, reason: String },
    #[error("{host} needs credentials: {reason}")]
    CredentialsNeeded { host: String, reason: String },
    #[error("{reference} does not exist: {reason}")]
    NotFound { reference: String, reason: String },
    #[error("the image has no {wanted}; it offers {}", offered.join(", "))]
    NoPlatform {
        wanted: Platform,
        offered: Vec<String>,
    },
    #[error("cannot reach {host}: {reason}")]
    Unreachable { host: String, reason: String },
    #[error("{host} did not answer within {seconds} seconds")]
    Timeout { host: String, seconds: u64 },
    #[error("{host} limits the rate of requests: {reason}")]
    RateLimited { host: String, reason: String },
    #[error("{host} answered {status}: {reason}")]
    Status {
        host: String,
        status: u16,
        reason: String,
    },
    #[error("{host} names a place that credentials must not go to: {reason}")]
    Realm { host: String, reason: String },
    #[error("{host} redirects to a place that is not followed: {reason}")]
    Redirect { host: String, reason: String },
    #[error("{what} is not valid: {problem}")]
    Invalid { what: String, problem: String },
    #[error("{what} has digest {found}, expected {expected}")]
    DigestMismatch {
        what: String,
        expected: Digest,
        found: Digest,
    },
    #[error("{what} is longer than {limit} bytes")]
    TooLong { what: String, limit: u64 },
    #[error("{what} ended after {found} bytes, expected {expected}")]
    TooShort {
        what: String,
        expected: u64,
        found: u64,
    },
    #[error("cannot use the work directory {path}: {source}")]
    Disk {
        path: String,
        source: std::io::Error,
    },
    #[error("cannot read credentials: {0}")]
    Credentials(String),
    #[error("cannot use the certificate authority: {0}")]
    Authority(String),
}

impl PullError {
    pub(crate) fn invalid(what: impl Into<String>, problem: impl std::fmt::Display) -> PullError {
        PullError::Invalid {
            what: what.into(),
            problem: problem.to_string(),
        }
    }

    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            PullError::Unreachable { .. }
            | PullError::Timeout { .. }
            | PullError::RateLimited { .. }
            | PullError::TooShort { .. } => true,
            PullError::Status { status, .. } => *status >= 500,
            _ => false,
        }
    }

    /// The next step for a person.
    pub fn hint(&self) -> String {
        match self {
            PullError::Unauthorized { host, .. } => RegistryKind::of(host).credentials_hint().to_owned(),
            PullError::CredentialsNeeded { host, .. } => {
                format!("give credentials for it; {}", RegistryKind::of(host).credentials_hint())
            }
            PullError::NotFound { .. } => {
                "check namespace, name and tag (they are case-sensitive), and that the account may see it".to_owned()
            }
            PullError::NoPlatform { offered, .. } => match offered.as_slice() {
                [] => "push an image for this platform".to_owned(),
                _ => "ask for one of those with --platform, or push the missing one".to_owned(),
            },
            PullError::Unreachable { .. } | PullError::Timeout { .. } => {
                "check that the registry runs and that its host name and port are right; \
                 a registry without TLS needs --plain-http HOST"
                    .to_owned()
            }
            PullError::RateLimited { .. } => "wait, or log in: most registries allow more to known users".to_owned(),
            PullError::Status { .. } => "look at the registry's own log, or try again later".to_owned(),
            PullError::Realm { .. } | PullError::Redirect { .. } => {
                "check that this registry is the one you mean; its administrator must fix the address it names".to_owned()
            }
            PullError::Invalid { .. }
            | PullError::DigestMismatch { .. }
            | PullError::TooLong { .. }
            | PullError::TooShort { .. } => {
                "push the image again; if that does not help, the registry or something on the way to it alters data".to_owned()
            }
            PullError::Disk { .. } => {
                "make room there or choose another directory; a build needs the image's unpacked size twice".to_owned()
            }
            PullError::Credentials(_) => "check the file that holds them".to_owned(),
            PullError::Authority(_) => "give a PEM file with --ca-cert".to_owned(),
        }
    }
}

impl explain::Explain for PullError {
    fn code(&self) -> explain::Code {
        explain::Code::ImageInvalid
    }
}
