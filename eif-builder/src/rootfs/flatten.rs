//! Merges layers into one tree, lowest first (OCI image-spec, layer.md, "Applying Changesets").
//!
//! Where engines disagree, the text of the specification decides, and umoci where the text is
//! silent: whiteouts act on lower layers only, wherever they are in the archive; the last of
//! several entries with one path wins; a hard link shares everything with its target, and the
//! metadata of its own header is ignored.

use super::error::{EntryProblem, RootfsError};
use super::path::TreePath;
use super::tar::{self, Entry, EntryKind};
use super::tree::{Body, Meta, Node, NodeId, NodeKind, Tree};
use oci::VerifiedLayer;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Nodes of all layers together: bounds memory.
const MAX_NODES: usize = 4_000_000;

/// What an entry's name hides of lower layers.
enum Whiteout<'a> {
    /// Nothing below this directory comes from lower layers.
    Opaque(&'a [Vec<u8>]),
    /// This name in this directory does not come from a lower layer.
    Gone(&'a [Vec<u8>], &'a [u8]),
    /// Metadata of aufs.
    Ignored,
}

/// Merges the layers of an image, lowest first, into the file system that a container of it would
/// see.
///
/// Blocks: it reads the headers of all layers, but not the data of their files. Memory grows with
/// the number of files.
///
/// # Errors
/// An entry is malformed or cannot be carried over exactly, there are more than 4,000,000 files, or
/// a layer cannot be read.
pub fn flatten(layers: &[VerifiedLayer]) -> Result<Tree, RootfsError> {
    let mut tree = Tree::default();
    for (index, archive) in layers.iter().enumerate() {
        apply(&mut tree, index, tar::entries(archive, index + 1)?)?;
    }
    Ok(tree)
}

fn apply(tree: &mut Tree, layer: usize, entries: Vec<Entry>) -> Result<(), RootfsError> {
    let error = |path: &TreePath, problem| {
        RootfsError::entry(layer + 1, Some(path.to_bytes().as_slice()), problem)
    };
    let mut added = Vec::with_capacity(entries.len());
    for entry in entries {
        let path = &entry.path;
        match whiteout(path).map_err(|problem| error(path, problem))? {
            None => added.push(entry),
            Some(whiteout) => hide(tree, &whiteout).map_err(|problem| error(path, problem))?,
        }
    }
    for Entry { path, meta, kind } in added {
        add(tree, layer, &path, meta, kind).map_err(|problem| error(&path, problem))?;
        if tree.capacity() > MAX_NODES {
            return Err(RootfsError::TooMany {
                what: "files",
                limit: MAX_NODES,
            });
        }
    }
    Ok(())
}

fn whiteout(path: &TreePath) -> Result<Option<Whiteout<'_>>, EntryProblem> {
    let Some((name, parents)) = path.split_last() else {
        return Ok(None);
    };
    let Some(hidden) = name.strip_prefix(WHITEOUT) else {
        return Ok(None);
    };
    match hidden {
        _ if name == OPAQUE => Ok(Some(Whiteout::Opaque(parents))),
        b"" | b"." | b".." => Err(EntryProblem::BareWhiteout),
        _ if hidden.starts_with(WHITEOUT) => Ok(Some(Whiteout::Ignored)),
        _ => Ok(Some(Whiteout::Gone(parents, hidden))),
    }
}

fn hide(tree: &mut Tree, whiteout: &Whiteout<'_>) -> Result<(), EntryProblem> {
    match whiteout {
        Whiteout::Ignored => {}
        Whiteout::Opaque(path) => {
            // The last component is followed here like any parent: the mark is a file in that
            // directory.
            if let Some(directory) = tree.find_directory(path)? {
                tree.unlink_all(directory);
            }
        }
        Whiteout::Gone(parents, name) => {
            if let Some(parent) = tree.find_directory(parents)? {
                tree.unlink(parent, name);
            }
        }
    }
    Ok(())
}

