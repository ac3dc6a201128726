//! The audit log: who ordered what, from where, and what became of it.
//!
//! A directory of files `audit-SEQ.jsonl`, one JSON object a line. Each line has a sequence number,
//! the hash of the line before it and a hash of its own, so that [`verify`] finds a line that was
//! changed, removed, inserted or moved. [`AuditLog`] appends: what it says is written is on disk
//! (fdatasync). A log has one writer; readers need no lock and no daemon.
//!
//! No secret is ever part of a line. What strangers wrote is escaped and cut.
//!
//! A hash chain finds mistakes and edits by those who cannot compute it anew. Whoever owns the
//! machine can write another log from its first line; against that, keep [`ChainHead`]s elsewhere.
//!
//! # Form
//! A line is `{"seq":N,"time":"…","prev":"HASH",…,"hash":"HASH"}` and a newline. `hash` is the
//! SHA-256 of all bytes before `,"hash"`, and `prev` is the `hash` of the line before: 64 zeros
//! in line 1. The first line of a file continues the chain of the file before it. A file is named
//! for the number of its first line.
#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::missing_errors_doc)]

mod chain;
mod entry;
mod error;
mod files;
mod log;
mod refusals;
mod scan;
mod verify;
mod writer;

pub use chain::{AuditLine, ChainHead, LineFault};
pub use entry::{Actor, AuditAction, AuditEntry, AuditOutcome};
pub use error::AuditError;
pub use log::{AuditLog, BegunOrder};
pub use verify::{AuditReport, AuditVerifyError, verify, walk};
