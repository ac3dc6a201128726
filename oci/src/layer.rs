//! Unpacks one layer: counts and hashes the compressed bytes, decompresses, counts and hashes the
//! result, and spools it to a file without a name. Only when every count and both digests fit does
//! a [`VerifiedLayer`] exist; on any error the spool is gone with its descriptor. Runs on a
//! blocking thread and is fed through a bounded channel.

use crate::digest::Digest;
use crate::error::PullError;
use crate::manifest::{Blob, Compression};
use bytes::{Buf as _, Bytes};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// zstd may ask for a window of gigabytes; 128 MiB (2^27) is what its own tools accept by default
/// (`ZSTD_WINDOWLOG_LIMIT_DEFAULT`).
const MAX_ZSTD_WINDOW_LOG: u32 = 27;
/// Bytes that are read, hashed and written at once.
const PIECE: usize = 256 * 1024;

/// The tar archive of a layer: every byte of it was checked against the image's config. It is in a
/// file without a name, whose space is freed when this is dropped.
#[derive(Debug)]
pub struct VerifiedLayer {
    tar: File,
    len: u64,
}

impl VerifiedLayer {
    /// Length of the archive in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the archive has no bytes at all; not even an empty directory's does.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fills `buffer` with the archive's bytes from `offset` (in bytes). Blocks on the disk.
    ///
    /// # Errors
    /// `UnexpectedEof` where the archive ends earlier, or what the disk reports.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.tar.read_exact_at(buffer, offset)
    }

    /// A layer whose uncompressed archive is at hand: it is verified against its diff_id like any
    /// other. Blocks on the disk: a copy goes into the system's directory for temporary files.
    ///
    /// # Errors
    /// [`PullError::DigestMismatch`], or [`PullError::Disk`] where no temporary file can be
    /// written.
    pub fn from_archive(tar: &[u8], diff_id: Digest) -> Result<VerifiedLayer, PullError> {
        let found = Digest::of(tar);
        if found != diff_id {
            let what = "the layer's archive".to_owned();
            return Err(PullError::DigestMismatch {
                what,
                expected: diff_id,
                found,
            });
        }
        let disk = |source| PullError::Disk {
            path: std::env::temp_dir(),
            source,
        };
        let mut file = tempfile::tempfile().map_err(disk)?;
        file.write_all(tar).map_err(disk)?;
        Ok(VerifiedLayer {
            tar: file,
            len: tar.len() as u64,
        })
    }
}

/// What the downloading side sends: bytes in order, or the error that ended them.
pub(crate) type Feed = mpsc::Receiver<Result<Bytes, PullError>>;

/// What a layer must turn out to be.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    pub(crate) name: String,
    pub(crate) blob: Blob,
    pub(crate) diff_id: Digest,
    pub(crate) compression: Compression,
    /// Bytes that the archives of the whole image may still have; taken from as they are unpacked.
    pub(crate) budget: Arc<AtomicU64>,
    pub(crate) max_unpacked: u64,
}

/// Consumes the feed to its end. Blocks on the feed and on the disk; ends when the feed's sender is
/// dropped.
pub(crate) fn unpack(
    feed: Feed,
    expected: &Expected,
    work_dir: &Path,
) -> Result<VerifiedLayer, PullError> {
    let name = &expected.name;
    let disk = |source| PullError::Disk {
        path: work_dir.to_owned(),
        source,
    };
    let spool = tempfile::tempfile_in(work_dir).map_err(disk)?;
    let mut blob = BlobReader::new(feed, expected);
    let len = {
        let counted = BufReader::with_capacity(PIECE, &mut blob);
        let mut archive: Box<dyn Read> = match expected.compression {
            Compression::None => Box::new(counted),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(counted)),
            Compression::Zstd => Box::new(zstd_decoder(counted, name)?),
        };
        copy_hashed(&mut archive, &spool, expected, disk)?
    };
    // Bytes behind the compressed data count too: the digest covers them.
    io::copy(&mut blob, &mut io::sink()).map_err(|e| read_error(e, name))?;
    blob.finish()?;
    Ok(VerifiedLayer { tar: spool, len })
}

