//! Writes a tree as a squashfs 4.0 image with zstd compression.
//!
//! Order on disk, as `mksquashfs` writes it and as the kernel checks it: superblock, file data, inode table, directory table,
//! fragment table, id table, attribute table. File data goes out in the order of paths, so that the same tree gives the same
//! bytes however many threads compress it.
//!
//! Source of the format: Linux, fs/squashfs/squashfs_fs.h and the readers beside it.

mod data;
mod inodes;
mod metadata;
mod xattrs;

use super::{Body, RootfsError, Tree};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Bytes of a data block.
const BLOCK_SIZE: usize = 1 << BLOCK_LOG;
const BLOCK_LOG: u16 = 17;
const MAGIC: u32 = 0x7371_7368;
const ZSTD: u16 = 6;
const SUPERBLOCK_LEN: usize = 96;
/// "There is no such table."
const NONE: u64 = u64::MAX;
/// Set in a block's or fragment's size if it is stored as it is.
const STORED: u32 = 1 << 24;
/// The image ends at a multiple of this: a loop device is read in pages.
const PAD: u64 = 4096;
/// The cpio around the image has 32 bits for its length.
const MAX_IMAGE: u64 = u32::MAX as u64;
const FLAG_NO_XATTRS: u16 = 0x0200;
const FLAG_DUPLICATES: u16 = 0x0040;

/// Where the bytes of files come from. Called from one thread at a time.
pub trait Bodies {
    fn read(&self, body: &Body, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

impl Bodies for [oci::VerifiedLayer] {
    fn read(&self, body: &Body, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let layer = self
            .get(body.layer)
            .ok_or_else(|| io::Error::other("a body names a layer that is not there"))?;
        layer.read_exact_at(buffer, body.offset + offset)
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// zstd level, 1 to 22.
    pub level: i32,
    /// Threads that compress; the result does not depend on it.
    pub threads: usize,
}

impl Options {
    /// All cores, and zstd's own default level; which level is best for images was not measured yet.
    pub fn for_this_machine() -> Options {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Options { level: 3, threads }
    }
}

/// A region of a file that is written from its start on.
#[derive(Debug)]
pub(super) struct Region<'a> {
    file: &'a File,
    base: u64,
    len: u64,
}

impl Region<'_> {
    /// Appends and says where, relative to the start of the image.
    fn append(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let at = self.len;
        if at + bytes.len() as u64 > MAX_IMAGE {
            return Err(io::Error::other(
                "the root file system is larger than 4 GiB, which its ramdisk cannot hold",
            ));
        }
        self.file.write_all_at(bytes, self.base + at)?;
        self.len += bytes.len() as u64;
        Ok(at)
    }
}

/// Writes the image into `file` from byte `base` on and gives its length, a multiple of 4096. `progress` is told how many
/// bytes of file data went in.
pub fn write(
    tree: &Tree,
    bodies: &(impl Bodies + ?Sized),
    file: &File,
    base: u64,
    options: Options,
    progress: &dyn Fn(u64),
) -> Result<u64, RootfsError> {
    let mut out = Region { file, base, len: 0 };
    out.append(&[0; SUPERBLOCK_LEN])?;
    let data = data::write(tree, bodies, &mut out, options, progress)?;
    let attributes = xattrs::Table::of(tree)?;
    let tables = inodes::write(tree, &data, &attributes)?;

    let inode_start = out.append(&tables.inodes)?;
    let directory_start = out.append(&tables.directories)?;
    let fragment_start =
        metadata::write_indexed(&mut out, data.fragments.iter().map(data::Fragment::entry))?;
    let id_start = metadata::write_indexed(&mut out, tables.ids.iter().map(|id| id.to_le_bytes()))?;
    let xattr_start = attributes.write(&mut out)?;
    let used = out.len;

    let count = |n: usize, what| {
        u32::try_from(n).map_err(|_| RootfsError::TooMany {
            what,
            limit: u32::MAX as usize,
        })
    };
    let flags = FLAG_DUPLICATES
        | if xattr_start == NONE {
            FLAG_NO_XATTRS
        } else {
            0
        };
    let mut superblock = Vec::with_capacity(SUPERBLOCK_LEN);
    superblock.extend(MAGIC.to_le_bytes());
    superblock.extend(tables.inode_count.to_le_bytes());
    superblock.extend(0u32.to_le_bytes()); // modification time: no clock goes into an image
    superblock.extend((1u32 << BLOCK_LOG).to_le_bytes());
    superblock.extend(count(data.fragments.len(), "fragments")?.to_le_bytes());
    superblock.extend(ZSTD.to_le_bytes());
    superblock.extend(BLOCK_LOG.to_le_bytes());
    superblock.extend(flags.to_le_bytes());
    superblock.extend(tables.id_count.to_le_bytes());
    superblock.extend(4u16.to_le_bytes()); // version 4.0
    superblock.extend(0u16.to_le_bytes());
    superblock.extend(tables.root.to_le_bytes());
    superblock.extend(used.to_le_bytes());
    for table in [
        id_start,
        xattr_start,
        inode_start,
        directory_start,
        fragment_start,
        NONE,
    ] {
        superblock.extend(table.to_le_bytes());
    }
    file.write_all_at(&superblock, base)?;
    let padding = used.next_multiple_of(PAD) - used;
    out.append(vec![0; usize::try_from(padding).unwrap_or(0)].as_slice())?;
    Ok(out.len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::flatten;
    use oci::VerifiedLayer;

    /// Files of every length that matters: none, a tail, one block, blocks and a tail, and the same again.
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
        vec![crate::rootfs::archive::layer_of(&tar.into_inner().unwrap())]
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
        let mut out = Region {
            file: file.as_file(),
            base: 0,
            len: 0,
        };
        let told = std::cell::Cell::new(0);
        let options = Options {
            level: 1,
            threads: 2,
        };
        data::write(&tree, layers.as_slice(), &mut out, options, &|bytes| {
            told.set(told.get() + bytes)
        })
        .unwrap();
        assert_eq!(told.get() * 2, tree.file_bytes());
    }
}
