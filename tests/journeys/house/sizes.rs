//! Lengths of functions and files, documentation of what is public, and names that stand for one
//! thing.

use super::{CRATES, files_below, root};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use syn::spanned::Spanned as _;
use syn::visit::Visit;
use syn::{Attribute, Item, Visibility};

/// What strangers link.
const LIBRARIES: [&str; 9] = [
    "attestation",
    "wire",
    "oci",
    "eif-builder",
    "api",
    "audit",
    "broker",
    "secrets",
    "relay",
];

/// Public names that stand in two crates, and why.
const TWICE: [(&str, &str); 0] = [];

/// What a file holds, without what only tests see.
#[derive(Default)]
struct Measured {
    functions: Vec<(String, usize)>,
    tests: Vec<(String, usize)>,
    public: Vec<(String, bool)>,
    types: Vec<String>,
    test_lines: usize,
}

fn lines(span: proc_macro2::Span) -> usize {
    span.end().line - span.start().line + 1
}

fn has(attributes: &[Attribute], name: &str) -> bool {
    attributes
        .iter()
        .any(|attribute| attribute.path().segments.iter().any(|s| s.ident == name))
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .meta
                .require_list()
                .is_ok_and(|list| list.tokens.to_string() == "test")
    })
}

impl Measured {
    fn add_public(&mut self, visibility: &Visibility, attributes: &[Attribute], name: String) {
        if matches!(visibility, Visibility::Public(_)) {
            self.public.push((name, has(attributes, "doc")));
        }
    }

    fn add_type(&mut self, visibility: &Visibility, name: &syn::Ident) {
        if matches!(visibility, Visibility::Public(_)) {
            self.types.push(name.to_string());
        }
    }
}

/// From the first line of the signature to the closing brace: attributes and documentation do not
/// count.
fn body_span(signature: &syn::Signature, block: &syn::Block) -> usize {
    block.span().end().line - signature.span().start().line + 1
}

impl<'ast> Visit<'ast> for Measured {
    fn visit_item(&mut self, item: &'ast Item) {
        match item {
            Item::Mod(module) if is_for_tests(&module.attrs) => {
                self.test_lines += lines(module.span());
                return;
            }
            Item::Struct(item) => {
                self.add_public(&item.vis, &item.attrs, item.ident.to_string());
                self.add_type(&item.vis, &item.ident);
                for field in &item.fields {
                    let name = field
                        .ident
                        .as_ref()
                        .map(ToString::to_string)
                        .unwrap_or_default();
                    // A tuple's fields are told by the type's own documentation.
                    if !name.is_empty() {
                        self.add_public(&field.vis, &field.attrs, format!("{}.{name}", item.ident));
                    }
                }
            }
            Item::Enum(item) => {
                self.add_public(&item.vis, &item.attrs, item.ident.to_string());
                self.add_type(&item.vis, &item.ident);
            }
            Item::Trait(item) => self.add_public(&item.vis, &item.attrs, item.ident.to_string()),
            Item::Const(item) => self.add_public(&item.vis, &item.attrs, item.ident.to_string()),
            Item::Type(item) => self.add_public(&item.vis, &item.attrs, item.ident.to_string()),
            _ => {}
        }
        syn::visit::visit_item(self, item);
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        if is_for_tests(&function.attrs) {
            return;
        }
        let entry = (
            function.sig.ident.to_string(),
            body_span(&function.sig, &function.block),
        );
        if has(&function.attrs, "test") {
            self.tests.push(entry);
        } else {
            self.functions.push(entry);
        }
        self.add_public(
            &function.vis,
            &function.attrs,
            function.sig.ident.to_string(),
        );
        syn::visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        let name = function.sig.ident.to_string();
        self.functions
            .push((name.clone(), body_span(&function.sig, &function.block)));
        self.add_public(&function.vis, &function.attrs, name);
        syn::visit::visit_impl_item_fn(self, function);
    }
}

