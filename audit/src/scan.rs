//! What the last file of a log holds when it is opened, and how much of it is right.

use crate::AuditError;
use crate::chain::{self, ChainHead};
use std::fs;
use std::path::{Path, PathBuf};

/// What the last file of a log holds.
pub(crate) struct Found {
    /// Bytes of lines that are right.
    pub(crate) len: u64,
    /// The last of them.
    pub(crate) head: Option<ChainHead>,
    pub(crate) rest: Rest,
}

/// What comes after the lines that are right.
pub(crate) enum Rest {
    Nothing,
    /// A line without its end: a crash leaves this.
    Torn(Vec<u8>),
    /// A whole line that is wrong: no crash leaves this. Its place in the file, and the highest
    /// number after it.
    Wrong {
        line: usize,
        seq: u64,
    },
}

/// Without the files at the end that a crash left before their first line; the first file stays.
pub(crate) fn remove_empty(
    mut files: Vec<(u64, PathBuf)>,
) -> Result<Vec<(u64, PathBuf)>, AuditError> {
    while let [_, .., (_, path)] = files.as_slice() {
        let failed = |source| AuditError::file(path, source);
        if fs::metadata(path).map_err(failed)?.len() > 0 {
            break;
        }
        fs::remove_file(path).map_err(failed)?;
        files.pop();
    }
    Ok(files)
}

/// What a log's first file follows, if it has no line yet.
pub(crate) fn start_of(first: u64) -> ChainHead {
    ChainHead {
        seq: first.saturating_sub(1),
        ..ChainHead::genesis()
    }
}

/// The head at the end of a file, if the next one begins with a torn line.
pub(crate) fn end_of(path: &Path, next: u64) -> Result<ChainHead, AuditError> {
    let head = scan(path)?.head;
    Ok(head
        .filter(|head| head.seq + 1 == next)
        .unwrap_or_else(|| start_of(next)))
}

/// Reads a whole file; it is at most a little longer than the limit of a file.
pub(crate) fn scan(path: &Path) -> Result<Found, AuditError> {
    let bytes = fs::read(path).map_err(|source| AuditError::file(path, source))?;
    let (mut len, mut head): (usize, Option<ChainHead>) = (0, None);
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let Some(whole) = line.strip_suffix(b"\n") else {
            let rest = Rest::Torn(line.to_vec());
            return Ok(Found {
                len: len as u64,
                head,
                rest,
            });
        };
        match chain::read(whole, head.as_ref()) {
            Ok(read) => head = Some(read.head()),
            Err(_) => {
                let after = bytes.split_at(len).1;
                let seq = highest(after);
                let rest = Rest::Wrong {
                    line: index + 1,
                    seq,
                };
                return Ok(Found {
                    len: len as u64,
                    head,
                    rest,
                });
            }
        }
        len += line.len();
    }
    let rest = Rest::Nothing;
    Ok(Found {
        len: len as u64,
        head,
        rest,
    })
}

/// The highest number of lines that are right by themselves.
fn highest(bytes: &[u8]) -> u64 {
    let lines = bytes.split(|byte| *byte == b'\n');
    let numbers = lines.filter_map(|line| Some(chain::read(line, None).ok()?.seq));
    numbers.max().unwrap_or_default()
}
