//! System calls of the boundary that have no safe wrapper. One function each, `io::Result` out.
#![allow(
    unsafe_code,
    reason = "system calls only; every block says why it is sound"
)]

use nix::libc;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// linux/mount.h
const OPEN_TREE_CLONE: libc::c_uint = 1;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
/// linux/capability.h, _LINUX_CAPABILITY_VERSION_3
const CAPABILITY_VERSION: u32 = 0x2008_0522;
/// linux/close_range.h
const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;

fn checked(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// A process that does nothing, and ends when this is dropped.
pub(super) struct Sleeper(libc::pid_t);

impl Sleeper {
    /// It is the first in a user namespace of its own.
    pub(super) fn in_new_user_namespace() -> io::Result<Sleeper> {
        let flags = libc::c_long::from(libc::CLONE_NEWUSER | libc::SIGCHLD);
        // SAFETY: clone without a stack and without shared memory is fork (clone(2)); all other
        // arguments are numbers. The child makes one system call again and again.
        let pid = checked(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })?;
        if pid == 0 {
            loop {
                // SAFETY: pause takes nothing and touches no memory.
                unsafe { libc::pause() };
            }
        }
        libc::pid_t::try_from(pid)
            .map(Sleeper)
            .map_err(io::Error::other)
    }

    pub(super) fn pid(&self) -> libc::pid_t {
        self.0
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        crate::sys::signal(self.0, 9).ok();
        // SAFETY: waitpid may be told that the status is of no interest.
        unsafe { libc::waitpid(self.0, std::ptr::null_mut(), 0) };
    }
}

/// linux/mount.h, struct mount_attr.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    users: u64,
}

/// Mounts what is at `path` once more over itself, where the owners of files are those that the
/// user namespace maps them to (mount_setattr(2)).
pub(crate) fn map_owners(path: &Path, users: impl AsFd) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let copy = open_tree(&path)?;
    let attributes = MountAttributes {
        set: MOUNT_ATTR_IDMAP,
        clear: 0,
        propagation: 0,
        users: u64::try_from(users.as_fd().as_raw_fd()).map_err(io::Error::other)?,
    };
    // SAFETY: the kernel reads one MountAttributes and one empty string, both alive until it
    // returns; the descriptors are open.
    checked(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            copy.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    })?;
    // SAFETY: the kernel reads two strings that live until it returns; the descriptor is open.
    checked(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            copy.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// A mount that is nowhere yet.
fn open_tree(path: &CString) -> io::Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC.unsigned_abs();
    // SAFETY: the kernel reads one string that lives until it returns.
    let fd = checked(unsafe {
        libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags)
    })?;
    let fd = libc::c_int::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the descriptor was just made and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes one capability out of the bounding set; one that the kernel does not know is out already.
pub(super) fn drop_from_bounding_set(number: u8) -> io::Result<()> {
    let number = libc::c_ulong::from(number);
    // SAFETY: prctl with PR_CAPBSET_READ takes numbers only.
    let known = unsafe { libc::prctl(libc::PR_CAPBSET_READ, number, 0, 0, 0) };
    if known < 0 {
        return Ok(());
    }
    // SAFETY: prctl with PR_CAPBSET_DROP takes numbers only.
    checked(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) }.into()).map(drop)
}

/// Sets the effective and the permitted set of this thread; the inheritable one becomes empty, and
/// with it the ambient one.
pub(super) fn set_capabilities(bits: u64) -> io::Result<()> {
    let header = [CAPABILITY_VERSION, 0];
    let [low, high] = [bits & u64::from(u32::MAX), bits >> 32]
        .map(|half| u32::try_from(half).unwrap_or_default());
    let sets = [low, low, 0, high, high, 0];
    // SAFETY: the kernel reads a header of two numbers and, in this version, two times three sets
    // (capset(2)); both arrays live until it returns.
    checked(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) }).map(drop)
}

/// No other process may look into this one, whoever it runs as (PR_SET_DUMPABLE).
pub(super) fn forbid_dumps() -> io::Result<()> {
    // SAFETY: prctl with PR_SET_DUMPABLE takes numbers only.
    checked(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) }.into()).map(drop)
}

/// No descriptor from `first` on outlives exec.
pub(super) fn close_on_exec_from(first: libc::c_uint) -> io::Result<()> {
    // SAFETY: close_range takes numbers only, and with this flag closes nothing yet.
    checked(unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            libc::c_uint::MAX,
            CLOSE_RANGE_CLOEXEC,
        )
    })
    .map(drop)
}

/// The descriptor outlives exec.
pub(super) fn keep_on_exec(fd: impl AsFd) -> io::Result<()> {
    // SAFETY: F_SETFD takes numbers only; the descriptor is open.
    checked(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_SETFD, 0) }.into()).map(drop)
}

/// Forks; the child returns. The parent writes the child's number to its standard input, which is a
/// socket, and ends.
pub(super) fn go_on_as_child() -> io::Result<()> {
    // SAFETY: called between fork and exec, where one thread exists; both go on with system calls.
    let pid = unsafe { libc::fork() };
    match pid {
        0 => Ok(()),
        pid if pid < 0 => Err(io::Error::last_os_error()),
        pid => {
            let number = pid.to_ne_bytes();
            // SAFETY: write reads the bytes of one array, which lives until it returns.
            unsafe { libc::write(0, number.as_ptr().cast(), number.len()) };
            // SAFETY: _exit takes a number, and runs nothing of this program's.
            unsafe { libc::_exit(0) }
        }
    }
}
