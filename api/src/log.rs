//! The workload's output, line by line.

use serde::{Deserialize, Serialize};

/// One line of `GET …/logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LogEntry {
    /// The workload wrote a line, or a part of one.
    Line {
        /// When its first byte reached the agent, RFC 3339 with milliseconds: the enclave's time.
        time: String,
        /// Where it was written.
        stream: LogStream,
        /// Without its line feed; what is not UTF-8 is replaced. Anything that the workload writes,
        /// control characters included.
        text: String,
        /// It goes on with the next line of its stream: it is longer than 16 KiB, or was sent before
        /// its line feed came.
        #[serde(skip_serializing_if = "std::ops::Not::not", default)]
        partial: bool,
    },
    /// Lines are missing here: the host was too slow for the enclave, or the reader for the host.
    Dropped {
        /// How many.
        lines: u64,
    },
}

/// What the workload wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}
