//! Relayed streams: the first frames, and the chunks that follow an [`Answer::Opened`] in both directions.
//!
//! A chunk is a big-endian `u32` length, at most [`MAX_CHUNK`], and that many bytes; a length of 0 ends its direction and leaves
//! the other one open. Ends have a form of their own because not every vsock carries half-closes: vhost-device-vsock
//! 0.3.0 turns the host's into a full close and forgets the enclave's.

use minicbor::{Decode, Encode};

/// The longest host name in a [`Connect`], in bytes (RFC 1035, 2.3.4).
pub const MAX_HOST: usize = 253;

/// Bytes of a chunk's length.
pub const PREFIX: usize = 4;

/// The longest chunk, in bytes: with its length it is one write.
pub const MAX_CHUNK: usize = crate::MAX_WRITE - PREFIX;

/// Agent to host, port 9002: open a TCP connection for the enclave.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Connect {
    #[n(0)]
    pub host: String,
    #[n(1)]
    pub port: u16,
}

/// Host to agent, port 9003: open a TCP connection to 127.0.0.1:`port` in the enclave.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Open {
    #[n(0)]
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    #[n(0)]
    Opened,
    #[n(1)]
    Refused {
        #[n(0)]
        why: Refusal,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, thiserror::Error)]
#[cbor(index_only)]
pub enum Refusal {
    #[n(0)]
    #[error("the measured spec does not allow it")]
    NotAllowed,
    #[n(1)]
    #[error("the name could not be resolved")]
    Unresolved,
    #[n(2)]
    #[error("the name leads to a loopback, link-local, private-use or metadata address")]
    ForbiddenAddress,
    #[n(3)]
    #[error("nobody answered")]
    Unreachable,
}
