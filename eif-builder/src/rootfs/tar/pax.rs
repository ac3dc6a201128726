//! Pax records, and what else may precede an entry and change it (POSIX.1-2017, pax, "pax Extended
//! Header"; GNU tar, "Basic Tar Format").

use crate::rootfs::error::EntryProblem;
use std::collections::BTreeMap;
use tar::EntryType;

/// Keys and values of pax records.
pub(super) type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// What extension records said about the entry that follows them.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    pub(super) long_name: Option<Vec<u8>>,
    pub(super) long_link: Option<Vec<u8>>,
    pub(super) pax: Records,
}

impl Extensions {
    pub(super) fn is_empty(&self) -> bool {
        self.long_name.is_none() && self.long_link.is_none() && self.pax.is_empty()
    }

    /// Whether a header of this type describes an extension record and no entry.
    pub(super) fn includes(kind: EntryType) -> bool {
        use EntryType::{GNULongLink, GNULongName, XGlobalHeader, XHeader};
        matches!(kind, GNULongName | GNULongLink | XHeader | XGlobalHeader)
    }

    /// Adds a record. Each kind may occur once before an entry; global records may not change
    /// entries at all.
    pub(super) fn add(&mut self, kind: EntryType, body: Vec<u8>) -> Result<(), EntryProblem> {
        let duplicate = match kind {
            EntryType::GNULongName => {
                let previous = self.long_name.replace(until_nul(body));
                previous.map(|_| "long name")
            }
            EntryType::GNULongLink => {
                let previous = self.long_link.replace(until_nul(body));
                previous.map(|_| "long link")
            }
            EntryType::XGlobalHeader => return check_global(&body),
            _ => {
                let records = records(&body).ok_or(EntryProblem::MalformedPax);
                let previous = std::mem::replace(&mut self.pax, records?);
                (!previous.is_empty()).then_some("pax")
            }
        };
        match duplicate {
            Some(kind) => Err(EntryProblem::DuplicateExtension(kind)),
            None => Ok(()),
        }
    }
}

fn check_global(body: &[u8]) -> Result<(), EntryProblem> {
    let records = records(body).ok_or(EntryProblem::MalformedPax)?;
    match records.keys().find(|key| changes_entries(key)) {
        Some(key) => Err(EntryProblem::GlobalPax(key.escape_ascii().to_string())),
        None => Ok(()),
    }
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

/// `LENGTH KEY=VALUE\n`, where LENGTH counts the whole record.
fn records(mut bytes: &[u8]) -> Option<Records> {
    let mut records = Records::new();
    while !bytes.is_empty() {
        let space = bytes.iter().take(20).position(|&b| b == b' ')?;
        let len = usize::try_from(decimal(bytes.get(..space)?)?).ok()?;
        let record = bytes.get(space + 1..len)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|&b| b == b'=')?;
        let (key, value) = (record.get(..equals)?, record.get(equals + 1..)?);
        // POSIX specifies that a repeated key replaces the first; no honest writer repeats one.
        if records.insert(key.to_vec(), value.to_vec()).is_some() {
            return None;
        }
        bytes = bytes.get(len..)?;
    }
    Some(records)
}

fn changes_entries(key: &[u8]) -> bool {
    const KEYS: [&[u8]; 6] = [b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime"];
    KEYS.contains(&key) || key.starts_with(b"SCHILY.xattr.") || key.starts_with(b"GNU.sparse.")
}

pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

/// Whole seconds since 1970; squashfs has 32 bits for them, so times outside of these become the
/// first or the last.
pub(super) fn seconds(text: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    match whole.strip_prefix('-') {
        Some(digits) => decimal(digits.as_bytes()).map(|_| 0),
        None => decimal(whole.as_bytes()).map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX)),
    }
}
