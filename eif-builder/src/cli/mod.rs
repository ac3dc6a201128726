//! What the command line can do, and how it ends.

mod build;
mod credentials;
mod describe;
mod output;
mod policy;
mod progress;
mod seal;
mod spec;

use clap::Parser as _;
use explain::{CliError, Exit};
use std::future::Future;
use std::process::ExitCode;

/// Builds reproducible Nitro Enclave images from container images, without Docker and without root
#[derive(Debug, clap::Parser)]
#[command(version, after_help = exit_codes())]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Pull a container image, verify it, and write an enclave image (EIF)
    Build(Box<build::Args>),
    /// Print an enclave image's measurements and metadata, in the format of nitro-cli describe-eif
    Describe(describe::Args),
    /// Print the policy of the KMS key that seals an enclave's configs, or check one
    Policy(policy::Args),
    /// Encrypt a config that only an attested enclave of a spec can open
    Seal(seal::Args),
}

/// For `--help`. The others belong to other programs.
fn exit_codes() -> String {
    let mut text = String::from("Exit codes:");
    for exit in Exit::ALL {
        if !matches!(exit, Exit::Negative | Exit::Unreadable) {
            text += &format!("\n  {:>2}  {}", exit.number(), exit.meaning());
        }
    }
    text
}

pub(crate) fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Where the terminal is gone there is nothing left to report to.
            error.print().ok();
            return if error.use_stderr() {
                Exit::Usage.into()
            } else {
                Exit::Success.into()
            };
        }
    };
    let result = match cli.command {
        Command::Build(args) => done(block_on(build::run(*args))),
        Command::Describe(args) => done(describe::run(&args)),
        Command::Policy(args) => policy::run(&args),
        Command::Seal(args) => done(block_on(seal::run(&args))),
    };
    match result {
        Ok((text, exit)) => output::print(&text, exit),
        Err(error) => {
            output::warn(&error.to_string());
            error.exit.into()
        }
    }
}

fn done(result: Result<String, CliError>) -> Result<(String, Exit), CliError> {
    Ok((result?, Exit::Success))
}

fn block_on<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|e| {
        CliError::new(
            Exit::Unavailable,
            format!("cannot start threads: {e}"),
            "Try again, or raise the limit on processes.",
        )
    })?;
    runtime.block_on(work)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_lists_the_exit_codes_of_this_program() {
        let help = Cli::command().render_help().to_string();
        for exit in ["0  success", "64  usage error", "78  configuration error"] {
            assert!(help.contains(exit), "{exit} is not in {help}");
        }
        assert!(!help.contains("FAILED"), "{help}");
    }
}
