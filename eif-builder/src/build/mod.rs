//! From a verified image to an EIF: the path through this crate from end to end.
//!
//! Ramdisk 0 holds the agent as `/init`: with kernel and command line it makes PCR1, our boot code.
//! Ramdisk 1 holds `/app`, the workload and its measured spec: PCR2. A later ramdisk can replace
//! files of an earlier one, so relying parties pin PCR0, or PCR1 and PCR2 together.

mod error;

pub use error::BuildError;

use crate::artifacts::{self, ArtifactError};
use crate::eif::{BuildMetadata, Eif, EifWriter, Metadata, SectionKind};
use crate::rootfs::squashfs::{self, Options};
use crate::rootfs::{self, RootfsError, cpio::Cpio};
use attestation::Measurements;
use error::{KEEP_RAMDISKS, MAX_CMDLINE};
use oci::{Digest, VerifiedImage};
use serde::Serialize;
use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;
use wire::ramdisk;
use wire::spec::{MeasuredSpec, Spec};

/// nitro-cli's own command line for x86_64 with four changes. A panic ends the enclave at once and
/// not after 30 seconds. The timer is not checked at boot: that check counts on a CPU that is never
/// taken away, and its panic ended enclaves of QEMU on busy machines; Linux leaves it out on KVM.
/// The root is of type ramfs: the default tmpfs holds only half of the memory that the ramdisks
/// leave, and unpacking fails there. And the kernel keeps the ramdisks: the agent mounts the image
/// out of them, where the kernel passed over it.
pub const DEFAULT_CMDLINE: &str = "reboot=k panic=-1 pci=off nomodules console=ttyS0 i8042.noaux \
     i8042.nomux i8042.nopnp i8042.dumbkbd random.trust_cpu=on no_timer_check rootfstype=ramfs \
     retain_initrd";

/// What goes into an enclave image beside the container image. All of it is measured but
/// `build_time`.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// Path of a bzImage.
    pub kernel: PathBuf,
    /// Path of a statically linked enclave-agent.
    pub agent: PathBuf,
    /// The kernel's command line: 1 to 2047 printable ASCII characters, `retain_initrd` among them.
    /// See [`DEFAULT_CMDLINE`].
    pub cmdline: String,
    /// The parsed enclave.toml.
    pub spec: Spec,
    /// Seconds since 1970-01-01T00:00:00Z for the metadata; it is not measured.
    pub build_time: u64,
}

/// A finished image. Only [`build`] makes one.
#[derive(Debug, Clone)]
pub struct Built {
    /// The EIF, as it was named in the call.
    pub path: PathBuf,
    /// Length of the EIF in bytes.
    pub len: u64,
    /// PCR0, PCR1 and PCR2 of an enclave that runs it.
    pub measurements: Measurements,
    /// The spec with what the image adds to it, as it is in the EIF.
    pub spec: MeasuredSpec,
    /// What went into it beside the container image.
    pub parts: Parts,
}

/// The SHA-256 of each part that is measured beside the container image: who builds the same image
/// and gets another PCR0 sees where it differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Parts {
    /// Of the bzImage.
    pub kernel: Digest,
    /// Of the kernel's command line.
    pub cmdline: Digest,
    /// Of the enclave agent.
    pub agent: Digest,
    /// Of `/app/enclave.json`, the measured spec.
    pub spec: Digest,
}

/// What [`build`] reports while it runs, from the thread that it runs on.
pub trait BuildProgress: Send + Sync {
    /// The layers were merged; this many bytes of files go into the image.
    fn merged(&self, bytes: u64);
    /// This many more bytes of files went in.
    fn packed(&self, bytes: u64);
    /// The file is written and is now measured.
    fn measuring(&self);
}

/// Builds an enclave image at `output`. The same inputs give the same bytes.
///
/// It is written into a temporary file beside `output`, which is renamed at the end: readers see
/// all of it or nothing. The disk needs room for it; memory does not depend on the size of the
/// files in the image, only on their number and names.
///
/// Blocks for as long as it takes to compress and measure the image, on all cores. Call it on a
/// thread of its own.
///
/// # Errors
/// Kernel or agent cannot be used, the spec does not fit the image, the image holds something that
/// cannot be carried over exactly, or the disk fails. Nothing stays on the disk then.
pub fn build(
    image: &VerifiedImage,
    inputs: &Inputs,
    output: &Path,
    progress: &dyn BuildProgress,
) -> Result<Built, BuildError> {
    let kernel = read_artifact(artifacts::KERNEL, &inputs.kernel)?;
    let agent = read_artifact(artifacts::AGENT, &inputs.agent)?;
    artifacts::check_static_elf(&inputs.agent, &agent)?;
    check_cmdline(&inputs.cmdline)?;
    let mut spec = inputs.spec.resolve(image.config().run.clone())?;
    spec.cmdline.clone_from(&inputs.cmdline);

    let write_error = |source| BuildError::Write {
        path: output.to_owned(),
        source,
    };
    let partial = temporary_beside(output).map_err(write_error)?;
    let mut writer = EifWriter::new(partial.as_file());
    let metadata = metadata(image, inputs, &kernel);
    let boot = [
        (SectionKind::Kernel, kernel.as_slice()),
        (SectionKind::Cmdline, inputs.cmdline.as_bytes()),
        (SectionKind::Metadata, metadata.as_slice()),
    ];
    for (kind, data) in boot {
        writer.section(kind, data).map_err(write_error)?;
    }
    writer
        .section_with(SectionKind::Ramdisk, |file, at| {
            boot_ramdisk(file, at, &agent)
        })
        .map_err(write_error)?;
    writer.section_with(SectionKind::Ramdisk, |file, at| {
        application_ramdisk(file, at, image, &spec, progress)
    })?;
    progress.measuring();
    let len = writer.finish().map_err(write_error)?;
    let measurements = Eif::open(partial.path())?.measure()?;
    publish(partial, output).map_err(write_error)?;
    Ok(Built {
        path: output.to_owned(),
        len,
        measurements,
        parts: Parts {
            kernel: Digest::of(&kernel),
            cmdline: Digest::of(inputs.cmdline.as_bytes()),
            agent: Digest::of(&agent),
            spec: Digest::of(&spec.to_json()),
        },
        spec,
    })
}

