//! The initial RAM disk as the kernel got it: the EIF's ramdisks, one behind the other, each a cpio
//! archive. The kernel unpacks the files in it and keeps the rest where it is (`retain_initrd`).

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

/// Where the kernel shows it (Linux, init/initramfs.c).
pub(crate) const PATH: &str = "/sys/firmware/initrd";
/// Bytes of a header without the name (Linux, early-userspace/buffer-format.rst).
const HEADER: usize = 110;
const ALIGN: u64 = 4;
/// Both ramdisks have a dozen entries together.
const MAX_ENTRIES: usize = 64;

/// Where the body of an entry is, in bytes from the start. Gives the first of its name.
pub(crate) fn find(name: &str) -> io::Result<Range<u64>> {
    find_in(&File::open(PATH)?, name)
}

fn find_in(file: &File, name: &str) -> io::Result<Range<u64>> {
    let mut at = 0_u64;
    for _ in 0..MAX_ENTRIES {
        let entry = Entry::read(file, at)?;
        if entry.is_called(file, name)? {
            return Ok(entry.body);
        }
        at = entry.body.end.next_multiple_of(ALIGN);
    }
    Err(io::Error::other(format!("there is no '{name}' in {PATH}")))
}

/// One header, read.
struct Entry {
    name: Range<u64>,
    body: Range<u64>,
}

impl Entry {
    fn read(file: &File, at: u64) -> io::Result<Entry> {
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, at)?;
        let damaged = || io::Error::other(format!("{PATH} holds no cpio archive at byte {at}"));
        let text = str::from_utf8(&header).map_err(|_| damaged())?;
        let number = |nth: usize| {
            let digits = text.get(6 + 8 * nth..14 + 8 * nth).ok_or_else(damaged)?;
            u64::from_str_radix(digits, 16).map_err(|_| damaged())
        };
        if !text.starts_with("070701") {
            return Err(damaged());
        }
        let (size, name_len) = (number(6)?, number(11)?);
        let name = at + HEADER as u64;
        let body = (name + name_len).next_multiple_of(ALIGN);
        Ok(Entry {
            name: name..name + name_len,
            body: body..body + size,
        })
    }

    /// The name in the archive ends with a NUL.
    fn is_called(&self, file: &File, name: &str) -> io::Result<bool> {
        if self.name.end - self.name.start != name.len() as u64 + 1 {
            return Ok(false);
        }
        let mut bytes = vec![0; name.len()];
        file.read_exact_at(&mut bytes, self.name.start)?;
        Ok(bytes == name.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

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

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn an_entry_is_found_behind_another_archives_end() {
        let first = [entry("init", b"agent"), entry("TRAILER!!!", b"")].concat();
        let second = [entry("app", b""), entry("app/rootfs.squashfs", b"hsqs")].concat();
        let both = file(&[first, second].concat());
        let found = find_in(&both, "app/rootfs.squashfs").unwrap();
        let mut body = [0; 4];
        both.read_exact_at(&mut body, found.start).unwrap();
        assert_eq!((&body, found.end - found.start), (b"hsqs", 4));
        assert!(find_in(&both, "app/rootfs").is_err());
    }

    #[test]
    fn what_is_no_archive_is_an_error() {
        let longest = entry("x", b"").iter().map(|_| b'F').collect::<Vec<_>>();
        for bytes in [b"".as_slice(), &[0; 200], &longest, b"070701", &[0xFF; 200]] {
            assert!(find_in(&file(bytes), "x").is_err(), "{bytes:?}");
        }
        let endless = entry("a", b"").repeat(MAX_ENTRIES + 1);
        assert!(find_in(&file(&endless), "x").is_err());
    }
}
