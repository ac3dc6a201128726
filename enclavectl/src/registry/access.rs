//! Which broker is asked, and with which token.

use api::credentials::client::BrokerClient;
use explain::{CliError, Exit};
use oci::Secret;
use oci::https::{Https, ServiceUrl};
use serde::{Deserialize, Serialize};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The longest token, in bytes; the broker takes 8 KiB.
const MAX_TOKEN: u64 = 64 * 1024;

/// The flags that name a broker.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct BrokerArgs {
    /// URL of the broker: https://redoubt.example.com:9443
    #[arg(long, env = "REDOUBT_BROKER")]
    pub(super) broker: String,
    /// File with the token (JWT) to present; read for each request, so that it can be renewed
    #[arg(long, env = "REDOUBT_BROKER_TOKEN_FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// PEM file with CA certificates to trust in addition to the system's
    #[arg(long, env = "REDOUBT_BROKER_CA")]
    pub(super) ca_cert: Option<PathBuf>,
}

/// The same, checked, as `login` stores it: names of files, no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BrokerAccess {
    pub(super) broker: ServiceUrl,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    token_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    ca_cert: Option<PathBuf>,
}

impl BrokerArgs {
    pub(super) fn access(&self) -> Result<BrokerAccess, CliError> {
        let broker = ServiceUrl::parse(&self.broker)
            .map_err(|e| CliError::new(Exit::Usage, e, "Correct --broker."))?;
        let absolute = |path: &Option<PathBuf>| {
            let absolute = path.as_deref().map(std::path::absolute).transpose();
            absolute.map_err(|e| CliError::new(Exit::Usage, e, "Use absolute paths."))
        };
        Ok(BrokerAccess {
            broker,
            token_file: absolute(&self.token_file)?,
            ca_cert: absolute(&self.ca_cert)?,
        })
    }
}

impl BrokerAccess {
    /// A client that presents this token, or else that of the file.
    pub(super) fn client(&self, token: Option<Secret>) -> Result<BrokerClient, CliError> {
        let token = match (token, &self.token_file) {
            (Some(token), _) => token,
            (None, Some(path)) => read_token(path)?,
            (None, None) => {
                return Err(CliError::new(
                    Exit::Usage,
                    "there is no token to present",
                    "Name its file with --token-file; a kubelet sends one if \
                     its CredentialProviderConfig has tokenAttributes.",
                ));
            }
        };
        let https = Https::new(self.ca_cert.as_deref().unwrap_or(Path::new("")))
            .map_err(|e| CliError::new(Exit::Usage, e, "Check --ca-cert."))?;
        Ok(BrokerClient {
            https,
            url: self.broker.clone(),
            token,
        })
    }
}

fn read_token(path: &Path) -> Result<Secret, CliError> {
    let wrong = |e: &dyn std::fmt::Display| {
        CliError::new(
            Exit::Usage,
            format!("{}: {e}", path.display()),
            "Check --token-file (REDOUBT_BROKER_TOKEN_FILE).",
        )
    };
    let file = std::fs::File::open(path).map_err(|e| wrong(&e))?;
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_TOKEN)
        .read_to_string(&mut text)
        .map_err(|e| wrong(&e))?;
    match text.trim() {
        "" => Err(wrong(&"empty")),
        token => Ok(Secret::new(token)),
    }
}
