//! `enclavectl configure`: brings an enclave its next sealed config.

use crate::{follow, ui};
use api::client::Client;
use api::{Record, ReplaceConfig};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use explain::{CliError, Exit};
use hyper::Method;
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};
use wire::sealed::MAX_LEN;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    enclavectl seal app.env --spec enclave.toml --version 4 -o app-4.sealed\n  \
    enclavectl configure orders app-4.sealed")]
pub(crate) struct Args {
    /// Name or id
    name: String,
    /// The sealed config; 'enclavectl seal' makes one
    config: PathBuf,
    /// Return once the order is accepted
    #[arg(long)]
    no_wait: bool,
}

pub(crate) async fn run(client: &Client, args: &Args, json: bool) -> Result<(), CliError> {
    let sealed = read_sealed(&args.config)?;
    let sha256 = hex::encode(Sha256::digest(&sealed));
    let order = ReplaceConfig {
        config: encode(&sealed),
    };
    let body = serde_json::to_vec(&order).map_err(CliError::bug)?;
    let path = ui::path(&args.name, "/config")?;
    let record: Record = client.json(Method::PUT, &path, body).await?;
    follow::until_configured(client, record, &sha256, args.no_wait, json).await
}

/// A sealed config's bytes; whether they are one is for the daemon to check.
pub(crate) fn read_sealed(path: &Path) -> Result<Vec<u8>, CliError> {
    let wrong = |problem: &dyn std::fmt::Display| {
        CliError::new(
            Exit::Usage,
            format!("{}: {problem}", path.display()),
            "Name a file that 'enclavectl seal' made.",
        )
    };
    let len = std::fs::metadata(path).map_err(|e| wrong(&e))?.len();
    if len > MAX_LEN as u64 {
        return Err(wrong(&format!("longer than {MAX_LEN} bytes")));
    }
    std::fs::read(path).map_err(|e| wrong(&e))
}

/// As orders carry a sealed config.
pub(crate) fn encode(sealed: &[u8]) -> String {
    STANDARD.encode(sealed)
}
