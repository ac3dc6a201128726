//! The kernel's console. On Nitro it can be read in debug mode only; no output of the workload goes
//! there.

use std::io::Write as _;

/// Writes a line. An error has nowhere to go and changes nothing.
pub(crate) fn say(text: &str) {
    writeln!(std::io::stderr(), "enclave-agent: {text}").ok();
}
