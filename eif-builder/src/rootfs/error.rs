//! Why layers cannot become a root file system.

use super::path::PathError;
use explain::{Class, Code, Explain};
use std::borrow::Cow;
use std::io;

/// Longest path that an error quotes, in characters.
const MAX_QUOTED: usize = 200;

/// Why the layers of an image cannot become a root file system. Layers are counted from 1, the
/// lowest.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// An entry of a layer's archive that is malformed, or that cannot be carried over exactly.
    #[error("layer {layer}{}: {problem}", quoted(entry.as_deref()))]
    Entry {
        /// Number of the layer, from 1.
        layer: usize,
        /// The entry's path, escaped and cut to 200 characters; `None` where it is not known yet.
        entry: Option<String>,
        /// What is wrong with it.
        problem: EntryProblem,
    },
    /// More of something than a limit of ours or of squashfs allows.
    #[error("the root file system has more than {limit} {what}")]
    TooMany {
        /// What there is too much of, in the plural.
        what: &'static str,
        /// The largest number allowed.
        limit: usize,
    },
    /// The unpacked layer cannot be read back.
    #[error("cannot read layer {layer}: {source}")]
    Layer {
        /// Number of the layer, from 1.
        layer: usize,
        /// What the system reported.
        source: io::Error,
    },
    /// The root file system cannot be written, or is larger than 4 GiB.
    #[error("cannot write the root file system: {0}")]
    Write(#[from] io::Error),
}

impl RootfsError {
    /// `layer` counts from 1.
    pub(super) fn entry(layer: usize, path: Option<&[u8]>, problem: EntryProblem) -> RootfsError {
        let escaped = |path: &[u8]| path.escape_ascii().to_string();
        RootfsError::Entry {
            layer,
            entry: path.map(|path| escaped(path).chars().take(MAX_QUOTED).collect()),
            problem,
        }
    }
}

fn quoted(entry: Option<&str>) -> String {
    entry.map_or_else(String::new, |path| format!(", entry '{path}'"))
}

/// What is wrong with an entry of a layer's archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryProblem {
    /// The archive ends within a header or an extension record.
    #[error("the archive ends in the middle of an entry")]
    Truncated,
    /// The archive ends within the data of a file.
    #[error("the archive ends in the middle of the file")]
    FileTruncated,
    /// Extension records without an entry.
    #[error("the archive ends after an extension record")]
    EndsAfterExtension,
    /// A header whose checksum is not that of its bytes.
    #[error("a header has a wrong checksum")]
    Checksum,
    /// A long name or a pax record that is too long to read.
    #[error("an extension record is longer than {limit} bytes")]
    ExtensionTooLong {
        /// The greatest length in bytes.
        limit: u64,
    },
    /// Two records of one kind for one entry: archivers disagree about which one counts.
    #[error("two {0} records precede one entry")]
    DuplicateExtension(
        /// The kind of the records.
        &'static str,
    ),
    /// A pax record that does not follow POSIX, or that sets a key twice.
    #[error("a pax record is malformed")]
    MalformedPax,
    /// A global pax record that would change the entries after it.
    #[error("a global pax record sets '{0}'")]
    GlobalPax(
        /// The key.
        String,
    ),
    /// A sparse file, by its type.
    #[error("sparse files are not supported")]
    Sparse,
    /// A sparse file, by its pax records.
    #[error("sparse files are not supported ({0})")]
    SparseRecord(
        /// The key of the record.
        String,
    ),
    /// A number in a pax record has other characters than digits, or is too large.
    #[error("pax '{0}' is not a number")]
    PaxNumber(
        /// The key.
        &'static str,
    ),
    /// A number in a header cannot be parsed.
    #[error("the header's {0} is not a number")]
    HeaderNumber(
        /// The field.
        &'static str,
    ),
    /// A user or group id of more than 32 bits.
    #[error("{key} {id} is above 4294967295")]
    IdTooLarge {
        /// `uid` or `gid`.
        key: &'static str,
        /// The id.
        id: u64,
    },
    /// The pax time is not a decimal number of seconds.
    #[error("pax 'mtime' is not a time")]
    PaxTime,
    /// A path that is refused.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A link without a usable target.
    #[error("the link's target is empty, too long or contains a NUL byte")]
    LinkTarget,
    /// Overlayfs takes such a device for a whiteout (Linux,
    /// Documentation/filesystems/overlayfs.rst).
    #[error("device 0:0 is a whiteout to the kernel")]
    WhiteoutDevice,
    /// Device numbers outside of Linux's 12 and 20 bits.
    #[error("device {major}:{minor} does not exist on Linux")]
    Device {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A type of entry that is not read here.
    #[error("unknown entry type '{}'", char::from(*.0).escape_default())]
    UnknownType(
        /// The type's character.
        u8,
    ),
    /// An entry with data that is no file.
    #[error("only a file can have data")]
    UnexpectedBody,
    /// An attribute outside of `user.`, `trusted.` and `security.`, or a too long one.
    #[error("squashfs cannot hold the attribute '{0}'")]
    Xattr(
        /// The attribute's name, escaped.
        String,
    ),
    /// A whiteout whose name ends after its prefix, or that hides `.` or `..`.
    #[error("a whiteout names no file")]
    BareWhiteout,
    /// An entry for the root that is not a directory.
    #[error("the root must be a directory")]
    RootNotDirectory,
    /// The parent of an entry cannot hold names.
    #[error("the parent is not a directory")]
    ParentNotDirectory,
    /// A hard link to a path that no layer has so far.
    #[error("the hard link's target '{0}' does not exist")]
    LinkToNothing(
        /// The target, escaped.
        String,
    ),
    /// A hard link to a directory.
    #[error("the hard link's target '{0}' is a directory")]
    LinkToDirectory(
        /// The target, escaped.
        String,
    ),
    /// Symbolic links that lead in a circle, or too far.
    #[error("more than {limit} symbolic links in the path")]
    TooManySymlinks {
        /// As many are followed.
        limit: usize,
    },
}

/// Whether a disk or a quota is full.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

impl Explain for RootfsError {
    fn code(&self) -> Code {
        match self {
            RootfsError::Write(source) if is_disk_full(source) => Code::OutOfDisk,
            _ => Code::ImageInvalid,
        }
    }

    fn next_step(&self) -> Cow<'_, str> {
        match self {
            RootfsError::Entry { .. } => "Build the image without that entry.".into(),
            RootfsError::TooMany { .. } => "Make the image smaller.".into(),
            RootfsError::Layer { .. } => "Check the disk, and try again.".into(),
            RootfsError::Write(source) if is_disk_full(source) => self.code().next_step().into(),
            RootfsError::Write(_) => Code::DiskFailed.next_step().into(),
        }
    }

    fn class(&self) -> Class {
        match self {
            RootfsError::Write(_) => Class::Unavailable,
            _ => self.code().class(),
        }
    }
}