fn measure(path: &Path) -> (Measured, usize) {
    let text = std::fs::read_to_string(path).unwrap();
    let mut measured = Measured::default();
    measured.visit_file(&syn::parse_file(&text).unwrap());
    let lines = text.lines().count() - measured.test_lines;
    (measured, lines)
}

/// The value that 95 of 100 do not exceed.
fn p95(values: impl Iterator<Item = usize>) -> usize {
    let mut values: Vec<usize> = values.collect();
    values.sort_unstable();
    values[(values.len() * 95).div_ceil(100) - 1]
}

fn all() -> Vec<(String, PathBuf, Measured, usize)> {
    let files = CRATES.iter().flat_map(|name| {
        files_below(&root().join(name).join("src"), "rs")
            .into_iter()
            .map(|path| ((*name).to_owned(), path))
    });
    files
        .map(|(name, path)| {
            let (measured, lines) = measure(&path);
            (name, path, measured, lines)
        })
        .collect()
}

#[test]
fn functions_and_files_are_short() {
    let all = all();
    let functions = || {
        all.iter().flat_map(|(_, path, measured, _)| {
            measured
                .functions
                .iter()
                .map(move |(name, lines)| (path, name, *lines))
        })
    };
    let long: Vec<String> = functions()
        .filter(|(_, _, lines)| *lines > 80)
        .map(|(path, name, lines)| format!("{}: {name} has {lines} lines", path.display()))
        .collect();
    assert!(
        long.is_empty(),
        "functions over 80 lines:\n{}",
        long.join("\n")
    );
    let (functions, files) = (p95(functions().map(|f| f.2)), p95(all.iter().map(|f| f.3)));
    assert!(
        functions <= 42,
        "95 of 100 functions have at most {functions} lines; 42 are allowed"
    );
    assert!(
        files <= 350,
        "95 of 100 files have at most {files} lines; 350 are allowed"
    );
}

/// Three programs once lived in one crate; the daemon is one.
#[test]
fn the_daemon_fits_into_5000_lines() {
    let lines: usize = all()
        .iter()
        .filter(|(name, ..)| name == "host-proxy")
        .map(|(.., lines)| lines)
        .sum();
    assert!(lines < 5000, "host-proxy has {lines} lines");
}

#[test]
fn journeys_are_short() {
    let files = files_below(&root().join("tests/journeys"), "rs");
    let long: Vec<String> = files
        .iter()
        .flat_map(|path| measure(path).0.tests)
        .filter(|(_, lines)| *lines > 60)
        .map(|(name, lines)| format!("{name} has {lines} lines"))
        .collect();
    assert!(
        long.is_empty(),
        "journeys over 60 lines:\n{}",
        long.join("\n")
    );
}

#[test]
fn what_is_public_is_documented() {
    for library in LIBRARIES {
        let items: Vec<(String, bool)> = files_below(&root().join(library).join("src"), "rs")
            .iter()
            .flat_map(|path| measure(path).0.public)
            .collect();
        let bare: Vec<&String> = items
            .iter()
            .filter(|(_, documented)| !documented)
            .map(|(name, _)| name)
            .collect();
        let limit = items.len() / 20;
        assert!(
            bare.len() <= limit,
            "{library}: {} of {} public items have no documentation: {bare:?}",
            bare.len(),
            items.len()
        );
    }
}

#[test]
fn a_public_type_name_stands_in_one_crate() {
    let mut homes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, _, measured, _) in all() {
        for public in measured.types {
            homes.entry(public).or_default().push(name.clone());
        }
    }
    let twice: Vec<String> = homes
        .into_iter()
        .filter(|(name, crates)| {
            crates.len() > 1 && !TWICE.iter().any(|(allowed, _)| allowed == name)
        })
        .map(|(name, crates)| format!("{name}: {}", crates.join(", ")))
        .collect();
    assert!(
        twice.is_empty(),
        "public type names that stand twice:\n{}",
        twice.join("\n")
    );
}
