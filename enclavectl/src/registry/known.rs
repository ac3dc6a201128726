//! Which broker and which project stand behind a registry on this machine: what `login` writes and the helper reads.
//! `$XDG_CONFIG_HOME/redoubt/registries.json`; it holds names of files, never a secret.

use super::{Access, CliError};
use host_proxy::broker::provider::Action;
use host_proxy::broker::question::{Question, Wanted};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

const MAX_FILE: u64 = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) project: String,
    pub(super) action: Action,
    #[serde(flatten)]
    pub(super) access: Access,
}

impl Known {
    pub(super) fn question(&self) -> Question {
        Question {
            wanted: Wanted::Project(self.project.clone()),
            action: self.action,
        }
    }
}

pub(super) type Registries = BTreeMap<String, Known>;

/// `$XDG_CONFIG_HOME`, or `.config` at home (XDG base directory specification).
fn path() -> Result<PathBuf, CliError> {
    let folder = match std::env::var_os("XDG_CONFIG_HOME")
        .filter(|folder| Path::new(folder).is_absolute())
    {
        Some(folder) => PathBuf::from(folder),
        None => home()?.join(".config"),
    };
    Ok(folder.join("redoubt/registries.json"))
}

pub(super) fn home() -> Result<PathBuf, CliError> {
    std::env::home_dir()
        .ok_or_else(|| CliError::new(Exit::Config, "there is no home folder", "set HOME"))
}

/// In the environment, for a job that has one project; or all that `login` wrote.
pub(super) enum Source {
    Environment(Known),
    /// And whether the environment names a broker without a project.
    File(Registries, bool),
}

pub(super) fn read() -> Result<Source, CliError> {
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let (broker, project) = (variable("REDOUBT_BROKER"), variable("REDOUBT_PROJECT"));
    let half = broker.is_some() != project.is_some();
    if let (Some(broker), Some(project)) = (broker, project) {
        let token_file = variable("REDOUBT_BROKER_TOKEN_FILE").map(PathBuf::from);
        let ca_cert = variable("REDOUBT_BROKER_CA").map(PathBuf::from);
        let access = super::Broker {
            broker,
            token_file,
            ca_cert,
        }
        .access()?;
        return Ok(Source::Environment(Known {
            project,
            action: Action::Push,
            access,
        }));
    }
    let path = path()?;
    match read_json(&path)? {
        None => Ok(Source::File(Registries::new(), half)),
        Some(value) => {
            let registries = serde_json::from_value(value).map_err(|e| damaged(&path, &e))?;
            Ok(Source::File(registries, half))
        }
    }
}

/// What stood there before, if anything did.
pub(super) fn remember(host: &str, known: Known) -> Result<Option<Known>, CliError> {
    let path = path()?;
    let mut registries: Registries = match read_json(&path)? {
        None => Registries::new(),
        Some(value) => serde_json::from_value(value).map_err(|e| damaged(&path, &e))?,
    };
    let before = registries.insert(host.to_owned(), known);
    let value = serde_json::to_value(&registries).map_err(|e| damaged(&path, &e))?;
    write_json(&path, &value)?;
    Ok(before)
}

/// Whether it was known.
pub(super) fn forget(host: &str) -> Result<bool, CliError> {
    let path = path()?;
    let Some(value) = read_json(&path)? else {
        return Ok(false);
    };
    let mut registries: Registries =
        serde_json::from_value(value).map_err(|e| damaged(&path, &e))?;
    let was_known = registries.remove(host).is_some();
    let value = serde_json::to_value(&registries).map_err(|e| damaged(&path, &e))?;
    write_json(&path, &value)?;
    Ok(was_known)
}

/// Two logins at once must not lose each other's changes: held until it is dropped.
pub(super) fn lock() -> Result<Flock<File>, CliError> {
    let path = path()?.with_extension("lock");
    let wrong = |e: std::io::Error| {
        CliError::new(
            Exit::Unavailable,
            format!("{}: {e}", path.display()),
            "check that it is writable",
        )
    };
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(wrong)?;
    let file = File::create(&path).map_err(wrong)?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| wrong(errno.into()))
}

fn damaged(path: &Path, error: &serde_json::Error) -> CliError {
    let place = format!("line {}, column {}", error.line(), error.column());
    CliError::new(
        Exit::Data,
        format!("{}: not what it should be ({place})", path.display()),
        "correct it, or move it away",
    )
}

/// `None` if there is no such file. The contents may be somebody's secrets: errors name the place alone.
pub(super) fn read_json(path: &Path) -> Result<Option<Value>, CliError> {
    let wrong = |e: &dyn std::fmt::Display| {
        CliError::new(
            Exit::Data,
            format!("{}: {e}", path.display()),
            "check this file",
        )
    };
    match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(&error)),
        Ok(metadata) if metadata.len() > MAX_FILE => return Err(wrong(&"longer than 1 MiB")),
        Ok(_) => {}
    }
    let bytes = zeroize::Zeroizing::new(std::fs::read(path).map_err(|e| wrong(&e))?);
    match bytes.trim_ascii() {
        b"" => Ok(None),
        text => serde_json::from_slice(text)
            .map(Some)
            .map_err(|e| damaged(path, &e)),
    }
}

/// Whole or not at all; a new file is for its owner only, an old one stays whose it was.
pub(super) fn write_json(path: &Path, value: &Value) -> Result<(), CliError> {
    let wrong = |e: std::io::Error| {
        CliError::new(
            Exit::Unavailable,
            format!("{}: {e}", path.display()),
            "check that the folder is there and writable",
        )
    };
    // Through a link to the file that it names, which stays a link; one that leads nowhere is somebody's mistake.
    let path = match std::fs::symlink_metadata(path) {
        Ok(_) => std::fs::canonicalize(path).map_err(wrong)?,
        Err(_) => path.to_owned(),
    };
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(wrong)?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(wrong)?;
    file.write_all(format!("{value:#}\n").as_bytes())
        .map_err(wrong)?;
    if let Ok(before) = std::fs::metadata(&path) {
        file.as_file()
            .set_permissions(before.permissions())
            .map_err(wrong)?;
        // Only root can, and only root needs to.
        let _ = std::os::unix::fs::fchown(file.as_file(), Some(before.uid()), Some(before.gid()));
    }
    file.as_file().sync_all().map_err(wrong)?;
    file.persist(&path).map(drop).map_err(|e| wrong(e.error))
}
