//! The numbers of the format, and what a section is (aws-nitro-enclaves-image-format,
//! src/defs/mod.rs).

use std::ops::Range;

pub(super) const MAGIC: [u8; 4] = *b".eif";
/// The version that makes metadata mandatory.
pub(super) const VERSION: u16 = 4;
/// Bytes of the file's header.
pub(super) const HEADER_LEN: usize = 548;
/// Offset of the CRC: the last field of the header, and not covered by itself.
pub(super) const CRC_AT: usize = 544;
/// Bytes of the header in front of each section's data.
pub(super) const SECTION_HEADER_LEN: usize = 12;
/// The header has room for the offsets and sizes of this many sections.
pub(super) const MAX_SECTIONS: usize = 32;

/// What a section holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SectionKind {
    /// A bzImage. Measured into PCR0 and PCR1.
    Kernel,
    /// The kernel's command line. Measured into PCR0 and PCR1.
    Cmdline,
    /// A cpio archive. The first is measured into PCR0 and PCR1, later ones into PCR0 and PCR2.
    Ramdisk,
    /// The signing certificate and signature behind PCR8. Not measured.
    Signature,
    /// JSON about the build ([`Metadata`](super::Metadata)). Not measured.
    Metadata,
}

impl SectionKind {
    pub(super) fn number(self) -> u16 {
        match self {
            SectionKind::Kernel => 1,
            SectionKind::Cmdline => 2,
            SectionKind::Ramdisk => 3,
            SectionKind::Signature => 4,
            SectionKind::Metadata => 5,
        }
    }

    pub(super) fn of(number: u16) -> Option<SectionKind> {
        use SectionKind::{Cmdline, Kernel, Metadata, Ramdisk, Signature};
        [Kernel, Cmdline, Ramdisk, Signature, Metadata]
            .into_iter()
            .find(|kind| kind.number() == number)
    }
}

/// Where the data of a section is in its file. The section's own header of 12 bytes is in front of
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// What the data is.
    pub kind: SectionKind,
    /// Start of the data, in bytes from the start of the file.
    pub start: u64,
    /// End of the data: the offset of the first byte after it.
    pub end: u64,
}

impl Section {
    /// The bytes of the file that are the section's data.
    pub fn range(&self) -> Range<u64> {
        self.start..self.end
    }
}
