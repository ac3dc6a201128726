//! A switch for vsock: guests of one machine reach each other by their CIDs, and the host by its
//! unix sockets. Each guest is a virtual machine whose vhost-user vsock device connects to a socket
//! of the switch (virtio 1.2, 5.10; QEMU's `vhost-user-vsock`).
//!
//! ```text
//! guest 16 == virtqueues == device --+        +-- device == virtqueues == guest 3
//!                                    +- muxer-+
//! host: PATH, PATH_9000 == unix -----+        +-- unix == host of another guest
//! ```
//!
//! # What it carries
//!
//! Stream connections, with half-closes in both directions. Between guests, packets are passed on
//! with the true CIDs of both ends and split to fit the receiver's buffers. Credit is end to end: a
//! guest that sends more than its peer announced is reset. A packet to a CID or port where nothing
//! listens is answered with a reset. When a guest is gone, its connections are reset for its peers
//! and closed for the host.
//!
//! # What it bounds
//!
//! Guests are foreign: no length, index or address that they give is trusted. A guest has at most
//! 16,384 connections. On each, the switch holds up to 64 KiB for the host, and for a sibling up to
//! the buffer that it announced: 1 MiB at most, and 64 MiB over all its connections. When the other
//! end does not agree to a close within 10 seconds, the connection is reset. Connections take turns,
//! packet by packet, and one that is stuck stops no other.
#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::missing_errors_doc)]

mod backend;
mod config;
mod connection;
mod device;
#[cfg(test)]
mod device_tests;
#[cfg(test)]
mod driver;
mod engine;
mod error;
mod guest;
#[cfg(test)]
mod guest_tests;
mod inbox;
mod lane;
mod muxer;
mod packet;
mod poller;
mod port;
#[cfg(test)]
mod properties;
mod sibling;
mod switch;
mod unix;

pub use config::{GuestConfig, HostSide};
pub use error::SwitchError;
pub use guest::Guest;
pub use switch::Switch;
