//! Why an enclave is FAILED, in the words of the person who has to act: a code for programs, a message, and a next step.

use crate::broker::provider::ProviderError;
use crate::lifecycle::Stage;
use eif_builder::artifacts::ArtifactError;
use eif_builder::build::BuildError;
use eif_builder::image::PullError;
use eif_builder::rootfs::RootfsError;
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    pub code: Code,
    pub stage: Option<Stage>,
    /// The same deploy may succeed later without anybody changing anything.
    pub retryable: bool,
    pub message: String,
    pub hint: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    RegistryUnauthorized,
    RegistryUnreachable,
    RegistryRefused,
    ImageNotFound,
    NoSuchPlatform,
    ImageInvalid,
    OutOfDisk,
    OutOfMemory,
    SecretUnavailable,
    SpecInvalid,
    KernelMissing,
    AgentMissing,
    BuildFailed,
    QemuMissing,
    LaunchFailed,
    HeartbeatMissing,
    BootFailed,
    WorkloadNotFound,
    WorkloadNotExecutable,
    UserNotFound,
    WorkloadExited,
    AttestationFailed,
    MeasurementMismatch,
    EnclaveLost,
    ConfigMissing,
    ConfigRefused,
    AwsCredentialsMissing,
    KmsRefused,
    KmsUnreachable,
    Internal,
}

/// Longest message, in characters.
const MAX_MESSAGE: usize = 2000;

impl Fault {
    pub fn new(code: Code, message: impl Into<String>, hint: impl Into<String>) -> Fault {
        // Messages quote registries, images and enclaves: nothing of theirs steers a terminal or floods the store.
        let message: String = message.into();
        let message = message
            .chars()
            .filter(|c| !c.is_control())
            .take(MAX_MESSAGE)
            .collect();
        Fault {
            code,
            stage: None,
            retryable: false,
            message,
            hint: hint.into(),
        }
    }

    pub fn retryable(self) -> Fault {
        Fault {
            retryable: true,
            ..self
        }
    }

    pub fn at(self, stage: Stage) -> Fault {
        Fault {
            stage: Some(stage),
            ..self
        }
    }

    pub fn internal(error: impl std::fmt::Display) -> Fault {
        Fault::new(
            Code::Internal,
            format!("this should not happen: {error}"),
            "look at the daemon's journal, and please report it",
        )
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}

impl From<PullError> for Fault {
    fn from(error: PullError) -> Fault {
        let code = match &error {
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
            | PullError::TooShort { .. } => Code::ImageInvalid,
            PullError::Disk { source, .. } if is_full(source) => Code::OutOfDisk,
            PullError::Disk { .. } | PullError::Credentials(_) | PullError::Authority(_) => {
                Code::Internal
            }
        };
        let retryable = error.is_transient();
        Fault {
            retryable,
            ..Fault::new(code, error.to_string(), error.hint())
        }
    }
}

impl From<ProviderError> for Fault {
    fn from(error: ProviderError) -> Fault {
        let message = format!("no credentials for the configured registry: {error}");
        match error {
            ProviderError::Project(_) | ProviderError::NoProject(_) | ProviderError::Denied(_) => {
                Fault::new(
                    Code::RegistryUnauthorized,
                    message,
                    "check [registry] of the daemon's configuration, and what its role or account may do there; or create the enclave with \
                 credentials, or with --source-type public-registry",
                )
            }
            ProviderError::Throttled { .. }
            | ProviderError::TimedOut(_)
            | ProviderError::Unavailable(_) => {
                Fault::new(Code::RegistryUnreachable, message, "redeploy in a while").retryable()
            }
        }
    }
}

impl From<ArtifactError> for Fault {
    fn from(error: ArtifactError) -> Fault {
        let code = match &error {
            ArtifactError::Missing {
                name: eif_builder::artifacts::KERNEL,
                ..
            } => Code::KernelMissing,
            ArtifactError::Missing { .. } | ArtifactError::Unusable { .. } => Code::AgentMissing,
        };
        Fault::new(code, error.to_string(), error.hint())
    }
}

impl From<BuildError> for Fault {
    fn from(error: BuildError) -> Fault {
        let hint = error.hint();
        match error {
            BuildError::Artifact(error) => error.into(),
            BuildError::Spec(_) | BuildError::Cmdline => {
                Fault::new(Code::SpecInvalid, error.to_string(), hint)
            }
            BuildError::Write { ref source, .. }
            | BuildError::Rootfs(RootfsError::Write(ref source))
                if is_full(source) =>
            {
                Fault::new(Code::OutOfDisk, error.to_string(), hint)
            }
            BuildError::Rootfs(_) => Fault::new(Code::ImageInvalid, error.to_string(), hint),
            BuildError::Write { .. } | BuildError::Eif(_) => {
                Fault::new(Code::BuildFailed, error.to_string(), hint)
            }
        }
    }
}
