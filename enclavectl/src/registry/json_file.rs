//! JSON files in a user's home: docker's configuration, and our own. Written whole or not at all.

use explain::{CliError, Exit};
use serde_json::Value;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The longest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

pub(super) fn home() -> Result<PathBuf, CliError> {
    std::env::home_dir()
        .ok_or_else(|| CliError::new(Exit::Config, "there is no home directory", "Set HOME."))
}

/// `None` if there is no such file, or an empty one. It may hold secrets: errors name the position,
/// and quote nothing.
pub(super) fn read(path: &Path) -> Result<Option<Value>, CliError> {
    let wrong = |e: &dyn std::fmt::Display| {
        let message = format!("{}: {e}", path.display());
        CliError::new(Exit::Data, message, "Check this file.")
    };
    match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(&error)),
        Ok(metadata) if metadata.len() > MAX_FILE => return Err(wrong(&"longer than 1 MiB")),
        Ok(_) => {}
    }
    let bytes = Zeroizing::new(std::fs::read(path).map_err(|e| wrong(&e))?);
    match bytes.trim_ascii() {
        b"" => Ok(None),
        text => serde_json::from_slice(text)
            .map(Some)
            .map_err(|e| malformed(path, &e)),
    }
}

pub(super) fn malformed(path: &Path, error: &serde_json::Error) -> CliError {
    let position = format!("line {}, column {}", error.line(), error.column());
    CliError::new(
        Exit::Data,
        format!("{}: malformed ({position})", path.display()),
        "Correct it, or move it away.",
    )
}

/// A new file is readable by its owner only; an old one keeps its owner and permissions. A symbolic
/// link stays one.
pub(super) fn write(path: &Path, value: &Value) -> Result<(), CliError> {
    let wrong = |e: std::io::Error| {
        let message = format!("{}: {e}", path.display());
        let next_step = "Check that the directory exists and is writable.";
        CliError::new(Exit::Unavailable, message, next_step)
    };
    // One that leads nowhere is a mistake to be told of, not to be replaced.
    let path = match std::fs::symlink_metadata(path) {
        Ok(_) => std::fs::canonicalize(path).map_err(wrong)?,
        Err(_) => path.to_owned(),
    };
    create_parent(&path).map_err(wrong)?;
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(wrong)?;
    file.write_all(format!("{value:#}\n").as_bytes())
        .map_err(wrong)?;
    if let Ok(before) = std::fs::metadata(&path) {
        file.as_file()
            .set_permissions(before.permissions())
            .map_err(wrong)?;
        // Only root can, and only root needs to.
        std::os::unix::fs::fchown(file.as_file(), Some(before.uid()), Some(before.gid())).ok();
    }
    file.as_file().sync_all().map_err(wrong)?;
    file.persist(&path).map(drop).map_err(|e| wrong(e.error))
}

/// The directory of a file, for its owner only if it is new.
pub(super) fn create_parent(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path.parent().unwrap_or(Path::new(".")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_file_is_written_through_its_link_and_keeps_its_permissions() {
        let directory = tempfile::tempdir().unwrap();
        let (link, file) = (
            directory.path().join("link"),
            directory.path().join("a/file"),
        );
        write(&file, &json!({ "a": 1 })).unwrap();
        let mode = || std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write(&link, &json!({ "a": 2 })).unwrap();
        assert!(link.is_symlink());
        assert_eq!((read(&file), mode()), (Ok(Some(json!({ "a": 2 }))), 0o640));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(
            write(&link, &json!({})).unwrap_err().exit,
            Exit::Unavailable
        );
    }

    #[test]
    fn a_malformed_file_is_named_and_not_quoted() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.json");
        assert_eq!(read(&file), Ok(None));
        std::fs::write(&file, "{ secret").unwrap();
        let error = read(&file).unwrap_err();
        assert!(
            error.message.contains("config.json: malformed (line 1"),
            "{error}"
        );
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
