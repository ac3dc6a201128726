//! Streams to the parent instance. What it says there is never trusted.

use std::io;
use tokio_vsock::{VsockAddr, VsockStream};
use wire::Port;

/// Connects to a port of the parent, however long that takes: callers have a timeout. The kernel
/// gives up after two seconds (net/vmw_vsock/af_vsock.c, `VSOCK_DEFAULT_CONNECT_TIMEOUT`), which a
/// busy parent may need.
pub(crate) async fn connect(port: Port) -> io::Result<VsockStream> {
    loop {
        let connected = VsockStream::connect(VsockAddr::new(wire::PARENT_CID, port.0)).await;
        match connected {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
            other => return other,
        }
    }
}
