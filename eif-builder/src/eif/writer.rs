//! Writes an EIF section by section, and the header when everything else is known.

use super::format::{HEADER_LEN, MAX_SECTIONS, SECTION_HEADER_LEN, SectionKind};
use super::header::{Header, Slot};
use super::range::crc;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Writes an EIF of version 4. The file is complete only after [`EifWriter::finish`].
#[derive(Debug)]
pub struct EifWriter<'a> {
    file: &'a File,
    slots: Vec<Slot>,
    end: u64,
}

impl<'a> EifWriter<'a> {
    /// Starts an image in an empty file. Nothing is written yet.
    pub fn new(file: &'a File) -> EifWriter<'a> {
        EifWriter {
            file,
            slots: Vec::new(),
            end: HEADER_LEN as u64,
        }
    }

    /// Appends a section whose data is in memory.
    ///
    /// # Errors
    /// The file cannot be written, or has 32 sections already.
    pub fn section(&mut self, kind: SectionKind, data: &[u8]) -> io::Result<()> {
        self.section_with(kind, |file, at| {
            file.write_all_at(data, at)?;
            Ok(data.len() as u64)
        })
    }

    /// Appends a section of any length: `write` puts its data into the file at the given offset, in
    /// bytes from the start of the file, and returns the length of the data in bytes.
    ///
    /// # Errors
    /// `write` failed, the file cannot be written, or it has 32 sections already.
    pub fn section_with<E: From<io::Error>>(
        &mut self,
        kind: SectionKind,
        write: impl FnOnce(&File, u64) -> Result<u64, E>,
    ) -> Result<(), E> {
        if self.slots.len() == MAX_SECTIONS {
            return Err(io::Error::other("an EIF has 32 sections at most").into());
        }
        let at = self.end;
        let len = write(self.file, at + SECTION_HEADER_LEN as u64)?;
        let mut header = Vec::with_capacity(SECTION_HEADER_LEN);
        header.extend(kind.number().to_be_bytes());
        header.extend(0u16.to_be_bytes());
        header.extend(len.to_be_bytes());
        self.file.write_all_at(&header, at)?;
        self.slots.push(Slot { at, len });
        self.end = at + SECTION_HEADER_LEN as u64 + len;
        Ok(())
    }

    /// Writes the header and returns the length of the file in bytes. Blocks: it reads the whole
    /// file for the checksum.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn finish(self) -> io::Result<u64> {
        let mut header = Header::encode(&self.slots);
        let crc = crc(self.file, &header, self.end)?;
        header.extend(crc.to_be_bytes());
        self.file.write_all_at(&header, 0)?;
        Ok(self.end)
    }
}
