//! The image's `/etc/resolv.conf`, as container engines write it: names are asked for at the agent.

use super::link::AGENT_V4;
use crate::rootfs::{ROOT, is_below_root};
use std::fs;
use std::io;
use std::path::Path;

/// Replaces the image's own, which may be a symbolic link to somewhere else. An image without a
/// usable `/etc` resolves no names.
pub(super) fn write(give_to_root: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    let etc = Path::new(ROOT).join("etc");
    if !is_below_root(Path::new("/etc")) || !etc.is_dir() {
        return Ok(());
    }
    let path = etc.join("resolv.conf");
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => {
            fs::write(&path, format!("nameserver {AGENT_V4}\n"))?;
            give_to_root(&path)
        }
    }
}
