//! Decodes an entry from its header and the extension records before it. Pax beats GNU's records,
//! which beat the header.

use super::entry::EntryKind;
use super::pax::{Extensions, decimal, seconds};
use super::xattrs::xattrs;
use crate::rootfs::error::EntryProblem;
use crate::rootfs::path::{MAX_PATH, TreePath};
use crate::rootfs::tree::{Device, Meta};
use std::io;
use tar::{EntryType, Header};

/// A header, and the extension records before it.
#[derive(Clone, Copy)]
pub(super) struct Described<'a> {
    pub(super) header: &'a Header,
    pub(super) extensions: &'a Extensions,
}

impl Described<'_> {
    /// The path as it is written.
    pub(super) fn path(self) -> Vec<u8> {
        let path = self.pax(b"path").or(self.extensions.long_name.as_deref());
        path.map_or_else(|| self.header.path_bytes().into_owned(), <[u8]>::to_vec)
    }

    /// Bytes of data behind the header.
    pub(super) fn len(self) -> Result<u64, EntryProblem> {
        let pax = &self.extensions.pax;
        if let Some(key) = pax.keys().find(|key| key.starts_with(b"GNU.sparse.")) {
            return Err(EntryProblem::SparseRecord(key.escape_ascii().to_string()));
        }
        self.number("size", self.header.entry_size())
    }

    pub(super) fn meta(self) -> Result<Meta, EntryProblem> {
        let mode = self.header.mode();
        let mode = mode.map_err(|_| EntryProblem::HeaderNumber("mode"))? & 0o7777;
        Ok(Meta {
            mode: u16::try_from(mode).unwrap_or(0),
            uid: self.id("uid", self.header.uid())?,
            gid: self.id("gid", self.header.gid())?,
            mtime: match self.pax(b"mtime") {
                Some(text) => seconds(text).ok_or(EntryProblem::PaxTime)?,
                None => u32::try_from(self.header.mtime().unwrap_or(0)).unwrap_or(u32::MAX),
            },
            xattrs: xattrs(&self.extensions.pax)?,
        })
    }

    /// What the entry makes, if its data of `len` bytes starts at `offset` of the archive.
    pub(super) fn kind(self, offset: u64, len: u64) -> Result<EntryKind, EntryProblem> {
        use EntryType as T;
        Ok(match self.header.entry_type() {
            // v7 archives mark a directory by its name.
            T::Regular | T::Continuous if !self.path().ends_with(b"/") => {
                EntryKind::File { offset, len }
            }
            T::Regular | T::Continuous | T::Directory => EntryKind::Directory,
            T::Symlink => EntryKind::Symlink(self.link_target()?),
            T::Link => EntryKind::HardLink(TreePath::parse(&self.link_target()?)?),
            T::Char => EntryKind::Char(self.device()?),
            T::Block => EntryKind::Block(self.device()?),
            T::Fifo => EntryKind::Fifo,
            T::GNUSparse => return Err(EntryProblem::Sparse),
            other => return Err(EntryProblem::UnknownType(other.as_byte())),
        })
    }

    fn pax(&self, key: &[u8]) -> Option<&[u8]> {
        self.extensions.pax.get(key).map(Vec::as_slice)
    }

    fn number(self, key: &'static str, field: io::Result<u64>) -> Result<u64, EntryProblem> {
        match self.pax(key.as_bytes()) {
            Some(text) => decimal(text).ok_or(EntryProblem::PaxNumber(key)),
            None => field.map_err(|_| EntryProblem::HeaderNumber(key)),
        }
    }

    fn id(self, key: &'static str, field: io::Result<u64>) -> Result<u32, EntryProblem> {
        let id = self.number(key, field)?;
        u32::try_from(id).map_err(|_| EntryProblem::IdTooLarge { key, id })
    }

    fn link_target(self) -> Result<Vec<u8>, EntryProblem> {
        let link = self
            .pax(b"linkpath")
            .or(self.extensions.long_link.as_deref());
        let link = match link {
            Some(link) => Some(link.to_vec()),
            None => self.header.link_name_bytes().map(|name| name.into_owned()),
        };
        link.filter(|link| !link.is_empty() && link.len() <= MAX_PATH && !link.contains(&0))
            .ok_or(EntryProblem::LinkTarget)
    }

    fn device(self) -> Result<Device, EntryProblem> {
        let major = self.header.device_major().ok().flatten().unwrap_or(0);
        let minor = self.header.device_minor().ok().flatten().unwrap_or(0);
        match (major, minor) {
            (0, 0) => Err(EntryProblem::WhiteoutDevice),
            // Linux, include/linux/kdev_t.h: 12 and 20 bits.
            (major, minor) if major < 1 << 12 && minor < 1 << 20 => Ok(Device { major, minor }),
            (major, minor) => Err(EntryProblem::Device { major, minor }),
        }
    }
}
