//! What is on a disk.

use std::path::Path;

/// Every file below a directory that holds these bytes.
#[must_use]
pub fn files_with(directory: &Path, needle: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() {
            found.extend(files_with(&path, needle));
        } else if kind.is_file() && holds(&std::fs::read(&path).unwrap_or_default(), needle) {
            found.push(path.display().to_string());
        }
    }
    found
}

/// Whether the bytes hold the needle somewhere.
#[must_use]
pub fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

/// How many entries a directory has.
#[must_use]
pub fn count(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}
