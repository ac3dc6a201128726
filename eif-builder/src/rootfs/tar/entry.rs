//! One entry of a layer, decoded and checked.

use crate::rootfs::path::TreePath;
use crate::rootfs::tree::{Device, Meta};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::rootfs) struct Entry {
    pub(in crate::rootfs) path: TreePath,
    pub(in crate::rootfs) meta: Meta,
    pub(in crate::rootfs) kind: EntryKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::rootfs) enum EntryKind {
    Directory,
    /// Where the data is in the archive: offset from its start, and length, in bytes.
    File {
        offset: u64,
        len: u64,
    },
    Symlink(Vec<u8>),
    HardLink(TreePath),
    Char(Device),
    Block(Device),
    Fifo,
}

impl Entry {
    /// About how many bytes of memory it takes.
    pub(super) fn weight(&self) -> usize {
        let xattrs = self.meta.xattrs.iter();
        let xattrs: usize = xattrs
            .map(|(name, value)| name.len() + value.len() + 96)
            .sum();
        let link = match &self.kind {
            EntryKind::Symlink(target) => target.len(),
            EntryKind::HardLink(target) => target.weight(),
            _ => 0,
        };
        size_of::<Entry>() + self.path.weight() + xattrs + link
    }
}
