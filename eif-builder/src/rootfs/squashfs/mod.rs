//! Writes a tree as a squashfs 4.0 image with zstd compression.
//!
//! Order on disk, as `mksquashfs` writes it and as the kernel checks it: superblock, file data,
//! inode table, directory table, fragment table, id table, attribute table. File data goes out in
//! the order of paths, so that the same tree gives the same bytes however many threads compress it.
//!
//! Source of the format: Linux, fs/squashfs/squashfs_fs.h and the readers beside it.

mod data;
mod directories;
mod format;
mod inodes;
mod metadata;
mod region;
mod source;
mod superblock;
mod xattrs;

pub use source::{Bodies, Options};

use super::error::RootfsError;
use super::tree::Tree;
use format::{PAD, SUPERBLOCK_LEN};
use region::Region;
use std::fs::File;
use superblock::Superblock;

/// Writes an image into `file` from byte `base` on and returns its length in bytes, a multiple of
/// 4096. `progress` is called with the number of bytes of file data that went in since the last
/// call.
///
/// Blocks: it reads all bodies, and those of equal length twice. Memory does not depend on their
/// size.
///
/// # Errors
/// A body cannot be read, the file cannot be written, or the image would be larger than 4 GiB or
/// than squashfs allows.
pub fn write(
    tree: &Tree,
    bodies: &(impl Bodies + ?Sized),
    file: &File,
    base: u64,
    options: Options,
    progress: &dyn Fn(u64),
) -> Result<u64, RootfsError> {
    let mut out = Region::new(file, base);
    out.append(&[0; SUPERBLOCK_LEN])?;
    let data = data::write(tree, bodies, &mut out, options, progress)?;
    let xattrs = xattrs::XattrTable::of(tree)?;
    let tables = inodes::write(tree, &data, &xattrs)?;
    let fragment_count = u32::try_from(data.fragments.len()).map_err(|_| RootfsError::TooMany {
        what: "fragments",
        limit: u32::MAX as usize,
    })?;

    let fragments = data.fragments.iter().map(data::Fragment::entry);
    let ids = tables.ids.iter().map(|id| id.to_le_bytes());
    // Struct fields are evaluated as they are written: this is the order on disk.
    let superblock = Superblock {
        inode_count: tables.inode_count,
        fragment_count,
        id_count: tables.id_count,
        root: tables.root,
        inode_start: out.append(&tables.inodes)?,
        directory_start: out.append(&tables.directories)?,
        fragment_start: metadata::write_indexed(&mut out, fragments)?,
        id_start: metadata::write_indexed(&mut out, ids)?,
        xattr_start: xattrs.write(&mut out)?,
        used: out.len(),
    };
    out.write_start(&superblock.encode())?;
    let padding = out.len().next_multiple_of(PAD) - out.len();
    out.append(&vec![0; usize::try_from(padding).unwrap_or(0)])?;
    Ok(out.len())
}

#[cfg(test)]
mod tests {
    use super::format::BLOCK_SIZE;
    use super::*;
    use crate::rootfs::flatten;
    use oci::VerifiedLayer;

    /// Files of every length that matters: none, a tail, one block, blocks and a tail, and the same
    /// again.
    fn layers() -> Vec<VerifiedLayer> {
        let mut tar = tar::Builder::new(Vec::new());
        for (n, len) in [
            0,
            1,
            BLOCK_SIZE,
            BLOCK_SIZE + 1,
            5 * BLOCK_SIZE,
            3 * BLOCK_SIZE + 77,
        ]
        .into_iter()
        .enumerate()
        {
            for copy in ["a", "b"] {
                let body: Vec<u8> = (0..len)
                    .map(|i| u8::try_from((i / 7 * (n + 1)) % 251).unwrap())
                    .collect();
                let mut header = tar::Header::new_gnu();
                header.set_size(len as u64);
                header.set_mode(0o644);
                header.set_uid(0);
                header.set_gid(0);
                header.set_mtime(0);
                tar.append_data(&mut header, format!("{copy}/{n}"), body.as_slice())
                    .unwrap();
            }
        }
        let tar = tar.into_inner().unwrap();
        vec![VerifiedLayer::from_archive(&tar, oci::Digest::of(&tar)).unwrap()]
    }

    fn image(layers: &[VerifiedLayer], threads: usize) -> Vec<u8> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let tree = flatten(layers).unwrap();
        let options = Options { level: 3, threads };
        let len = write(&tree, layers, file.as_file(), 0, options, &|_| {}).unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        assert_eq!((len, len % PAD), (bytes.len() as u64, 0));
        bytes
    }

    #[test]
    fn the_number_of_threads_does_not_change_a_byte() {
        let layers = layers();
        let one = image(&layers, 1);
        for threads in [2, 3, 8] {
            assert!(image(&layers, threads) == one, "{threads} threads");
        }
    }

    #[test]
    fn the_same_content_is_stored_once() {
        let layers = layers();
        let tree = flatten(&layers).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut out = Region::new(file.as_file(), 0);
        let reported = std::cell::Cell::new(0);
        let options = Options {
            level: 1,
            threads: 2,
        };
        data::write(&tree, layers.as_slice(), &mut out, options, &|bytes| {
            reported.set(reported.get() + bytes)
        })
        .unwrap();
        assert_eq!(reported.get() * 2, tree.file_bytes());
    }
}