fn zstd_decoder<'a, R: BufRead + 'a>(
    reader: R,
    name: &str,
) -> Result<zstd::stream::read::Decoder<'a, R>, PullError> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)
        .map_err(|e| PullError::invalid(name, e))?;
    decoder
        .window_log_max(MAX_ZSTD_WINDOW_LOG)
        .map_err(|e| PullError::invalid(name, e))?;
    Ok(decoder)
}

fn copy_hashed(
    archive: &mut dyn Read,
    mut spool: &File,
    expected: &Expected,
    disk: impl Fn(io::Error) -> PullError,
) -> Result<u64, PullError> {
    let Expected {
        name,
        diff_id,
        budget,
        max_unpacked,
        ..
    } = expected;
    let mut hasher = Sha256::new();
    let mut len = 0;
    let mut piece = vec![0; PIECE];
    loop {
        let n = archive.read(&mut piece).map_err(|e| read_error(e, name))?;
        let Some(bytes) = piece.get(..n).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        len += n as u64;
        let taken = budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            left.checked_sub(n as u64)
        });
        if taken.is_err() {
            return Err(PullError::TooLong {
                what: format!("{name}, unpacked,"),
                limit: *max_unpacked,
            });
        }
        hasher.update(bytes);
        spool.write_all(bytes).map_err(&disk)?;
    }
    let found = Digest::from_hasher(hasher);
    if found != *diff_id {
        return Err(PullError::DigestMismatch {
            what: format!("{name}, unpacked,"),
            expected: *diff_id,
            found,
        });
    }
    Ok(len)
}

/// Errors of the feed travel through the decoders as `io::Error`; everything else is the decoder's
/// complaint.
fn read_error(error: io::Error, name: &str) -> PullError {
    let kind = error.kind();
    match error
        .into_inner()
        .map(|inner| inner.downcast::<PullError>())
    {
        Some(Ok(pull)) => *pull,
        Some(Err(other)) => PullError::invalid(name, io::Error::new(kind, other)),
        None => PullError::invalid(name, io::Error::from(kind)),
    }
}

/// The compressed bytes as they arrive, counted and hashed.
struct BlobReader<'a> {
    feed: Feed,
    current: Bytes,
    hasher: Sha256,
    seen: u64,
    expected: &'a Expected,
}

impl<'a> BlobReader<'a> {
    fn new(feed: Feed, expected: &'a Expected) -> Self {
        BlobReader {
            feed,
            current: Bytes::new(),
            hasher: Sha256::new(),
            seen: 0,
            expected,
        }
    }

    fn receive(&mut self) -> Result<(), PullError> {
        let Some(bytes) = self.feed.blocking_recv().transpose()? else {
            return Ok(());
        };
        let Expected { name, blob, .. } = self.expected;
        self.seen += bytes.len() as u64;
        if self.seen > blob.size {
            return Err(PullError::TooLong {
                what: name.clone(),
                limit: blob.size,
            });
        }
        self.hasher.update(&bytes);
        self.current = bytes;
        Ok(())
    }

