//! The first 96 bytes of an image: what the kernel reads to find everything else.

use super::format::{
    BLOCK_LOG, FLAG_DUPLICATES, FLAG_NO_XATTRS, MAGIC, NONE, SUPERBLOCK_LEN, ZSTD,
};

/// What differs from image to image. Places are in bytes from the start of the image; [`NONE`] is
/// "no such table".
#[derive(Debug)]
pub(super) struct Superblock {
    pub(super) inode_count: u32,
    pub(super) fragment_count: u32,
    pub(super) id_count: u16,
    /// Reference of the root's inode.
    pub(super) root: u64,
    /// Length of the image in bytes, without padding.
    pub(super) used: u64,
    pub(super) id_start: u64,
    pub(super) xattr_start: u64,
    pub(super) inode_start: u64,
    pub(super) directory_start: u64,
    pub(super) fragment_start: u64,
}

impl Superblock {
    pub(super) fn encode(&self) -> Vec<u8> {
        let flags = match self.xattr_start {
            NONE => FLAG_DUPLICATES | FLAG_NO_XATTRS,
            _ => FLAG_DUPLICATES,
        };
        let mut bytes = Vec::with_capacity(SUPERBLOCK_LEN);
        bytes.extend(MAGIC.to_le_bytes());
        bytes.extend(self.inode_count.to_le_bytes());
        bytes.extend(0u32.to_le_bytes()); // modification time: no clock goes into an image
        bytes.extend((1u32 << BLOCK_LOG).to_le_bytes());
        bytes.extend(self.fragment_count.to_le_bytes());
        bytes.extend(ZSTD.to_le_bytes());
        bytes.extend(BLOCK_LOG.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(self.id_count.to_le_bytes());
        bytes.extend(4u16.to_le_bytes()); // version 4.0
        bytes.extend(0u16.to_le_bytes());
        for field in [
            self.root,
            self.used,
            self.id_start,
            self.xattr_start,
            self.inode_start,
            self.directory_start,
            self.fragment_start,
            NONE, // no table for export over NFS
        ] {
            bytes.extend(field.to_le_bytes());
        }
        debug_assert_eq!(bytes.len(), SUPERBLOCK_LEN);
        bytes
    }
}
