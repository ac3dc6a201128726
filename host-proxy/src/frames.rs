//! Reads and writes frames on a stream.

use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use wire::frame::{self, Reader};

/// The next message; `None` at an orderly end. `reader` keeps what came behind it. Cancelling is safe.
pub(crate) async fn read<M, S>(stream: &mut S, reader: &mut Reader) -> io::Result<Option<M>>
where
    M: for<'b> minicbor::Decode<'b, ()>,
    S: AsyncRead + Unpin,
{
    let mut piece = [0; 16 * 1024];
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

pub(crate) async fn write<M, S>(stream: &mut S, message: &M) -> io::Result<()>
where
    M: minicbor::Encode<()>,
    S: AsyncWrite + Unpin,
{
    let bytes = frame::encode(message).map_err(io::Error::other)?;
    for piece in bytes.chunks(wire::MAX_WRITE) {
        stream.write_all(piece).await?;
    }
    Ok(())
}
