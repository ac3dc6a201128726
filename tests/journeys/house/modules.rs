//! Which module may know which: inside a crate, `use` and paths make no cycle.
//!
//! Re-exports are resolved: what counts is the file that defines an item. A module may use what the
//! `mod.rs` (or `lib.rs`) right above it defines; that arrow alone is left out.

use super::{CRATES, files_below, root};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use syn::visit::Visit;
use syn::{Item, UseTree, Visibility};

/// A module's place: the names of its parents and its own. The crate's root is empty.
type Module = Vec<String>;

/// What one file says.
#[derive(Default)]
struct File {
    /// Modules that are files of their own.
    children: BTreeSet<String>,
    /// Names that it passes on, and from where.
    exports: BTreeMap<String, Vec<String>>,
    /// Modules whose every name it passes on.
    globs: Vec<Vec<String>>,
    /// Every path that it mentions.
    mentions: Vec<Vec<String>>,
}

impl<'ast> Visit<'ast> for File {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Mod(module) => &module.attrs,
            Item::Fn(function) => &function.attrs,
            _ => &Vec::new(),
        };
        if attributes.iter().any(is_test) {
            return;
        }
        match item {
            Item::Mod(module) if module.content.is_none() => {
                self.children.insert(module.ident.to_string());
            }
            Item::Use(used) => {
                let is_public = !matches!(used.vis, Visibility::Inherited);
                self.add_use(&used.tree, &mut Vec::new(), is_public);
            }
            _ => {}
        }
        syn::visit::visit_item(self, item);
    }

    /// `pub(crate)` is no arrow.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.mentions.push(
            path.segments
                .iter()
                .map(|segment| segment.ident.to_string())
                .collect(),
        );
        syn::visit::visit_path(self, path);
    }
}

impl File {
    fn add_use(&mut self, tree: &UseTree, prefix: &mut Vec<String>, is_public: bool) {
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.add_use(&path.tree, prefix, is_public);
                prefix.pop();
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.add_use(tree, prefix, is_public);
                }
            }
            UseTree::Name(name) => self.add_name(&name.ident, &name.ident, prefix, is_public),
            UseTree::Rename(name) => self.add_name(&name.ident, &name.rename, prefix, is_public),
            UseTree::Glob(_) => {
                self.mentions.push(prefix.clone());
                if is_public {
                    self.globs.push(prefix.clone());
                }
            }
        }
    }

    fn add_name(
        &mut self,
        name: &syn::Ident,
        known_as: &syn::Ident,
        prefix: &[String],
        is_public: bool,
    ) {
        let mut path = prefix.to_vec();
        if name != "self" {
            path.push(name.to_string());
        }
        if is_public {
            self.exports.insert(known_as.to_string(), path.clone());
        }
        self.mentions.push(path);
    }
}

fn is_test(attribute: &syn::Attribute) -> bool {
    let is_cfg_test = |list: &syn::MetaList| list.tokens.to_string().contains("test");
    attribute.path().is_ident("cfg") && attribute.meta.require_list().is_ok_and(is_cfg_test)
        || attribute.path().is_ident("test")
}

/// A crate as its files say it.
struct Crate {
    files: BTreeMap<Module, File>,
}

impl Crate {
    fn read(root: &Path) -> Crate {
        let mut found = Crate {
            files: BTreeMap::new(),
        };
        let entry = ["lib.rs", "main.rs"].map(|name| root.join(name));
        for path in entry.iter().filter(|path| path.is_file()) {
            found.add(path, Vec::new());
        }
        found
    }

    fn add(&mut self, path: &Path, module: Module) {
        let text = std::fs::read_to_string(path).unwrap();
        let mut file = self.files.remove(&module).unwrap_or_default();
        file.visit_file(&syn::parse_file(&text).unwrap());
        let children = file.children.clone();
        self.files.insert(module.clone(), file);
        for child in children {
            let inner = [module.clone(), vec![child.clone()]].concat();
            if let Some(path) =
                file_of(path, &module, &child).filter(|_| !self.files.contains_key(&inner))
            {
                self.add(&path, inner);
            }
        }
    }

    /// The module that defines what a path in `from` leads to; `None` if that is outside of the
    /// crate.
    fn resolve(&self, from: &Module, path: &[String]) -> Option<Module> {
        self.resolve_within(from, path, 0)
    }

    fn resolve_within(&self, from: &Module, path: &[String], depth: usize) -> Option<Module> {
        let (first, mut rest) = path.split_first()?;
        let mut at = match first.as_str() {
            "crate" => Vec::new(),
            "self" => from.clone(),
            "super" => from.split_last()?.1.to_vec(),
            name if self.files.get(from)?.children.contains(name) => from.clone(),
            _ => return None,
        };
        if !["crate", "self", "super"].contains(&first.as_str()) {
            rest = path;
        }
        while let Some((name, left)) = rest.split_first() {
            let file = self.files.get(&at)?;
            if name == "super" {
                at.pop();
            } else if file.children.contains(name) {
                at.push(name.clone());
            } else if let Some(export) = file.exports.get(name).filter(|_| depth < 8) {
                return self
                    .resolve_within(&at, export, depth + 1)
                    .or(Some(at.clone()));
            } else {
                return Some(at);
            }
            rest = left;
        }
        Some(at)
    }

