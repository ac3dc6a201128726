//! Listeners on vsock, and serving in the background. The accept loop itself is `wire::io::serve`.

use std::future::Future;
use std::io;
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener, VsockStream};
use wire::io::{Accept, Overflow};

/// A listener for the host and for the clients that it lets through.
pub(crate) struct Vsock(VsockListener);

impl Vsock {
    pub(crate) fn bind(port: wire::Port) -> io::Result<Vsock> {
        VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port.0)).map(Vsock)
    }
}

impl Accept for Vsock {
    type Stream = VsockStream;
    async fn next(&self) -> io::Result<VsockStream> {
        Ok(self.0.accept().await?.0)
    }
}

/// Serves in the background until the enclave ends, `limit` connections at a time; more wait in
/// the kernel's queue.
pub(crate) fn spawn<L, F>(
    listener: L,
    limit: usize,
    handle: impl Fn(L::Stream) -> F + Send + 'static,
) where
    L: Accept + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(wire::io::serve(listener, limit, Overflow::Wait, handle));
}
