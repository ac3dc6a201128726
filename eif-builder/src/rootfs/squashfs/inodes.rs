//! The inode and directory tables. Children come before their directory, because a directory lists
//! where their inodes are. Each node is written in the short form where that can hold it, and in
//! the extended one otherwise.

use super::data::{Data, Layout};
use super::directories::{self, DirEntry};
use super::metadata::{MetadataWriter, Place};
use super::xattrs::{NO_XATTRS, XattrTable};
use crate::rootfs::error::RootfsError;
use crate::rootfs::tree::{Device, Meta, NodeId, NodeKind, Tree};
use std::collections::BTreeMap;
use std::io;

const NO_FRAGMENT: u32 = u32::MAX;
/// Added to the type for the extended form.
const EXTENDED: u16 = 7;
/// Types of inodes in their short form.
const DIRECTORY: u16 = 1;
const FILE: u16 = 2;
const SYMLINK: u16 = 3;
const BLOCK_DEVICE: u16 = 4;
const CHAR_DEVICE: u16 = 5;
const FIFO: u16 = 6;

/// What [`write`] makes of a tree.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) inodes: Vec<u8>,
    pub(super) directories: Vec<u8>,
    /// Numbers of users and groups, which inodes refer to by their place here.
    pub(super) ids: Vec<u32>,
    pub(super) id_count: u16,
    pub(super) inode_count: u32,
    /// Reference of the root's inode.
    pub(super) root: u64,
}

pub(super) fn write(tree: &Tree, data: &Data, xattrs: &XattrTable) -> Result<Tables, RootfsError> {
    let mut numbers = vec![0; tree.capacity()];
    let mut inode_count: u32 = 0;
    // Numbers in the order of paths: neighbours in a directory are then near one another, as its
    // entries need.
    for id in tree.in_order() {
        inode_count += 1;
        if let Some(slot) = numbers.get_mut(Tree::index(id)) {
            *slot = inode_count;
        }
    }
    let mut writer = InodeWriter {
        tree,
        data,
        xattrs,
        links: tree.link_counts(),
        numbers,
        places: vec![None; tree.capacity()],
        ids: BTreeMap::new(),
        inodes: MetadataWriter::default(),
        directories: MetadataWriter::default(),
    };
    let root = writer.node(Tree::ROOT, inode_count + 1)?;
    let InodeWriter {
        ids,
        inodes,
        directories,
        ..
    } = writer;
    let mut sorted: Vec<(u16, u32)> = ids.into_iter().map(|(id, index)| (index, id)).collect();
    sorted.sort_unstable();
    Ok(Tables {
        inodes: inodes.finish()?.0,
        directories: directories.finish()?.0,
        id_count: u16::try_from(sorted.len()).map_err(|_| too_many_ids())?,
        ids: sorted.into_iter().map(|(_, id)| id).collect(),
        inode_count,
        root: root.reference(),
    })
}

fn too_many_ids() -> RootfsError {
    RootfsError::TooMany {
        what: "different users and groups",
        limit: usize::from(u16::MAX),
    }
}

/// Writes each node once. The tables are indexed with [`Tree::index`].
struct InodeWriter<'a> {
    tree: &'a Tree,
    data: &'a Data,
    xattrs: &'a XattrTable,
    /// Names of each node.
    links: Vec<u32>,
    /// Inode number of each node.
    numbers: Vec<u32>,
    /// Where each node is, once it is written.
    places: Vec<Option<Place>>,
    ids: BTreeMap<u32, u16>,
    inodes: MetadataWriter,
    directories: MetadataWriter,
}

