//! The control connection (port 9001): what the agent reports to its host and what the host may
//! ask. The agent connects, says `Hello`, waits for `Boot`, and reports until the workload has
//! ended.

use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

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
        /// Where the workload wrote it.
        #[n(0)]
        stream: OutputStream,
        /// As written: any bytes, cut anywhere. At most one frame.
        #[n(1)]
        #[cbor(with = "minicbor::bytes")]
        bytes: Vec<u8>,
    },
    /// The workload ended; the agent sends nothing after this.
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
        /// How long the workload may take to end, in milliseconds.
        #[n(0)]
        deadline_ms: u32,
    },
}

/// Credentials of the parent's role, short-lived. The parent knows them: it is the key's policy
/// that keeps the parent from the config. Wiped from memory when dropped; `Debug` shows none of
/// them.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct AwsCredentials {
    /// The access key's ID (`ASIA…` or `AKIA…`).
    #[n(0)]
    #[cbor(with = "secret")]
    pub access_key_id: Zeroizing<String>,
    /// The key that signs requests.
    #[n(1)]
    #[cbor(with = "secret")]
    pub secret_access_key: Zeroizing<String>,
    /// Of temporary credentials only.
    #[n(2)]
    #[cbor(with = "optional_secret", has_nil)]
    pub session_token: Option<Zeroizing<String>>,
}

impl std::fmt::Debug for AwsCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AwsCredentials(…)")
    }
}

/// A text in CBOR that is wiped when dropped.
mod secret {
    use minicbor::decode::{Decoder, Error as DecodeError};
    use minicbor::encode::{Encoder, Error as EncodeError, Write};
    use zeroize::Zeroizing;

    pub(super) fn encode<C, W: Write>(
        text: &Zeroizing<String>,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        encoder.str(text)?.ok()
    }

    pub(super) fn decode<C>(
        decoder: &mut Decoder<'_>,
        _: &mut C,
    ) -> Result<Zeroizing<String>, DecodeError> {
        decoder.str().map(|text| Zeroizing::new(text.to_owned()))
    }
}

/// The same, or null; left out at the end of an array, as minicbor leaves out an `Option`.
mod optional_secret {
    use minicbor::data::Type;
    use minicbor::decode::{Decoder, Error as DecodeError};
    use minicbor::encode::{Encoder, Error as EncodeError, Write};
    use zeroize::Zeroizing;

    type Secret = Option<Zeroizing<String>>;

    pub(super) fn encode<C, W: Write>(
        secret: &Secret,
        encoder: &mut Encoder<W>,
        context: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        match secret {
            Some(text) => super::secret::encode(text, encoder, context),
            None => encoder.null()?.ok(),
        }
    }

    pub(super) fn decode<C>(
        decoder: &mut Decoder<'_>,
        context: &mut C,
    ) -> Result<Secret, DecodeError> {
        if decoder.datatype()? == Type::Null {
            decoder.null()?;
            return Ok(None);
        }
        super::secret::decode(decoder, context).map(Some)
    }

    pub(super) fn is_nil(secret: &Secret) -> bool {
        secret.is_none()
    }

    pub(super) fn nil() -> Option<Secret> {
        Some(None)
    }
}

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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(session_token: Option<&str>) -> AwsCredentials {
        AwsCredentials {
            access_key_id: "A".to_owned().into(),
            secret_access_key: "S".to_owned().into(),
            session_token: session_token.map(|text| text.to_owned().into()),
        }
    }

    /// Host and agent may be of different releases: these bytes were written by the first one, with
    /// plain strings, and do not change.
    #[test]
    fn the_bytes_of_boot_do_not_change() {
        let boot = |config: Option<Vec<u8>>, credentials| FromHost::Boot {
            config,
            credentials,
        };
        let all = boot(Some(vec![1, 2]), Some(credentials(Some("T"))));
        let lasting = boot(Some(vec![1, 2]), Some(credentials(None)));
        for (message, bytes) in [
            (
                all,
                b"\x82\x00\x82\x42\x01\x02\x83\x61A\x61S\x61T".as_slice(),
            ),
            (lasting, b"\x82\x00\x82\x42\x01\x02\x82\x61A\x61S"),
            (boot(None, None), b"\x82\x00\x80"),
        ] {
            assert_eq!(minicbor::to_vec(&message).unwrap(), bytes);
            assert_eq!(minicbor::decode::<FromHost>(bytes).unwrap(), message);
        }
        let explicit_null = b"\x82\x00\x82\x42\x01\x02\x83\x61A\x61S\xf6";
        let read = minicbor::decode::<FromHost>(explicit_null).unwrap();
        assert_eq!(read, boot(Some(vec![1, 2]), Some(credentials(None))));
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
        let log = FromAgent::Log {
            stream: OutputStream::Stderr,
            bytes: vec![1],
        };
        for (message, bytes) in [
            (failed, b"\x82\x04\x82\x12\x61d".as_slice()),
            (exited, b"\x82\x03\x81\x82\x00\x81\x03"),
            (log, b"\x82\x02\x82\x02\x41\x01"),
        ] {
            assert_eq!(minicbor::to_vec(&message).unwrap(), bytes);
        }
    }

    #[test]
    fn debug_shows_no_credentials() {
        let boot = FromHost::Boot {
            config: None,
            credentials: Some(credentials(Some("T"))),
        };
        assert!(format!("{boot:?}").contains("credentials: Some(AwsCredentials(…))"));
    }
}
