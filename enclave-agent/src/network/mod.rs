//! The little network there is inside: loopback, and vsock to the parent.

mod namespace;

pub(crate) use namespace::Namespace;

use crate::sys;
use nix::libc::{IFF_RUNNING, IFF_UP, c_short};
use std::io;
use tokio_vsock::{VsockAddr, VsockStream};
use wire::Port;

pub(crate) fn raise_loopback() -> io::Result<()> {
    let flags = c_short::try_from(IFF_UP | IFF_RUNNING).map_err(io::Error::other)?;
    sys::set_interface_flags(&sys::inet_socket()?, "lo", flags)
}

/// Connects to a port of the parent, however long that takes: callers have a timeout. The kernel
/// gives up after two seconds (net/vmw_vsock/af_vsock.c, `VSOCK_DEFAULT_CONNECT_TIMEOUT`), which a
/// busy parent may need.
pub(crate) async fn connect_to_parent(port: Port) -> io::Result<VsockStream> {
    loop {
        let connected = VsockStream::connect(VsockAddr::new(wire::PARENT_CID, port.0)).await;
        match connected {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
            other => return other,
        }
    }
}
