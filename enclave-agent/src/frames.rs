//! Reads and writes frames on a stream, and files with a limit.

use std::io::{self, Read as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use wire::frame::{self, Reader};

/// The next message. `reader` keeps what came behind it.
///
/// Cancelling is safe: bytes go into `reader` as soon as they arrive.
pub(crate) async fn read<M, S>(stream: &mut S, reader: &mut Reader) -> io::Result<M>
where
    M: for<'b> minicbor::Decode<'b, ()>,
    S: AsyncRead + Unpin,
{
    let mut piece = [0; 4096];
    loop {
        if let Some(message) = reader.message().map_err(io::Error::other)? {
            return Ok(message);
        }
        let n = stream.read(&mut piece).await?;
        match piece.get(..n).filter(|bytes| !bytes.is_empty()) {
            Some(bytes) => reader.push(bytes),
            None => {
                reader.finish().map_err(io::Error::other)?;
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// Writes a message in pieces that every vsock device carries.
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

/// A whole file, if it is not longer than `limit` bytes.
pub(crate) fn read_bounded(path: &str, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    match bytes.len() <= limit {
        true => Ok(bytes),
        false => Err(io::Error::other(format!("it is longer than {limit} bytes"))),
    }
}
