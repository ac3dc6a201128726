//! `enclavectl registry`: credentials of a broker for docker, podman, skopeo and kubelets. All but `forget` speaks to the broker and not to the
//! daemon's socket, so it works on machines without a daemon.

pub(super) mod helper;
mod known;
mod kubelet;
mod login;

use super::{CliError, tell};
use host_proxy::broker::client::BrokerClient;
use host_proxy::client::Client;
use host_proxy::https::{Https, ServiceUrl};
use hyper::Method;
use oci::Secret;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The longest token, in bytes; the broker takes 8 KiB.
const MAX_TOKEN: u64 = 64 * 1024;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Let docker, podman and skopeo ask the broker for a project's credentials
    Login(login::Args),
    /// Answer a kubelet (credential provider v1): a request on standard input, the response on standard output
    Kubelet(kubelet::Args),
    /// Undo a login: docker asks the broker for this registry no more
    Logout {
        /// host or host:port
        registry: String,
        /// docker's configuration [default: $DOCKER_CONFIG/config.json, or ~/.docker/config.json]
        #[arg(long)]
        authfile: Option<PathBuf>,
    },
    /// Have the daemon make new credentials from now on: after those that it gave out were revoked
    Forget,
    /// docker's credential-helper protocol, as docker-credential-redoubt speaks it
    Helper {
        #[arg(value_parser = ["get", "list", "store", "erase"])]
        verb: String,
    },
}

/// Which broker, and who asks it.
#[derive(Debug, Clone, clap::Args)]
struct Broker {
    /// Address of the broker: https://redoubt.example.com:9443
    #[arg(long, env = "REDOUBT_BROKER")]
    broker: String,
    /// File with the token (JWT) to show; read for each question, so that it can be renewed
    #[arg(long, env = "REDOUBT_BROKER_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// PEM file of an authority to trust beside the system's
    #[arg(long, env = "REDOUBT_BROKER_CA")]
    ca_cert: Option<PathBuf>,
}

/// The same, checked, as it is remembered: names of files, no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Access {
    broker: ServiceUrl,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    token_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    ca_cert: Option<PathBuf>,
}

pub(super) async fn run(
    client: &Client,
    Args { command }: Args,
    json: bool,
) -> Result<(), CliError> {
    match command {
        Command::Login(args) => login::run(args, json).await,
        Command::Logout { registry, authfile } => login::undo(&registry, authfile).await,
        Command::Kubelet(args) => kubelet::run(args).await,
        Command::Forget => {
            client
                .bytes(Method::DELETE, "/v1/registry/credentials", Vec::new())
                .await?;
            tell("whoever asks next gets new credentials");
            Ok(())
        }
        Command::Helper { verb } => helper::run(&verb).await,
    }
}

impl Broker {
    fn access(&self) -> Result<Access, CliError> {
        let broker = ServiceUrl::parse(&self.broker)
            .map_err(|e| CliError::new(Exit::Usage, e, "correct --broker"))?;
        let absolute = |path: &Option<PathBuf>| {
            let absolute = path.as_deref().map(std::path::absolute).transpose();
            absolute.map_err(|e| CliError::new(Exit::Usage, e, "give whole paths"))
        };
        Ok(Access {
            broker,
            token_file: absolute(&self.token_file)?,
            ca_cert: absolute(&self.ca_cert)?,
        })
    }
}

impl Access {
    /// With a token that came another way, or that of the file.
    fn client(&self, token: Option<Secret>) -> Result<BrokerClient, CliError> {
        let token = match (token, &self.token_file) {
            (Some(token), _) => token,
            (None, Some(path)) => read_token(path)?,
            (None, None) => {
                return Err(CliError::new(
                    Exit::Usage,
                    "there is no token to show",
                    "name its file with --token-file; a kubelet gives one if tokenAttributes are set in its CredentialProviderConfig",
                ));
            }
        };
        let https = Https::new(self.ca_cert.as_deref().unwrap_or(Path::new("")))
            .map_err(|e| CliError::new(Exit::Usage, e, "check --ca-cert"))?;
        Ok(BrokerClient {
            https,
            url: self.broker.clone(),
            token,
        })
    }
}

fn read_token(path: &Path) -> Result<Secret, CliError> {
    use std::io::Read as _;
    let wrong = |e: &dyn std::fmt::Display| {
        CliError::new(
            Exit::Usage,
            format!("{}: {e}", path.display()),
            "check --token-file (REDOUBT_BROKER_TOKEN_FILE)",
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
