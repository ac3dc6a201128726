//! The inode and directory tables. Children come before their directory, because a directory lists where their inodes stand.
//! Each node is written in the short form where that can hold it, and in the extended one otherwise.

use super::data::{Data, Layout};
use super::metadata::{Place, Writer};
use super::xattrs::{NO_XATTRS, Table};
use crate::rootfs::{Device, Kind, Meta, NodeId, RootfsError, Tree};
use std::collections::BTreeMap;
use std::io;

const NO_FRAGMENT: u32 = u32::MAX;
/// Added to the type for the extended form.
const EXTENDED: u16 = 7;
/// Entries that one directory header may have.
const MAX_RUN: usize = 256;
/// Directories are as long as their listing and this, says the format.
const LISTING_EXTRA: u32 = 3;

#[derive(Debug)]
pub(super) struct Tables {
    pub(super) inodes: Vec<u8>,
    pub(super) directories: Vec<u8>,
    pub(super) ids: Vec<u32>,
    pub(super) id_count: u16,
    pub(super) inode_count: u32,
    pub(super) root: u64,
}

pub(super) fn write(tree: &Tree, data: &Data, attributes: &Table) -> Result<Tables, RootfsError> {
    let mut numbers = vec![0; tree.capacity()];
    let mut inode_count: u32 = 0;
    // Numbers in the order of paths: neighbours in a directory are then near one another, as its entries need.
    for id in tree.in_order() {
        inode_count += 1;
        if let Some(slot) = numbers.get_mut(Tree::index(id)) {
            *slot = inode_count;
        }
    }
    let mut writer = Tabler {
        tree,
        data,
        attributes,
        links: tree.link_counts(),
        numbers,
        places: vec![None; tree.capacity()],
        ids: BTreeMap::new(),
        inodes: Writer::default(),
        directories: Writer::default(),
    };
    let root = writer.node(Tree::ROOT, inode_count + 1)?;
    let Tabler {
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

struct Tabler<'a> {
    tree: &'a Tree,
    data: &'a Data,
    attributes: &'a Table,
    links: Vec<u32>,
    numbers: Vec<u32>,
    places: Vec<Option<Place>>,
    ids: BTreeMap<u32, u16>,
    inodes: Writer,
    directories: Writer,
}

/// A directory entry before it is written.
struct Listed<'a> {
    name: &'a [u8],
    place: Place,
    number: u32,
    kind: u16,
}

