//! Why a file cannot be read as an EIF.

use explain::{Code, Explain};
use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

/// Why [`Eif`](super::Eif) cannot read a file.
#[derive(Debug, thiserror::Error)]
pub enum EifError {
    /// The file cannot be opened or read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system reported.
        source: io::Error,
    },
    /// The file is no EIF, or a damaged one.
    #[error("{path} is not a valid EIF: {problem}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: EifProblem,
    },
}

/// What is wrong with the content of a file that should be an EIF.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EifProblem {
    /// It ends within the header of 548 bytes.
    #[error("it is shorter than a header")]
    ShorterThanHeader,
    /// The first four bytes.
    #[error("it does not start with '.eif'")]
    Magic,
    /// A version that is not read here.
    #[error("its version is not 2, 3 or 4")]
    Version,
    /// A flag other than the one for the architecture.
    #[error("it has unknown flags")]
    Flags,
    /// Kernel and command line make 2 the minimum; the header has room for 32.
    #[error("its number of sections is not between 2 and 32")]
    SectionCount,
    /// The header describes more sections than it counts.
    #[error("it has offsets or sizes after its last section")]
    UnusedSlots,
    /// A section is longer than the file.
    #[error("a section ends after the end of the file")]
    SectionTooLong,
    /// A gap or an overlap.
    #[error("its sections do not follow one another")]
    NotContiguous,
    /// The two headers give two sizes.
    #[error("a section's header and the file's header disagree about its size")]
    SizesDisagree,
    /// A section's flags are not zero.
    #[error("a section has unknown flags")]
    SectionFlags,
    /// A section's type is not one of the five.
    #[error("a section has an unknown type")]
    SectionType,
    /// Something comes after the last section.
    #[error("bytes follow its last section")]
    TrailingBytes,
    /// The kernel is missing, not first, or there are two.
    #[error("it must start with its only kernel")]
    Kernel,
    /// The command line is missing, or there are two.
    #[error("it must have one command line")]
    Cmdline,
    /// The metadata is missing although the version requires it, or there are two.
    #[error("it must have one metadata section")]
    MetadataCount,
    /// More than one signature.
    #[error("it has two signatures")]
    Signatures,
    /// The metadata is longer than 1 MiB.
    #[error("its metadata is longer than 1 MiB")]
    MetadataTooLong,
    /// The metadata is not the JSON of nitro-cli.
    #[error("its metadata cannot be parsed: {0}")]
    MetadataSyntax(String),
}

impl Explain for EifError {
    fn code(&self) -> Code {
        match self {
            EifError::Read { .. } => Code::DiskFailed,
            EifError::Invalid { .. } => Code::BuildFailed,
        }
    }

    fn next_step(&self) -> Cow<'_, str> {
        match self {
            EifError::Read { .. } => "Check the path, and that you may read it.".into(),
            EifError::Invalid { .. } => "Build the enclave image again.".into(),
        }
    }
}
