//! One line after the other: how a line is hashed, and whether it follows the one before.

use crate::AuditEntry;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The longest line that is read, in bytes. Those that are written are far shorter.
pub(crate) const MAX_LINE: usize = 64 * 1024;
/// `,"hash":"`, 64 digits, `"}`.
const TAIL: usize = 9 + 64 + 2;

/// The end of a chain: who keeps it elsewhere can tell later that nothing up to here was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainHead {
    /// Number of the last line.
    pub seq: u64,
    /// Its hash, in hexadecimal digits.
    pub hash: String,
}

impl ChainHead {
    /// What line 1 follows.
    pub(crate) fn genesis() -> ChainHead {
        ChainHead {
            seq: 0,
            hash: "0".repeat(64),
        }
    }
}

/// A line whose own hash is right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditLine {
    /// Its number; the first is 1.
    pub seq: u64,
    /// When it was written, RFC 3339 in UTC with six fractional digits.
    pub time: String,
    /// Hash of the line before.
    pub prev: String,
    /// What it says.
    #[serde(flatten)]
    pub entry: AuditEntry,
    /// Its own hash.
    pub hash: String,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineFault {
    /// It does not end with a newline.
    #[error("it is unfinished: it was cut, or is being written right now")]
    Unfinished,
    /// It is something else.
    #[error("it is not a line of an audit log")]
    Unreadable,
    /// Its bytes do not have its hash.
    #[error("it was changed: its hash is wrong")]
    Changed,
    /// Its number is not the next.
    #[error("it has number {found} in place of {expected}: lines were removed, inserted or moved")]
    Number {
        /// The number of the line before and one more.
        expected: u64,
        /// Its own.
        found: u64,
    },
    /// It names another line as the one before.
    #[error("it does not follow the line before it: one of them was replaced")]
    Previous,
    /// The file's name is for another line.
    #[error("it has number {found}, and the file is named for {expected}")]
    FileName {
        /// In the file's name.
        expected: u64,
        /// Its own.
        found: u64,
    },
}

#[derive(Serialize)]
struct Unhashed<'a> {
    seq: u64,
    time: &'a str,
    prev: &'a str,
    #[serde(flatten)]
    entry: &'a AuditEntry,
}

/// The line that follows `head`, with its newline, and the head that it makes.
pub(crate) fn line(
    head: &ChainHead,
    time: &str,
    entry: &AuditEntry,
) -> Result<(Vec<u8>, ChainHead), serde_json::Error> {
    let seq = head.seq + 1;
    let prev = &head.hash;
    let mut bytes = serde_json::to_vec(&Unhashed {
        seq,
        time,
        prev,
        entry,
    })?;
    bytes.pop();
    let hash = hex::encode(Sha256::digest(&bytes));
    bytes.extend(format!(",\"hash\":\"{hash}\"}}\n").as_bytes());
    Ok((bytes, ChainHead { seq, hash }))
}

/// Reads a line, without its newline, that has to follow `before` if that is known.
pub(crate) fn read(line: &[u8], before: Option<&ChainHead>) -> Result<AuditLine, LineFault> {
    let split = line.len().checked_sub(TAIL).ok_or(LineFault::Unreadable)?;
    let (hashed, tail) = line.split_at(split);
    let parsed: AuditLine = serde_json::from_slice(line).map_err(|_| LineFault::Unreadable)?;
    let hash = hex::encode(Sha256::digest(hashed));
    if tail != format!(",\"hash\":\"{hash}\"}}").as_bytes() {
        return Err(LineFault::Changed);
    }
    if let Some(before) = before {
        let (expected, found) = (before.seq + 1, parsed.seq);
        if found != expected {
            return Err(LineFault::Number { expected, found });
        }
        if parsed.prev != before.hash {
            return Err(LineFault::Previous);
        }
    }
    Ok(parsed)
}

impl AuditLine {
    pub(crate) fn head(&self) -> ChainHead {
        ChainHead {
            seq: self.seq,
            hash: self.hash.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Actor, AuditAction, AuditOutcome};

    /// What a reader in another language has to compute.
    #[test]
    fn the_form_of_a_line_is_fixed() {
        let by = Actor::process(Some(1000), Some(7));
        let entry = AuditEntry::new(AuditAction::Terminate, AuditOutcome::Begun, by);
        let entry = entry.enclave(None, Some("web"));
        let time = "2026-01-02T03:04:05.000006Z";
        let (bytes, head) = line(&ChainHead::genesis(), time, &entry).unwrap();
        let text = "{\"seq\":1,\"time\":\"2026-01-02T03:04:05.000006Z\",\"prev\":\
            \"0000000000000000000000000000000000000000000000000000000000000000\",\
            \"action\":\"terminate\",\"outcome\":\"begun\",\"by\":{\"uid\":1000,\"pid\":7},\
            \"name\":\"web\"";
        assert_eq!(head.hash, hex::encode(Sha256::digest(text)));
        let expected = format!("{text},\"hash\":\"{}\"}}\n", head.hash);
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }
}
