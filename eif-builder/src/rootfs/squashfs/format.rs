//! The numbers of the format (Linux, fs/squashfs/squashfs_fs.h).

/// Bytes of a data block: 128 KiB, mksquashfs's own choice.
pub(super) const BLOCK_SIZE: usize = 1 << BLOCK_LOG;
pub(super) const BLOCK_LOG: u16 = 17;
pub(super) const MAGIC: u32 = 0x7371_7368;
/// The number of zstd among the compressors.
pub(super) const ZSTD: u16 = 6;
pub(super) const SUPERBLOCK_LEN: usize = 96;
/// "There is no such table."
pub(super) const NONE: u64 = u64::MAX;
/// Set in a block's or fragment's size if it is stored as it is.
pub(super) const STORED: u32 = 1 << 24;
/// The image ends at a multiple of this: a loop device is read in pages.
pub(super) const PAD: u64 = 4096;
/// Longest image in bytes: the cpio around it has 32 bits for its length.
pub(super) const MAX_IMAGE: u64 = u32::MAX as u64;
pub(super) const FLAG_NO_XATTRS: u16 = 0x0200;
pub(super) const FLAG_DUPLICATES: u16 = 0x0040;
