//! Listeners on vsock, and serving in the background. The accept loop itself is `wire::io::serve`.

use crate::bucket::Bucket;
use std::future::Future;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};
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

/// A listener that accepts no more connections a second than a bucket has tokens; more wait in the
/// kernel's queue. Whoever connects without pause takes that much of the agent's time, and no more.
pub(crate) struct Paced<L> {
    listener: L,
    bucket: Mutex<Bucket>,
}

impl<L> Paced<L> {
    pub(crate) fn new(listener: L, bucket: Bucket) -> Paced<L> {
        let bucket = Mutex::new(bucket);
        Paced { listener, bucket }
    }

    /// Takes a token, or says how long there is none.
    fn take(&self) -> Result<(), Duration> {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.take(Instant::now())
    }
}

impl<L: Accept> Accept for Paced<L> {
    type Stream = L::Stream;
    async fn next(&self) -> io::Result<L::Stream> {
        while let Err(wait) = self.take() {
            sleep(wait).await;
        }
        self.listener.next().await
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

#[cfg(test)]
mod tests {
    use super::*;

    /// There is always someone.
    struct Crowd;

    impl Accept for Crowd {
        type Stream = ();
        async fn next(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_connections_are_accepted_than_the_bucket_has_tokens() {
        let start = Instant::now();
        let paced = Paced::new(Crowd, Bucket::new(10, 5));
        for _ in 0..15 {
            paced.next().await.unwrap();
        }
        assert_eq!(start.elapsed(), Duration::from_secs(1));
    }
}
