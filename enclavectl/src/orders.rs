//! `enclavectl redeploy`, `rollback` and `terminate`: orders that need little more than a name.

use crate::{follow, ui};
use api::client::Client;
use api::{Record, RedeployEnclave};
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

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    enclavectl redeploy orders --image ghcr.io/my-org/orders:v2 --dry-run\n  \
    enclavectl redeploy orders --image ghcr.io/my-org/orders:v2")]
pub(crate) struct RedeployArgs {
    #[command(flatten)]
    order: Args,
    /// Run this image from now on; without it, the reference of the record is resolved again
    #[arg(long, value_name = "REFERENCE")]
    image: Option<String>,
    /// Build, and print the PCR0 that a redeploy would bring; launch nothing
    #[arg(long, conflicts_with = "no_wait")]
    dry_run: bool,
}

pub(crate) async fn redeploy(
    client: &Client,
    args: RedeployArgs,
    json: bool,
) -> Result<(), CliError> {
    let RedeployArgs {
        order: Args { name, no_wait },
        image,
        dry_run,
    } = args;
    let body = serde_json::to_vec(&RedeployEnclave { image, dry_run }).map_err(CliError::bug)?;
    let path = ui::path(&name, "/redeploy")?;
    let record: Record = client.json(Method::POST, &path, body).await?;
    if dry_run {
        return follow::until_measured(client, record, json).await;
    }
    follow::until_released(client, record, no_wait, json).await
}

pub(crate) async fn rollback(client: &Client, args: &Args, json: bool) -> Result<(), CliError> {
    let path = ui::path(&args.name, "/rollback")?;
    let record: Record = client.json(Method::POST, &path, Vec::new()).await?;
    follow::until_released(client, record, args.no_wait, json).await
}

pub(crate) async fn terminate(client: &Client, args: &Args, json: bool) -> Result<(), CliError> {
    let path = ui::path(&args.name, "")?;
    let record: Record = client.json(Method::DELETE, &path, Vec::new()).await?;
    follow::until_settled(client, record, args.no_wait, json).await
}
