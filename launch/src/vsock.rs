//! The enclave's vsock as this host reaches it: AF_VSOCK by its CID, or the unix sockets that
//! vsock-switch makes of it: one to connect in, and one for each port that the enclave connects out
//! to.

use super::LaunchError;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_vsock::{VsockAddr, VsockStream};
use wire::Port;
use wire::io::Accept;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a port may go on refusing before that is believed.
const LISTEN_GRACE: Duration = Duration::from_secs(2);
const FIRST_WAIT: Duration = Duration::from_millis(10);
const LONGEST_WAIT: Duration = Duration::from_millis(250);
/// `OK` and a port number.
const MAX_REPLY: usize = 32;

/// The way into one enclave. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Vsock(Address);

#[derive(Debug, Clone)]
enum Address {
    Unix(PathBuf),
    Cid(u32),
}

/// A connection with an enclave.
#[derive(Debug)]
#[non_exhaustive]
pub enum Stream {
    /// Through a vsock switch that shows unix sockets to this host.
    Unix(UnixStream),
    /// Through the kernel.
    Vsock(VsockStream),
}

/// Accepts what an enclave connects to on one port.
#[derive(Debug)]
pub struct Listener(Source);

#[derive(Debug)]
enum Source {
    Unix(UnixListener),
    Queue(Mutex<mpsc::Receiver<Stream>>),
}

/// What must listen before the enclave starts.
#[derive(Debug)]
pub struct Listeners {
    /// Port 9000.
    pub heartbeat: Listener,
    /// Port 9001.
    pub control: Listener,
    /// Port 9002.
    pub egress: Listener,
}

impl Vsock {
    /// By the unix socket that connects in.
    pub fn unix(path: PathBuf) -> Vsock {
        Vsock(Address::Unix(path))
    }

    /// By the enclave's CID (vsock(7)).
    pub fn cid(cid: u32) -> Vsock {
        Vsock(Address::Cid(cid))
    }

    /// Connects to a port inside the enclave, within 10 seconds. Cancelling is safe.
    ///
    /// # Errors
    /// Nothing listens there, the enclave is gone, or it does not answer in time.
    pub async fn connect(&self, port: Port) -> io::Result<Stream> {
        let connecting = async {
            match &self.0 {
                Address::Unix(path) => connect_unix(path, port).await.map(Stream::Unix),
                Address::Cid(cid) => {
                    let address = VsockAddr::new(*cid, port.0);
                    let stream = until_it_listens(|| VsockStream::connect(address)).await?;
                    Ok(Stream::Vsock(stream))
                }
            }
        };
        timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| io::ErrorKind::TimedOut)?
    }
}

