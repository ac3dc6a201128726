//! The workload's users. Root inside is nobody outside: each number is another one to the kernel,
//! so that whatever gets out of the workload's namespaces owns nothing there.

use super::sys;
use crate::user::User;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

/// The kernel's number of the workload's user 0. The agent's are below, and all others the
/// workload's, so that images may use nearly any; 2^32 - 1 is no user (user_namespaces(7)).
const FIRST: u32 = 1 << 16;
const COUNT: u32 = u32::MAX - FIRST;

pub(crate) enum Users {
    /// In a user namespace of their own.
    Mapped(OwnedFd),
    /// The agent's own: the workload is privileged.
    Shared,
}

impl Users {
    pub(super) fn create(privileged: bool) -> io::Result<Users> {
        let users = if privileged {
            Users::Shared
        } else {
            Users::Mapped(mapped()?)
        };
        fs::write("/proc/sys/user/max_user_namespaces", "0")?;
        Ok(users)
    }

    pub(crate) fn namespace(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Users::Mapped(namespace) => Some(namespace.as_fd()),
            Users::Shared => None,
        }
    }

    /// The kernel's number of a user or group of the image.
    pub(crate) fn outside(&self, inside: u32) -> u32 {
        match self {
            Users::Mapped(_) => inside.saturating_add(FIRST),
            Users::Shared => inside,
        }
    }

    /// A user of the image as the owner of files that the agent makes.
    pub(crate) fn owner(&self, user: &User) -> User {
        User {
            uid: self.outside(user.uid),
            gid: self.outside(user.gid),
            ..user.clone()
        }
    }

    /// Makes a file or directory of the agent's the workload's root's.
    pub(crate) fn give_to_root(&self, path: &Path) -> io::Result<()> {
        let root = Some(self.outside(0));
        std::os::unix::fs::lchown(path, root, root)
    }
}

/// A user namespace needs a process to be made with; the process ends, the namespace stays.
fn mapped() -> io::Result<OwnedFd> {
    let sleeper = sys::Sleeper::in_new_user_namespace()?;
    let process = format!("/proc/{}", sleeper.pid());
    let map = format!("0 {FIRST} {COUNT}\n");
    fs::write(format!("{process}/uid_map"), &map)?;
    fs::write(format!("{process}/gid_map"), &map)?;
    Ok(File::open(format!("{process}/ns/user"))?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_user_of_an_image_has_a_number_that_is_no_users_of_the_agent() {
        let users = Users::Mapped(File::open("/dev/null").unwrap().into());
        assert_eq!(users.outside(0), 65_536);
        assert_eq!(users.outside(4_000_000_000), 4_000_065_536);
        assert_eq!(users.outside(COUNT - 1), u32::MAX - 1);
        assert_eq!(Users::Shared.outside(0), 0);
    }
}
