//! What a guest's place in the switch is made of.

use std::path::PathBuf;

/// One guest's place in the switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestConfig {
    /// The guest's CID, 3 at least. No other attached guest may have it.
    pub cid: u32,
    /// The vhost-user socket that QEMU connects to. It is made, and must not exist.
    pub socket: PathBuf,
    /// The host, for a guest that may connect to it. Without one there are only siblings.
    pub host: Option<HostSide>,
}

/// The host, as one guest reaches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSide {
    /// What the guest calls the host, beside 0 and 2. Connections of the host come from it.
    pub cid: u32,
    /// The unix socket that connects in: `CONNECT <port>\n` is answered with `OK <port>\n`, or with
    /// a close. It is made, and must not exist. What the guest connects to on port `P` is the socket
    /// `<path>_P`, at which somebody else listens.
    pub path: PathBuf,
}
