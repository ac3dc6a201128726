//! The two streams that people and pipelines read.

use explain::Exit;
use std::io::Write as _;
use std::process::ExitCode;
use wire::spec::Caution;

/// Writes a result to standard output and ends with `exit`. If the reader is gone, the command
/// fails, but does not panic.
pub(super) fn print(text: &str, exit: Exit) -> ExitCode {
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => exit.into(),
        Err(_) => Exit::Unavailable.into(),
    }
}

/// What weakens a result, on standard error, so that a pipeline's log shows it too.
pub(super) fn caution(cautions: &[Caution]) {
    for caution in cautions {
        warn(&format!("caution: {caution}"));
    }
}

/// Writes a message to standard error. Where that is closed, nothing can be reported.
pub(super) fn warn(text: &str) {
    writeln!(std::io::stderr(), "{text}").ok();
}
