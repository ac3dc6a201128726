//! Where registry credentials come from: the command line, a file that it names, or docker's
//! configuration.

use explain::{CliError, Exit};
use oci::{Credentials, Reference, Secret, credentials};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Bytes of a password that are read from standard input. A cloud's JSON key has some thousand.
const MAX_PASSWORD: u64 = 64 * 1024;

#[derive(Debug, clap::Args)]
pub(super) struct Login {
    /// User name at the registry
    #[arg(long, requires = "password_stdin")]
    username: Option<String>,
    /// Read the password from standard input; a trailing newline is ignored
    #[arg(long, requires = "username")]
    password_stdin: bool,
    /// Docker config.json or podman auth.json with the credentials
    #[arg(long, conflicts_with = "username", value_name = "FILE")]
    authfile: Option<PathBuf>,
}

impl Login {
    /// `None` means an anonymous pull.
    pub(super) async fn find(
        &self,
        reference: &Reference,
    ) -> Result<Option<Credentials>, CliError> {
        if let Some(username) = &self.username {
            let username = username.clone();
            let password = read_password()?;
            return Ok(Some(Credentials::Password { username, password }));
        }
        if let Some(path) = &self.authfile {
            return match from_file(path, reference).await? {
                None => Err(missing(path, reference)),
                found => Ok(found),
            };
        }
        match docker_config().filter(|path| path.is_file()) {
            Some(path) => from_file(&path, reference).await,
            None => Ok(None),
        }
    }
}

async fn from_file(path: &Path, reference: &Reference) -> Result<Option<Credentials>, CliError> {
    Ok(credentials::from_auth_file(path, reference).await?)
}

fn missing(path: &Path, reference: &Reference) -> CliError {
    let host = reference.host();
    CliError::new(
        Exit::Config,
        format!("{} has no credentials for {host}", path.display()),
        "Log in to that registry first, or name another file with --authfile.",
    )
}

fn docker_config() -> Option<PathBuf> {
    let directory = match std::env::var_os("DOCKER_CONFIG") {
        Some(directory) => PathBuf::from(directory),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".docker"),
    };
    Some(directory.join("config.json"))
}

fn read_password() -> Result<Secret, CliError> {
    let error = |problem: &dyn std::fmt::Display| {
        CliError::new(
            Exit::Usage,
            format!("cannot read the password: {problem}"),
            "Pipe it into standard input.",
        )
    };
    let mut text = Zeroizing::new(String::new());
    std::io::stdin()
        .take(MAX_PASSWORD)
        .read_to_string(&mut text)
        .map_err(|e| error(&e))?;
    match text.trim_end_matches(['\n', '\r']) {
        "" => Err(error(&"standard input is empty")),
        password => Ok(Secret::new(password)),
    }
}
