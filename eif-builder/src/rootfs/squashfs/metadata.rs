//! Metadata blocks: 8 KiB each before compression, behind a 16-bit length whose top bit means
//! "stored as it is".

use super::format::NONE;
use super::region::Region;
use std::io;

const BLOCK: usize = 8192;
const STORED: u16 = 0x8000;
/// zstd level of metadata; there is little of it.
const LEVEL: i32 = 9;

/// Collects a table and remembers where things are in it.
#[derive(Debug, Default)]
pub(super) struct MetadataWriter {
    finished: Vec<u8>,
    /// Start of each finished block, in bytes from the start of the table.
    starts: Vec<u64>,
    current: Vec<u8>,
}

/// A place in a table: the block's start and the offset in the block once it is uncompressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) block: u32,
    pub(super) offset: u16,
}

impl Place {
    /// The 64-bit form of inode and attribute references.
    pub(super) fn reference(self) -> u64 {
        u64::from(self.block) << 16 | u64::from(self.offset)
    }
}

impl MetadataWriter {
    /// Where the next byte will be.
    pub(super) fn place(&self) -> io::Result<Place> {
        let too_big = |_| io::Error::other("a squashfs table is larger than 4 GiB");
        Ok(Place {
            block: u32::try_from(self.finished.len()).map_err(too_big)?,
            offset: u16::try_from(self.current.len()).map_err(too_big)?,
        })
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - self.current.len()));
            self.current.extend_from_slice(now);
            bytes = later;
            if self.current.len() == BLOCK {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.current.is_empty() {
            return Ok(());
        }
        self.starts.push(self.finished.len() as u64);
        let compressed = zstd::bulk::compress(&self.current, LEVEL)?;
        let (bytes, flag) = if compressed.len() < self.current.len() {
            (&compressed, 0)
        } else {
            (&self.current, STORED)
        };
        let len = u16::try_from(bytes.len()).map_err(io::Error::other)?;
        self.finished.extend((len | flag).to_le_bytes());
        self.finished.extend_from_slice(bytes);
        self.current.clear();
        Ok(())
    }

    /// The table's bytes, and where each of its blocks starts.
    pub(super) fn finish(mut self) -> io::Result<(Vec<u8>, Vec<u64>)> {
        self.flush()?;
        Ok((self.finished, self.starts))
    }
}

/// Writes a table of fixed-size entries with the index that its readers start from; returns the
/// index's place.
pub(super) fn write_indexed<const N: usize>(
    out: &mut Region<'_>,
    entries: impl Iterator<Item = [u8; N]>,
) -> io::Result<u64> {
    let mut writer = MetadataWriter::default();
    for entry in entries {
        writer.write(&entry)?;
    }
    let (bytes, starts) = writer.finish()?;
    if starts.is_empty() {
        return Ok(NONE);
    }
    let base = out.append(&bytes)?;
    let index: Vec<u8> = starts
        .iter()
        .flat_map(|start| (base + start).to_le_bytes())
        .collect();
    out.append(&index)
}
