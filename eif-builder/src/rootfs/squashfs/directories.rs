//! The listings of directories: runs of entries, each run behind a header that its entries share.

use super::metadata::{MetadataWriter, Place};
use crate::rootfs::error::RootfsError;
use std::io;

/// Entries that one header may have.
const MAX_RUN: usize = 256;
/// The format adds this to the length of a listing.
const LISTING_EXTRA: u32 = 3;

/// A name in a directory, and the inode that it names.
#[derive(Debug)]
pub(super) struct DirEntry<'a> {
    pub(super) name: &'a [u8],
    /// Where the inode is.
    pub(super) place: Place,
    /// The inode's number.
    pub(super) number: u32,
    /// The inode's type, in its short form.
    pub(super) kind: u16,
}

/// Writes the listing of a directory, whose entries are sorted by name, and returns the directory's
/// length in bytes as its inode gives it.
pub(super) fn write(
    table: &mut MetadataWriter,
    entries: &[DirEntry<'_>],
) -> Result<u32, RootfsError> {
    let mut len = LISTING_EXTRA;
    let mut rest = entries;
    while let Some(first) = rest.first() {
        let run = rest
            .iter()
            .take(MAX_RUN)
            .take_while(|entry| fits(first, entry))
            .count();
        let (now, later) = rest.split_at(run);
        let bytes = encode_run(first, now)?;
        len = u32::try_from(bytes.len())
            .ok()
            .and_then(|n| len.checked_add(n))
            .ok_or(RootfsError::TooMany {
                what: "bytes of names in one directory",
                limit: u32::MAX as usize,
            })?;
        table.write(&bytes)?;
        rest = later;
    }
    Ok(len)
}

/// Whether an entry can be behind the header that `first` makes.
fn fits(first: &DirEntry<'_>, entry: &DirEntry<'_>) -> bool {
    entry.place.block == first.place.block && delta(first, entry).is_some()
}

fn delta(first: &DirEntry<'_>, entry: &DirEntry<'_>) -> Option<i16> {
    i16::try_from(i64::from(entry.number) - i64::from(first.number)).ok()
}

fn encode_run(first: &DirEntry<'_>, entries: &[DirEntry<'_>]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let count = u32::try_from(entries.len()).map_err(io::Error::other)?;
    bytes.extend(count.saturating_sub(1).to_le_bytes());
    bytes.extend(first.place.block.to_le_bytes());
    bytes.extend(first.number.to_le_bytes());
    for entry in entries {
        let delta =
            delta(first, entry).ok_or_else(|| io::Error::other("a directory run is too wide"))?;
        let name_len = u16::try_from(entry.name.len()).map_err(io::Error::other)?;
        bytes.extend(entry.place.offset.to_le_bytes());
        bytes.extend(delta.to_le_bytes());
        bytes.extend(entry.kind.to_le_bytes());
        bytes.extend(name_len.saturating_sub(1).to_le_bytes());
        bytes.extend_from_slice(entry.name);
    }
    Ok(bytes)
}
