//! The little network there is inside: loopback, and the number of the parent on vsock.

use crate::sys;
use nix::libc::{IFF_RUNNING, IFF_UP, c_short};
use std::io;

pub(crate) fn raise_loopback() -> io::Result<()> {
    let flags = c_short::try_from(IFF_UP | IFF_RUNNING).map_err(io::Error::other)?;
    sys::set_interface_flags(&sys::inet_socket()?, "lo", flags)
}

/// 3 on Nitro. A sandbox says otherwise on the kernel command line, which is measured on Nitro.
pub(crate) fn parent_cid() -> u32 {
    let cmdline = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    parent_of(&cmdline)
}

fn parent_of(cmdline: &str) -> u32 {
    let named = cmdline
        .split_ascii_whitespace()
        .find_map(|word| word.strip_prefix("agent.parent_cid="));
    named
        .and_then(|text| text.parse().ok())
        .unwrap_or(wire::PARENT_CID)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_3_unless_the_command_line_says_otherwise() {
        assert_eq!(parent_of("reboot=k panic=30"), 3);
        assert_eq!(parent_of("reboot=k agent.parent_cid=2 quiet\n"), 2);
        assert_eq!(parent_of("agent.parent_cid=x"), 3);
    }
}
