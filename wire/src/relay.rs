//! Relayed streams: the first frames, and the chunks that follow an [`OpenReply::Opened`] in both
//! directions.
//!
//! A chunk is a big-endian `u32` length, at most [`MAX_CHUNK`], and that many bytes; a length of 0
//! ends its direction and leaves the other one open. Ends have a form of their own because not
//! every vsock carries half-closes, and so that a broken connection is not taken for an end.

use minicbor::{Decode, Encode};

/// The longest host name in a [`ConnectRequest`], in bytes (RFC 1035, 2.3.4).
pub const MAX_HOST: usize = 253;

/// The length of a chunk's length prefix, in bytes.
pub const PREFIX: usize = 4;

/// The longest chunk, in bytes, prefix excluded: prefix and chunk are one write.
pub const MAX_CHUNK: usize = crate::MAX_WRITE - PREFIX;

/// The most connections that any enclave carries at one time, in and out together: two descriptors
/// each are half of what a process may have.
const MAX_CONNECTIONS: u32 = 16_384;
/// The least, so that the smallest enclave is of use.
const MIN_CONNECTIONS: u32 = 256;
/// Memory of the enclave for each of them, in bytes. An idle one takes about 14 KiB of it, sockets
/// included; one whose reader does not read takes 32 KiB and its [`window`], 92 KiB on average. What
/// TCP takes of all of them together is bounded by the kernel (tcp(7), tcp_mem).
const MEMORY_EACH: u64 = 128 * 1024;

/// What Linux keeps of a stream that is not read, in bytes (af_vsock.c,
/// `VSOCK_DEFAULT_BUFFER_SIZE`).
const WINDOW: u64 = 256 * 1024;
/// The same, where there are many streams.
const SMALL_WINDOW: u64 = 32 * 1024;

/// How many bytes an enclave's kernel is to keep of a stream that the agent has not read: the host's
/// credit (virtio 1.2, 5.10.6.3). `free` of `limit` connections are left. The first eighth of them
/// has a window for full speed; where there are more, the window is not what each one's speed
/// depends on.
pub fn window(free: u32, limit: u32) -> u64 {
    if free >= limit / 8 * 7 {
        WINDOW
    } else {
        SMALL_WINDOW
    }
}

/// How many connections an enclave with so many bytes of memory carries at one time, in and out
/// together.
pub fn connection_limit(memory: u64) -> u32 {
    let limit = u32::try_from(memory / MEMORY_EACH).unwrap_or(u32::MAX);
    limit.clamp(MIN_CONNECTIONS, MAX_CONNECTIONS)
}

/// How many of `limit` connections may come in: what strangers open leaves a quarter to those that
/// the workload itself opens.
pub fn ingress_limit(limit: u32) -> u32 {
    limit / 4 * 3
}

/// One chunk, of at most [`MAX_CHUNK`] bytes.
pub fn chunk(bytes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    [&len.to_be_bytes(), bytes].concat()
}

/// Agent to host, port 9002: open a TCP connection for the enclave.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ConnectRequest {
    /// A host name or IP address, [`MAX_HOST`] bytes at most. The host resolves it.
    #[n(0)]
    pub host: String,
    /// The TCP port.
    #[n(1)]
    pub port: u16,
}

/// Host to agent, port 9003: open a TCP connection to 127.0.0.1:`port` in the enclave.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct OpenRequest {
    /// The TCP port inside the enclave, one of `network.ingress`.
    #[n(0)]
    pub port: u16,
}

/// The answer to a [`ConnectRequest`] or an [`OpenRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum OpenReply {
    /// The connection is open: chunks follow in both directions.
    #[n(0)]
    Opened,
    /// There is no connection; nothing follows.
    #[n(1)]
    Refused {
        /// The reason.
        #[n(0)]
        why: RefuseReason,
    },
}

/// Why a connection was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, thiserror::Error)]
#[cbor(index_only)]
pub enum RefuseReason {
    /// The measured spec does not list the destination or port.
    #[n(0)]
    #[error("the measured spec does not allow it")]
    NotAllowed,
    /// The name has no address, or resolving it took too long.
    #[n(1)]
    #[error("the name could not be resolved")]
    Unresolved,
    /// The address is one that the host does not let enclaves reach.
    #[n(2)]
    #[error("the name resolves to a loopback, link-local, private-use or metadata address")]
    ForbiddenAddress,
    /// No address accepted the connection in time.
    #[n(3)]
    #[error("the destination did not answer")]
    Unreachable,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_in_proportion_to_memory() {
        let of = |mib: u64| connection_limit(mib << 20);
        assert_eq!([of(31), of(64), of(512)], [256, 512, 4096]);
        assert_eq!([of(2048), of(2049), of(1 << 20)], [16_384; 3]);
        assert_eq!(ingress_limit(of(512)), 3072);
        assert_eq!([7, 6].map(|free| window(free, 8)), [256 << 10, 32 << 10]);
    }

    /// Host and agent may be of different releases: these bytes were written once and do not
    /// change.
    #[test]
    fn the_bytes_of_requests_and_replies_do_not_change() {
        let connect = ConnectRequest {
            host: "h".to_owned(),
            port: 1,
        };
        let refused = OpenReply::Refused {
            why: RefuseReason::Unreachable,
        };
        let encoded = minicbor::to_vec(&connect).unwrap();
        assert_eq!(encoded, [0x82, 0x61, b'h', 1]);
        assert_eq!(
            minicbor::to_vec(OpenRequest { port: 1 }).unwrap(),
            [0x81, 1]
        );
        assert_eq!(
            minicbor::to_vec(OpenReply::Opened).unwrap(),
            [0x82, 0, 0x80]
        );
        assert_eq!(minicbor::to_vec(refused).unwrap(), [0x82, 1, 0x81, 3]);
    }
}
