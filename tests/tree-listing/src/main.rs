//! `tree-listing FOLDER [--wait]`: one line for every file below FOLDER, sorted: path, type, mode,
//! uid, gid, size, SHA-256, target, device, link group, attributes. What the kernel mounts over a
//! root (`/proc`, `/sys`, `/dev`) is left out. With `--wait` it stays running afterwards, as a
//! service would.

use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

const MOUNTED: [&str; 3] = ["proc", "sys", "dev"];

fn main() -> io::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let root = PathBuf::from(arguments.next().unwrap_or_else(|| ".".into()));
    let wait = arguments.next().is_some_and(|word| word == "--wait");
    let mut lines = Vec::new();
    let mut groups = BTreeMap::new();
    walk(&root, &root, &mut lines, &mut groups)?;
    let mut out = io::stdout();
    for line in &lines {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "END {}", lines.len())?;
    out.flush()?;
    if wait {
        loop {
            std::thread::park();
        }
    }
    Ok(())
}

/// Lists `path` and what is below it. `groups` maps an inode to the first path that had it.
fn walk(
    root: &Path,
    path: &Path,
    lines: &mut Vec<String>,
    groups: &mut BTreeMap<u64, String>,
) -> io::Result<()> {
    let relative = path.strip_prefix(root).unwrap_or(path);
    let shown = relative.as_os_str().as_bytes().escape_ascii().to_string();
    let metadata = fs::symlink_metadata(path)?;
    let kind = metadata.file_type();
    let mut facts = vec![
        format!("{:04o}", metadata.mode() & 0o7777),
        metadata.uid().to_string(),
        metadata.gid().to_string(),
    ];
    if kind.is_file() {
        facts.push(format!(
            "file {} {}",
            metadata.len(),
            hex::encode(Sha256::digest(fs::read(path)?))
        ));
    } else if kind.is_symlink() {
        facts.push(format!(
            "link {}",
            fs::read_link(path)?.as_os_str().as_bytes().escape_ascii()
        ));
    } else if kind.is_char_device() || kind.is_block_device() {
        facts.push(format!(
            "{} {:x}",
            if kind.is_char_device() {
                "char"
            } else {
                "block"
            },
            metadata.rdev()
        ));
    } else {
        facts.push(if kind.is_dir() { "dir" } else { "other" }.to_owned());
    }
    if !kind.is_dir() && metadata.nlink() > 1 {
        let first = groups
            .entry(metadata.ino())
            .or_insert_with(|| shown.clone());
        facts.push(format!("same-as {first} of {}", metadata.nlink()));
    }
    let mut names: Vec<_> = match xattr::list(path) {
        Ok(names) => names
            .filter(|name| !name.as_bytes().starts_with(b"trusted.overlay."))
            .collect(),
        // A squashfs without a table of attributes says that it cannot have any.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Vec::new(),
        Err(error) => return Err(error),
    };
    names.sort();
    for name in names {
        let value = xattr::get(path, &name)
            .map_err(|e| io::Error::other(format!("/{shown} {name:?}: {e}")))?
            .unwrap_or_default();
        facts.push(format!(
            "{}={}",
            name.as_bytes().escape_ascii(),
            hex::encode(value)
        ));
    }
    lines.push(format!("/{shown} {}", facts.join(" ")));
    if kind.is_dir() {
        let mut children: Vec<_> = fs::read_dir(path)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<Result<_, _>>()?;
        children.sort();
        for name in children {
            if relative.as_os_str().is_empty() && MOUNTED.iter().any(|mounted| name == *mounted) {
                continue;
            }
            walk(root, &path.join(name), lines, groups)?;
        }
    }
    Ok(())
}
