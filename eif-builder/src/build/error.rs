//! Why a build ended without an enclave image.

use crate::artifacts::ArtifactError;
use crate::eif::EifError;
use crate::rootfs::{self, RootfsError};
use explain::{Class, Code, Explain};
use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use wire::spec::SpecError;

/// Longest kernel command line, in bytes: x86's COMMAND_LINE_SIZE without its NUL (Linux,
/// arch/x86/include/asm/setup.h).
pub(super) const MAX_CMDLINE: usize = 2047;
/// Linux, Documentation/admin-guide/kernel-parameters.txt.
pub(super) const KEEP_RAMDISKS: &str = "retain_initrd";

/// Why [`build`](super::build()) made no enclave image.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The kernel or the agent cannot be used.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The spec is invalid, or does not fit the image.
    #[error("the enclave spec: {0}")]
    Spec(#[from] SpecError),
    /// The image cannot become a root file system.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// The finished file cannot be read back.
    #[error(transparent)]
    Eif(#[from] EifError),
    /// The kernel's command line is empty, too long, or has other characters than printable ASCII.
    #[error("the kernel command line must be 1 to {MAX_CMDLINE} printable ASCII characters")]
    Cmdline,
    /// The kernel's command line lets the kernel drop the ramdisks, out of which the agent mounts the
    /// image.
    #[error("the kernel command line lacks '{KEEP_RAMDISKS}'")]
    CmdlineDropsRamdisks,
    /// The output cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The output.
        path: PathBuf,
        /// What the system reported.
        source: io::Error,
    },
}

impl BuildError {
    fn is_disk_full(&self) -> bool {
        match self {
            BuildError::Write { source, .. } => rootfs::is_disk_full(source),
            _ => false,
        }
    }
}

impl Explain for BuildError {
    fn code(&self) -> Code {
        match self {
            BuildError::Artifact(error) => error.code(),
            BuildError::Spec(_) | BuildError::Cmdline | BuildError::CmdlineDropsRamdisks => {
                Code::SpecInvalid
            }
            BuildError::Rootfs(error) => error.code(),
            BuildError::Write { .. } if self.is_disk_full() => Code::OutOfDisk,
            BuildError::Write { .. } | BuildError::Eif(_) => Code::BuildFailed,
        }
    }

    fn next_step(&self) -> Cow<'_, str> {
        match self {
            BuildError::Artifact(error) => error.next_step(),
            BuildError::Rootfs(error) => error.next_step(),
            BuildError::Cmdline => "Correct --cmdline.".into(),
            BuildError::CmdlineDropsRamdisks => "Add it to --cmdline.".into(),
            BuildError::Write { .. } if !self.is_disk_full() => Code::DiskFailed.next_step().into(),
            _ => self.code().next_step().into(),
        }
    }

    fn class(&self) -> Class {
        match self {
            BuildError::Artifact(error) => error.class(),
            BuildError::Rootfs(error) => error.class(),
            BuildError::Write { .. } => Class::Unavailable,
            BuildError::Spec(_)
            | BuildError::Cmdline
            | BuildError::CmdlineDropsRamdisks
            | BuildError::Eif(_) => self.code().class(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifacts;
    use crate::eif::Eif;
    use explain::Exit;
    use std::path::Path;

    fn full() -> io::Error {
        io::ErrorKind::StorageFull.into()
    }

    fn denied() -> io::Error {
        io::ErrorKind::PermissionDenied.into()
    }

    fn write(source: io::Error) -> BuildError {
        let path = PathBuf::from("app.eif");
        BuildError::Write { path, source }
    }

    #[test]
    fn errors_have_their_codes_and_exit_codes() {
        let missing = artifacts::find(artifacts::KERNEL, Some(Path::new("/nowhere")));
        let eif = Eif::open(Path::new("/nowhere"));
        let too_many = RootfsError::TooMany {
            what: "files",
            limit: 1,
        };
        let layer = RootfsError::Layer {
            layer: 1,
            source: denied(),
        };
        for (error, code, exit) in [
            (
                missing.unwrap_err().into(),
                Code::KernelMissing,
                Exit::Config,
            ),
            (
                BuildError::Spec(SpecError::NoCommand),
                Code::SpecInvalid,
                Exit::Config,
            ),
            (BuildError::Cmdline, Code::SpecInvalid, Exit::Config),
            (
                BuildError::CmdlineDropsRamdisks,
                Code::SpecInvalid,
                Exit::Config,
            ),
            (too_many.into(), Code::ImageInvalid, Exit::Data),
            (layer.into(), Code::ImageInvalid, Exit::Data),
            (
                RootfsError::from(full()).into(),
                Code::OutOfDisk,
                Exit::Unavailable,
            ),
            (
                RootfsError::from(denied()).into(),
                Code::ImageInvalid,
                Exit::Unavailable,
            ),
            (write(full()), Code::OutOfDisk, Exit::Unavailable),
            (write(denied()), Code::BuildFailed, Exit::Unavailable),
            (eif.unwrap_err().into(), Code::BuildFailed, Exit::Data),
        ] {
            let error: BuildError = error;
            assert_eq!(
                (error.code(), error.class().exit()),
                (code, exit),
                "{error}"
            );
            assert!(error.next_step().ends_with('.'), "{error}");
        }
    }
}
