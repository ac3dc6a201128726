//! The rules of the house: which crate and which module may know which, and what the agent's binary
//! is.

mod agent;
mod crates;
mod modules;
mod pages;
mod sizes;

use std::path::{Path, PathBuf};

/// What is shipped.
const CRATES: [&str; 15] = [
    "explain",
    "wire",
    "attestation",
    "oci",
    "eif-builder",
    "api",
    "audit",
    "broker",
    "enclavectl",
    "launch",
    "secrets",
    "relay",
    "host-proxy",
    "enclave-agent",
    "vsock-switch",
];

/// The workspace's directory.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Files of a kind below a directory, in order; nothing hidden, nothing built.
fn files_below(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            found.extend(files_below(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}
