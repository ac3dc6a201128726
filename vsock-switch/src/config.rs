//! What it takes to attach a guest.

use std::path::PathBuf;

/// A guest to attach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestConfig {
    /// The guest's CID, from 3 to 4294967294 (vsock(7)). No other attached guest may have it.
    pub cid: u32,
    /// The vhost-user socket that QEMU connects to. The switch creates it; the path must not exist.
    pub socket: PathBuf,
    /// The host as the guest reaches it. Without it the guest reaches only its siblings.
    pub host: Option<HostSide>,
}

/// The host as one guest reaches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSide {
    /// The CID that connections of the host come from. The guest reaches the host at this CID, at 0
    /// and at 2, unless another guest is attached with it.
    pub cid: u32,
    /// The unix socket through which the host connects to the guest: it writes `CONNECT <port>\n`
    /// and reads `OK <port>\n`; a close without that line is a refusal. The switch creates it; the
    /// path must not exist. When the guest connects to port `P`, the switch connects to the unix
    /// socket `<path>_P`, and resets the guest if nothing listens there.
    pub path: PathBuf,
}
