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
        failure: AbortReason,
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
    Boot {
        /// The [sealed config](crate::sealed), if the spec asks for one.
        #[n(0)]
        #[cbor(with = "minicbor::bytes")]
        config: Option<Vec<u8>>,
        /// For the one call to KMS that opens it.
        #[n(1)]
        credentials: Option<AwsCredentials>,
    },
    /// End the workload: its stop signal now, SIGKILL after `deadline_ms` milliseconds.
    #[n(1)]
    Stop {
        #[n(0)]
        deadline_ms: u32,
    },
}

/// Credentials of the parent's role, short-lived. The parent knows them: it is the key's policy that keeps it from the config.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct AwsCredentials {
    #[n(0)]
    pub access_key_id: String,
    #[n(1)]
    pub secret_access_key: String,
    #[n(2)]
    pub session_token: Option<String>,
}

/// No one else needs to see them.
impl std::fmt::Debug for AwsCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AwsCredentials(…)")
    }
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
pub enum AbortReason {
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
    /// The spec asks for a sealed config, and the host sent none.
    #[n(8)]
    ConfigMissing,
    /// What the host sent is no sealed config, or was changed after it was sealed.
    #[n(9)]
    ConfigDamaged,
    /// It was sealed for another name, key or context than the spec's.
    #[n(10)]
    ConfigForeign,
    /// It is older than the spec's minimum.
    #[n(11)]
    ConfigTooOld,
    /// It was opened, and cannot be delivered as the spec asks.
    #[n(12)]
    ConfigUnusable,
    /// KMS refused to decrypt for this enclave.
    #[n(13)]
    KmsRefused,
    /// KMS, or who answered in its place, answered with something that only an attested enclave could not have got.
    #[n(14)]
    KmsAnswer,
    /// KMS could not be reached in time.
    #[n(15)]
    KmsUnreachable,
    /// Who answered could not prove to be KMS.
    #[n(16)]
    KmsTls,
    /// The host refused the connection to KMS.
    #[n(17)]
    EgressRefused,
    /// The enclave's clock and the hypervisor's are too far apart.
    #[n(18)]
    Clock,
}
