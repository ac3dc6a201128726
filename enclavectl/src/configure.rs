//! `enclavectl configure` and `seal`: sealed configs on their way to an enclave.

use super::{CliError, follow, path};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use host_proxy::client::Client;
use host_proxy::record::Record;
use hyper::Method;
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};
use wire::sealed::MAX_LEN;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name or id
    name: String,
    /// The sealed config
    config: PathBuf,
    /// Return once the order is taken
    #[arg(long)]
    no_wait: bool,
}

pub(super) async fn run(client: &Client, args: &Args, json: bool) -> Result<(), CliError> {
    let encoded = encoded(&args.config)?;
    let wanted = hex::encode(Sha256::digest(
        STANDARD.decode(&encoded).unwrap_or_default(),
    ));
    let body = serde_json::json!({ "config": encoded }).to_string();
    let record: Record = client
        .json(
            Method::PUT,
            &path(&args.name, "/config")?,
            body.into_bytes(),
        )
        .await?;
    follow::until_configured(client, record, &wanted, args.no_wait, json).await
}

/// A sealed config in base64, as orders carry it.
pub(super) fn encoded(path: &Path) -> Result<String, CliError> {
    let fail = |problem: &dyn std::fmt::Display| {
        CliError::new(
            Exit::Usage,
            format!("{}: {problem}", path.display()),
            "give a file that 'enclavectl seal' made",
        )
    };
    let len = std::fs::metadata(path).map_err(|e| fail(&e))?.len();
    if len > MAX_LEN as u64 {
        return Err(fail(&format!("longer than {MAX_LEN} bytes")));
    }
    Ok(STANDARD.encode(std::fs::read(path).map_err(|e| fail(&e))?))
}
