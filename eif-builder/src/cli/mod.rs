//! What the command line can do. Exit codes: 0 done, 64 usage, 65 bad data, 69 unavailable, 70 bug, 77 refused, 78 config.

mod build;
mod describe;
mod progress;

use clap::Parser as _;
use eif_builder::seal::command as seal;
use explain::{CliError, Exit};
use std::process::ExitCode;

/// Builds reproducible Nitro Enclave images from container images, without Docker and without root.
#[derive(Debug, clap::Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 done, 64 usage, 65 bad data, 69 unavailable, 70 bug, 77 refused, 78 configuration."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Pull a container image, verify it, and write an enclave image (EIF)
    Build(Box<build::Args>),
    /// Print what an enclave image is and measures to, as nitro-cli describe-eif does
    Describe(describe::Args),
    /// Encrypt a config that only the attested enclave of a spec can open
    Seal {
        #[command(flatten)]
        args: seal::Args,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Usage.into()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let result = match cli.command {
        Command::Build(args) => build::run(*args),
        Command::Describe(args) => describe::run(&args),
        Command::Seal { args, json } => run_seal(&args, json),
    };
    match result {
        Ok(text) => print(&text),
        Err(error) => {
            warn(&error.to_string());
            error.exit.into()
        }
    }
}

fn run_seal(args: &seal::Args, json: bool) -> Result<String, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime
        .map_err(|e| CliError::new(Exit::Unavailable, format!("cannot start: {e}"), "try again"))?;
    runtime.block_on(seal::run(args, json))
}

/// A closed pipe at the other end is no reason to panic.
fn print(text: &str) -> ExitCode {
    use std::io::Write as _;
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => Exit::Unavailable.into(),
    }
}

fn warn(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{text}");
}
