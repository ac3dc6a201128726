//! Merges layers into one tree, lowest first (OCI image-spec, layer.md, "Applying Changesets").
//!
//! Where engines disagree, the text of the specification decides, and umoci where the text is silent: whiteouts act on lower
//! layers only, wherever they stand in the archive; the last of several entries with one path wins; a hard link
//! shares everything with its target, and the metadata of its own header is ignored.

use super::archive::{self, Entry, EntryKind, Path};
use super::{Body, Kind, Node, NodeId, RootfsError, Tree};
use oci::VerifiedLayer;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Nodes of all layers together: bounds memory.
const MAX_NODES: usize = 4_000_000;

/// What an entry's name says about lower layers.
enum Mark {
    /// Nothing below this directory comes from lower layers.
    Opaque(Path),
    /// This path does not come from a lower layer.
    Gone(Path),
    /// Metadata of aufs.
    Ignored,
}

pub fn flatten(layers: &[VerifiedLayer]) -> Result<Tree, RootfsError> {
    let mut tree = Tree::default();
    for (index, archive) in layers.iter().enumerate() {
        apply(&mut tree, index, archive::entries(archive, index + 1)?)?;
    }
    Ok(tree)
}

fn apply(tree: &mut Tree, layer: usize, entries: Vec<Entry>) -> Result<(), RootfsError> {
    let error = |path: &Path, problem: String| RootfsError::Entry {
        layer: layer + 1,
        entry: Some(path.join(&b'/').escape_ascii().to_string()),
        problem,
    };
    let mut added = Vec::with_capacity(entries.len());
    for entry in entries {
        match mark(&entry.path).map_err(|problem| error(&entry.path, problem))? {
            None => added.push(entry),
            Some(mark) => hide(tree, &mark).map_err(|problem| error(&entry.path, problem))?,
        }
    }
    for entry in added {
        let path = entry.path.clone();
        add(tree, layer, entry).map_err(|problem| error(&path, problem))?;
        if tree.capacity() > MAX_NODES {
            return Err(RootfsError::TooMany {
                what: "files",
                limit: MAX_NODES,
            });
        }
    }
    Ok(())
}

fn mark(path: &Path) -> Result<Option<Mark>, String> {
    let Some((name, parents)) = path.split_last() else {
        return Ok(None);
    };
    let Some(hidden) = name.strip_prefix(WHITEOUT) else {
        return Ok(None);
    };
    match hidden {
        _ if name == OPAQUE => Ok(Some(Mark::Opaque(parents.to_vec()))),
        b"" | b"." | b".." => Err("a whiteout names no file".to_owned()),
        _ if hidden.starts_with(WHITEOUT) => Ok(Some(Mark::Ignored)),
        _ => Ok(Some(Mark::Gone([parents, &[hidden.to_vec()]].concat()))),
    }
}

fn hide(tree: &mut Tree, mark: &Mark) -> Result<(), String> {
    match mark {
        Mark::Ignored => {}
        Mark::Opaque(path) => {
            // The last component is followed here like any parent: the mark is a file in that directory.
            if let Some(directory) = tree.directory(path, false)? {
                tree.children(directory)
                    .map(std::collections::BTreeMap::clear);
            }
        }
        Mark::Gone(path) => {
            if let Some((name, parents)) = path.split_last()
                && let Some(parent) = tree.directory(&parents.to_vec(), false)?
            {
                tree.children(parent)
                    .and_then(|children| children.remove(name));
            }
        }
    }
    Ok(())
}

fn add(tree: &mut Tree, layer: usize, entry: Entry) -> Result<(), String> {
    let Entry { path, meta, kind } = entry;
    let Some((name, parents)) = path.split_last() else {
        // `./` describes the root; only a directory can.
        return match kind {
            EntryKind::Directory => {
                tree.set_meta(Tree::ROOT, meta);
                Ok(())
            }
            _ => Err("the root must be a directory".to_owned()),
        };
    };
    // A link's target is looked up before its own name can make or replace anything.
    let target = match &kind {
        EntryKind::HardLink(target) => Some(link_target(tree, target)?),
        _ => None,
    };
    let parent = tree
        .directory(&parents.to_vec(), true)?
        .ok_or("the parent cannot be made")?;
    let kind = match kind {
        EntryKind::Directory => {
            let existing = tree.child(parent, name);
            if let Some(id) =
                existing.filter(|&id| matches!(tree.node(id).kind, Kind::Directory(_)))
            {
                tree.set_meta(id, meta);
                return Ok(());
            }
            Kind::Directory(Default::default())
        }
        EntryKind::HardLink(_) => {
            return name_it(tree, parent, name, target.ok_or("the link has no target")?);
        }
        EntryKind::File { offset, len } => Kind::File(Body { layer, offset, len }),
        EntryKind::Symlink(target) => Kind::Symlink(target),
        EntryKind::Char(device) => Kind::Char(device),
        EntryKind::Block(device) => Kind::Block(device),
        EntryKind::Fifo => Kind::Fifo,
    };
    let id = tree.add(Node { meta, kind });
    name_it(tree, parent, name, id)
}

