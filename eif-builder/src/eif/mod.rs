//! The enclave image format (EIF): a header of 548 bytes, then sections, each behind a header of
//! 12. All integers are big-endian. [`EifWriter`] makes files of version 4, [`Eif`] reads versions
//! 2 to 4, [`measure`] computes their PCRs.
//!
//! Source: aws-nitro-enclaves-image-format, README.md and src/defs.

mod error;
mod format;
mod header;
mod measure;
mod metadata;
mod range;
mod reader;
mod writer;

pub use error::{EifError, EifProblem};
pub use format::{Section, SectionKind};
pub use measure::measure;
pub use metadata::{BuildMetadata, Metadata};
pub use reader::Eif;
pub use writer::EifWriter;
