//! What the agent reports of its workload: lines of output, how it ended, how it is.

use minicbor::{Decode, Encode};

/// The longest line of output, in bytes; longer ones are split.
pub const MAX_LINE: usize = 16 * 1024;

/// Where the workload wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum OutputStream {
    /// File descriptor 1.
    #[n(1)]
    Stdout,
    /// File descriptor 2.
    #[n(2)]
    Stderr,
}

/// A line of output, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct OutputLine {
    /// Where the workload wrote it.
    #[n(0)]
    pub stream: OutputStream,
    /// When its first byte reached the agent: milliseconds since 1970, UTC.
    #[n(1)]
    pub time_ms: u64,
    /// As written, without the line feed: any bytes, at most [`MAX_LINE`].
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
    /// No line feed came after these bytes: what the stream writes next continues the line.
    #[n(3)]
    pub partial: bool,
}

/// How the workload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum WorkloadExit {
    /// It returned this code, 0 to 255.
    #[n(0)]
    Code(#[n(0)] u8),
    /// It was ended by this signal.
    #[n(1)]
    Signal(#[n(0)] u8),
}

impl std::fmt::Display for WorkloadExit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            WorkloadExit::Code(code) => write!(f, "exit code {code}"),
            WorkloadExit::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// How a workload is whose spec, or image, has a health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum WorkloadHealth {
    /// It was started, and no check has succeeded since.
    #[n(0)]
    Starting,
    /// The last check succeeded, or not enough have failed in a row since one did.
    #[n(1)]
    Healthy,
    /// As many checks failed in a row as the spec allows.
    #[n(2)]
    Unhealthy,
}
