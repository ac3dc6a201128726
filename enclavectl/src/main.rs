//! `enclavectl`: sends orders to the daemon, and shows what it knows. By its second name,
//! `docker-credential-redoubt`, it is docker's credential helper.
//!
//! Results go to standard output, prose and progress to standard error. It runs no daemon, launches
//! nothing, and holds no secret longer than a request takes.
#![forbid(unsafe_code)]

mod audit;
mod cli;
mod configure;
mod create;
mod doctor;
mod document;
mod events;
mod follow;
mod logs;
mod orders;
mod progress;
mod registry;
mod seal;
mod show;
mod ui;

use api::client::Client;
use clap::Parser as _;
use cli::{Cli, Command};
use explain::{CliError, Exit};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => {
            let message = format!("cannot start: {e}");
            return fail(&CliError::new(Exit::Unavailable, message, "Try again."));
        }
    };
    if let Some(verb) = registry::helper::called_by_docker(std::env::args_os()) {
        return runtime.block_on(registry::helper::answer(&verb));
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            error.print().ok();
            let is_help = !error.use_stderr();
            return if is_help { Exit::Success } else { Exit::Usage }.into();
        }
    };
    match runtime.block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &CliError) -> ExitCode {
    ui::tell(&error.to_string());
    error.exit.into()
}

async fn run(cli: Cli) -> Result<(), CliError> {
    let Cli {
        socket,
        json,
        command,
    } = cli;
    let client = &Client::new(Path::new(&socket));
    match command {
        Command::Create(args) => create::run(client, *args, json).await,
        Command::List => show::list(client, json).await,
        Command::Show(args) => show::one(client, &args, json).await,
        Command::Events(args) => events::events(client, &args, json).await,
        Command::Logs(args) => logs::logs(client, &args, json).await,
        Command::Redeploy(args) => orders::redeploy(client, args, json).await,
        Command::Rollback(args) => orders::rollback(client, &args, json).await,
        Command::Configure(args) => configure::run(client, &args, json).await,
        Command::Seal(args) => seal::run(&args, json),
        Command::Terminate(args) => orders::terminate(client, &args, json).await,
        Command::Registry(args) => registry::run(client, args, json).await,
        Command::Attestation(args) => document::run(client, &args, json).await,
        Command::Audit(args) => self::audit::run(args, json),
        Command::Doctor(args) => doctor::run(client, &args, json).await,
    }
}