    /// Arrows between files, without those to the `mod.rs` right above.
    fn arrows(&self) -> BTreeMap<&Module, BTreeSet<Module>> {
        let arrows_of = |(module, file): (&'_ Module, &'_ File)| {
            let targets = file
                .mentions
                .iter()
                .filter_map(|path| self.resolve(module, path));
            let above = module.split_last().map(|(_, above)| above.to_vec());
            targets
                .filter(|target| target != module && Some(target) != above.as_ref())
                .collect::<BTreeSet<Module>>()
        };
        self.files
            .iter()
            .map(|(module, file)| (module, arrows_of((module, file))))
            .collect()
    }
}

/// Where rustc looks for `mod child;` in this file.
fn file_of(path: &Path, module: &Module, child: &str) -> Option<PathBuf> {
    let is_folder = module.is_empty() || path.file_name().is_some_and(|name| name == "mod.rs");
    let directory = if is_folder {
        path.parent()?.to_owned()
    } else {
        path.with_extension("")
    };
    let places = [
        directory.join(format!("{child}.rs")),
        directory.join(child).join("mod.rs"),
    ];
    places.into_iter().find(|path| path.is_file())
}

/// One cycle, if there is any.
fn cycle(arrows: &BTreeMap<&Module, BTreeSet<Module>>) -> Option<Vec<String>> {
    fn walk<'a>(
        at: &'a Module,
        arrows: &'a BTreeMap<&Module, BTreeSet<Module>>,
        path: &mut Vec<&'a Module>,
        done: &mut BTreeSet<&'a Module>,
    ) -> Option<Vec<String>> {
        if let Some(start) = path.iter().position(|module| *module == at) {
            let names = path[start..].iter().chain([&at]);
            return Some(names.map(|module| module.join("::")).collect());
        }
        if !done.insert(at) {
            return None;
        }
        path.push(at);
        let found = arrows
            .get(at)?
            .iter()
            .find_map(|next| walk(next, arrows, path, done));
        path.pop();
        found
    }
    let mut done = BTreeSet::new();
    arrows
        .keys()
        .find_map(|start| walk(start, arrows, &mut Vec::new(), &mut done))
}

#[test]
fn modules_make_no_cycle() {
    let mut cycles = Vec::new();
    for name in CRATES.iter().chain(&["tests", "tests/pki"]) {
        let found = Crate::read(&root().join(name).join("src"));
        assert!(!found.files.is_empty(), "{name} has no files");
        if let Some(cycle) = cycle(&found.arrows()) {
            cycles.push(format!("{name}: {}", cycle.join(" -> ")));
        }
    }
    assert!(cycles.is_empty(), "import cycles:\n{}", cycles.join("\n"));
}

/// The test above would be worth nothing if it saw nothing.
#[test]
fn a_cycle_through_a_re_export_is_seen() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("lib.rs", "mod a;\nmod b;\npub use a::A;");
    write("a.rs", "use crate::b::B;\npub struct A(B);");
    write("b.rs", "pub struct B;");
    assert_eq!(cycle(&Crate::read(directory.path()).arrows()), None);
    write("b.rs", "pub struct B;\nfn f(_: crate::A) {}");
    let cycle = cycle(&Crate::read(directory.path()).arrows());
    assert_eq!(cycle, Some(["a", "b", "a"].map(str::to_owned).to_vec()));
    // What only tests use does not count.
    write(
        "b.rs",
        "pub struct B;\n#[cfg(test)]\nmod tests { use crate::A; }",
    );
    assert_eq!(
        super::modules::cycle(&Crate::read(directory.path()).arrows()),
        None
    );
}

/// The root that Nitro's documents must chain to is changed by a build for tests, and by nothing in
/// a shipped program.
#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn the_shipped_daemon_knows_no_test_root() {
    let daemon = std::fs::read(tests::programs::ours("host-proxy")).unwrap();
    let holds = |needle: &[u8]| daemon.windows(needle.len()).any(|window| window == needle);
    assert!(holds(b"HOST_PROXY_"), "this is the daemon");
    assert!(!holds(b"REDOUBT_TEST_ROOT"));
}

/// Documents of an emulated NSM prove nothing except to the host that started what made them.
#[test]
fn emulated_documents_are_read_by_the_launchers_evidence_alone() {
    assert_eq!(
        files_with("attestation::emulated"),
        ["launch/src/evidence.rs"]
    );
    assert_eq!(
        files_with("Evidence::emulated("),
        ["launch/src/qemu/mod.rs"]
    );
}

/// Shipped files that contain a text, without the crate `attestation`.
fn files_with(text: &str) -> Vec<String> {
    let callers = CRATES.iter().filter(|name| **name != "attestation");
    let files = callers.flat_map(|name| files_below(&root().join(name).join("src"), "rs"));
    files
        .filter(|path| std::fs::read_to_string(path).unwrap().contains(text))
        .map(|path| path.strip_prefix(root()).unwrap().display().to_string())
        .collect()
}
