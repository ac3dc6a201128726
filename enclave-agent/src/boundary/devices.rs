//! The workload's `/dev`: a handful of devices that every program may use, and nothing of the
//! machine's. No NSM, vsock, loop devices, kernel log or console.

use super::users::Users;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

/// Name, major and minor number (Documentation/admin-guide/devices.txt).
const DEVICES: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];
/// What container engines provide too; what is there already stays.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Fills the file system that is mounted at `dev`. A privileged workload has the machine's devices
/// there and gets the links alone.
pub(crate) fn populate(dev: &Path, users: &Users) -> io::Result<()> {
    if let Users::Mapped(_) = users {
        for (name, major, minor) in DEVICES {
            let path = dev.join(name);
            mknod(&path, SFlag::S_IFCHR, Mode::empty(), makedev(major, minor))?;
            fs::set_permissions(&path, Permissions::from_mode(0o666))?;
            users.give_to_root(&path)?;
        }
    }
    for (name, target) in LINKS {
        match symlink(target, dev.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
