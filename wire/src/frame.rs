//! Length-prefixed CBOR: turns messages into bytes and a byte stream back into messages.
//! Never reads or writes a socket; the owner of one feeds [`Reader`].

use minicbor::{Decode, Encode};

/// The longest frame body, in bytes.
pub const MAX_LEN: usize = 64 * 1024;
/// The length of a frame's length prefix, in bytes.
const PREFIX: usize = 4;

/// Why bytes are not a frame, or a message does not fit into one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length of the body in bytes, as announced by the peer or as encoded here; more than
    /// [`MAX_LEN`].
    #[error("a frame of {0} bytes is too long; the limit is {MAX_LEN}")]
    TooLong(usize),
    /// The body is not CBOR, or not a message that this crate knows: minicbor's message.
    #[error("an unknown or malformed message: {0}")]
    Malformed(String),
    /// The body holds this many bytes more than the message.
    #[error("{0} bytes follow the message in its frame")]
    TrailingBytes(usize),
    /// The stream ended inside of a frame.
    #[error("the peer closed the connection in the middle of a frame")]
    Truncated,
}

/// The bytes of one message, prefix included.
///
/// # Errors
/// [`FrameError::TooLong`] for a message of more than [`MAX_LEN`] bytes.
pub fn encode<M: Encode<()>>(message: &M) -> Result<Vec<u8>, FrameError> {
    let mut bytes = vec![0; PREFIX];
    minicbor::encode(message, &mut bytes).map_err(|e| FrameError::Malformed(e.to_string()))?;
    let len = bytes.len() - PREFIX;
    let prefix = u32::try_from(len)
        .ok()
        .filter(|_| len <= MAX_LEN)
        .ok_or(FrameError::TooLong(len))?;
    bytes.splice(..PREFIX, prefix.to_be_bytes());
    Ok(bytes)
}

fn decode<M: for<'b> Decode<'b, ()>>(body: &[u8]) -> Result<M, FrameError> {
    let mut decoder = minicbor::Decoder::new(body);
    let message = decoder
        .decode()
        .map_err(|e| FrameError::Malformed(e.to_string()))?;
    match body.len() - decoder.position() {
        0 => Ok(message),
        extra => Err(FrameError::TrailingBytes(extra)),
    }
}

/// Collects the bytes of a stream and gives out whole messages. Holds the bytes that were pushed
/// and not yet taken; a caller that takes messages after each push holds one frame at most beside
/// them.
///
/// ```
/// use wire::control::FromHost;
/// use wire::frame::{Reader, encode};
///
/// let bytes = encode(&FromHost::Stop { deadline_ms: 500 })?;
/// let (first, rest) = bytes.split_at(3);
/// let mut reader = Reader::default();
/// reader.push(first);
/// assert_eq!(reader.message::<FromHost>()?, None);
/// reader.push(rest);
/// assert_eq!(
///     reader.message()?,
///     Some(FromHost::Stop { deadline_ms: 500 })
/// );
/// reader.finish()?;
/// # Ok::<(), wire::frame::FrameError>(())
/// ```
#[derive(Debug, Default)]
pub struct Reader {
    pending: Vec<u8>,
}

impl Reader {
    /// Adds bytes of the stream, cut anywhere.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next whole message; `None` until its last byte was pushed. After an error the stream
    /// cannot be read on.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] as soon as the prefix announces too much; [`FrameError::Malformed`]
    /// or [`FrameError::TrailingBytes`] for a body that is not exactly one `M`.
    pub fn message<M: for<'b> Decode<'b, ()>>(&mut self) -> Result<Option<M>, FrameError> {
        let Some((prefix, rest)) = self.pending.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let len = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
        if len > MAX_LEN {
            return Err(FrameError::TooLong(len));
        }
        let Some(body) = rest.get(..len) else {
            return Ok(None);
        };
        let message = decode(body)?;
        self.pending.drain(..PREFIX + len);
        Ok(Some(message))
    }

    /// What arrived after the last message taken; on a relay these are the first raw bytes.
    pub fn into_rest(self) -> Vec<u8> {
        self.pending
    }

    /// To be called at the end of the stream: an unfinished frame is an error, not an end.
    ///
    /// # Errors
    /// [`FrameError::Truncated`] if bytes of a frame are left.
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.pending.is_empty() {
            Ok(())
        } else {
            Err(FrameError::Truncated)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::FromHost;
    use proptest::prelude::*;

    #[test]
    fn gives_messages_out_however_the_stream_is_cut() {
        let stop = FromHost::Stop {
            deadline_ms: 10_000,
        };
        let bytes = [encode(&stop).unwrap(), encode(&stop).unwrap()].concat();
        for cut in 0..bytes.len() {
            let mut reader = Reader::default();
            let mut seen = 0;
            for part in [&bytes[..cut], &bytes[cut..]] {
                reader.push(part);
                while let Some(message) = reader.message::<FromHost>().unwrap() {
                    assert_eq!(message, stop);
                    seen += 1;
                }
            }
            assert_eq!((seen, reader.finish()), (2, Ok(())));
        }
    }

    #[test]
    fn refuses_a_length_above_the_limit_before_the_body_arrives() {
        let mut reader = Reader::default();
        reader.push(&u32::try_from(MAX_LEN).unwrap().to_be_bytes());
        assert_eq!(reader.message::<FromHost>(), Ok(None));
        let mut reader = Reader::default();
        reader.push(&u32::try_from(MAX_LEN + 1).unwrap().to_be_bytes());
        assert_eq!(
            reader.message::<FromHost>(),
            Err(FrameError::TooLong(MAX_LEN + 1))
        );
    }

    #[test]
    fn refuses_bytes_after_the_message() {
        let mut bytes = encode(&FromHost::Stop { deadline_ms: 1 }).unwrap();
        bytes.push(0);
        bytes[3] += 1;
        let mut reader = Reader::default();
        reader.push(&bytes);
        assert_eq!(
            reader.message::<FromHost>(),
            Err(FrameError::TrailingBytes(1))
        );
    }

    #[test]
    fn an_unfinished_frame_is_not_an_end() {
        let mut reader = Reader::default();
        reader.push(&[0, 0]);
        assert_eq!(reader.finish(), Err(FrameError::Truncated));
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let mut reader = Reader::default();
            reader.push(&bytes);
            while let Ok(Some(_)) = reader.message::<FromHost>() {}
        }
    }
}
