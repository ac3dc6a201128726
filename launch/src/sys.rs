//! System calls that have no safe wrapper. One function each.
#![allow(
    unsafe_code,
    reason = "the only file of this crate that may hold it; every block says why it is sound"
)]

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use tokio::process::Command;

/// Has the kernel kill the child when the thread that starts it ends, so that nothing outlives a
/// daemon that was killed (prctl(2), PR_SET_PDEATHSIG). To be started from a thread that lives as
/// long as the daemon.
pub(crate) fn die_with_parent(command: &mut Command) {
    // SAFETY: the closure makes one system call and neither allocates nor takes a lock.
    unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) };
}
