//! The enclave image format: a header of 548 bytes, then sections, each behind a header of 12. All integers big-endian.
//! Source: aws-nitro-enclaves-image-format, README.md and src/defs. [`Writer`] makes files of version 4, [`Eif`] reads them.

mod metadata;
mod reader;
mod writer;

pub use metadata::{BuildMetadata, Metadata};
pub use reader::{Eif, EifError, Section};
pub use writer::Writer;

pub(crate) const MAGIC: [u8; 4] = *b".eif";
/// The version that makes metadata mandatory.
pub(crate) const VERSION: u16 = 4;
pub(crate) const HEADER_LEN: usize = 548;
/// Where the CRC stands: the last field of the header, and not covered by itself.
pub(crate) const CRC_AT: usize = 544;
pub(crate) const SECTION_HEADER_LEN: usize = 12;
pub(crate) const MAX_SECTIONS: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SectionKind {
    Kernel,
    Cmdline,
    Ramdisk,
    Signature,
    Metadata,
}

impl SectionKind {
    pub(crate) fn number(self) -> u16 {
        match self {
            SectionKind::Kernel => 1,
            SectionKind::Cmdline => 2,
            SectionKind::Ramdisk => 3,
            SectionKind::Signature => 4,
            SectionKind::Metadata => 5,
        }
    }

    pub(crate) fn of(number: u16) -> Option<SectionKind> {
        use SectionKind::{Cmdline, Kernel, Metadata, Ramdisk, Signature};
        [Kernel, Cmdline, Ramdisk, Signature, Metadata]
            .into_iter()
            .find(|kind| kind.number() == number)
    }
}
