//! The control connection (port 9001): what the agent tells its host and what the host may ask.
//! The agent connects, says `Hello`, waits for `Boot`, and reports until the workload has ended.

use minicbor::{Decode, Encode};

/// From the agent. The host takes each field as a claim of the enclave, never as a command.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum FromAgent {
    /// First message. A host that does not speak `protocol` closes the connection.
    #[n(0)]
    Hello {
        #[n(0)]
        protocol: u32,
        #[n(1)]
        agent_version: String,
    },
    /// The workload's process exists.
    #[n(1)]
    Started {
        #[n(0)]
        pid: u32,
    },
    /// Output of the workload; sent only if the measured spec says so.
    #[n(2)]
    Log {
        #[n(0)]
        stream: Stream,
        #[n(1)]
        #[cbor(with = "minicbor::bytes")]
        bytes: Vec<u8>,
    },
    /// The workload ended; the last message of a life.
    #[n(3)]
    Exited {
        #[n(0)]
        status: Exit,
    },
    /// The enclave gives up before or instead of running the workload, and powers off; a last message too.
    #[n(4)]
    Failed {
        #[n(0)]
        failure: Failure,
        #[n(1)]
        detail: String,
    },
    /// Sent every [`ALIVE_EVERY_MS`] once the workload was started; a host that hears nothing for a while gives the
    /// enclave up.
    #[n(5)]
    Alive,
}

/// Milliseconds between two signs of life.
pub const ALIVE_EVERY_MS: u64 = 500;

/// From the host.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum FromHost {
    /// Answer to `Hello`: go on and start the workload.
    #[n(0)]
    Boot,
    /// End the workload: its stop signal now, SIGKILL after `deadline_ms` milliseconds.
    #[n(1)]
    Stop {
        #[n(0)]
        deadline_ms: u32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Stream {
    #[n(1)]
    Stdout,
    #[n(2)]
    Stderr,
}

/// How the workload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Exit {
    /// It returned this code, 0 to 255.
    #[n(0)]
    Code(#[n(0)] u8),
    /// It was ended by this signal.
    #[n(1)]
    Signal(#[n(0)] u8),
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exit code {code}"),
            Exit::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// Why an enclave gave up. Each kind has its own next step on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Failure {
    /// The measured spec is missing or is not one that this agent can read.
    #[n(0)]
    Spec,
    /// The root file system could not be mounted.
    #[n(1)]
    RootFs,
    /// The user of the spec is not in the image.
    #[n(2)]
    User,
    /// The program of the spec is not in the image.
    #[n(3)]
    NotFound,
    /// The program is there and could not be started.
    #[n(4)]
    NotExecutable,
    /// The working directory is missing and could not be made.
    #[n(5)]
    WorkingDir,
    /// Loopback, a forward or a listener could not be set up.
    #[n(6)]
    Network,
    /// The Nitro Security Module did not answer.
    #[n(7)]
    Nsm,
}
