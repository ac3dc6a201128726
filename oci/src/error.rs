//! Everything that can go wrong between a reference and a verified image, and what to do about it.

use crate::content::ContentError;
use crate::digest::Digest;
use crate::host::RegistryKind;
use crate::platform::Platform;
use explain::{Class, Code, Explain};
use std::borrow::Cow;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

/// Why there is no verified image. `host` is always a registry or a server that it named, with its
/// port if the URL has one; `reason` is what that server said, shortened and without control
/// characters or credentials.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The registry or its token service rejected the credentials.
    #[error("{host} refused the credentials: {reason}")]
    Unauthorized {
        /// Who rejected them.
        host: String,
        /// What it said.
        reason: String,
    },
    /// There were no credentials, and the registry gives nothing without.
    #[error("{host} needs credentials: {reason}")]
    CredentialsNeeded {
        /// Who asks for them.
        host: String,
        /// What it said.
        reason: String,
    },
    /// The registry has no such repository, tag, digest or blob, or does not admit it to this
    /// account.
    #[error("{reference} does not exist: {reason}")]
    NotFound {
        /// What was asked for.
        reference: String,
        /// What the registry said.
        reason: String,
    },
    /// The image does not exist for the platform.
    #[error("the image has no {wanted}{}", offer(offered))]
    NoPlatform {
        /// The platform that was asked for.
        wanted: Platform,
        /// The platforms of the image.
        offered: Vec<String>,
    },
    /// No connection, or it broke off and could not be resumed.
    #[error("cannot reach {host}: {reason}")]
    Unreachable {
        /// The server.
        host: String,
        /// The innermost cause: a name, a connection or TLS.
        reason: String,
    },
    /// The server was silent for too long.
    #[error("{host} did not answer within {seconds} seconds")]
    Timeout {
        /// The server.
        host: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// Status 429, after several tries.
    #[error("{host} limits the rate of requests: {reason}")]
    RateLimited {
        /// The registry.
        host: String,
        /// What it said.
        reason: String,
    },
    /// A status that has no variant of its own.
    #[error("{host} answered {status}: {reason}")]
    Status {
        /// The server.
        host: String,
        /// The HTTP status.
        status: u16,
        /// What the server said.
        reason: String,
    },
    /// The registry names a token service that must not get credentials meant for this registry.
    #[error("{host} names a token service that must not receive the credentials: {reason}")]
    Realm {
        /// The registry.
        host: String,
        /// What is wrong with the token service's URL.
        reason: String,
    },
    /// The registry redirects to a URL that is not safe to follow.
    #[error("{host} sent a redirect that is not followed: {reason}")]
    Redirect {
        /// The registry.
        host: String,
        /// What is wrong with the redirect.
        reason: String,
    },
    /// Something the registry sent has the wrong form.
    #[error("{what} is not valid: {problem}")]
    Invalid {
        /// A part of the image, or of an answer.
        what: String,
        /// What is wrong with it.
        #[source]
        problem: ContentError,
    },
    /// Something the registry sent is not what was asked for.
    #[error("{what} has digest {found}, expected {expected}")]
    DigestMismatch {
        /// A part of the image.
        what: String,
        /// From the reference, the manifest or the config.
        expected: Digest,
        /// Of the bytes that arrived.
        found: Digest,
    },
    /// More bytes than announced, or than allowed.
    #[error("{what} is longer than {limit} bytes")]
    TooLong {
        /// A part of the image.
        what: String,
        /// In bytes.
        limit: u64,
    },
    /// The image has more layers than are read.
    #[error("the image has {found} layers; at most {limit} are supported")]
    TooManyLayers {
        /// Layers that the manifest names.
        found: usize,
        /// Layers that a manifest may name.
        limit: usize,
    },
    /// A download ended early, again and again.
    #[error("{what} ended after {found} bytes, expected {expected}")]
    TooShort {
        /// A part of the image.
        what: String,
        /// Its length by the manifest, in bytes.
        expected: u64,
        /// In bytes.
        found: u64,
    },
    /// The work directory cannot be written.
    #[error("cannot use the work directory {}: {source}", path.display())]
    Disk {
        /// The work directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A credentials file or helper cannot be used. Never quotes a secret.
    #[error("cannot read credentials: {0}")]
    Credentials(String),
    /// The CA certificates cannot be used.
    #[error("cannot use the CA certificate: {0}")]
    Ca(String),
    /// A defect of this crate: one of its tasks panicked.
    #[error("a pull task stopped: {0}")]
    Internal(#[from] tokio::task::JoinError),
}

fn offer(offered: &[String]) -> String {
    if offered.is_empty() {
        String::new()
    } else {
        format!("; it offers {}", offered.join(", "))
    }
}

impl PullError {
    pub(crate) fn invalid(what: impl Into<String>, problem: impl Into<ContentError>) -> PullError {
        PullError::Invalid {
            what: what.into(),
            problem: problem.into(),
        }
    }
}

impl Explain for PullError {
    fn code(&self) -> Code {
        match self {
            PullError::Unauthorized { .. } | PullError::CredentialsNeeded { .. } => {
                Code::RegistryUnauthorized
            }
            PullError::NotFound { .. } => Code::ImageNotFound,
            PullError::NoPlatform { .. } => Code::NoSuchPlatform,
            PullError::Unreachable { .. } | PullError::Timeout { .. } => Code::RegistryUnreachable,
            PullError::RateLimited { .. }
            | PullError::Status { .. }
            | PullError::Realm { .. }
            | PullError::Redirect { .. } => Code::RegistryRefused,
            PullError::Invalid { .. }
            | PullError::DigestMismatch { .. }
            | PullError::TooLong { .. }
            | PullError::TooManyLayers { .. }
            | PullError::TooShort { .. } => Code::ImageInvalid,
            PullError::Disk { source, .. } => match source.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Code::OutOfDisk,
                _ => Code::DiskFailed,
            },
            PullError::Credentials(_) => Code::CredentialsInvalid,
            PullError::Ca(_) => Code::CaInvalid,
            PullError::Internal(_) => Code::Internal,
        }
    }

    fn next_step(&self) -> Cow<'_, str> {
        match self {
            PullError::Unauthorized { host, .. } => {
                RegistryKind::of(host).credentials_advice().into()
            }
            PullError::CredentialsNeeded { host, .. } => {
                let advice = RegistryKind::of(host).credentials_advice();
                format!("Provide credentials for {host}. {advice}").into()
            }
            PullError::NoPlatform { offered, .. } if offered.is_empty() => {
                "Push an image for this platform.".into()
            }
            PullError::NoPlatform { .. } => {
                "Choose one of these with --platform, or push an image for the missing one.".into()
            }
            PullError::Unreachable { .. } | PullError::Timeout { .. } => {
                "Check that the registry is running and that its host name and port are right; \
                 a registry without TLS needs --plain-http HOST, \
                 or pull.plain_http in the daemon's configuration."
                    .into()
            }
            PullError::RateLimited { .. } => {
                "Wait, or log in: most registries allow more requests to known users.".into()
            }
            PullError::Realm { .. } | PullError::Redirect { .. } => {
                "Check that this is the registry you mean; \
                 its administrator must correct the URL that it names."
                    .into()
            }
            PullError::TooManyLayers { .. } => {
                "Merge layers of the image, and push it again.".into()
            }
            PullError::Ca(_) => "Provide a PEM file with CA certificates: \
                 --ca-cert, or pull.ca_cert in the daemon's configuration."
                .into(),
            _ => self.code().next_step().into(),
        }
    }

    fn class(&self) -> Class {
        match self {
            // The registry answered; it is our own caution that refuses.
            PullError::Realm { .. } | PullError::Redirect { .. } => Class::Refused,
            _ => self.code().class(),
        }
    }

    fn is_retryable(&self) -> bool {
        match self {
            PullError::Unreachable { .. }
            | PullError::Timeout { .. }
            | PullError::RateLimited { .. }
            | PullError::TooShort { .. } => true,
            PullError::Status { status, .. } => *status >= 500,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use explain::Exit;

    fn named(host: &str) -> (String, String) {
        (host.to_owned(), "because".to_owned())
    }

    /// One of every variant, with its code, exit code and whether it may pass.
    fn all() -> Vec<(PullError, Code, Exit, bool)> {
        let (host, reason) = named("r.example");
        let (what, digest) = ("layer 1".to_owned(), Digest::of(b""));
        let status = |status| PullError::Status {
            host: host.clone(),
            status,
            reason: reason.clone(),
        };
        let disk = |kind: ErrorKind| PullError::Disk {
            path: "/w".into(),
            source: kind.into(),
        };
        let no_platform = |offered: &[&str]| PullError::NoPlatform {
            wanted: Platform::linux_amd64(),
            offered: offered.iter().map(ToString::to_string).collect(),
        };
        let in_host = |make: fn(String, String) -> PullError| make(host.clone(), reason.clone());
        vec![
            (
                in_host(|host, reason| PullError::Unauthorized { host, reason }),
                Code::RegistryUnauthorized,
                Exit::Refused,
                false,
            ),
            (
                in_host(|host, reason| PullError::CredentialsNeeded { host, reason }),
                Code::RegistryUnauthorized,
                Exit::Refused,
                false,
            ),
            (
                in_host(|reference, reason| PullError::NotFound { reference, reason }),
                Code::ImageNotFound,
                Exit::Unavailable,
                false,
            ),
            (no_platform(&[]), Code::NoSuchPlatform, Exit::Data, false),
            (
                no_platform(&["linux/arm64"]),
                Code::NoSuchPlatform,
                Exit::Data,
                false,
            ),
            (
                in_host(|host, reason| PullError::Unreachable { host, reason }),
                Code::RegistryUnreachable,
                Exit::Unavailable,
                true,
            ),
            (
                PullError::Timeout {
                    host: host.clone(),
                    seconds: 30,
                },
                Code::RegistryUnreachable,
                Exit::Unavailable,
                true,
            ),
            (
                in_host(|host, reason| PullError::RateLimited { host, reason }),
                Code::RegistryRefused,
                Exit::Unavailable,
                true,
            ),
            (status(499), Code::RegistryRefused, Exit::Unavailable, false),
            (status(500), Code::RegistryRefused, Exit::Unavailable, true),
            (
                in_host(|host, reason| PullError::Realm { host, reason }),
                Code::RegistryRefused,
                Exit::Refused,
                false,
            ),
            (
                in_host(|host, reason| PullError::Redirect { host, reason }),
                Code::RegistryRefused,
                Exit::Refused,
                false,
            ),
            (
                PullError::invalid("the manifest", ContentError::SchemaVersion),
                Code::ImageInvalid,
                Exit::Data,
                false,
            ),
            (
                PullError::DigestMismatch {
                    what: what.clone(),
                    expected: digest,
                    found: digest,
                },
                Code::ImageInvalid,
                Exit::Data,
                false,
            ),
            (
                PullError::TooLong {
                    what: what.clone(),
                    limit: 1,
                },
                Code::ImageInvalid,
                Exit::Data,
                false,
            ),
            (
                PullError::TooManyLayers {
                    found: 1001,
                    limit: 1000,
                },
                Code::ImageInvalid,
                Exit::Data,
                false,
            ),
            (
                PullError::TooShort {
                    what,
                    expected: 2,
                    found: 1,
                },
                Code::ImageInvalid,
                Exit::Data,
                true,
            ),
            (
                disk(ErrorKind::StorageFull),
                Code::OutOfDisk,
                Exit::Unavailable,
                false,
            ),
            (
                disk(ErrorKind::QuotaExceeded),
                Code::OutOfDisk,
                Exit::Unavailable,
                false,
            ),
            (
                disk(ErrorKind::PermissionDenied),
                Code::DiskFailed,
                Exit::Unavailable,
                false,
            ),
            (
                PullError::Credentials("x".to_owned()),
                Code::CredentialsInvalid,
                Exit::Config,
                false,
            ),
            (
                PullError::Ca("x".to_owned()),
                Code::CaInvalid,
                Exit::Config,
                false,
            ),
        ]
    }

    #[test]
    fn every_error_has_its_code_its_exit_code_and_a_sentence_to_act_on() {
        for (error, code, exit, is_retryable) in all() {
            assert_eq!(
                (error.code(), error.class().exit(), error.is_retryable()),
                (code, exit, is_retryable),
                "{error}"
            );
            let next_step = error.next_step();
            assert!(
                next_step.starts_with(char::is_uppercase) && next_step.ends_with('.'),
                "{error}: {next_step}"
            );
        }
    }

    #[test]
    fn credentials_advice_fits_the_registry() {
        for (host, part) in [
            ("ghcr.io", "read:packages"),
            (
                "1.dkr.ecr.us-east-1.amazonaws.com",
                "aws ecr get-login-password",
            ),
            ("127.0.0.1:5000", "may pull this repository"),
        ] {
            let (host, reason) = named(host);
            let refused = PullError::Unauthorized {
                host: host.clone(),
                reason: reason.clone(),
            };
            assert!(refused.next_step().contains(part), "{host}");
            let missing = PullError::CredentialsNeeded {
                host: host.clone(),
                reason,
            };
            let next_step = missing.next_step().into_owned();
            assert!(
                next_step.contains(part) && next_step.contains(&host),
                "{next_step}"
            );
        }
    }

    #[test]
    fn an_image_without_platforms_offers_none() {
        let texts: Vec<String> = all().iter().map(|(error, ..)| error.to_string()).collect();
        assert!(texts.contains(&"the image has no linux/amd64".to_owned()));
        assert!(texts.contains(&"the image has no linux/amd64; it offers linux/arm64".to_owned()));
    }
}
