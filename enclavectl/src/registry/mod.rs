//! `enclavectl registry`: credentials of a broker for docker, podman, skopeo and kubelets. All but
//! `forget` speaks to the broker and not to the daemon's socket, so it works on machines without a
//! daemon.

mod access;
mod bindings;
mod docker_config;
pub(crate) mod helper;
mod json_file;
mod kubelet;
mod login;

use crate::ui;
use api::client::Client;
use explain::CliError;
use hyper::Method;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Register the broker as docker's, podman's and skopeo's source of credentials for its
    /// registry
    Login(login::LoginArgs),
    /// Answer a kubelet (credential provider v1): request on standard input, response on standard
    /// output
    Kubelet(kubelet::Args),
    /// Undo a login: docker no longer asks the broker for this registry
    Logout(login::LogoutArgs),
    /// Clear the daemon's cache of issued credentials, so that new ones are made; run it after
    /// revoking some
    Forget,
    /// Speak docker's credential-helper protocol, as docker-credential-redoubt does
    Helper {
        #[arg(value_parser = ["get", "list", "store", "erase"])]
        verb: String,
    },
}

pub(crate) async fn run(client: &Client, args: Args, json: bool) -> Result<(), CliError> {
    match args.command {
        Command::Login(args) => login::login(args, json).await,
        Command::Logout(args) => login::logout(args).await,
        Command::Kubelet(args) => kubelet::run(args).await,
        Command::Forget => forget(client).await,
        Command::Helper { verb } => helper::run(&verb).await,
    }
}

<<<<<<< HEAD
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
=======
async fn forget(client: &Client) -> Result<(), CliError> {
    let path = "/v1/registry/credentials";
    client.bytes(Method::DELETE, path, Vec::new()).await?;
    ui::tell("the daemon's cache is clear: the next request gets new credentials");
    Ok(())
>>>>>>> refs/heads/enclavectl
}
