//! A root file system in memory: metadata and names, with bodies left where they are. Hard links are several names of one
//! node. Paths are resolved inside the tree only; there is no way out of it.

use super::archive::Path;
use std::collections::{BTreeMap, VecDeque};

/// Symbolic links followed in one lookup (Linux: MAXSYMLINKS).
const MAX_LINKS: usize = 40;
/// Directories below one another; the writers walk the tree by recursion.
const MAX_DEPTH: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(usize);

/// Extended attributes: full name and value, sorted by name.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// Permission, setuid, setgid and sticky bits: 12 of them.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970-01-01T00:00:00Z.
    pub mtime: u32,
    pub xattrs: Xattrs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    pub major: u32,
    pub minor: u32,
}

/// The bytes of a file: a range of a layer's archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Body {
    /// Index into the image's layers, lowest first.
    pub layer: usize,
    pub offset: u64,
    pub len: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Directory(BTreeMap<Vec<u8>, NodeId>),
    File(Body),
    Symlink(Vec<u8>),
    Char(Device),
    Block(Device),
    Fifo,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub meta: Meta,
    pub kind: Kind,
}

#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
}

/// What OCI leaves open and everybody does: a directory that no entry describes.
const IMPLIED_DIRECTORY: Meta = Meta {
    mode: 0o755,
    uid: 0,
    gid: 0,
    mtime: 0,
    xattrs: Vec::new(),
};

impl Default for Tree {
    fn default() -> Self {
        Tree {
            nodes: vec![Node {
                meta: IMPLIED_DIRECTORY,
                kind: Kind::Directory(BTreeMap::new()),
            }],
        }
    }
}

impl Tree {
    pub const ROOT: NodeId = NodeId(0);

    pub fn node(&self, id: NodeId) -> &Node {
        self.nodes
            .get(id.0)
            .expect("a NodeId comes from this tree, and nodes are never removed from it")
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes
            .get_mut(id.0)
            .expect("a NodeId comes from this tree, and nodes are never removed from it")
    }

    /// How many nodes were ever made: the bound of every NodeId.
    pub fn capacity(&self) -> usize {
        self.nodes.len()
    }

    pub fn index(id: NodeId) -> usize {
        id.0
    }

    pub(super) fn add(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        NodeId(self.nodes.len() - 1)
    }

    /// The names in a directory; `None` for anything else.
    pub(super) fn children(&mut self, id: NodeId) -> Option<&mut BTreeMap<Vec<u8>, NodeId>> {
        match &mut self.node_mut(id).kind {
            Kind::Directory(children) => Some(children),
            _ => None,
        }
    }

    pub(super) fn set_meta(&mut self, id: NodeId, meta: Meta) {
        self.node_mut(id).meta = meta;
    }

    pub(super) fn child(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        match &self.node(directory).kind {
            Kind::Directory(children) => children.get(name).copied(),
            _ => None,
        }
    }

    /// The directory that `components` lead to, symbolic links followed inside the tree. With `create`, what is missing
    /// is made, and what is no directory is replaced by one; without, the answer is then `None`.
    pub(super) fn directory(
        &mut self,
        components: &Path,
        create: bool,
    ) -> Result<Option<NodeId>, String> {
        let mut stack = vec![Tree::ROOT];
        let mut todo: VecDeque<Vec<u8>> = components.iter().cloned().collect();
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            let here = *stack.last().unwrap_or(&Tree::ROOT);
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    if stack.len() > 1 {
                        stack.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let found = self.child(here, &name);
            match found.map(|id| (id, &self.node(id).kind)) {
                Some((id, Kind::Directory(_))) => stack.push(id),
                Some((_, Kind::Symlink(target))) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(format!("more than {MAX_LINKS} symbolic links on the way"));
                    }
                    let target = target.clone();
                    if target.starts_with(b"/") {
                        stack.truncate(1);
                    }
                    for part in target.split(|&b| b == b'/').rev() {
                        todo.push_front(part.to_vec());
                    }
                }
                Some(_) | None if create => {
                    let node = Node {
                        meta: IMPLIED_DIRECTORY,
                        kind: Kind::Directory(BTreeMap::new()),
                    };
                    let id = self.add(node);
                    self.children(here)
                        .expect("only directories are pushed on the stack")
                        .insert(name, id);
                    stack.push(id);
                }
                Some(_) | None => return Ok(None),
            }
            if stack.len() > MAX_DEPTH {
                return Err(format!(
                    "more than {MAX_DEPTH} directories below one another"
                ));
            }
        }
        Ok(stack.last().copied())
    }

    /// The node at a path: the parents as in [`Tree::directory`], the last component never followed.
    pub(super) fn lookup(&mut self, path: &Path) -> Result<Option<NodeId>, String> {
        let Some((name, parents)) = path.split_last() else {
            return Ok(Some(Tree::ROOT));
        };
        let parent = self.directory(&parents.to_vec(), false)?;
        Ok(parent.and_then(|parent| self.child(parent, name)))
    }

    /// For how many names each node has; index it with [`Tree::index`].
    pub fn link_counts(&self) -> Vec<u32> {
        let mut counts = vec![0; self.capacity()];
        let mut todo = vec![Tree::ROOT];
        while let Some(id) = todo.pop() {
            let Kind::Directory(children) = &self.node(id).kind else {
                continue;
            };
            for &child in children.values() {
                if let Some(count) = counts.get_mut(child.0) {
                    *count += 1;
                }
                if matches!(self.node(child).kind, Kind::Directory(_)) {
                    todo.push(child);
                }
            }
        }
        counts
    }
}

impl Tree {
    /// Every node that has a name, once, in the order of paths: a directory, then what is in it.
    pub fn in_order(&self) -> Vec<NodeId> {
        let mut seen = vec![false; self.capacity()];
        let mut order = Vec::new();
        let mut todo = vec![Tree::ROOT];
        while let Some(id) = todo.pop() {
            if seen
                .get_mut(id.0)
                .is_some_and(|seen| !std::mem::replace(seen, true))
            {
                order.push(id);
                if let Kind::Directory(children) = &self.node(id).kind {
                    todo.extend(children.values().rev());
                }
            }
        }
        order
    }

    /// Bytes of all files together, each counted once.
    pub fn file_bytes(&self) -> u64 {
        let len = |id| match &self.node(id).kind {
            Kind::File(body) => body.len,
            _ => 0,
        };
        self.in_order().into_iter().map(len).sum()
    }
}
