//! `enclavectl redeploy` and `terminate`: orders that need no more than a name.

use crate::{follow, ui};
use api::Record;
use api::client::Client;
use explain::CliError;
use hyper::Method;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name or id
    name: String,
    /// Return once the order is accepted
    #[arg(long)]
    no_wait: bool,
}

pub(crate) async fn redeploy(client: &Client, args: &Args, json: bool) -> Result<(), CliError> {
    send(client, Method::POST, "/redeploy", args, json).await
}

pub(crate) async fn terminate(client: &Client, args: &Args, json: bool) -> Result<(), CliError> {
    send(client, Method::DELETE, "", args, json).await
}

async fn send(
    client: &Client,
    method: Method,
    rest: &str,
    Args { name, no_wait }: &Args,
    json: bool,
) -> Result<(), CliError> {
    let record: Record = client
        .json(method, &ui::path(name, rest)?, Vec::new())
        .await?;
    follow::until_settled(client, record, *no_wait, json).await
}
