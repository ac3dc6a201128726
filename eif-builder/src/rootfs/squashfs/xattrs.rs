//! Extended attributes: each different set is stored once and named by number.

use super::format::NONE;
use super::metadata::MetadataWriter;
use super::region::Region;
use crate::rootfs::error::RootfsError;
use crate::rootfs::tree::{NodeId, Tree, Xattrs};
use std::collections::BTreeMap;
use std::io;

/// "No attributes" in an inode.
pub(super) const NO_XATTRS: u32 = u32::MAX;
/// Prefixes of names, and their numbers. Names are stored without them.
const PREFIXES: [(&[u8], u16); 3] = [(b"user.", 0), (b"trusted.", 1), (b"security.", 2)];

/// The sets of attributes in a tree, and which node has which.
#[derive(Debug)]
pub(super) struct XattrTable {
    sets: Vec<Xattrs>,
    of_node: Vec<u32>,
}

impl XattrTable {
    pub(super) fn of(tree: &Tree) -> Result<XattrTable, RootfsError> {
        let mut numbers: BTreeMap<&Xattrs, u32> = BTreeMap::new();
        let mut table = XattrTable {
            sets: Vec::new(),
            of_node: vec![NO_XATTRS; tree.capacity()],
        };
        for id in tree.in_order() {
            let set = &tree.node(id).meta.xattrs;
            if set.is_empty() {
                continue;
            }
            let next = u32::try_from(table.sets.len()).map_err(|_| RootfsError::TooMany {
                what: "sets of attributes",
                limit: u32::MAX as usize,
            })?;
            let number = *numbers.entry(set).or_insert_with(|| {
                table.sets.push(set.clone());
                next
            });
            if let Some(slot) = table.of_node.get_mut(Tree::index(id)) {
                *slot = number;
            }
        }
        Ok(table)
    }

    pub(super) fn number(&self, id: NodeId) -> u32 {
        self.of_node
            .get(Tree::index(id))
            .copied()
            .unwrap_or(NO_XATTRS)
    }

    /// Values first, then a table of sets, then an index with its own small header; returns the
    /// index's place.
    pub(super) fn write(&self, out: &mut Region<'_>) -> io::Result<u64> {
        if self.sets.is_empty() {
            return Ok(NONE);
        }
        let mut values = MetadataWriter::default();
        let mut sets = MetadataWriter::default();
        for set in &self.sets {
            let reference = values.place()?.reference();
            let bytes = encode(set)?;
            values.write(&bytes)?;
            sets.write(&reference.to_le_bytes())?;
            sets.write(&u32::try_from(set.len()).map_err(too_long)?.to_le_bytes())?;
            sets.write(&u32::try_from(bytes.len()).map_err(too_long)?.to_le_bytes())?;
        }
        let (bytes, _) = values.finish()?;
        let values_start = out.append(&bytes)?;
        let (bytes, starts) = sets.finish()?;
        let sets_start = out.append(&bytes)?;
        let count = u32::try_from(self.sets.len()).map_err(too_long)?;
        let mut index = Vec::new();
        index.extend(values_start.to_le_bytes());
        index.extend(count.to_le_bytes());
        index.extend(0u32.to_le_bytes());
        index.extend(
            starts
                .iter()
                .flat_map(|start| (sets_start + start).to_le_bytes()),
        );
        out.append(&index)
    }
}

fn encode(set: &Xattrs) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for (name, value) in set {
        let mut prefixes = PREFIXES.iter();
        let (kind, rest) = prefixes
            .find_map(|(prefix, kind)| Some((*kind, name.strip_prefix(*prefix)?)))
            .ok_or_else(|| io::Error::other("an attribute outside user, trusted and security"))?;
        bytes.extend(kind.to_le_bytes());
        bytes.extend(u16::try_from(rest.len()).map_err(too_long)?.to_le_bytes());
        bytes.extend_from_slice(rest);
        bytes.extend(u32::try_from(value.len()).map_err(too_long)?.to_le_bytes());
        bytes.extend_from_slice(value);
    }
    Ok(bytes)
}

fn too_long(_: std::num::TryFromIntError) -> io::Error {
    io::Error::other("an attribute is too long")
}
