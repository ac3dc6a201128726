//! What the agent gives up once the workload runs.

use super::capabilities::Set;
use super::sys;
use nix::mount::{MntFlags, umount2};
use std::fs;
use std::io;

/// Devices, and the files of the ramdisks: all that is needed of them is open.
pub(crate) fn retire() -> io::Result<()> {
    umount2("/dev", MntFlags::MNT_DETACH)?;
    fs::remove_dir_all("/app")?;
    sys::forbid_dumps()?;
    Set::agent().take()
}
