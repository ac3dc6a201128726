//! Names of a log's files.

use std::io;
use std::path::{Path, PathBuf};

/// The name of the file that begins with this line.
pub(crate) fn name(first: u64) -> String {
    format!("audit-{first:012}.jsonl")
}

/// Where an unfinished line is set aside; `next` is the number that it would have had.
pub(crate) fn torn_name(next: u64) -> String {
    format!("torn-{next:012}")
}

/// The number of a file's first line, by its name.
pub(crate) fn first(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let digits = name.strip_prefix("audit-")?.strip_suffix(".jsonl")?;
    let is_plain = digits.len() >= 12 && digits.bytes().all(|b| b.is_ascii_digit());
    is_plain.then(|| digits.parse().ok())?
}

/// The files of a log with the numbers of their first lines, in order.
pub(crate) fn list(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if let Some(first) = first(&path) {
            found.push((first, path));
        }
    }
    found.sort();
    Ok(found)
}
