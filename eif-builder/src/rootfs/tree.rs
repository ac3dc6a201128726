//! A root file system in memory: metadata and names, with bodies left where they are. Hard links
//! are several names of one node. Paths are resolved inside the tree only; there is no way out of
//! it.

use super::error::EntryProblem;
use super::path::{MAX_DEPTH, PathError, TreePath};
use std::collections::{BTreeMap, VecDeque};

/// Symbolic links followed in one lookup (Linux: MAXSYMLINKS).
const MAX_LINKS: usize = 40;

/// Names a node of one [`Tree`]. In another tree it names another node, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(usize);

/// Extended attributes: full name and value, sorted by name.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// What an inode has beside its content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// Permission, setuid, setgid and sticky bits: 12 of them.
    pub mode: u16,
    /// Number of the user that owns it.
    pub uid: u32,
    /// Number of the group that owns it.
    pub gid: u32,
    /// Seconds since 1970-01-01T00:00:00Z.
    pub mtime: u32,
    /// Those that squashfs can hold.
    pub xattrs: Xattrs,
}

/// The numbers of a device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Below 2^12.
    pub major: u32,
    /// Below 2^20.
    pub minor: u32,
}

/// The bytes of a file: a range of a layer's archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Body {
    /// Index into the image's layers, from 0, lowest first.
    pub layer: usize,
    /// Start, in bytes from the start of the uncompressed archive.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
}

/// What a node is, and its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKind {
    /// Names in it, sorted by their bytes, and what they name.
    Directory(BTreeMap<Vec<u8>, NodeId>),
    /// A regular file.
    File(Body),
    /// A symbolic link, and its target as it is written.
    Symlink(Vec<u8>),
    /// A character device.
    Char(Device),
    /// A block device.
    Block(Device),
    /// A named pipe.
    Fifo,
}

/// An inode. It has no name of its own: directories name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Owner, mode, time and attributes.
    pub meta: Meta,
    /// Its type and content.
    pub kind: NodeKind,
}

/// A root file system. Made by [`flatten`](super::flatten()).
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
}

/// Metadata of a directory that no entry describes. OCI leaves it open; this is what all engines
/// do.
const IMPLIED_DIRECTORY: Meta = Meta {
    mode: 0o755,
    uid: 0,
    gid: 0,
    mtime: 0,
    xattrs: Vec::new(),
};

fn implied_directory() -> Node {
    Node {
        meta: IMPLIED_DIRECTORY,
        kind: NodeKind::Directory(BTreeMap::new()),
    }
}

impl Default for Tree {
    fn default() -> Self {
        Tree {
            nodes: vec![implied_directory()],
        }
    }
}

impl Tree {
    /// The root directory.
    pub const ROOT: NodeId = NodeId(0);

    /// The node of that id.
    ///
    /// # Panics
    /// The id is of another, larger tree.
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

    /// How many nodes were ever made, also those that have no name any more: [`Tree::index`] is
    /// always below it.
    pub fn capacity(&self) -> usize {
        self.nodes.len()
    }

    /// A node's place in a table with [`Tree::capacity`] elements.
    pub fn index(id: NodeId) -> usize {
        id.0
    }

    /// How many names each node has; index it with [`Tree::index`].
    pub fn link_counts(&self) -> Vec<u32> {
        let mut counts = vec![0; self.capacity()];
        let mut todo = vec![Tree::ROOT];
        while let Some(id) = todo.pop() {
            let NodeKind::Directory(children) = &self.node(id).kind else {
                continue;
            };
            for &child in children.values() {
                if let Some(count) = counts.get_mut(child.0) {
                    *count += 1;
                }
                if matches!(self.node(child).kind, NodeKind::Directory(_)) {
                    todo.push(child);
                }
            }
        }
        counts
    }

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
                if let NodeKind::Directory(children) = &self.node(id).kind {
                    todo.extend(children.values().rev());
                }
            }
        }
        order
    }

    /// Bytes of all files together, each counted once.
    pub fn file_bytes(&self) -> u64 {
        let len = |id| match &self.node(id).kind {
            NodeKind::File(body) => body.len,
            _ => 0,
        };
        self.in_order().into_iter().map(len).sum()
    }
}

/// What [`flatten`](super::flatten()) needs to build it.
impl Tree {
    /// Adds a node that has no name yet.
    pub(super) fn add(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        NodeId(self.nodes.len() - 1)
    }

