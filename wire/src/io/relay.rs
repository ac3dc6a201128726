//! A relayed stream: plain bytes on one side, chunks on the other.

use super::Plain;
use super::buffer::{self, Buffer};
use crate::relay::{MAX_CHUNK, PREFIX};
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

/// Bytes that went out of the plain stream, and into it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Carried {
    /// Bytes read from the plain stream.
    pub from_plain: u64,
    /// Bytes written to the plain stream.
    pub to_plain: u64,
}

/// The peer announced a chunk of this many bytes, more than [`MAX_CHUNK`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a chunk of {0} bytes; the limit is {MAX_CHUNK}")]
pub struct ChunkTooLong(pub usize);

/// Carries bytes between a plain stream and a chunked one until both directions have ended, or
/// nothing has moved for `idle`. `first` is what already came from the chunked side. An end of one
/// direction stays an end of that direction. A stream takes memory for bytes only while some move.
///
/// Unless both directions end in order, the plain stream is reset and the chunked one stops without
/// its empty chunk: neither end takes a relay that broke off for the end of what it reads. This holds
/// for errors, for dropping the future, which closes both streams with bytes in flight, and for the
/// end of the process.
///
/// # Errors
/// Those of the streams; [`io::ErrorKind::TimedOut`] after `idle` without a byte,
/// [`io::ErrorKind::UnexpectedEof`] if the chunked stream stops without its empty chunk, and
/// [`ChunkTooLong`] as [`io::ErrorKind::Other`].
pub async fn relay<P, C>(
    plain: P,
    chunked: C,
    first: Vec<u8>,
    idle: Duration,
) -> io::Result<Carried>
where
    P: Plain,
    C: AsyncRead + AsyncWrite,
{
    plain.reset_on_close()?;
    let (mut plain_in, mut plain_out) = tokio::io::split(plain);
    let (chunked_in, chunked_out) = tokio::io::split(chunked);
    let chunked_in = io::Cursor::new(first).chain(chunked_in);
    let clock = Clock {
        start: Instant::now(),
        last: AtomicU64::new(0),
        idle,
    };
    let (from_plain, to_plain) = tokio::try_join!(
        write_chunks(&mut plain_in, chunked_out, &clock),
        read_chunks(chunked_in, &mut plain_out, &clock)
    )?;
    plain_in.unsplit(plain_out).end_on_close()?;
    Ok(Carried {
        from_plain,
        to_plain,
    })
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

    fn left(&self) -> Duration {
        let still = self.now().saturating_sub(self.last.load(Ordering::Relaxed));
        self.idle.saturating_sub(Duration::from_millis(still))
    }

    /// One read into `place` of a buffer, which may take as long as the other direction is busy. No
    /// buffer is held while nothing comes.
    async fn read(
        &self,
        from: &mut (impl AsyncRead + Unpin),
        place: Range<usize>,
    ) -> io::Result<Buffer> {
        loop {
            let reading = poll_fn(|cx| Buffer::poll_read(Pin::new(&mut *from), cx, place.clone()));
            match timeout(self.left(), reading).await {
                Ok(buffer) => return buffer,
                Err(_) if !self.left().is_zero() => {}
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
    }

    async fn write(&self, to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
        timeout(self.idle, to.write_all(bytes))
            .await
            .map_err(|_| io::ErrorKind::TimedOut)??;
        self.last.store(self.now(), Ordering::Relaxed);
        Ok(())
    }
}

/// Plain bytes into chunks; the end becomes an empty chunk.
async fn write_chunks(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    clock: &Clock,
) -> io::Result<u64> {
    let mut carried = 0;
    loop {
        let mut buffer = clock.read(&mut from, PREFIX..PREFIX + MAX_CHUNK).await?;
        let n = buffer.filled().len() - PREFIX;
        let len = u32::try_from(n).map_err(io::Error::other)?;
        buffer.set_prefix(len.to_be_bytes());
        clock.write(&mut to, buffer.filled()).await?;
        to.flush().await?;
        if n == 0 {
            return Ok(carried);
        }
        carried += n as u64;
    }
}

/// Chunks into plain bytes, as they come. A stream that stops without its empty chunk was cut off.
async fn read_chunks(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    clock: &Clock,
) -> io::Result<u64> {
    let mut carried = 0;
    let mut chunks = Chunks::default();
    loop {
        let buffer = clock.read(&mut from, 0..buffer::SIZE).await?;
        let mut rest = buffer.filled();
        if rest.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while !rest.is_empty() {
            match chunks.next(&mut rest).map_err(io::Error::other)? {
                Part::Bytes(bytes) => {
                    clock.write(&mut to, bytes).await?;
                    carried += bytes.len() as u64;
                }
                Part::Prefix => {}
                Part::End => {
                    to.shutdown().await?;
                    return Ok(carried);
                }
            }
        }
    }
}

/// Where in a chunked stream the reader is.
#[derive(Debug, Default)]
struct Chunks {
    prefix: [u8; PREFIX],
    /// Bytes of the prefix that have come.
    known: usize,
    /// Bytes of the chunk that are still to come.
    left: usize,
}

/// What the next bytes of a chunked stream are.
enum Part<'b> {
    Bytes(&'b [u8]),
    Prefix,
    End,
}

impl Chunks {
    /// Takes what is of one kind from the front of `bytes`, which must not be empty.
    fn next<'b>(&mut self, bytes: &mut &'b [u8]) -> Result<Part<'b>, ChunkTooLong> {
        if self.left > 0 {
            let (part, rest) = bytes.split_at(self.left.min(bytes.len()));
            self.left -= part.len();
            *bytes = rest;
            return Ok(Part::Bytes(part));
        }
        if let (Some(place), Some((byte, rest))) =
            (self.prefix.get_mut(self.known), bytes.split_first())
        {
            *place = *byte;
            *bytes = rest;
            self.known += 1;
        }
        if self.known < PREFIX {
            return Ok(Part::Prefix);
        }
        self.known = 0;
        match usize::try_from(u32::from_be_bytes(self.prefix)).unwrap_or(usize::MAX) {
            0 => Ok(Part::End),
            len if len > MAX_CHUNK => Err(ChunkTooLong(len)),
            len => {
                self.left = len;
                Ok(Part::Prefix)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{DuplexStream, duplex};

    const IDLE: Duration = Duration::from_secs(60);

    /// A client and a server with the two relays of host and agent between them.
    fn line() -> (
        DuplexStream,
        DuplexStream,
        [tokio::task::JoinHandle<io::Result<Carried>>; 2],
    ) {
        let (client, host_plain) = duplex(1000);
        let (host_chunked, agent_chunked) = duplex(3000);
        let (agent_plain, server) = duplex(1000);
        let relays = [
            tokio::spawn(relay(host_plain, host_chunked, Vec::new(), IDLE)),
            tokio::spawn(relay(agent_plain, agent_chunked, Vec::new(), IDLE)),
        ];
        (client, server, relays)
    }

    #[tokio::test]
    async fn an_end_of_one_direction_leaves_the_other_open() {
        let (mut client, mut server, [host, agent]) = line();
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut asked = String::new();
        server.read_to_string(&mut asked).await.unwrap();
        let answer = vec![7; 100_000];
        let sent = answer.clone();
        tokio::spawn(async move { server.write_all(&sent).await });
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!((asked.as_str(), got == answer), ("question", true));
        assert_eq!(
            host.await.unwrap().unwrap(),
            Carried {
                from_plain: 8,
                to_plain: 100_000
            }
        );
        assert_eq!(
            agent.await.unwrap().unwrap(),
            Carried {
                from_plain: 100_000,
                to_plain: 8
            }
        );
    }

    #[tokio::test(start_paused = true)]
    async fn ends_when_nothing_moves_in_either_direction() {
        let (mut client, mut server, [host, _agent]) = line();
        for _ in 0..5 {
            // One direction is busy: the other one's silence does not end it.
            tokio::time::sleep(IDLE - Duration::from_secs(10)).await;
            client.write_all(b"x").await.unwrap();
            server.read_u8().await.unwrap();
        }
        assert_eq!(
            host.await.unwrap().unwrap_err().kind(),
            io::ErrorKind::TimedOut
        );
    }

    /// On one thread, so that every buffer is one of its own.
    #[tokio::test]
    async fn idle_streams_hold_no_buffer() {
        let mut idle = Vec::new();
        for _ in 0..1000 {
            let (mut client, mut server, relays) = line();
            client.write_all(b"x").await.unwrap();
            server.read_u8().await.unwrap();
            idle.push((client, server, relays));
        }
        // At most one was in use at a time.
        assert!((1..=2).contains(&buffer::spares()), "{}", buffer::spares());
    }

    #[tokio::test]
    async fn chunks_may_come_in_any_pieces() {
        let bytes = b"\0\0\0\x03one\0\0\0\x01t\0\0\0\x02wo\0\0\0\0";
        for size in 1..=bytes.len() {
            let (plain, mut near) = duplex(100);
            let (chunked, mut peer) = duplex(size);
            tokio::spawn(async move { relay(plain, chunked, Vec::new(), IDLE).await });
            tokio::spawn(async move {
                for piece in bytes.chunks(size) {
                    peer.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
                peer.read_u8().await
            });
            let mut got = String::new();
            near.read_to_string(&mut got).await.unwrap();
            assert_eq!(got, "onetwo", "in pieces of {size}");
        }
    }

    #[tokio::test]
    async fn a_cut_stream_and_a_chunk_above_the_limit_are_errors() {
        let ends = |bytes: Vec<u8>| async move {
            let (plain, _keep) = duplex(100_000);
            let (chunked, mut peer) = duplex(100_000);
            peer.write_all(&bytes).await.unwrap();
            peer.shutdown().await.unwrap();
            relay(plain, chunked, Vec::new(), IDLE)
                .await
                .unwrap_err()
                .to_string()
        };
        assert_eq!(ends(vec![]).await, "unexpected end of file");
        assert_eq!(ends(vec![0, 0, 0, 9, 1]).await, "unexpected end of file");
        let long = u32::try_from(MAX_CHUNK + 1).unwrap().to_be_bytes().to_vec();
        assert_eq!(
            ends(long).await,
            format!(
                "a chunk of {} bytes; the limit is {MAX_CHUNK}",
                MAX_CHUNK + 1
            )
        );
    }
}
