//! Carries bytes both ways between two streams until both directions have ended or nothing has moved for a while.
//! A half-close on one side becomes a half-close on the other.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

const PIECE: usize = wire::MAX_WRITE;

/// Bytes that went from the first stream to the second, and back.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Carried {
    pub(crate) forth: u64,
    pub(crate) back: u64,
}

pub(crate) async fn run<A, B>(a: A, b: B, idle: Duration) -> io::Result<Carried>
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (a_in, a_out) = tokio::io::split(a);
    let (b_in, b_out) = tokio::io::split(b);
    let clock = Clock { start: Instant::now(), last: AtomicU64::new(0), idle };
    let (forth, back) = tokio::try_join!(copy(a_in, b_out, &clock), copy(b_in, a_out, &clock))?;
    Ok(Carried { forth, back })
}

/// When bytes last moved in either direction.
struct Clock {
    start: Instant,
    /// Milliseconds since `start`.
    last: AtomicU64,
    idle: Duration,
}

impl Clock {
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn moved(&self) {
        self.last.store(self.now(), Ordering::Relaxed);
    }

    fn left(&self) -> Duration {
        self.idle.saturating_sub(Duration::from_millis(
            self.now() - self.last.load(Ordering::Relaxed).min(self.now()),
        ))
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    clock: &Clock,
) -> io::Result<u64> {
    let mut piece = vec![0; PIECE];
    let mut carried = 0;
    loop {
        let n = match timeout(clock.left(), from.read(&mut piece)).await {
            Ok(n) => n?,
            // The other direction may have moved in the meantime.
            Err(_) if !clock.left().is_zero() => continue,
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        };
        let Some(bytes) = piece.get(..n).filter(|bytes| !bytes.is_empty()) else { break };
        timeout(clock.idle, to.write_all(bytes)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        carried += n as u64;
        clock.moved();
    }
    to.shutdown().await?;
    Ok(carried)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixStream;

    #[tokio::test]
    async fn a_half_close_leaves_the_other_direction_open() {
        let (mut client, a) = UnixStream::pair().unwrap();
        let (b, mut server) = UnixStream::pair().unwrap();
        let relay = tokio::spawn(run(a, b, Duration::from_secs(10)));
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut asked = String::new();
        server.read_to_string(&mut asked).await.unwrap();
        server.write_all(b"the answer comes after the end of the question").await.unwrap();
        drop(server);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!((asked.as_str(), answer.len()), ("question", 46));
        assert_eq!(relay.await.unwrap().unwrap(), Carried { forth: 8, back: 46 });
    }

    #[tokio::test(start_paused = true)]
    async fn ends_when_nothing_moves_in_either_direction() {
        let (mut client, a) = tokio::io::duplex(64);
        let (b, mut server) = tokio::io::duplex(64);
        let relay = tokio::spawn(run(a, b, Duration::from_secs(60)));
        for _ in 0..5 {
            // One direction is busy: the other one's silence does not end it.
            tokio::time::sleep(Duration::from_secs(40)).await;
            client.write_all(b"x").await.unwrap();
            server.read_u8().await.unwrap();
        }
        let error = relay.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
