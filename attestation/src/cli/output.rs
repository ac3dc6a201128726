//! Standard output and standard error.

use std::io::Write as _;

/// Prints a result; `false` if it cannot be written. A closed pipe is no reason to panic.
pub(super) fn print(text: &str) -> bool {
    writeln!(std::io::stdout(), "{}", text.trim_end()).is_ok()
}

/// Prints a warning or an error. If standard error is closed, the exit code remains.
pub(super) fn warn(text: &str) {
    writeln!(std::io::stderr(), "{text}").ok();
}