fn add(
    tree: &mut Tree,
    layer: usize,
    path: &TreePath,
    meta: Meta,
    kind: EntryKind,
) -> Result<(), EntryProblem> {
    let Some((name, parents)) = path.split_last() else {
        // `./` describes the root; only a directory can.
        if kind != EntryKind::Directory {
            return Err(EntryProblem::RootNotDirectory);
        }
        tree.set_meta(Tree::ROOT, meta);
        return Ok(());
    };
    let kind = match kind {
        EntryKind::Directory => return add_directory(tree, parents, name, meta),
        EntryKind::HardLink(target) => {
            // The target is looked up before the link's own name can make or replace anything.
            let id = link_target(tree, &target)?;
            let parent = tree.make_directory(parents)?;
            return tree.link(parent, name, id);
        }
        EntryKind::File { offset, len } => NodeKind::File(Body { layer, offset, len }),
        EntryKind::Symlink(target) => NodeKind::Symlink(target),
        EntryKind::Char(device) => NodeKind::Char(device),
        EntryKind::Block(device) => NodeKind::Block(device),
        EntryKind::Fifo => NodeKind::Fifo,
    };
    let parent = tree.make_directory(parents)?;
    let id = tree.add(Node { meta, kind });
    tree.link(parent, name, id)
}

/// A directory keeps what it has from lower layers; anything else is replaced.
fn add_directory(
    tree: &mut Tree,
    parents: &[Vec<u8>],
    name: &[u8],
    meta: Meta,
) -> Result<(), EntryProblem> {
    let parent = tree.make_directory(parents)?;
    match tree.child(parent, name) {
        Some(id) if matches!(tree.node(id).kind, NodeKind::Directory(_)) => {
            tree.set_meta(id, meta);
            Ok(())
        }
        _ => {
            let kind = NodeKind::Directory(Default::default());
            let id = tree.add(Node { meta, kind });
            tree.link(parent, name, id)
        }
    }
}

fn link_target(tree: &Tree, target: &TreePath) -> Result<NodeId, EntryProblem> {
    let shown = || target.to_bytes().escape_ascii().to_string();
    match tree.lookup(target)? {
        None => Err(EntryProblem::LinkToNothing(shown())),
        Some(id) if matches!(tree.node(id).kind, NodeKind::Directory(_)) => {
            Err(EntryProblem::LinkToDirectory(shown()))
        }
        Some(id) => Ok(id),
    }
}

