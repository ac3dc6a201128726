//! `eif-builder`: the command line. Results go to standard output, messages and progress to
//! standard error.

mod cli;

fn main() -> std::process::ExitCode {
    cli::run()
}