impl InodeWriter<'_> {
    fn number(&self, id: NodeId) -> u32 {
        self.numbers.get(Tree::index(id)).copied().unwrap_or(0)
    }

    fn id(&mut self, id: u32) -> Result<u16, RootfsError> {
        if let Some(&index) = self.ids.get(&id) {
            return Ok(index);
        }
        let index = u16::try_from(self.ids.len())
            .ok()
            .filter(|&index| index < u16::MAX)
            .ok_or_else(too_many_ids)?;
        self.ids.insert(id, index);
        Ok(index)
    }

    /// Writes a node unless it is written already, and returns its place.
    fn node(&mut self, id: NodeId, parent: u32) -> Result<Place, RootfsError> {
        if let Some(place) = self.places.get(Tree::index(id)).copied().flatten() {
            return Ok(place);
        }
        let (kind, body) = self.body(id, parent)?;
        let Meta {
            mode,
            uid,
            gid,
            mtime,
            xattrs: _,
        } = &self.tree.node(id).meta;
        let place = self.inodes.place()?;
        let mut inode = Vec::with_capacity(16 + body.len());
        inode.extend(kind.to_le_bytes());
        inode.extend(mode.to_le_bytes());
        inode.extend(self.id(*uid)?.to_le_bytes());
        inode.extend(self.id(*gid)?.to_le_bytes());
        inode.extend(mtime.to_le_bytes());
        inode.extend(self.number(id).to_le_bytes());
        inode.extend(body);
        self.inodes.write(&inode)?;
        if let Some(slot) = self.places.get_mut(Tree::index(id)) {
            *slot = Some(place);
        }
        Ok(place)
    }

    /// An inode's type, and what follows the fields that all types have.
    fn body(&mut self, id: NodeId, parent: u32) -> Result<(u16, Vec<u8>), RootfsError> {
        let tree = self.tree;
        let links = self.links.get(Tree::index(id)).copied().unwrap_or(1).max(1);
        let xattr = self.xattrs.number(id);
        let device =
            |device: &Device| [links.to_le_bytes(), encode(*device).to_le_bytes()].concat();
        Ok(match &tree.node(id).kind {
            NodeKind::Directory(children) => self.directory(id, children, parent, xattr)?,
            NodeKind::File(body) => {
                let empty = Layout::default();
                let layout = self.data.layout(body).unwrap_or(&empty);
                file(body.len, layout, links, xattr)
            }
            NodeKind::Symlink(target) => {
                let len = u32::try_from(target.len()).map_err(io::Error::other)?;
                let mut body = [links.to_le_bytes(), len.to_le_bytes()].concat();
                body.extend_from_slice(target);
                extend(SYMLINK, body, xattr)
            }
            NodeKind::Block(numbers) => extend(BLOCK_DEVICE, device(numbers), xattr),
            NodeKind::Char(numbers) => extend(CHAR_DEVICE, device(numbers), xattr),
            NodeKind::Fifo => extend(FIFO, links.to_le_bytes().to_vec(), xattr),
        })
    }

    /// Writes what is in a directory, and its listing.
    fn directory(
        &mut self,
        id: NodeId,
        children: &BTreeMap<Vec<u8>, NodeId>,
        parent: u32,
        xattr: u32,
    ) -> Result<(u16, Vec<u8>), RootfsError> {
        let own = self.number(id);
        let mut entries = Vec::with_capacity(children.len());
        let mut links: u32 = 2;
        for (name, &child) in children {
            let place = self.node(child, own)?;
            let kind = short_form(&self.tree.node(child).kind);
            links += u32::from(kind == DIRECTORY);
            entries.push(DirEntry {
                name,
                place,
                number: self.number(child),
                kind,
            });
        }
        let start = self.directories.place()?;
        let len = directories::write(&mut self.directories, &entries)?;
        Ok(directory(start, len, links, parent, xattr))
    }
}

/// The type's number in the short form, which directory entries carry.
fn short_form(kind: &NodeKind) -> u16 {
    match kind {
        NodeKind::Directory(_) => DIRECTORY,
        NodeKind::File(_) => FILE,
        NodeKind::Symlink(_) => SYMLINK,
        NodeKind::Block(_) => BLOCK_DEVICE,
        NodeKind::Char(_) => CHAR_DEVICE,
        NodeKind::Fifo => FIFO,
    }
}

/// Appends the attributes' number in the extended form; links, devices and pipes differ in nothing
/// else.
fn extend(kind: u16, mut body: Vec<u8>, xattr: u32) -> (u16, Vec<u8>) {
    if xattr == NO_XATTRS {
        return (kind, body);
    }
    body.extend(xattr.to_le_bytes());
    (kind + EXTENDED, body)
}

/// `start` is where its listing is, `len` the listing's length as the format counts it, `parent` an
/// inode number.
fn directory(start: Place, len: u32, links: u32, parent: u32, xattr: u32) -> (u16, Vec<u8>) {
    let mut body = Vec::new();
    match u16::try_from(len) {
        Ok(len) if xattr == NO_XATTRS => {
            body.extend(start.block.to_le_bytes());
            body.extend(links.to_le_bytes());
            body.extend(len.to_le_bytes());
            body.extend(start.offset.to_le_bytes());
            body.extend(parent.to_le_bytes());
            (DIRECTORY, body)
        }
        _ => {
            body.extend(links.to_le_bytes());
            body.extend(len.to_le_bytes());
            body.extend(start.block.to_le_bytes());
            body.extend(parent.to_le_bytes());
            body.extend(0u16.to_le_bytes()); // no index: lookups read the listing
            body.extend(start.offset.to_le_bytes());
            body.extend(xattr.to_le_bytes());
            (DIRECTORY + EXTENDED, body)
        }
    }
}

fn file(len: u64, layout: &Layout, links: u32, xattr: u32) -> (u16, Vec<u8>) {
    let Layout {
        start,
        blocks,
        tail,
    } = layout;
    let (fragment, offset) = tail.unwrap_or((NO_FRAGMENT, 0));
    let mut body = Vec::new();
    let kind = match (u32::try_from(*start), u32::try_from(len)) {
        (Ok(start), Ok(len)) if links == 1 && xattr == NO_XATTRS => {
            for field in [start, fragment, offset, len] {
                body.extend(field.to_le_bytes());
            }
            FILE
        }
        _ => {
            // The third is the number of bytes in holes; we write none.
            for field in [*start, len, 0] {
                body.extend(field.to_le_bytes());
            }
            for field in [links, fragment, offset, xattr] {
                body.extend(field.to_le_bytes());
            }
            FILE + EXTENDED
        }
    };
    body.extend(blocks.iter().flat_map(|size| size.to_le_bytes()));
    (kind, body)
}

/// The kernel's 32-bit form (include/linux/kdev_t.h, new_encode_dev).
fn encode(Device { major, minor }: Device) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}
