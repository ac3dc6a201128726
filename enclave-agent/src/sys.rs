//! System calls that have no safe wrapper. One function each, `io::Result` out.
#![allow(
    unsafe_code,
    reason = "the only file of this crate that may hold it; every block says why it is sound"
)]

use nix::libc;
use nix::sys::reboot::{RebootMode, reboot};
use std::fs::{File, OpenOptions};
use std::io;
use std::mem::offset_of;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use wire::control::WorkloadExit;

/// linux/loop.h
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
/// linux/vm_sockets.h
const SO_VM_SOCKETS_BUFFER_SIZE: libc::c_int = 0;
const LO_FLAGS_READ_ONLY: u32 = 1;

/// Ends the enclave. Returns only if the kernel refuses, and then PID 1 ends, which ends it too.
pub(crate) fn power_off() {
    nix::unistd::sync();
    reboot(RebootMode::RB_AUTOBOOT).ok();
}

/// Attaches a part of a file to a free loop device, read-only.
pub(crate) fn attach_loop(file: &Path, part: Range<u64>) -> io::Result<PathBuf> {
    let control = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/loop-control")?;
    // SAFETY: LOOP_CTL_GET_FREE takes no argument and touches no memory of ours; the descriptor is
    // open.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    let path = PathBuf::from(format!("/dev/loop{number}"));
    let device = OpenOptions::new().read(true).write(true).open(&path)?;
    let backing = File::open(file)?;
    let descriptor = u32::try_from(backing.as_raw_fd()).map_err(io::Error::other)?;
    let config = LoopConfig {
        descriptor,
        offset: part.start,
        size_limit: part.end.saturating_sub(part.start),
        flags: LO_FLAGS_READ_ONLY,
        ..LoopConfig::default()
    };
    // SAFETY: LOOP_CONFIGURE reads one struct loop_config, whose layout LoopConfig has, through the
    // pointer, which lives until the call returns; both descriptors are open, and the kernel keeps
    // its own reference to the file.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(path)
}

/// linux/loop.h, `struct loop_config` with `struct loop_info64` in it.
#[repr(C)]
#[derive(Default)]
struct LoopConfig {
    descriptor: u32,
    block_size: u32,
    of_the_device: [u64; 3],
    offset: u64,
    size_limit: u64,
    number_and_encryption: [u32; 3],
    flags: u32,
    names_key_and_init: [u64; 22],
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopConfig>() == 304 && offset_of!(LoopConfig, flags) == 60);

/// A child that ended: its number, and how. Signals are numbers here, since real-time ones have no
/// name in `nix`.
pub(crate) fn reap() -> io::Result<Option<(libc::pid_t, WorkloadExit)>> {
    let mut status = 0;
    // SAFETY: waitpid writes one int through the pointer, which lives until the call returns.
    let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
    match pid {
        0 => Ok(None),
        pid if pid < 0 => Err(io::Error::last_os_error()),
        pid if libc::WIFSIGNALED(status) => Ok(Some((
            pid,
            WorkloadExit::Signal(u8::try_from(libc::WTERMSIG(status)).unwrap_or(u8::MAX)),
        ))),
        pid => Ok(Some((
            pid,
            WorkloadExit::Code(u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(u8::MAX)),
        ))),
    }
}

/// Sends a signal by number.
pub(crate) fn signal(pid: libc::pid_t, number: u8) -> io::Result<()> {
    // SAFETY: kill takes numbers only.
    let result = unsafe { libc::kill(pid, libc::c_int::from(number)) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Lets the clock run faster or slower until it has made up this many milliseconds (adjtime(3)).
pub(crate) fn slew_clock(milliseconds: i64) -> io::Result<()> {
    let delta = libc::timeval {
        tv_sec: milliseconds / 1000,
        tv_usec: milliseconds % 1000 * 1000,
    };
    // SAFETY: adjtime reads one timeval through the first pointer, which lives until it returns, and
    // may be given no second one.
    let result = unsafe { libc::adjtime(&delta, std::ptr::null_mut()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sets how many bytes the kernel keeps of what the other end of a vsock stream sends and this one
/// has not read. What a listener accepts has its listener's setting.
pub(crate) fn set_vsock_buffer(socket: &impl AsRawFd, bytes: u64) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of_val(&bytes)).map_err(io::Error::other)?;
    // SAFETY: the kernel reads one u64 behind the pointer, which lives until the call returns; the
    // descriptor is its owner's and open.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::AF_VSOCK,
            SO_VM_SOCKETS_BUFFER_SIZE,
            (&raw const bytes).cast(),
            len,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A socket to configure interfaces with.
pub(crate) fn inet_socket() -> io::Result<OwnedFd> {
    // SAFETY: socket() takes numbers only.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets an interface's flags (netdevice(7), SIOCSIFFLAGS).
pub(crate) fn set_interface_flags(
    socket: &OwnedFd,
    name: &str,
    flags: libc::c_short,
) -> io::Result<()> {
    // SAFETY: ifreq is plain data for which all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (target, byte) in request
        .ifr_name
        .iter_mut()
        .take(libc::IFNAMSIZ - 1)
        .zip(name.bytes())
    {
        *target = libc::c_char::from_ne_bytes([byte]);
    }
    request.ifr_ifru.ifru_flags = flags;
    // SAFETY: the kernel reads one ifreq behind the pointer, which lives until the call returns.
    let result = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as libc::Ioctl,
            &request,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Starts a program after `enter` ran in the child.
///
/// The child's memory is consistent, so `enter` may allocate: the one other thread that there may be,
/// the NSM's, holds no lock for long but the allocator's, which fork leaves free (musl, glibc).
pub(crate) fn spawn_after(
    command: &mut Command,
    enter: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) -> io::Result<Child> {
    // SAFETY: between fork and exec only this thread exists, and no other one can have held a lock
    // at the fork that `enter` needs.
    unsafe { command.pre_exec(enter) };
    command.spawn()
}