/// Tries again for a moment where nothing listens: an agent that sent its heartbeat just now does
/// not yet. A connection to a vsock port without a listener is reset.
async fn until_it_listens<T, F: Future<Output = io::Result<T>>>(
    connect: impl Fn() -> F,
) -> io::Result<T> {
    let give_up = Instant::now() + LISTEN_GRACE;
    let mut wait = FIRST_WAIT;
    loop {
        match connect().await {
            Err(error) if is_refusal(&error) && Instant::now() + wait < give_up => {
                sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
            result => return result,
        }
    }
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

async fn connect_unix(path: &Path, port: Port) -> io::Result<UnixStream> {
    let unexpected = || io::Error::other("the vsock switch sent an unexpected reply");
    let mut stream = UnixStream::connect(path).await?;
    stream
        .write_all(format!("CONNECT {}\n", port.0).as_bytes())
        .await?;
    // Byte by byte: what follows the line belongs to the stream.
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        if line.len() == MAX_REPLY {
            return Err(unexpected());
        }
        let Ok(byte) = stream.read_u8().await else {
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        line.push(byte);
    }
    if line.starts_with(b"OK ") {
        Ok(stream)
    } else {
        Err(unexpected())
    }
}

impl Listeners {
    /// The sockets that vsock-switch connects to for the enclave, beside the one that connects in.
    pub(super) fn unix(path: &Path) -> Result<Listeners, LaunchError> {
        let bind = |port: Port| {
            let mut path = path.as_os_str().to_owned();
            path.push(format!("_{}", port.0));
            let path = PathBuf::from(path);
            let bound = UnixListener::bind(&path);
            bound
                .map(|listener| Listener(Source::Unix(listener)))
                .map_err(|source| LaunchError::Socket { path, source })
        };
        Ok(Listeners {
            heartbeat: bind(wire::HEARTBEAT_PORT)?,
            control: bind(wire::CONTROL_PORT)?,
            egress: bind(wire::EGRESS_PORT)?,
        })
    }
}

impl Listener {
    /// Connections that something else accepted for this enclave.
    pub fn queue(streams: mpsc::Receiver<Stream>) -> Listener {
        Listener(Source::Queue(Mutex::new(streams)))
    }
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Listener {
        Listener(Source::Unix(listener))
    }
}

impl Accept for Listener {
    type Stream = Stream;
    async fn next(&self) -> io::Result<Stream> {
        match &self.0 {
            Source::Unix(listener) => Ok(Stream::Unix(listener.accept().await?.0)),
            Source::Queue(streams) => match streams.lock().await.recv().await {
                Some(stream) => Ok(stream),
                // No more will come, and that is no error.
                None => std::future::pending().await,
            },
        }
    }
}

/// The stream of whichever kind.
macro_rules! each {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream.get_mut() {
            Stream::Unix(unix) => {
                let $inner = Pin::new(unix);
                $call
            }
            Stream::Vsock(vsock) => {
                let $inner = Pin::new(vsock);
                $call
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, inner => inner.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, inner => inner.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => inner.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => inner.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A switch that answers one connection with `reply`.
    async fn switch(reply: &'static [u8]) -> (tempfile::TempDir, Vsock) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("v");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 13];
            stream.read_exact(&mut request).await.unwrap();
            assert_eq!(&request, b"CONNECT 9003\n");
            stream.write_all(reply).await.unwrap();
        });
        (directory, Vsock::unix(path))
    }

    #[tokio::test]
    async fn what_follows_the_reply_belongs_to_the_stream() {
        let (_directory, vsock) = switch(b"OK 1024\nhello").await;
        let mut stream = vsock.connect(wire::INGRESS_PORT).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
    }

    #[tokio::test]
    async fn a_switch_that_refuses_or_rambles_is_an_error() {
        let (_directory, vsock) = switch(b"").await;
        let refused = vsock.connect(wire::INGRESS_PORT).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        for reply in [&b"NO\n"[..], &[b'O'; 40]] {
            let (_directory, vsock) = switch(reply).await;
            let error = vsock.connect(wire::INGRESS_PORT).await.unwrap_err();
            assert_eq!(
                error.to_string(),
                "the vsock switch sent an unexpected reply"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_that_does_not_listen_yet_gets_a_moment() {
        let tries = AtomicUsize::new(0);
        let connected = until_it_listens(|| async {
            match tries.fetch_add(1, Ordering::Relaxed) {
                0 => Err(io::ErrorKind::ConnectionReset.into()),
                1 => Err(io::ErrorKind::ConnectionRefused.into()),
                _ => Ok(()),
            }
        });
        connected.await.unwrap();
        assert_eq!(tries.load(Ordering::Relaxed), 3);

        let since = Instant::now();
        let closed = until_it_listens(|| async {
            Err::<(), io::Error>(io::ErrorKind::ConnectionReset.into())
        });
        let error = closed.await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(since.elapsed() <= LISTEN_GRACE);

        let since = Instant::now();
        let gone = until_it_listens(|| async {
            Err::<(), io::Error>(io::ErrorKind::HostUnreachable.into())
        });
        assert_eq!(
            gone.await.unwrap_err().kind(),
            io::ErrorKind::HostUnreachable
        );
        assert_eq!(since.elapsed(), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_queue_hands_over_streams_in_order() {
        let (sender, streams) = mpsc::channel(2);
        let listener = Listener::queue(streams);
        let (mut near, far) = UnixStream::pair().unwrap();
        sender.send(Stream::Unix(far)).await.unwrap();
        let mut accepted = listener.next().await.unwrap();
        near.write_all(b"x").await.unwrap();
        assert_eq!(accepted.read_u8().await.unwrap(), b'x');
        drop(sender);
        let more = timeout(Duration::from_millis(50), listener.next()).await;
        assert!(more.is_err(), "a closed queue is silent");
    }
}
