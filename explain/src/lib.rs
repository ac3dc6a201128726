//! How an error tells a person what to do.
//!
//! Every error that reaches a person implements [`Explain`] beside its own definition: a stable
//! [`Code`], the next step, a [`Class`], and whether trying again may help. It is rendered in four
//! places and nowhere else: as an HTTP status and body by the daemon's API, as a stored failure in
//! an enclave's record (both in the crate `api`), as an exit code ([`Exit`]), and as text on a
//! terminal ([`CliError`]).
//!
//! This crate depends on nothing of Redoubt, prints nothing and does no I/O.
#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::missing_errors_doc)]

mod class;
mod cli;
mod code;
mod exit;
mod text;

pub use class::Class;
pub use cli::CliError;
pub use code::Code;
pub use exit::Exit;
pub use text::{chain, printable};

use std::borrow::Cow;

/// What an error tells the person who has to act. The message itself is the error's `Display`.
pub trait Explain: std::error::Error {
    /// The stable name of what went wrong, for programs and for `docs/errors.md`.
    fn code(&self) -> Code;

    /// What to do about it, in complete sentences that start with a verb. By default the general
    /// advice for the code.
    fn next_step(&self) -> Cow<'_, str> {
        self.code().next_step().into()
    }

    /// The class of the error, which decides the exit code. By default that of the code.
    fn class(&self) -> Class {
        self.code().class()
    }

    /// Whether the same attempt may succeed later although nothing was changed.
    fn is_retryable(&self) -> bool {
        false
    }
}
