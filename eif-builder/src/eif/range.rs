//! Reads a range of a file piece by piece: for the checksum and for the measurements.

use super::format::{CRC_AT, HEADER_LEN};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

/// Bytes that are read at once.
const PIECE: usize = 1024 * 1024;

/// Hands the bytes of the range to `each` in order, 1 MiB at most at a time. Blocks on the disk.
pub(super) fn read_range(
    file: &File,
    range: Range<u64>,
    mut each: impl FnMut(&[u8]),
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    let mut at = range.start;
    while at < range.end {
        let len = usize::try_from(range.end - at).unwrap_or(PIECE).min(PIECE);
        let Some(buffer) = piece.get_mut(..len) else {
            break;
        };
        file.read_exact_at(buffer, at)?;
        each(buffer);
        at += len as u64;
    }
    Ok(())
}

/// CRC-32/ISO-HDLC over the header without its last field, then over the file from the header's end
/// to `end`.
pub(super) fn crc(file: &File, header: &[u8], end: u64) -> io::Result<u32> {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header.get(..CRC_AT).unwrap_or(header));
    read_range(file, HEADER_LEN as u64..end, |bytes| hasher.update(bytes))?;
    Ok(hasher.finalize())
}
