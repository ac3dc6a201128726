//! The plain side of a relay, and what its other end sees of a relay that breaks off.

use std::io;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::TcpStream;

/// A stream that a relay can carry. How it is closed tells its other end whether it has everything.
pub trait Plain: AsyncRead + AsyncWrite + Unpin {
    /// From now on closing it is a reset, also where its task is dropped or its process is killed:
    /// the other end must not take what broke off for a whole.
    ///
    /// # Errors
    /// Those of the system.
    fn reset_on_close(&self) -> io::Result<()>;

    /// From now on closing it is an orderly end.
    ///
    /// # Errors
    /// Those of the system.
    fn end_on_close(&self) -> io::Result<()>;
}

impl Plain for TcpStream {
    fn reset_on_close(&self) -> io::Result<()> {
        self.set_zero_linger()
    }

    fn end_on_close(&self) -> io::Result<()> {
        #[expect(
            deprecated,
            reason = "it is, for durations that block; none is the system's default"
        )]
        self.set_linger(None)
    }
}

/// Within a process there are no resets; what uses it has to notice the end itself, as TLS does.
impl Plain for DuplexStream {
    fn reset_on_close(&self) -> io::Result<()> {
        Ok(())
    }

    fn end_on_close(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{Carried, relay};
    use std::time::Duration;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, UnixStream};
    use tokio::task::JoinHandle;

    const IDLE: Duration = Duration::from_secs(60);

    async fn tcp() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    /// A program, and the one that it talks to, over TCP; the two relays between them.
    struct Line {
        program: TcpStream,
        other: TcpStream,
        relays: [JoinHandle<io::Result<Carried>>; 2],
    }

    impl Line {
        /// It has carried a byte each way.
        async fn new(idle: Duration) -> Line {
            let (mut program, near) = tcp().await;
            let (far, mut other) = tcp().await;
            let (host, agent) = UnixStream::pair().unwrap();
            let relays = [
                tokio::spawn(relay(near, host, Vec::new(), idle)),
                tokio::spawn(relay(far, agent, Vec::new(), idle)),
            ];
            for (from, to) in [(&mut program, &mut other)] {
                from.write_u8(1).await.unwrap();
                assert_eq!(to.read_u8().await.unwrap(), 1);
                to.write_u8(2).await.unwrap();
                assert_eq!(from.read_u8().await.unwrap(), 2);
            }
            Line {
                program,
                other,
                relays,
            }
        }
    }

    async fn is_reset(stream: &mut TcpStream) {
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_reset_at_one_end_is_a_reset_at_the_other() {
        let Line {
            program, mut other, ..
        } = Line::new(IDLE).await;
        program.set_zero_linger().unwrap();
        drop(program);
        is_reset(&mut other).await;
        let Line {
            mut program, other, ..
        } = Line::new(IDLE).await;
        other.set_zero_linger().unwrap();
        drop(other);
        is_reset(&mut program).await;
    }

    #[tokio::test]
    async fn a_relay_that_is_dropped_resets_both_ends() {
        for which in 0..2 {
            let mut line = Line::new(IDLE).await;
            line.relays[which].abort();
            is_reset(&mut line.program).await;
            is_reset(&mut line.other).await;
        }
    }

    #[tokio::test]
    async fn a_relay_that_is_idle_for_too_long_resets_both_ends() {
        let mut line = Line::new(Duration::from_millis(100)).await;
        is_reset(&mut line.program).await;
        is_reset(&mut line.other).await;
    }

    /// Also where much is on its way when the first one has ended.
    #[tokio::test]
    async fn an_orderly_end_is_no_reset() {
        let mut line = Line::new(IDLE).await;
        let answer = vec![7; 3_000_000];
        line.program.shutdown().await.unwrap();
        assert_eq!(line.other.read(&mut [0]).await.unwrap(), 0);
        let sent = answer.clone();
        let mut other = line.other;
        let sending = tokio::spawn(async move { other.write_all(&sent).await });
        let mut got = Vec::new();
        line.program.read_to_end(&mut got).await.unwrap();
        sending.await.unwrap().unwrap();
        assert!(got == answer, "{} bytes", got.len());
        for relay in line.relays {
            relay.await.unwrap().unwrap();
        }
    }
}
