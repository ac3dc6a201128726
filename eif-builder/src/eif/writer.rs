//! Writes an EIF section by section, and the header when everything else is known.

use super::{CRC_AT, HEADER_LEN, MAGIC, MAX_SECTIONS, SECTION_HEADER_LEN, SectionKind, VERSION};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// What AWS's tools write into two fields that nobody reads.
const DEFAULT_MEMORY: u64 = 1 << 30;
const DEFAULT_CPUS: u64 = 2;

#[derive(Debug)]
pub struct Writer<'a> {
    file: &'a File,
    /// Offset of each section's header, and length of its data.
    sections: Vec<(u64, u64)>,
    end: u64,
}

impl<'a> Writer<'a> {
    /// Starts an image in an empty file.
    pub fn new(file: &'a File) -> Writer<'a> {
        Writer {
            file,
            sections: Vec::new(),
            end: HEADER_LEN as u64,
        }
    }

    pub fn section(&mut self, kind: SectionKind, data: &[u8]) -> io::Result<()> {
        self.section_with(kind, |file, at| {
            file.write_all_at(data, at)?;
            Ok(data.len() as u64)
        })
    }

    /// Lets `write` put data of any length at the given offset of the file; it answers how long the data is.
    pub fn section_with<E: From<io::Error>>(
        &mut self,
        kind: SectionKind,
        write: impl FnOnce(&File, u64) -> Result<u64, E>,
    ) -> Result<(), E> {
        if self.sections.len() == MAX_SECTIONS {
            return Err(io::Error::other("an EIF has 32 sections at most").into());
        }
        let at = self.end;
        let len = write(self.file, at + SECTION_HEADER_LEN as u64)?;
        let mut header = Vec::with_capacity(SECTION_HEADER_LEN);
        header.extend(kind.number().to_be_bytes());
        header.extend(0u16.to_be_bytes());
        header.extend(len.to_be_bytes());
        self.file.write_all_at(&header, at)?;
        self.sections.push((at, len));
        self.end = at + SECTION_HEADER_LEN as u64 + len;
        Ok(())
    }

    /// Writes the header and gives the length of the file in bytes.
    pub fn finish(self) -> io::Result<u64> {
        let mut header = Vec::with_capacity(HEADER_LEN);
        header.extend(MAGIC);
        header.extend(VERSION.to_be_bytes());
        header.extend(0u16.to_be_bytes()); // x86_64
        header.extend(DEFAULT_MEMORY.to_be_bytes());
        header.extend(DEFAULT_CPUS.to_be_bytes());
        header.extend(0u16.to_be_bytes());
        header.extend(
            u16::try_from(self.sections.len())
                .map_err(io::Error::other)?
                .to_be_bytes(),
        );
        let padded = |of: fn(&(u64, u64)) -> u64| {
            let known = self.sections.iter().map(of).chain(std::iter::repeat(0));
            known
                .take(MAX_SECTIONS)
                .flat_map(u64::to_be_bytes)
                .collect::<Vec<u8>>()
        };
        header.extend(padded(|section| section.0));
        header.extend(padded(|section| section.1));
        header.extend(0u32.to_be_bytes());
        debug_assert_eq!(header.len(), CRC_AT);
        let crc = crc_of_body(self.file, crc32fast::Hasher::new(), &header, self.end)?;
        header.extend(crc.to_be_bytes());
        self.file.write_all_at(&header, 0)?;
        Ok(self.end)
    }
}

/// CRC-32/ISO-HDLC over the header without its last field, then over everything behind the header.
pub(super) fn crc_of_body(
    file: &File,
    mut hasher: crc32fast::Hasher,
    header: &[u8],
    end: u64,
) -> io::Result<u32> {
    hasher.update(header.get(..CRC_AT).unwrap_or(header));
    crate::measure::read_range(file, HEADER_LEN as u64, end, |bytes| hasher.update(bytes))?;
    Ok(hasher.finalize())
}
