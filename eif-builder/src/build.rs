//! From a verified image to an EIF: the one walk through this crate.
//!
//! Ramdisk 0 holds the agent as `/init`: with kernel and command line it makes PCR1, our boot code. Ramdisk 1 holds `/app`,
//! the workload and its measured spec: PCR2. A later ramdisk can replace files of an earlier one, so relying parties pin
//! PCR0, or PCR1 and PCR2 together.

use crate::artifacts::{self, ArtifactError};
use crate::eif::{BuildMetadata, Eif, EifError, EifWriter, Metadata, SectionKind};
use crate::rootfs::squashfs::{self, Options};
use crate::rootfs::{self, RootfsError, cpio::Cpio};
use attestation::Measurements;
use oci::VerifiedImage;
use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use wire::spec::{MeasuredSpec, Spec, SpecError};

/// nitro-cli's own command line for x86_64, and a root of type ramfs: the default tmpfs holds only half of the memory
/// that the ramdisks leave, and unpacking fails there.
pub const DEFAULT_CMDLINE: &str = "reboot=k panic=30 pci=off nomodules console=ttyS0 i8042.noaux i8042.nomux \
     i8042.nopnp i8042.dumbkbd random.trust_cpu=on rootfstype=ramfs";

#[derive(Debug, Clone)]
pub struct Inputs {
    pub kernel: PathBuf,
    pub agent: PathBuf,
    pub cmdline: String,
    pub manifest: Spec,
    /// Seconds since 1970-01-01T00:00:00Z for the metadata; it is not measured.
    pub build_time: u64,
}

/// A finished image. Only [`build`] makes one.
#[derive(Debug, Clone)]
pub struct Built {
    pub path: PathBuf,
    /// Bytes.
    pub len: u64,
    pub measurements: Measurements,
    pub spec: MeasuredSpec,
}

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    #[error("the enclave spec: {0}")]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    #[error(transparent)]
    Eif(#[from] EifError),
    #[error("the command line must be 1 to 2047 characters of ASCII without control characters")]
    Cmdline,
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
}

impl BuildError {
    /// The next step for a person.
    pub fn hint(&self) -> &'static str {
        let disk_full = "make room on that disk and try again";
        match self {
            BuildError::Artifact(error) => error.hint(),
            BuildError::Spec(_) => "correct enclave.toml",
            BuildError::Rootfs(RootfsError::Write(_)) | BuildError::Write { .. } => disk_full,
            BuildError::Rootfs(_) => {
                "this image cannot be carried over exactly; build it without that entry"
            }
            BuildError::Eif(_) => "build again; if it happens twice, please report it",
            BuildError::Cmdline => "correct --cmdline",
        }
    }
}

/// What is told while a build runs.
pub trait BuildProgress: Send + Sync {
    /// The layers were merged; this many bytes of files go into the image.
    fn merged(&self, bytes: u64);
    /// This many more bytes of files went in.
    fn packed(&self, bytes: u64);
    /// The file is written and is now measured.
    fn measuring(&self);
}

/// Builds into a temporary file beside `output` and renames it at the end: whoever looks sees all of it or nothing.
/// Blocks.
pub fn build(
    image: &VerifiedImage,
    inputs: &Inputs,
    output: &Path,
    progress: &dyn BuildProgress,
) -> Result<Built, BuildError> {
    let unusable = |path: &Path, e: io::Error| ArtifactError::Unusable {
        path: path.to_owned(),
        problem: e.to_string(),
    };
    let kernel = std::fs::read(&inputs.kernel).map_err(|e| unusable(&inputs.kernel, e))?;
    let agent = std::fs::read(&inputs.agent).map_err(|e| unusable(&inputs.agent, e))?;
    artifacts::check_static_elf(&inputs.agent, &agent)?;
    let printable = |b: u8| (b' '..=b'~').contains(&b);
    if !(1..=2047).contains(&inputs.cmdline.len()) || !inputs.cmdline.bytes().all(printable) {
        return Err(BuildError::Cmdline);
    }
    let spec = inputs.manifest.resolve(image.config().run.clone())?;
    let metadata = metadata(image, inputs, &kernel);

    let write_error = |source| BuildError::Write {
        path: output.to_owned(),
        source,
    };
    let folder = output
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let partial = tempfile::Builder::new()
        .prefix(".eif-")
        .tempfile_in(folder)
        .map_err(write_error)?;
    let mut writer = EifWriter::new(partial.as_file());
    let sections = [
        (SectionKind::Kernel, kernel.as_slice()),
        (SectionKind::Cmdline, inputs.cmdline.as_bytes()),
        (SectionKind::Metadata, metadata.as_slice()),
    ];
    for (kind, data) in sections {
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
    partial
        .as_file()
        .set_permissions(std::fs::Permissions::from_mode(0o644))
        .map_err(write_error)?;
    partial.persist(output).map_err(|e| write_error(e.error))?;
    Ok(Built {
        path: output.to_owned(),
        len,
        measurements,
        spec,
    })
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
    cpio.file("app/enclave.json", 0o444, &spec.to_json())?;
    let root = cpio.open("app/rootfs.squashfs")?;
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
    let time = i64::try_from(inputs.build_time)
        .ok()
        .and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds).ok());
    let metadata = Metadata {
        image_name: repository,
        image_version: image.digest().to_string(),
        build_metadata: BuildMetadata {
            build_time: time
                .and_then(|time| {
                    time.format(&time::format_description::well_known::Rfc3339)
                        .ok()
                })
                .unwrap_or_else(|| "1970-01-01T00:00:00Z".to_owned()),
            build_tool: "eif-builder".to_owned(),
            build_tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            operating_system: "Linux".to_owned(),
            kernel_version: artifacts::kernel_version(kernel)
                .unwrap_or_else(|| "unknown".to_owned()),
        },
        docker_info: serde_json::json!({ "RepoTags": [reference.to_string()], "RepoDigests": [by_digest] }),
        custom_metadata: serde_json::Value::Null,
    };
    serde_json::to_vec(&metadata).expect("strings and lists always serialise")
}
