//! The application ramdisk: what is in it, and how an entry is found. It is a `newc` cpio archive
//! (Linux, Documentation/driver-api/early-userspace/buffer-format.rst); the builder writes it, and
//! reads it again as the agent does.

use std::io;
use std::ops::Range;

/// The measured spec, a file.
pub const SPEC: &str = "app/enclave.json";
/// The image, a squashfs. Its entry has no file type: the kernel passes over the body and leaves it
/// where it is.
pub const IMAGE: &str = "app/rootfs.squashfs";
/// Length of an entry's header without its name, in bytes.
pub const HEADER: usize = 110;
/// Headers and bodies begin at multiples of this, in bytes from the start of the archive.
pub const ALIGN: u64 = 4;

/// Both ramdisks of an enclave image have a dozen entries together.
const MAX_ENTRIES: usize = 64;

/// Where the body of an entry is, in bytes from where `read` counts from. Archives may follow one
/// another; the first entry of the name is found. `read` fills a buffer from an offset on.
///
/// # Errors
/// Those of `read`; what is read is no archive, or has no such entry among its first 64.
pub fn find(name: &str, read: impl Fn(&mut [u8], u64) -> io::Result<()>) -> io::Result<Range<u64>> {
    let mut at = 0;
    for _ in 0..MAX_ENTRIES {
        let mut header = [0; HEADER];
        read(&mut header, at)?;
        let damaged = || io::Error::other(format!("no cpio archive at byte {at}"));
        let (name_len, body_len) = lengths(&header).ok_or_else(damaged)?;
        let name_at = at + HEADER as u64;
        let body_at = (name_at + name_len).next_multiple_of(ALIGN);
        // In the archive it ends with a NUL.
        if name_len == name.len() as u64 + 1 {
            let mut found = vec![0; name.len()];
            read(&mut found, name_at)?;
            if found == name.as_bytes() {
                return Ok(body_at..body_at + body_len);
            }
        }
        at = (body_at + body_len).next_multiple_of(ALIGN);
    }
    Err(io::Error::other(format!("no entry '{name}'")))
}

/// Of the name, with its NUL, and of the body.
fn lengths(header: &[u8; HEADER]) -> Option<(u64, u64)> {
    let numbers = str::from_utf8(header).ok()?.strip_prefix("070701")?;
    let number = |nth: usize| {
        let digits = numbers.get(8 * nth..8 * nth + 8)?;
        u64::from_str_radix(digits, 16).ok()
    };
    Some((number(11)?, number(6)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, body: &[u8]) -> Vec<u8> {
        let mut fields = [0; 13];
        (fields[6], fields[11]) = (body.len(), name.len() + 1);
        let numbers = fields.map(|field| format!("{field:08X}")).concat();
        let mut bytes = format!("070701{numbers}{name}\0").into_bytes();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn find_in(bytes: &[u8], name: &str) -> io::Result<Range<u64>> {
        find(name, |buffer, at| {
            let at = usize::try_from(at).unwrap();
            let there = bytes.get(at..at + buffer.len());
            buffer.copy_from_slice(there.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    #[test]
    fn an_entry_is_found_behind_another_archives_end() {
        let first = [entry("init", b"agent"), entry("TRAILER!!!", b"")].concat();
        let second = [entry("app", b""), entry(IMAGE, b"hsqs")].concat();
        let both = [first, second].concat();
        let found = find_in(&both, IMAGE).unwrap();
        assert_eq!(both[usize::try_from(found.start).unwrap()..][..4], *b"hsqs");
        assert_eq!(found.end - found.start, 4);
        assert!(find_in(&both, "app/rootfs").is_err());
    }

    #[test]
    fn what_is_no_archive_is_an_error() {
        let longest = entry("x", b"").iter().map(|_| b'F').collect::<Vec<_>>();
        for bytes in [b"".as_slice(), &[0; 200], &longest, b"070701", &[0xFF; 200]] {
            assert!(find_in(bytes, "x").is_err(), "{bytes:?}");
        }
        let endless = entry("a", b"").repeat(MAX_ENTRIES + 1);
        assert!(find_in(&endless, "x").is_err());
    }
}
