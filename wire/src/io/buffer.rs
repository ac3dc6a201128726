//! Buffers of busy streams. A stream takes one when bytes are there and gives it back when they are
//! written: ten thousand idle streams have none.

use crate::relay::PREFIX;
use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};

/// In bytes: one write of the other side.
pub(super) const SIZE: usize = crate::MAX_WRITE;
/// Buffers that a thread keeps for the next stream.
const SPARE: usize = 16;

thread_local! {
    static SPARES: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes on their way from one stream to the other.
pub(super) struct Buffer {
    bytes: Vec<u8>,
    filled: usize,
}

impl Buffer {
    fn take() -> Buffer {
        let spare = SPARES.with_borrow_mut(Vec::pop);
        let bytes = spare.unwrap_or_else(|| vec![0; SIZE]);
        Buffer { bytes, filled: 0 }
    }

    /// One read into `place`; nothing is kept while it is pending.
    pub(super) fn poll_read(
        from: Pin<&mut impl AsyncRead>,
        cx: &mut Context<'_>,
        place: Range<usize>,
    ) -> Poll<io::Result<Buffer>> {
        let mut buffer = Buffer::take();
        let start = place.start;
        let mut target = ReadBuf::new(buffer.bytes.get_mut(place).unwrap_or_default());
        ready!(from.poll_read(cx, &mut target))?;
        let read = target.filled().len();
        buffer.filled = start + read;
        Poll::Ready(Ok(buffer))
    }

    /// From the buffer's beginning to the last byte that was read.
    pub(super) fn filled(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }

    pub(super) fn set_prefix(&mut self, prefix: [u8; PREFIX]) {
        if let Some(place) = self.bytes.first_chunk_mut() {
            *place = prefix;
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        // Where the thread's spares are gone, the thread is ending.
        SPARES
            .try_with(|spares| {
                let mut spares = spares.borrow_mut();
                if spares.len() < SPARE {
                    spares.push(bytes);
                }
            })
            .ok();
    }
}

/// How many buffers this thread has that no stream uses.
#[cfg(test)]
pub(super) fn spares() -> usize {
    SPARES.with_borrow(Vec::len)
}