    fn finish(self) -> Result<(), PullError> {
        let Expected { name, blob, .. } = self.expected;
        if self.seen < blob.size {
            return Err(PullError::TooShort {
                what: name.clone(),
                expected: blob.size,
                found: self.seen,
            });
        }
        let found = Digest::from_hasher(self.hasher);
        if found != blob.digest {
            return Err(PullError::DigestMismatch {
                what: name.clone(),
                expected: blob.digest,
                found,
            });
        }
        Ok(())
    }
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.current.is_empty() {
            self.receive().map_err(io::Error::other)?;
        }
        let n = self.current.len().min(buffer.len());
        if let Some(target) = buffer.get_mut(..n) {
            self.current.copy_to_slice(target);
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn expected(blob: &[u8], tar: &[u8], compression: Compression) -> Expected {
        Expected {
            name: "layer 1".into(),
            blob: Blob {
                digest: Digest::of(blob),
                size: blob.len() as u64,
            },
            diff_id: Digest::of(tar),
            compression,
            budget: Arc::new(AtomicU64::new(1 << 20)),
            max_unpacked: 1 << 20,
        }
    }

    fn run(sent: &[u8], expected: &Expected) -> Result<Vec<u8>, PullError> {
        let (sender, feed) = mpsc::channel(4096);
        for piece in sent.chunks(7) {
            sender.try_send(Ok(Bytes::copy_from_slice(piece))).unwrap();
        }
        drop(sender);
        let layer = unpack(feed, expected, &std::env::temp_dir())?;
        let mut tar = vec![0; usize::try_from(layer.len()).unwrap()];
        layer.read_exact_at(&mut tar, 0).unwrap();
        Ok(tar)
    }

    const TAR: &[u8] = b"the archive, which this module does not look into";

    #[test]
    fn unpacks_each_compression_with_several_members() {
        let gz = [gzip(&TAR[..10]), gzip(&TAR[10..])].concat();
        assert_eq!(
            run(&gz, &expected(&gz, TAR, Compression::Gzip)).unwrap(),
            TAR
        );
        let zst = [
            zstd::bulk::compress(&TAR[..10], 3).unwrap(),
            zstd::bulk::compress(&TAR[10..], 3).unwrap(),
        ]
        .concat();
        assert_eq!(
            run(&zst, &expected(&zst, TAR, Compression::Zstd)).unwrap(),
            TAR
        );
        assert_eq!(
            run(TAR, &expected(TAR, TAR, Compression::None)).unwrap(),
            TAR
        );
    }

    #[test]
    fn refuses_a_blob_of_another_length() {
        let gz = gzip(TAR);
        let expected = expected(&gz, TAR, Compression::Gzip);
        let long = [gz.as_slice(), b"x"].concat();
        assert!(
            matches!(run(&long, &expected), Err(PullError::TooLong { limit, .. }) if limit == gz.len() as u64)
        );
        // A plain archive has no end of its own: a short one is found by counting.
        let plain = self::expected(TAR, TAR, Compression::None);
        assert!(matches!(
            run(&TAR[..5], &plain),
            Err(PullError::DigestMismatch { .. } | PullError::TooShort { .. })
        ));
        assert!(run(&gz[..gz.len() - 1], &expected).is_err());
    }

    #[test]
    fn refuses_wrong_digests_of_either_side() {
        let gz = gzip(TAR);
        let mut wrong_diff = expected(&gz, b"other", Compression::Gzip);
        assert!(
            matches!(run(&gz, &wrong_diff), Err(PullError::DigestMismatch { what, .. }) if what == "layer 1, unpacked,")
        );
        wrong_diff = expected(&gz, TAR, Compression::Gzip);
        wrong_diff.blob.digest = Digest::of(b"other");
        assert!(
            matches!(run(&gz, &wrong_diff), Err(PullError::DigestMismatch { what, .. }) if what == "layer 1")
        );
    }

    #[test]
    fn stops_at_the_limit_of_unpacked_bytes() {
        let tar = vec![0; 1 << 20];
        let at_limit = expected(&gzip(&tar), &tar, Compression::Gzip);
        assert_eq!(run(&gzip(&tar), &at_limit).unwrap().len(), 1 << 20);
        // The budget is the whole image's, and it is used up.
        let error = run(&gzip(&tar), &at_limit).unwrap_err();
        assert!(
            matches!(
                error,
                PullError::TooLong {
                    limit: 1_048_576,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn refuses_a_zstd_window_above_the_limit() {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(MAX_ZSTD_WINDOW_LOG + 1).unwrap();
        encoder.write_all(TAR).unwrap();
        let zst = encoder.finish().unwrap();
        assert!(matches!(
            run(&zst, &expected(&zst, TAR, Compression::Zstd)),
            Err(PullError::Invalid { .. })
        ));
    }

    #[test]
    fn an_error_of_the_download_comes_out_as_it_was() {
        let gz = gzip(TAR);
        let (sender, feed) = mpsc::channel(2);
        sender
            .try_send(Ok(Bytes::copy_from_slice(&gz[..12])))
            .unwrap();
        sender
            .try_send(Err(PullError::Timeout {
                host: "r".into(),
                seconds: 30,
            }))
            .unwrap();
        let error = unpack(
            feed,
            &expected(&gz, TAR, Compression::Gzip),
            &std::env::temp_dir(),
        );
        assert!(matches!(error, Err(PullError::Timeout { seconds: 30, .. })));
    }
}
