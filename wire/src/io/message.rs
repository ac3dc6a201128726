//! One message over a stream.

use crate::frame::{self, Reader};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The next message; `None` at an orderly end. `reader` keeps what came behind it. It waits as long
/// as the peer does: put a timeout around it where the peer has to answer.
///
/// Cancel-safe: what was read stays in `reader`.
///
/// # Errors
/// Those of the stream, and [`FrameError`](frame::FrameError) as [`io::ErrorKind::Other`] for bytes
/// that are no message.
pub async fn read<M, S>(stream: &mut S, reader: &mut Reader) -> io::Result<Option<M>>
where
    M: for<'b> minicbor::Decode<'b, ()>,
    S: AsyncRead + Unpin,
{
    // Not in the future, whose size every connection has for life.
    let mut piece = vec![0; 4096];
    loop {
        if let Some(message) = reader.message().map_err(io::Error::other)? {
            return Ok(Some(message));
        }
        let n = stream.read(&mut piece).await?;
        match piece.get(..n).filter(|bytes| !bytes.is_empty()) {
            Some(bytes) => reader.push(bytes),
            None => return reader.finish().map(|()| None).map_err(io::Error::other),
        }
    }
}

/// Writes a message.
///
/// Not cancel-safe: a message that was written in part ends the conversation.
///
/// # Errors
/// Those of the stream, and [`FrameError::TooLong`](frame::FrameError::TooLong) as
/// [`io::ErrorKind::Other`].
pub async fn write<M, S>(stream: &mut S, message: &M) -> io::Result<()>
where
    M: minicbor::Encode<()>,
    S: AsyncWrite + Unpin,
{
    let bytes = frame::encode(message).map_err(io::Error::other)?;
    stream.write_all(&bytes).await
}
