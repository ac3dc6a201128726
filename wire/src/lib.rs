//! What host and enclave say to each other, as bytes and types. Both daemons link this crate, so
//! that neither can read a message differently from the other.
//!
//! Without features it does no I/O, reads no clock and starts no task: bytes in, values out. The
//! feature `io` adds [`io`], which moves those bytes over streams and listeners that its caller
//! opened, with tokio's clock for timeouts.
//!
//! # Ports
//!
//! Every stream is AF_VSOCK. The parent instance has CID 3, on Nitro and in the sandbox.
//!
//! | port | who listens | what |
//! |---|---|---|
//! | 9000 | host  | [heartbeat](HEARTBEAT): one byte, echoed. The convention of nitro-cli and of QEMU's machine |
//! | 9001 | host  | [control]: the agent connects and says `Hello`; then frames both ways until the enclave is gone |
//! | 9002 | host  | [relay] out of the enclave: a `ConnectRequest`, an `OpenReply`, then chunks |
//! | 9003 | agent | [relay] into the enclave: an `OpenRequest`, an `OpenReply`, then chunks |
//! | 9004 | agent | HTTP/1.1 for relying parties: `GET /attestation?nonce=HEX`, `GET /healthz` |
//!
//! # Frames
//!
//! A [frame] is a big-endian `u32` length, at most [`frame::MAX_LEN`], and one CBOR item (RFC 8949)
//! of exactly that length. Anything else ends the connection with a [`frame::FrameError`]. Each
//! side treats the other as hostile: the agent does not trust the parent, and the parent does not
//! trust the enclave.
//!
//! # The spec
//!
//! [`spec`] is what an operator asks for (`enclave.toml`) and its resolved, measured form
//! (`/app/enclave.json`).
//!
//! # The ramdisk
//!
//! [`ramdisk`] names what the builder puts beside the agent, and finds it again.
//!
//! # The sealed config
//!
//! [`sealed`] is the file that carries secrets to one attested enclave and to nothing else. It
//! travels in `Boot`; [`kms`] is the request that opens it.
#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::missing_errors_doc)]

pub mod control;
pub mod frame;
#[cfg(feature = "io")]
pub mod io;
pub mod kms;
pub mod network;
pub mod proxy_protocol;
pub mod ramdisk;
pub mod relay;
pub mod sealed;
pub mod spec;
mod workload;

/// Version of this protocol. The agent sends it in `Hello`; a host that speaks another version
/// closes the connection.
pub const PROTOCOL_VERSION: u32 = 1;

/// The CID of the parent instance (AWS, "Nitro Enclaves application development", vsock).
pub const PARENT_CID: u32 = 3;

/// The byte that a booted enclave sends on port 9000 and expects back
/// (aws-nitro-enclaves-sdk-bootstrap, init.c).
pub const HEARTBEAT: u8 = 0xB7;

/// A vsock port, so that it cannot be taken for a TCP port or a CID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port(pub u32);

/// The host listens for [`HEARTBEAT`] here (nitro-cli, ENCLAVE_READY_VSOCK_PORT).
pub const HEARTBEAT_PORT: Port = Port(9000);
/// The host listens for the [control] connection here.
pub const CONTROL_PORT: Port = Port(9001);
/// The host listens for connections out of the enclave here.
pub const EGRESS_PORT: Port = Port(9002);
/// The agent listens for connections into the enclave here.
pub const INGRESS_PORT: Port = Port(9003);
/// The agent serves attestation documents here.
pub const ATTESTATION_PORT: Port = Port(9004);

/// The largest single write on a stream, in bytes: it bounds what relays hold of each direction.
pub const MAX_WRITE: usize = 32 * 1024;

/// The longest nonce that an attestation request may carry, in bytes (nsm-api: 1024 in practice).
pub const MAX_NONCE: usize = 1024;
