//! The control connection (port 9001): what the agent reports to its host and what the host may
//! ask. The agent connects, says `Hello`, waits for `Boot`, and reports until the workload has
//! ended.

use crate::kms::{SignRefusal, SignedHeaders};
pub use crate::workload::{MAX_LINE, OutputLine, OutputStream, WorkloadExit, WorkloadHealth};

use minicbor::{Decode, Encode};

/// From the agent. The host takes each field as a claim of the enclave, never as a command.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum FromAgent {
    /// First message. A host that does not speak `protocol` closes the connection.
    #[n(0)]
    Hello {
        /// [`PROTOCOL_VERSION`](crate::PROTOCOL_VERSION) of the agent.
        #[n(0)]
        protocol: u32,
        /// The version of the agent's crate, for people.
        #[n(1)]
        agent_version: String,
    },
    /// The workload's process exists.
    #[n(1)]
    Started {
        /// Its process number inside the enclave.
        #[n(0)]
        pid: u32,
    },
    /// Output of the workload; sent only if the measured spec allows it.
    #[n(2)]
    Log {
        /// How many lines were dropped before these, because the host was too slow.
        #[n(0)]
        dropped: u64,
        /// In the order in which they arrived; as many as fit into one frame, or none.
        #[n(1)]
        lines: Vec<OutputLine>,
    },
    /// The workload ended for good; the agent sends nothing after this.
    #[n(3)]
    Exited {
        /// How it ended.
        #[n(0)]
        status: WorkloadExit,
    },
    /// The enclave gives up before or instead of running the workload, and powers off; the agent
    /// sends nothing after this.
    #[n(4)]
    Failed {
        /// What the host's next step depends on.
        #[n(0)]
        reason: AbortReason,
        /// The error for a person, 2000 characters at most.
        #[n(1)]
        detail: String,
    },
    /// Sent every [`ALIVE_EVERY_MS`] once the workload was started; a host that hears nothing for a
    /// while gives the enclave up.
    #[n(5)]
    Alive,
    /// Asks for a signature over the request to [KMS](crate::kms), before `Started` only; the host
    /// answers with `Signed`.
    #[n(6)]
    Sign {
        /// The request's body, [`MAX_BODY`](crate::kms::MAX_BODY) bytes at most.
        #[n(0)]
        #[cbor(with = "minicbor::bytes")]
        body: Vec<u8>,
    },
    /// The workload ended and is started once more, in the same enclave.
    #[n(7)]
    Restarted {
        /// How it ended.
        #[n(0)]
        exit: WorkloadExit,
        /// How many times that has happened, this one included.
        #[n(1)]
        count: u32,
    },
    /// The workload's health has changed.
    #[n(8)]
    Health {
        /// What it is now.
        #[n(0)]
        state: WorkloadHealth,
        /// What the last check found, for a person; 500 characters at most.
        #[n(1)]
        detail: String,
    },
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
    },
    /// End the workload: its stop signal now, SIGKILL after `deadline_ms` milliseconds.
    #[n(1)]
    Stop {
        /// How long the workload may take to end, in milliseconds.
        #[n(0)]
        deadline_ms: u32,
    },
    /// Answer to `Sign`.
    #[n(2)]
    Signed {
        /// The headers to add to the request.
        #[n(0)]
        answer: Result<SignedHeaders, SignRefusal>,
    },
}

/// Why an enclave gave up. The host has a next step for each.
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
    /// KMS, or a server in its place, answered with something that an attested enclave cannot use.
    #[n(14)]
    KmsAnswer,
    /// KMS could not be reached in time.
    #[n(15)]
    KmsUnreachable,
    /// The server that answered could not prove to be KMS.
    #[n(16)]
    KmsTls,
    /// The host refused the connection to KMS.
    #[n(17)]
    EgressRefused,
    /// The clock cannot be set from the NSM's time.
    #[n(18)]
    Clock,
    /// The config is not signed by the sealer of the spec.
    #[n(19)]
    ConfigUnsigned,
    /// The enclave runs in debug mode, where its parent could read the config.
    #[n(20)]
    ConfigDebug,
    /// The enclave is in debug mode, and its spec does not allow that.
    #[n(21)]
    Debug,
    /// The kernel was started with another command line than the measured one.
    #[n(22)]
    Cmdline,
    /// The kernel's random numbers do not come from the NSM.
    #[n(23)]
    Rng,
    /// The host refused to sign the request to KMS.
    #[n(24)]
    SignatureRefused,
    /// The host could not sign the request to KMS.
    #[n(25)]
    SignatureUnavailable,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Host and agent may be of different releases: these bytes do not change.
    #[test]
    fn the_bytes_of_the_hosts_messages_do_not_change() {
        let boot = |config: Option<Vec<u8>>| FromHost::Boot { config };
        let signed = |security_token: Option<&str>| FromHost::Signed {
            answer: Ok(SignedHeaders {
                date: "D".to_owned(),
                authorization: "A".to_owned(),
                security_token: security_token.map(str::to_owned),
            }),
        };
        let refused = FromHost::Signed {
            answer: Err(SignRefusal::Key),
        };
        for (message, bytes) in [
            (
                boot(Some(vec![1, 2])),
                b"\x82\x00\x81\x42\x01\x02".as_slice(),
            ),
            (boot(None), b"\x82\x00\x80"),
            (
                signed(Some("T")),
                b"\x82\x02\x81\x82\x00\x83\x61D\x61A\x61T",
            ),
            (signed(None), b"\x82\x02\x81\x82\x00\x82\x61D\x61A"),
            (refused, b"\x82\x02\x81\x82\x01\x04"),
        ] {
            assert_eq!(minicbor::to_vec(&message).unwrap(), bytes);
            assert_eq!(minicbor::decode::<FromHost>(bytes).unwrap(), message);
        }
    }

    #[test]
    fn the_bytes_of_reports_do_not_change() {
        let failed = FromAgent::Failed {
            reason: AbortReason::Clock,
            detail: "d".to_owned(),
        };
        let exited = FromAgent::Exited {
            status: WorkloadExit::Code(3),
        };
        let line = OutputLine {
            stream: OutputStream::Stderr,
            time_ms: 5,
            bytes: vec![1],
            partial: false,
        };
        let log = FromAgent::Log {
            dropped: 2,
            lines: vec![line],
        };
        let restarted = FromAgent::Restarted {
            exit: WorkloadExit::Signal(9),
            count: 2,
        };
        let health = FromAgent::Health {
            state: WorkloadHealth::Unhealthy,
            detail: "d".to_owned(),
        };
        let sign = FromAgent::Sign { body: vec![7] };
        for (message, bytes) in [
            (sign, b"\x82\x06\x81\x41\x07".as_slice()),
            (failed, b"\x82\x04\x82\x12\x61d"),
            (exited, b"\x82\x03\x81\x82\x00\x81\x03"),
            (log, b"\x82\x02\x82\x02\x81\x84\x02\x05\x41\x01\xf4"),
            (restarted, b"\x82\x07\x82\x82\x01\x81\x09\x02"),
            (health, b"\x82\x08\x82\x02\x61d"),
        ] {
            assert_eq!(minicbor::to_vec(&message).unwrap(), bytes);
        }
    }
}