impl Tabler<'_> {
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

    /// Writes a node once, whatever it has of names, and gives its place.
    fn node(&mut self, id: NodeId, parent: u32) -> Result<Place, RootfsError> {
        if let Some(place) = self.places.get(Tree::index(id)).copied().flatten() {
            return Ok(place);
        }
        let tree = self.tree;
        let node = tree.node(id);
        let links = self.links.get(Tree::index(id)).copied().unwrap_or(1).max(1);
        let xattr = self.attributes.number(id);
        let (kind, body) = match &node.kind {
            Kind::Directory(children) => self.directory(id, children, parent, xattr)?,
            Kind::File(body) => {
                let empty = Layout::default();
                file(
                    body.len,
                    self.data.layout(body).unwrap_or(&empty),
                    links,
                    xattr,
                )?
            }
            Kind::Symlink(target) => {
                let len = u32::try_from(target.len()).map_err(io::Error::other)?;
                let mut body = [links.to_le_bytes(), len.to_le_bytes()].concat();
                body.extend_from_slice(target);
                extend(3, body, xattr)
            }
            Kind::Block(device) => extend(
                4,
                [links.to_le_bytes(), encode(*device).to_le_bytes()].concat(),
                xattr,
            ),
            Kind::Char(device) => extend(
                5,
                [links.to_le_bytes(), encode(*device).to_le_bytes()].concat(),
                xattr,
            ),
            Kind::Fifo => extend(6, links.to_le_bytes().to_vec(), xattr),
        };
        let Meta {
            mode,
            uid,
            gid,
            mtime,
            xattrs: _,
        } = &node.meta;
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

    fn directory(
        &mut self,
        id: NodeId,
        children: &BTreeMap<Vec<u8>, NodeId>,
        parent: u32,
        xattr: u32,
    ) -> Result<(u16, Vec<u8>), RootfsError> {
        let own = self.number(id);
        let mut listed = Vec::with_capacity(children.len());
        let mut links: u32 = 2;
        for (name, &child) in children {
            let place = self.node(child, own)?;
            let kind = kind(&self.tree.node(child).kind);
            links += u32::from(kind == 1);
            listed.push(Listed {
                name,
                place,
                number: self.number(child),
                kind,
            });
        }
        let start = self.directories.place()?;
        let mut len = LISTING_EXTRA;
        let mut rest = listed.as_slice();
        while let Some(first) = rest.first() {
            let run = rest
                .iter()
                .take(MAX_RUN)
                .take_while(|entry| fits(first, entry))
                .count();
            let (now, later) = rest.split_at(run);
            let bytes = listing(first, now)?;
            len = u32::try_from(bytes.len())
                .ok()
                .and_then(|n| len.checked_add(n))
                .ok_or(RootfsError::TooMany {
                    what: "bytes of names in one directory",
                    limit: u32::MAX as usize,
                })?;
            self.directories.write(&bytes)?;
            rest = later;
        }
        let mut body = Vec::new();
        match u16::try_from(len) {
            Ok(len) if xattr == NO_XATTRS => {
                body.extend(start.block.to_le_bytes());
                body.extend(links.to_le_bytes());
                body.extend(len.to_le_bytes());
                body.extend(start.offset.to_le_bytes());
                body.extend(parent.to_le_bytes());
                Ok((1, body))
            }
            _ => {
                body.extend(links.to_le_bytes());
                body.extend(len.to_le_bytes());
                body.extend(start.block.to_le_bytes());
                body.extend(parent.to_le_bytes());
                body.extend(0u16.to_le_bytes()); // no index: lookups read the listing
                body.extend(start.offset.to_le_bytes());
                body.extend(xattr.to_le_bytes());
                Ok((1 + EXTENDED, body))
            }
        }
    }
}

/// Whether an entry can stand behind the header that `first` makes.
fn fits(first: &Listed<'_>, entry: &Listed<'_>) -> bool {
    entry.place.block == first.place.block && delta(first, entry).is_some()
}

fn delta(first: &Listed<'_>, entry: &Listed<'_>) -> Option<i16> {
    i16::try_from(i64::from(entry.number) - i64::from(first.number)).ok()
}

fn listing(first: &Listed<'_>, entries: &[Listed<'_>]) -> io::Result<Vec<u8>> {
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

/// The short form's type number, which directory entries carry.
fn kind(kind: &Kind) -> u16 {
    match kind {
        Kind::Directory(_) => 1,
        Kind::File(_) => 2,
        Kind::Symlink(_) => 3,
        Kind::Block(_) => 4,
        Kind::Char(_) => 5,
        Kind::Fifo => 6,
    }
}

/// Appends the attributes' number in the extended form; links, devices and pipes differ in nothing else.
fn extend(kind: u16, mut body: Vec<u8>, xattr: u32) -> (u16, Vec<u8>) {
    if xattr == NO_XATTRS {
        return (kind, body);
    }
    body.extend(xattr.to_le_bytes());
    (kind + EXTENDED, body)
}

fn file(len: u64, layout: &Layout, links: u32, xattr: u32) -> Result<(u16, Vec<u8>), RootfsError> {
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
            2
        }
        _ => {
            // The third is the number of bytes in holes; we write none.
            for field in [*start, len, 0] {
                body.extend(field.to_le_bytes());
            }
            for field in [links, fragment, offset, xattr] {
                body.extend(field.to_le_bytes());
            }
            2 + EXTENDED
        }
    };
    body.extend(blocks.iter().flat_map(|size| size.to_le_bytes()));
    Ok((kind, body))
}

/// The kernel's 32-bit form (include/linux/kdev_t.h, new_encode_dev).
fn encode(Device { major, minor }: Device) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}
