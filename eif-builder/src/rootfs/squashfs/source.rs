//! What the writer is given: the bytes of files, and how hard to compress them.

use crate::rootfs::tree::Body;
use std::io;

/// Where the bytes of files come from. Called from one thread at a time.
pub trait Bodies {
    /// Fills `buffer` with the bytes of a file that start `offset` bytes after its start. May
    /// block.
    ///
    /// # Errors
    /// They cannot be read, or the body ends before the buffer is full.
    fn read(&self, body: &Body, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

/// Bodies of an image's layers, lowest first.
impl Bodies for [oci::VerifiedLayer] {
    fn read(&self, body: &Body, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let layer = self
            .get(body.layer)
            .ok_or_else(|| io::Error::other("a body is in a layer that does not exist"))?;
        layer.read_exact_at(buffer, body.offset + offset)
    }
}

/// How an image is compressed.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// zstd level, 1 to 22. It changes the bytes of the image.
    pub level: i32,
    /// Threads that compress. The bytes of the image do not depend on it.
    pub threads: usize,
}

impl Options {
    /// All cores, and zstd's own default level; which level is best for images was not measured
    /// yet.
    pub fn for_this_machine() -> Options {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Options { level: 3, threads }
    }
}
