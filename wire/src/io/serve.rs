//! The one accept loop: so many connections at once and no more, and an error of one accept never
//! ends it.

use std::future::{Future, pending};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// An error of accept is mostly a lack of descriptors (EMFILE): other connections must end first.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);

/// What happens to a connection above the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// It waits in the kernel's queue until another one has ended.
    Wait,
    /// It is accepted and closed at once.
    Close,
}

/// Something that accepts connections.
pub trait Accept: Send + Sync {
    /// A connection.
    type Stream: Send + 'static;

    /// The next connection. Must be cancel-safe.
    ///
    /// # Errors
    /// Those of accept; [`serve`] waits 100 ms and tries again.
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Accept for TcpListener {
    type Stream = TcpStream;
    async fn next(&self) -> io::Result<TcpStream> {
        Ok(self.accept().await?.0)
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;
    async fn next(&self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

/// Accepts connections and handles each in a task of its own, `limit` at a time. Never returns:
/// dropping the future closes the listener and ends every connection.
pub async fn serve<L, F>(
    listener: L,
    limit: usize,
    overflow: Overflow,
    handle: impl Fn(L::Stream) -> F + Send,
) where
    L: Accept,
    F: Future<Output = ()> + Send + 'static,
{
    serve_until(pending(), listener, limit, overflow, handle).await;
}

/// [`serve`] until `stop`. The listener is closed when this returns; the connections that are open
/// then go on, until they end or what is returned is dropped.
pub async fn serve_until<L, F>(
    stop: impl Future<Output = ()> + Send,
    listener: L,
    limit: usize,
    overflow: Overflow,
    handle: impl Fn(L::Stream) -> F + Send,
) -> JoinSet<()>
where
    L: Accept,
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    tokio::select! {
        biased;
        () = stop => {}
        () = accept(&listener, limit, overflow, handle, &mut connections) => {}
    }
    connections
}

async fn accept<L, F>(
    listener: &L,
    limit: usize,
    overflow: Overflow,
    handle: impl Fn(L::Stream) -> F + Send,
    connections: &mut JoinSet<()>,
) where
    L: Accept,
    F: Future<Output = ()> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(limit));
    loop {
        while connections.try_join_next().is_some() {}
        let mut permit = match overflow {
            // The semaphore is never closed.
            Overflow::Wait => permits.clone().acquire_owned().await.ok(),
            Overflow::Close => None,
        };
        let Ok(stream) = listener.next().await else {
            sleep(PAUSE_AFTER_ERROR).await;
            continue;
        };
        if overflow == Overflow::Close {
            permit = permits.clone().try_acquire_owned().ok();
        }
        let Some(permit) = permit else { continue };
        let handling = handle(stream);
        connections.spawn(async move {
            handling.await;
            drop(permit);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::timeout;

    /// Echoes one byte at a time, one connection at a time.
    async fn start(overflow: Overflow) -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = serve(listener, 1, overflow, |mut stream: TcpStream| async move {
            while let Ok(byte) = stream.read_u8().await {
                stream.write_u8(byte).await.unwrap();
            }
        });
        (address, tokio::spawn(serving))
    }

    async fn echo(stream: &mut TcpStream) -> io::Result<u8> {
        stream.write_u8(7).await?;
        stream.read_u8().await
    }

    #[tokio::test]
    async fn a_connection_above_the_limit_waits_until_another_has_ended() {
        let (address, _serving) = start(Overflow::Wait).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        assert_eq!(echo(&mut first).await.unwrap(), 7);
        let mut second = TcpStream::connect(address).await.unwrap();
        let waiting = timeout(Duration::from_millis(200), echo(&mut second)).await;
        assert!(waiting.is_err(), "it was answered");
        drop(first);
        let answered = timeout(Duration::from_secs(10), second.read_u8()).await;
        assert_eq!(answered.unwrap().unwrap(), 7);
    }

    #[tokio::test]
    async fn a_connection_above_the_limit_is_closed() {
        let (address, _serving) = start(Overflow::Close).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        assert_eq!(echo(&mut first).await.unwrap(), 7);
        let mut second = TcpStream::connect(address).await.unwrap();
        assert!(
            timeout(Duration::from_secs(10), echo(&mut second))
                .await
                .unwrap()
                .is_err()
        );
        assert_eq!(echo(&mut first).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn dropping_it_ends_every_connection() {
        let (address, serving) = start(Overflow::Wait).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        assert_eq!(echo(&mut client).await.unwrap(), 7);
        serving.abort();
        let ended = timeout(Duration::from_secs(10), client.read_u8()).await;
        assert!(ended.unwrap().is_err());
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn a_stop_closes_the_listener_and_leaves_the_connections() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let stopped = async move { drop(stopped.await) };
        let handle = |mut stream: TcpStream| async move {
            while let Ok(byte) = stream.read_u8().await {
                stream.write_u8(byte).await.unwrap();
            }
        };
        let serving = serve_until(stopped, listener, 9, Overflow::Wait, handle);
        let serving = tokio::spawn(serving);
        let mut client = TcpStream::connect(address).await.unwrap();
        assert_eq!(echo(&mut client).await.unwrap(), 7);
        drop(stop);
        let connections = serving.await.unwrap();
        let refused = TcpStream::connect(address).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(echo(&mut client).await.unwrap(), 7);
        drop(connections);
        assert!(client.read_u8().await.is_err());
    }
}
