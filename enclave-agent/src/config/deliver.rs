//! Hands an open config to the workload: as environment, or as a file that only its user can read,
//! in memory.

use crate::error::BootError;
use crate::rootfs::{ROOT, is_below_root};
use crate::user::User;
use nix::mount::{MsFlags, mount};
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, fchown};
use std::path::Path;
use wire::control::AbortReason;
use wire::spec::{Deliver, MeasuredConfig};
use zeroize::Zeroizing;

/// Variables for the workload, if the config is to be its environment.
pub(crate) type Variables = Vec<(String, Zeroizing<String>)>;

pub(crate) fn deliver(
    config: &[u8],
    rules: &MeasuredConfig,
    user: &User,
) -> Result<Variables, BootError> {
    match &rules.deliver {
        Deliver::Env => variables(config, &rules.variables),
        Deliver::File(path) => file(config, path, user).map(|()| Vec::new()),
    }
}

fn variables(config: &[u8], allowed: &[String]) -> Result<Variables, BootError> {
    let unusable = |problem: &dyn std::fmt::Display| {
        BootError::new(AbortReason::ConfigUnusable, problem.to_string())
    };
    let text = std::str::from_utf8(config).map_err(|_| unusable(&"the config is not text"))?;
    let pairs = wire::sealed::environment(text, allowed).map_err(|e| unusable(&e))?;
    Ok(pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), Zeroizing::new(value.to_owned())))
        .collect())
}

/// The directory becomes a tmpfs of its user, with this one file in it.
fn file(config: &[u8], path: &str, user: &User) -> Result<(), BootError> {
    let unusable = |problem: &dyn std::fmt::Display| {
        BootError::new(
            AbortReason::ConfigUnusable,
            format!("the config cannot be written to {path}: {problem}"),
        )
    };
    if !is_below_root(Path::new(path)) {
        return Err(unusable(&"a part of that path is a symbolic link"));
    }
    let inside = Path::new(ROOT).join(path.trim_start_matches('/'));
    let directory = inside
        .parent()
        .ok_or_else(|| unusable(&"it is in no directory"))?;
    write_alone(config, directory, &inside, user).map_err(|e| unusable(&e))
}

fn write_alone(config: &[u8], directory: &Path, file: &Path, user: &User) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(directory)?;
    let options = format!("mode=0500,uid={},gid={},size=1m", user.uid, user.gid);
    let flags = MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID;
    let tmpfs = Some("tmpfs");
    mount(tmpfs, directory, tmpfs, flags, Some(options.as_str()))?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o400)
        .open(file)?;
    fchown(&file, Some(user.uid), Some(user.gid))?;
    file.write_all(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_do_not_quote_the_config() {
        let allowed = ["A", "B"].map(str::to_owned);
        let variables = |config| super::variables(config, &allowed);
        let error = variables(b"A=1\nsecret").unwrap_err();
        assert_eq!(
            (error.reason, error.detail.as_str()),
            (AbortReason::ConfigUnusable, "line 2 of the config has no =")
        );
        assert_eq!(
            variables(b"\xff").unwrap_err().detail,
            "the config is not text"
        );
        let pairs = variables(b"A=1\nB=2").unwrap();
        assert_eq!(pairs[1].0, "B");
        assert_eq!(pairs[1].1.as_str(), "2");
    }

    #[test]
    fn a_config_sets_no_variable_that_the_spec_does_not_name() {
        let allowed = ["TOKEN".to_owned()];
        let error = variables(b"TOKEN=1\nLD_PRELOAD=/tmp/x.so", &allowed).unwrap_err();
        assert_eq!(error.reason, AbortReason::ConfigUnusable);
        assert_eq!(
            error.detail,
            "line 2 of the config sets a variable that config.variables of the spec does not name"
        );
        // Not even what is named by a pattern: there are none.
        assert!(super::variables(b"LD_PRELOAD=x", &["LD_*".to_owned()]).is_err());
    }
}
