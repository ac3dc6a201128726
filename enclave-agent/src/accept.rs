//! Accepts connections, so many at once and no more, and never stops over one that fails.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener, VsockStream};

/// An error here is mostly a lack of descriptors: others must end first.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);

pub(crate) trait Listen: Send + 'static {
    type Stream: Send;
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listen for VsockListener {
    type Stream = VsockStream;
    async fn next(&self) -> io::Result<VsockStream> {
        Ok(self.accept().await?.0)
    }
}

impl Listen for TcpListener {
    type Stream = TcpStream;
    async fn next(&self) -> io::Result<TcpStream> {
        Ok(self.accept().await?.0)
    }
}

/// A listener for the host and for whoever it lets through.
pub(crate) fn vsock(port: wire::Port) -> io::Result<VsockListener> {
    VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port.0))
}

/// Serves in the background until the enclave ends.
pub(crate) fn serve<L, F>(
    listener: L,
    limit: usize,
    handle: impl Fn(L::Stream) -> F + Send + 'static,
) where
    L: Listen + Sync,
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        let slots = Arc::new(Semaphore::new(limit));
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else {
                return;
            };
            match listener.next().await {
                Err(_) => sleep(PAUSE_AFTER_ERROR).await,
                Ok(stream) => {
                    let handling = handle(stream);
                    tokio::spawn(async move {
                        handling.await;
                        drop(slot);
                    });
                }
            }
        }
    });
}