#[cfg(test)]
mod tests {
    use super::super::path::PathError;
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text.as_bytes()).unwrap()
    }

    /// One line an entry: `d path`, `f path LEN`, `l path -> target`, `h path -> target`.
    fn layer(text: &str) -> Vec<Entry> {
        text.lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                let kind = match words[0] {
                    "d" => EntryKind::Directory,
                    "f" => EntryKind::File {
                        offset: 0,
                        len: words.get(2).map_or(0, |n| n.parse().unwrap()),
                    },
                    "l" => EntryKind::Symlink(words[3].as_bytes().to_vec()),
                    "h" => EntryKind::HardLink(path(words[3])),
                    other => panic!("{other}"),
                };
                let meta = Meta {
                    mode: 0o700,
                    ..Default::default()
                };
                Entry {
                    path: path(words[1]),
                    meta,
                    kind,
                }
            })
            .collect()
    }

    fn flat(layers: &[&str]) -> Result<String, EntryProblem> {
        let mut tree = Tree::default();
        for (index, text) in layers.iter().enumerate() {
            apply(&mut tree, index, layer(text)).map_err(|error| match error {
                RootfsError::Entry { problem, .. } => problem,
                other => panic!("{other}"),
            })?;
        }
        let mut lines = Vec::new();
        list(&tree, Tree::ROOT, "", &mut lines);
        Ok(lines.join(" "))
    }

    fn list(tree: &Tree, id: NodeId, path: &str, lines: &mut Vec<String>) {
        let NodeKind::Directory(children) = &tree.node(id).kind else {
            return;
        };
        for (name, &child) in children {
            let path = format!("{path}/{}", String::from_utf8_lossy(name));
            lines.push(match &tree.node(child).kind {
                NodeKind::Directory(_) => format!("{path}/"),
                NodeKind::File(body) => format!("{path}={}.{}", body.layer, body.len),
                NodeKind::Symlink(target) => format!("{path}->{}", String::from_utf8_lossy(target)),
                _ => path.clone(),
            });
            list(tree, child, &path, lines);
        }
    }

    #[test]
    fn follows_the_specification_where_engines_disagree() {
        for (layers, expected) in [
            // A whiteout acts on lower layers, before or after its name in the same layer.
            (vec!["f a 1", "f .wh.a"], ""),
            (vec!["f a 1", "f a 2\nf .wh.a"], "/a=1.2"),
            (vec!["f a 1", "f .wh.a\nf a 2"], "/a=1.2"),
            (
                vec!["d bar\nf bar/old 1", "f .wh.bar\nd bar\nf bar/new 2"],
                "/bar/ /bar/new=1.2",
            ),
            // Opaque comes first, and keeps new files whose parents have no entry.
            (
                vec!["f d/old 1\nf d/sub/old 1", "f d/sub/f 2\nf d/.wh..wh..opq"],
                "/d/ /d/sub/ /d/sub/f=1.2",
            ),
            // Directories merge; anything else replaces.
            (
                vec!["d a\nf a/x 1", "d a\nf a/y 2"],
                "/a/ /a/x=0.1 /a/y=1.2",
            ),
            (vec!["d a\nf a/x 1", "f a 2"], "/a=1.2"),
            (vec!["f a 1", "f a/x 2"], "/a/ /a/x=1.2"),
            (vec!["f a 1\nf a 2"], "/a=0.2"),
            // Parents through links stay inside; the last component is not followed.
            (
                vec!["d usr/lib\nl lib -> usr/lib", "f lib/x 1"],
                "/lib->usr/lib /usr/ /usr/lib/ /usr/lib/x=1.1",
            ),
            (
                vec!["l a -> /\nf a/etc/passwd 1"],
                "/a->/ /etc/ /etc/passwd=0.1",
            ),
            (
                vec!["d etc\nl a -> ../../../..\nf a/x 1"],
                "/a->../../../.. /etc/ /x=0.1",
            ),
            (vec!["f t 1\nl a -> t", "f a 2"], "/a=1.2 /t=0.1"),
            (
                vec!["f etc/x 1\nl a -> /etc", "f a/.wh.x"],
                "/a->/etc /etc/",
            ),
            // aufs metadata.
            (vec!["f a 1", "f .wh..wh.plnk\nf .wh..wh.aufs"], "/a=0.1"),
        ] {
            assert_eq!(flat(&layers).unwrap(), expected, "{layers:?}");
        }
    }

    #[test]
    fn refuses_marks_links_and_roots_that_mean_nothing() {
        for (layers, problem) in [
            (vec!["f d/.wh."], EntryProblem::BareWhiteout),
            (vec!["f .wh.."], EntryProblem::BareWhiteout),
            (vec!["f .wh..."], EntryProblem::BareWhiteout),
            (
                vec!["h a -> missing"],
                EntryProblem::LinkToNothing("missing".to_owned()),
            ),
            (
                vec!["d d\nh a -> d"],
                EntryProblem::LinkToDirectory("d".to_owned()),
            ),
            (
                vec!["l a -> b\nl b -> a\nf a/x 1"],
                EntryProblem::TooManySymlinks { limit: 40 },
            ),
            (vec!["f . 1"], EntryProblem::RootNotDirectory),
        ] {
            assert_eq!(flat(&layers), Err(problem), "{layers:?}");
        }
    }

    #[test]
    fn names_of_one_node_stay_together_until_one_is_replaced() {
        let mut tree = Tree::default();
        apply(&mut tree, 0, layer("f a 1\nh b -> a\nh c -> b")).unwrap();
        apply(&mut tree, 1, layer("f a 2\nh d -> c")).unwrap();
        let id = |name| tree.lookup(&path(name)).unwrap().unwrap();
        let [a, b, c, d] = ["a", "b", "c", "d"].map(id);
        assert!(b == c && c == d && a != b);
        assert_eq!(tree.link_counts()[Tree::index(b)], 3);
    }

    #[test]
    fn a_directory_entry_sets_metadata_and_a_missing_parent_is_0755() {
        let mut tree = Tree::default();
        apply(&mut tree, 0, layer("d .\nf implied/x 1\nd given")).unwrap();
        let mode = |name| {
            let id = tree.lookup(&path(name)).unwrap().unwrap();
            tree.node(id).meta.mode
        };
        assert_eq!(tree.node(Tree::ROOT).meta.mode, 0o700);
        assert_eq!((mode("implied"), mode("given")), (0o755, 0o700));
    }

    #[test]
    fn depth_is_limited_even_through_links() {
        // Each round doubles the depth without a long path.
        let mut text = String::from("d a\nl l0 -> /a\n");
        let down = vec!["d"; 1000].join("/");
        text += &format!("d l0/{down}\nl l1 -> /a/{down}\nd l1/{down}\n");
        assert_eq!(flat(&[&text]), Err(PathError::TooDeep.into()));
    }
}
