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

async fn forget(client: &Client) -> Result<(), CliError> {
    let path = "/v1/registry/credentials";
    client.bytes(Method::DELETE, path, Vec::new()).await?;
    ui::tell("the daemon's cache is clear: the next request gets new credentials");
    Ok(())
}