fn link_target(tree: &mut Tree, target: &Path) -> Result<NodeId, String> {
    let shown = || target.join(&b'/').escape_ascii().to_string();
    let id = tree
        .lookup(target)?
        .ok_or_else(|| format!("the hard link's target '{}' does not exist", shown()))?;
    match tree.node(id).kind {
        Kind::Directory(_) => Err(format!(
            "the hard link's target '{}' is a directory",
            shown()
        )),
        _ => Ok(id),
    }
}

fn name_it(tree: &mut Tree, parent: NodeId, name: &[u8], id: NodeId) -> Result<(), String> {
    tree.children(parent)
        .ok_or("the parent is not a directory")?
        .insert(name.to_vec(), id);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One line an entry: `d path`, `f path LEN`, `l path -> target`, `h path -> target`.
    fn layer(text: &str) -> Vec<Entry> {
        text.lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                let path = |text: &str| -> Path {
                    text.split('/')
                        .filter(|p| !p.is_empty() && *p != ".")
                        .map(|p| p.as_bytes().to_vec())
                        .collect()
                };
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
                let meta = super::super::Meta {
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

    fn flat(layers: &[&str]) -> Result<String, String> {
        let mut tree = Tree::default();
        for (index, text) in layers.iter().enumerate() {
            apply(&mut tree, index, layer(text)).map_err(|e| e.to_string())?;
        }
        let mut lines = Vec::new();
        list(&tree, Tree::ROOT, "", &mut lines);
        Ok(lines.join(" "))
    }

    fn list(tree: &Tree, id: NodeId, path: &str, lines: &mut Vec<String>) {
        let Kind::Directory(children) = &tree.node(id).kind else {
            return;
        };
        for (name, &child) in children {
            let path = format!("{path}/{}", String::from_utf8_lossy(name));
            lines.push(match &tree.node(child).kind {
                Kind::Directory(_) => format!("{path}/"),
                Kind::File(body) => format!("{path}={}.{}", body.layer, body.len),
                Kind::Symlink(target) => format!("{path}->{}", String::from_utf8_lossy(target)),
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
            (vec!["f d/.wh."], "names no file"),
            (vec!["f .wh.."], "names no file"),
            (vec!["f .wh..."], "names no file"),
            (vec!["h a -> missing"], "does not exist"),
            (vec!["d d\nh a -> d"], "is a directory"),
            (
                vec!["l a -> b\nl b -> a\nf a/x 1"],
                "more than 40 symbolic links",
            ),
            (vec!["f . 1"], "root must be a directory"),
        ] {
            let error = flat(&layers).unwrap_err();
            assert!(error.contains(problem), "{layers:?}: {error}");
        }
    }

    #[test]
    fn names_of_one_node_stay_together_until_one_is_replaced() {
        let mut tree = Tree::default();
        apply(&mut tree, 0, layer("f a 1\nh b -> a\nh c -> b")).unwrap();
        apply(&mut tree, 1, layer("f a 2\nh d -> c")).unwrap();
        let id = |tree: &mut Tree, name: &str| {
            tree.lookup(&vec![name.as_bytes().to_vec()])
                .unwrap()
                .unwrap()
        };
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| id(&mut tree, name));
        assert!(b == c && c == d && a != b);
        assert_eq!(tree.link_counts()[Tree::index(b)], 3);
    }

    #[test]
    fn a_directory_entry_sets_metadata_and_a_missing_parent_is_0755() {
        let mut tree = Tree::default();
        apply(&mut tree, 0, layer("d .\nf implied/x 1\nd given")).unwrap();
        let mode = |tree: &mut Tree, name: &str| {
            let id = tree
                .lookup(&vec![name.as_bytes().to_vec()])
                .unwrap()
                .unwrap();
            tree.node(id).meta.mode
        };
        assert_eq!(tree.node(Tree::ROOT).meta.mode, 0o700);
        assert_eq!(
            (mode(&mut tree, "implied"), mode(&mut tree, "given")),
            (0o755, 0o700)
        );
    }

    #[test]
    fn depth_is_limited_even_through_links() {
        // Each round doubles the depth without a long path.
        let mut text = String::from("d a\nl l0 -> /a\n");
        let down = vec!["d"; 1000].join("/");
        text += &format!("d l0/{down}\nl l1 -> /a/{down}\nd l1/{down}\n");
        assert!(
            flat(&[&text])
                .unwrap_err()
                .contains("more than 1024 directories")
        );
    }
}
