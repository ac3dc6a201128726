//! Any system call, as an attacker makes it.
#![allow(
    unsafe_code,
    reason = "an attacker makes system calls that no library offers"
)]

use nix::libc;
use std::io;

/// Makes one call. Pointers among the arguments are those of values that the caller keeps alive.
pub(crate) fn call(number: libc::c_long, arguments: [usize; 6]) -> io::Result<usize> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: this program exists to try what the kernel refuses. Its callers pass numbers, or
    // pointers to values that outlive the call; the kernel checks both.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// A child, or `None` in it.
pub(crate) fn fork() -> io::Result<Option<libc::pid_t>> {
    // SAFETY: this program has one thread.
    let pid = unsafe { libc::fork() };
    match pid {
        0 => Ok(None),
        pid if pid > 0 => Ok(Some(pid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Waits for a child; gives the signal that ended it, or nothing.
pub(crate) fn wait(pid: libc::pid_t) -> Option<i32> {
    let mut status = 0;
    // SAFETY: waitpid writes one int through the pointer, which lives until the call returns.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status))
}

/// Ends every process of this one's group, and this one.
pub(crate) fn kill_group() {
    call(libc::SYS_kill, [0, 9, 0, 0, 0, 0]).ok();
}
