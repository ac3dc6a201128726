//! `attest`: the command line for relying parties.

mod cli;

fn main() -> std::process::ExitCode {
    cli::run()
}