    pub(super) fn set_meta(&mut self, id: NodeId, meta: Meta) {
        self.node_mut(id).meta = meta;
    }

    /// Gives a node a name. What had that name before loses it.
    pub(super) fn link(
        &mut self,
        directory: NodeId,
        name: &[u8],
        id: NodeId,
    ) -> Result<(), EntryProblem> {
        let children = self.children(directory);
        let children = children.ok_or(EntryProblem::ParentNotDirectory)?;
        children.insert(name.to_vec(), id);
        Ok(())
    }

    pub(super) fn unlink(&mut self, directory: NodeId, name: &[u8]) {
        if let Some(children) = self.children(directory) {
            children.remove(name);
        }
    }

    pub(super) fn unlink_all(&mut self, directory: NodeId) {
        if let Some(children) = self.children(directory) {
            children.clear();
        }
    }

    fn children(&mut self, id: NodeId) -> Option<&mut BTreeMap<Vec<u8>, NodeId>> {
        match &mut self.node_mut(id).kind {
            NodeKind::Directory(children) => Some(children),
            _ => None,
        }
    }

    pub(super) fn child(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        match &self.node(directory).kind {
            NodeKind::Directory(children) => children.get(name).copied(),
            _ => None,
        }
    }

    /// The directory that `components` lead to, symbolic links followed inside the tree.
    pub(super) fn find_directory(
        &self,
        components: &[Vec<u8>],
    ) -> Result<Option<NodeId>, EntryProblem> {
        let mut descent = Descent::to(components);
        let missing = descent.advance(self)?;
        Ok(missing.is_none().then(|| descent.here()))
    }

    /// Like [`Tree::find_directory`], but what is missing is made, and what is no directory is
    /// replaced by one.
    pub(super) fn make_directory(
        &mut self,
        components: &[Vec<u8>],
    ) -> Result<NodeId, EntryProblem> {
        let mut descent = Descent::to(components);
        while let Some(name) = descent.advance(self)? {
            let id = self.add(implied_directory());
            self.link(descent.here(), &name, id)?;
            descent.enter(id)?;
        }
        Ok(descent.here())
    }

    /// The node at a path: the parents as in [`Tree::find_directory`], the last component never
    /// followed.
    pub(super) fn lookup(&self, path: &TreePath) -> Result<Option<NodeId>, EntryProblem> {
        let Some((name, parents)) = path.split_last() else {
            return Ok(Some(Tree::ROOT));
        };
        let parent = self.find_directory(parents)?;
        Ok(parent.and_then(|parent| self.child(parent, name)))
    }
}

/// A way from the root downwards.
struct Descent {
    /// The directories from the root to here.
    stack: Vec<NodeId>,
    todo: VecDeque<Vec<u8>>,
    /// Symbolic links that were followed.
    links: usize,
}

impl Descent {
    fn to(components: &[Vec<u8>]) -> Descent {
        Descent {
            stack: vec![Tree::ROOT],
            todo: components.iter().cloned().collect(),
            links: 0,
        }
    }

    fn here(&self) -> NodeId {
        self.stack.last().copied().unwrap_or(Tree::ROOT)
    }

    fn enter(&mut self, directory: NodeId) -> Result<(), EntryProblem> {
        self.stack.push(directory);
        if self.stack.len() > MAX_DEPTH {
            return Err(PathError::TooDeep.into());
        }
        Ok(())
    }

    /// Goes on to the end, or to a name that is no directory here: that name is returned.
    fn advance(&mut self, tree: &Tree) -> Result<Option<Vec<u8>>, EntryProblem> {
        while let Some(name) = self.todo.pop_front() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    // Above the root is the root.
                    if self.stack.len() > 1 {
                        self.stack.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let found = tree.child(self.here(), &name);
            match found.map(|id| (id, &tree.node(id).kind)) {
                Some((id, NodeKind::Directory(_))) => self.enter(id)?,
                Some((_, NodeKind::Symlink(target))) => self.follow(target)?,
                Some(_) | None => return Ok(Some(name)),
            }
        }
        Ok(None)
    }

    fn follow(&mut self, target: &[u8]) -> Result<(), EntryProblem> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(EntryProblem::TooManySymlinks { limit: MAX_LINKS });
        }
        if target.starts_with(b"/") {
            self.stack.truncate(1);
        }
        for part in target.split(|&b| b == b'/').rev() {
            self.todo.push_front(part.to_vec());
        }
        Ok(())
    }
}
