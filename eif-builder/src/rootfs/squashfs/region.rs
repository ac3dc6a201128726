//! The part of a file that an image is written into.

use super::format::MAX_IMAGE;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// A region of a file that is written from its start on.
#[derive(Debug)]
pub(super) struct Region<'a> {
    file: &'a File,
    base: u64,
    len: u64,
}

impl Region<'_> {
    /// An empty region that starts at byte `base` of the file.
    pub(super) fn new(file: &File, base: u64) -> Region<'_> {
        Region { file, base, len: 0 }
    }

    /// Bytes that were appended so far.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Appends, and returns where, in bytes from the start of the region.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let at = self.len;
        if at + bytes.len() as u64 > MAX_IMAGE {
            return Err(io::Error::other(
                "it is larger than 4 GiB, which a ramdisk cannot hold",
            ));
        }
        self.file.write_all_at(bytes, self.base + at)?;
        self.len += bytes.len() as u64;
        Ok(at)
    }

    /// Replaces the region's first bytes.
    pub(super) fn write_start(&self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.base)
    }
}
