//! Reads the tar entries of one layer (POSIX pax, GNU and v7 headers). Header fields are decoded by
//! the `tar` crate; the walk from header to header is ours, because extension records must be
//! bounded before they are read and pax values may hold newlines (a `security.capability` does).
//!
//! Where archivers disagree about an entry, it is refused: two readings of an image are two images.

mod entry;
mod header;
mod pax;
#[cfg(test)]
mod tests;
mod xattrs;

pub(super) use entry::{Entry, EntryKind};

use super::error::{EntryProblem, RootfsError};
use super::path::TreePath;
use header::Described;
use oci::VerifiedLayer;
use pax::Extensions;
use tar::Header;

const BLOCK: u64 = 512;
/// Longest extension record (long name or pax), in bytes.
const MAX_EXTENSION: u64 = 1024 * 1024;
/// Entries of one layer. Each costs memory; real images have some ten thousand.
const MAX_ENTRIES: usize = 2_000_000;
/// Bytes of names, targets and attributes in one layer. Real images have a few MB.
const MAX_METADATA: usize = 256 * 1024 * 1024;
/// Where a header has its checksum, which counts itself as blanks.
const CHECKSUM: std::ops::Range<usize> = 148..156;

/// All entries in order. `layer` is for messages: 1 is the lowest.
pub(super) fn entries(archive: &VerifiedLayer, layer: usize) -> Result<Vec<Entry>, RootfsError> {
    let mut walk = Walk {
        archive,
        layer,
        position: 0,
    };
    let mut entries = Vec::new();
    let mut metadata = 0;
    while let Some(entry) = walk.next_entry()? {
        metadata += entry.weight();
        if metadata > MAX_METADATA {
            return Err(RootfsError::TooMany {
                what: "bytes of names and attributes in one layer",
                limit: MAX_METADATA,
            });
        }
        if entries.len() == MAX_ENTRIES {
            return Err(RootfsError::TooMany {
                what: "entries in one layer",
                limit: MAX_ENTRIES,
            });
        }
        entries.push(entry);
    }
    Ok(entries)
}

/// Goes from header to header.
struct Walk<'a> {
    archive: &'a VerifiedLayer,
    layer: usize,
    position: u64,
}

impl Walk<'_> {
    fn error(&self, problem: EntryProblem) -> RootfsError {
        RootfsError::entry(self.layer, None, problem)
    }

    fn next_entry(&mut self) -> Result<Option<Entry>, RootfsError> {
        let mut extensions = Extensions::default();
        while let Some(header) = self.header()? {
            let kind = header.entry_type();
            if !Extensions::includes(kind) {
                return self.entry(&header, &extensions).map(Some);
            }
            let body = self.extension(&header)?;
            extensions.add(kind, body).map_err(|e| self.error(e))?;
        }
        if extensions.is_empty() {
            Ok(None)
        } else {
            Err(self.error(EntryProblem::EndsAfterExtension))
        }
    }

    fn entry(&mut self, header: &Header, extensions: &Extensions) -> Result<Entry, RootfsError> {
        let described = Described { header, extensions };
        let path = described.path();
        self.described(described, &path)
            .map_err(|problem| RootfsError::entry(self.layer, Some(&path), problem))
    }

    /// Decodes an entry, and goes to the header after it.
    fn described(&mut self, described: Described<'_>, path: &[u8]) -> Result<Entry, EntryProblem> {
        let len = described.len()?;
        let meta = described.meta()?;
        let path = TreePath::parse(path)?;
        let kind = described.kind(self.position, len)?;
        if let EntryKind::File { .. } = kind {
            if len > self.archive.len() - self.position {
                return Err(EntryProblem::FileTruncated);
            }
            self.position += len;
            self.skip_padding(len)?;
        } else if len != 0 {
            return Err(EntryProblem::UnexpectedBody);
        }
        Ok(Entry { path, meta, kind })
    }

    /// `None` at the end: a block of zeros, or the end of the archive at a block's border.
    fn header(&mut self) -> Result<Option<Header>, RootfsError> {
        if self.position == self.archive.len() {
            return Ok(None);
        }
        let block = self.read(BLOCK)?;
        if block.iter().all(|&b| b == 0) {
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        let bytes = block.iter().enumerate();
        let counted = bytes.map(|(at, &b)| if CHECKSUM.contains(&at) { b' ' } else { b });
        let sum: u32 = counted.map(u32::from).sum();
        match header.cksum() {
            Ok(stored) if stored == sum => Ok(Some(header)),
            _ => Err(self.error(EntryProblem::Checksum)),
        }
    }

    /// The body of an extension record. Goes to the header after it.
    fn extension(&mut self, header: &Header) -> Result<Vec<u8>, RootfsError> {
        let len = header
            .entry_size()
            .map_err(|_| self.error(EntryProblem::HeaderNumber("size")))?;
        if len > MAX_EXTENSION {
            let limit = MAX_EXTENSION;
            return Err(self.error(EntryProblem::ExtensionTooLong { limit }));
        }
        let bytes = self.read(len)?;
        self.skip_padding(len).map_err(|e| self.error(e))?;
        Ok(bytes)
    }

    fn read(&mut self, len: u64) -> Result<Vec<u8>, RootfsError> {
        if self.position + len > self.archive.len() {
            return Err(self.error(EntryProblem::Truncated));
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        self.archive
            .read_exact_at(&mut bytes, self.position)
            .map_err(|source| RootfsError::Layer {
                layer: self.layer,
                source,
            })?;
        self.position += len;
        Ok(bytes)
    }

    /// Goes from the end of a body of `len` bytes to the next block.
    fn skip_padding(&mut self, len: u64) -> Result<(), EntryProblem> {
        self.position += len.next_multiple_of(BLOCK) - len;
        if self.position <= self.archive.len() {
            Ok(())
        } else {
            Err(EntryProblem::Truncated)
        }
    }
}