fn read_artifact(name: &'static str, path: &Path) -> Result<Vec<u8>, ArtifactError> {
    std::fs::read(path).map_err(|source| ArtifactError::Unreadable {
        name,
        path: path.to_owned(),
        source,
    })
}

fn check_cmdline(cmdline: &str) -> Result<(), BuildError> {
    let printable = |b: u8| (b' '..=b'~').contains(&b);
    if !(1..=MAX_CMDLINE).contains(&cmdline.len()) || !cmdline.bytes().all(printable) {
        return Err(BuildError::Cmdline);
    }
    if !cmdline.split(' ').any(|option| option == KEEP_RAMDISKS) {
        return Err(BuildError::CmdlineDropsRamdisks);
    }
    Ok(())
}

fn temporary_beside(output: &Path) -> io::Result<NamedTempFile> {
    let directory = output
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    tempfile::Builder::new()
        .prefix(".eif-")
        .tempfile_in(directory)
}

fn publish(partial: NamedTempFile, output: &Path) -> io::Result<()> {
    let everyone_reads = std::fs::Permissions::from_mode(0o644);
    partial.as_file().set_permissions(everyone_reads)?;
    partial.persist(output).map_err(|e| e.error)?;
    Ok(())
}

fn boot_ramdisk(file: &File, at: u64, agent: &[u8]) -> io::Result<u64> {
    let mut cpio = Cpio::new(file, at);
    for mount_point in ["dev", "proc", "sys"] {
        cpio.directory(mount_point)?;
    }
    cpio.file("init", 0o755, agent)?;
    cpio.finish()
}

fn application_ramdisk(
    file: &File,
    at: u64,
    image: &VerifiedImage,
    spec: &MeasuredSpec,
    progress: &dyn BuildProgress,
) -> Result<u64, RootfsError> {
    let tree = rootfs::flatten(image.layers())?;
    progress.merged(tree.file_bytes());
    let mut cpio = Cpio::new(file, at);
    cpio.directory("app")?;
    cpio.file(ramdisk::SPEC, 0o444, &spec.to_json())?;
    let root = cpio.open_bytes(ramdisk::IMAGE)?;
    let packed = |bytes| progress.packed(bytes);
    let len = squashfs::write(
        &tree,
        image.layers(),
        file,
        root.body_at,
        Options::for_this_machine(),
        &packed,
    )?;
    cpio.close(root, len)?;
    Ok(cpio.finish()?)
}

fn metadata(image: &VerifiedImage, inputs: &Inputs, kernel: &[u8]) -> Vec<u8> {
    let reference = image.reference();
    let repository = format!("{}/{}", reference.host(), reference.repository());
    let by_digest = format!("{repository}@{}", image.digest());
    let metadata = Metadata {
        image_name: repository,
        image_version: image.digest().to_string(),
        build_metadata: BuildMetadata {
            build_time: rfc3339(inputs.build_time),
            build_tool: "eif-builder".to_owned(),
            build_tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            operating_system: "Linux".to_owned(),
            kernel_version: artifacts::kernel_version(kernel)
                .unwrap_or_else(|| "unknown".to_owned()),
        },
        docker_info: serde_json::json!({
            "RepoTags": [reference.to_string()],
            "RepoDigests": [by_digest],
        }),
        custom_metadata: serde_json::Value::Null,
    };
    serde_json::to_vec(&metadata).expect("strings and lists always serialise")
}

/// Times after the year 9999, which RFC 3339 cannot write, become the epoch.
fn rfc3339(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).ok();
    let time = seconds.and_then(|n| time::OffsetDateTime::from_unix_timestamp(n).ok());
    let format = &time::format_description::well_known::Rfc3339;
    time.and_then(|time| time.format(format).ok())
        .unwrap_or_else(|| "1970-01-01T00:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_1_to_2047_printable_characters() {
        let longest = format!("{KEEP_RAMDISKS} {}", "x".repeat(2047 - 14));
        for cmdline in [KEEP_RAMDISKS, &longest, DEFAULT_CMDLINE] {
            assert!(check_cmdline(cmdline).is_ok(), "{cmdline}");
        }
        for cmdline in [
            String::new(),
            format!("{longest}x"),
            "a\nb".to_owned(),
            "\u{fc}".to_owned(),
        ] {
            let error = check_cmdline(&cmdline);
            assert!(matches!(error, Err(BuildError::Cmdline)), "{cmdline}");
        }
    }

    #[test]
    fn a_command_line_keeps_the_ramdisks() {
        for cmdline in ["x", "retain_initrd=1", "no_retain_initrd"] {
            let error = check_cmdline(cmdline);
            assert!(
                matches!(error, Err(BuildError::CmdlineDropsRamdisks)),
                "{cmdline}"
            );
        }
    }

    #[test]
    fn a_time_that_rfc_3339_cannot_write_is_the_epoch() {
        assert_eq!(rfc3339(1_700_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(rfc3339(u64::MAX), "1970-01-01T00:00:00Z");
    }
}
