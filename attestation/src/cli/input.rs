//! Files, read up to a limit.

use super::error::CommandError;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The longest policy, certificate or measurements file, in bytes: real ones take a few KiB.
const MAX_TEXT: u64 = 1 << 20;

/// A file, or standard input for `-`; at most `limit` bytes.
pub(super) fn bytes(path: &Path, limit: u64) -> Result<Vec<u8>, CommandError> {
    let fail = |problem: &dyn std::fmt::Display| {
        CommandError::new(format!("{}: {problem}", path.display()), "check the path")
    };
    let source: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(path).map_err(|e| fail(&e))?)
    };
    let mut bytes = Vec::new();
    source
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| fail(&e))?;
    if bytes.len() as u64 > limit {
        return Err(fail(&format!("longer than {limit} bytes")));
    }
    Ok(bytes)
}

/// A file in UTF-8.
pub(super) fn text(path: &Path) -> Result<String, CommandError> {
    String::from_utf8(bytes(path, MAX_TEXT)?).map_err(|_| {
        CommandError::new(
            format!("{} is not UTF-8 text", path.display()),
            "check the path",
        )
    })
}
