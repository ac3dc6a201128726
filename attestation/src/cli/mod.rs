//! The command line of `attest`.

mod args;
mod conditions;
mod document;
mod error;

mod fetch;
mod input;
mod measurements;
mod output;
mod report;
mod show;
mod verification;

use args::{Cli, Command, FetchArgs, ShowArgs, VerifyArgs};
use clap::Parser as _;
use error::CommandError;
use explain::Exit;
use output::{print, warn};
use std::process::ExitCode;

pub(crate) fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // If the text cannot be written, the exit code remains.
            error.print().ok();
            return if error.use_stderr() {
                Exit::Unreadable.into()
            } else {
                Exit::Success.into()
            };
        }
    };
    let outcome = match cli.command {
        Command::Verify(args) => verify(*args),
        Command::Fetch(args) => fetch(*args),
        Command::Show(ShowArgs { doc, json }) => {
            show::run(&doc, json).map(|text| (text, Exit::Success))
        }
    };
    let status = match outcome {
        Ok((text, status)) if print(&text) => status,
        Ok(_) => Exit::Unreadable,
        Err(CommandError { message, hint }) => {
            warn(&format!("error: {message}\n  {hint}"));
            Exit::Unreadable
        }
    };
    status.into()
}

fn verify(args: VerifyArgs) -> Result<(String, Exit), CommandError> {
    let VerifyArgs { doc, nonce, policy } = args;
    let nonce = nonce
        .map(|digits| conditions::hexadecimal("--nonce", &digits))
        .transpose()?;
    let verification = policy.verification(nonce)?;
    Ok(verification.run(&document::read(&doc)?))
}

fn fetch(args: FetchArgs) -> Result<(String, Exit), CommandError> {
    let FetchArgs {
        url,
        output,
        policy,
    } = args;
    let nonce = fetch::nonce()?;
    let verification = policy.verification(Some(nonce.clone()))?;
    let document = fetch::document(&url, &nonce)?;
    if let Some(path) = output {
        std::fs::write(&path, &document).map_err(|e| {
            CommandError::new(
                format!("cannot write {}: {e}", path.display()),
                "choose another file with --output",
            )
        })?;
    }
    // The clock is read after the response: a slow enclave does not make a document from the
    // future.
    Ok(verification.run(&document))
}
