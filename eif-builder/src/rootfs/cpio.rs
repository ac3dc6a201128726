//! Writes uncompressed `newc` cpio archives, the form of the kernel's initramfs (Linux,
//! Documentation/driver-api/early-userspace/buffer-format.rst). No times, no inode numbers of the
//! building machine.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
/// No type of file, and no permissions.
const NO_FILE: u32 = 0;
/// Bytes of a header without the name.
const HEADER: usize = 110;
/// The kernel looks for the next archive at a multiple of 4; everything here is aligned to it.
const ALIGN: u64 = 4;

/// Writes an archive into a file. Names are paths without a leading slash; a directory comes before
/// what is in it.
///
/// All methods block on the disk, and fail if it does.
#[derive(Debug)]
pub struct Cpio<'a> {
    file: &'a File,
    base: u64,
    len: u64,
    inode: u32,
}

/// Bytes that the kernel passes over, whose length is known only once they were written.
#[derive(Debug)]
pub struct UnfinishedBytes {
    header_at: u64,
    name: &'static str,
    inode: u32,
    /// Where the body starts, in bytes from the start of the file that holds the archive.
    pub body_at: u64,
}

impl<'a> Cpio<'a> {
    /// Starts an archive at byte `base` of the file.
    pub fn new(file: &'a File, base: u64) -> Cpio<'a> {
        Cpio {
            file,
            base,
            len: 0,
            inode: 0,
        }
    }

    /// Adds an empty directory with mode 0755.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn directory(&mut self, name: &'static str) -> io::Result<()> {
        let inode = self.next_inode();
        self.append(&header(name, inode, S_IFDIR | 0o755, 0)?)
    }

    /// Adds a file. `mode` has its permission bits.
    ///
    /// # Errors
    /// The file cannot be written, or the body has 4 GiB or more.
    pub fn file(&mut self, name: &'static str, mode: u32, body: &[u8]) -> io::Result<()> {
        let inode = self.next_inode();
        self.append(&header(name, inode, S_IFREG | mode, body.len() as u64)?)?;
        self.append(body)?;
        self.align()
    }

    /// Starts bytes that become no file: the kernel passes over the body of an entry that is neither
    /// a regular file nor a symbolic link (Linux, init/initramfs.c, `do_header`). They stay where
    /// they are in memory. The caller writes them at [`body_at`](UnfinishedBytes::body_at) and then
    /// calls [`Cpio::close`].
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn open_bytes(&mut self, name: &'static str) -> io::Result<UnfinishedBytes> {
        let inode = self.next_inode();
        let header_at = self.base + self.len;
        self.append(&header(name, inode, NO_FILE, 0)?)?;
        Ok(UnfinishedBytes {
            header_at,
            name,
            inode,
            body_at: self.base + self.len,
        })
    }

    /// Ends an entry whose `len` bytes were written.
    ///
    /// # Errors
    /// The file cannot be written, or the body has 4 GiB or more.
    pub fn close(&mut self, bytes: UnfinishedBytes, len: u64) -> io::Result<()> {
        let UnfinishedBytes {
            header_at,
            name,
            inode,
            body_at: _,
        } = bytes;
        self.file
            .write_all_at(&header(name, inode, NO_FILE, len)?, header_at)?;
        self.len += len;
        self.align()
    }

    /// Ends the archive and returns its length in bytes, a multiple of 4.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(mut self) -> io::Result<u64> {
        self.append(&header("TRAILER!!!", 0, 0, 0)?)?;
        Ok(self.len)
    }

    fn next_inode(&mut self) -> u32 {
        self.inode += 1;
        self.inode
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.base + self.len)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn align(&mut self) -> io::Result<()> {
        while !self.len.is_multiple_of(ALIGN) {
            self.append(&[0])?;
        }
        Ok(())
    }
}

/// Reads one file of an archive that [`Cpio`] wrote; `archive` is where it is in the file that holds
/// it. Blocks on the disk.
///
/// # Errors
/// The file cannot be read, has no entry of this name, or one of more than `max_len` bytes.
pub fn read_file(
    file: &File,
    archive: Range<u64>,
    name: &str,
    max_len: usize,
) -> io::Result<Vec<u8>> {
    let missing = || io::Error::other(format!("it has no {name}"));
    // From the start of the archive: what is aligned is aligned to that.
    let mut at = 0;
    while at < archive.end - archive.start {
        let header_at = archive.start + at;
        let mut fields = [0; HEADER];
        file.read_exact_at(&mut fields, header_at)?;
        let (len, name_len) = (number(&fields, 6)?, number(&fields, 11)?);
        let body_at = (at + HEADER as u64 + name_len).next_multiple_of(ALIGN);
        let is_named = name_len == name.len() as u64 + 1 && {
            let mut found = vec![0; name.len()];
            file.read_exact_at(&mut found, header_at + HEADER as u64)?;
            found == name.as_bytes()
        };
        if is_named {
            let len = usize::try_from(len).ok().filter(|len| *len <= max_len);
            let mut body = vec![0; len.ok_or_else(missing)?];
            file.read_exact_at(&mut body, archive.start + body_at)?;
            return Ok(body);
        }
        at = (body_at + len).next_multiple_of(ALIGN);
    }
    Err(missing())
}

/// One of the thirteen numbers of a header.
fn number(header: &[u8; HEADER], index: usize) -> io::Result<u64> {
    let digits = header.get(6 + 8 * index..14 + 8 * index);
    digits
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| u32::from_str_radix(digits, 16).ok())
        .map(u64::from)
        .ok_or_else(|| io::Error::other("it is no cpio archive"))
}

/// Magic, thirteen numbers of eight hexadecimal digits, the name with a NUL, padding.
fn header(name: &str, inode: u32, mode: u32, len: u64) -> io::Result<Vec<u8>> {
    let len = u32::try_from(len)
        .map_err(|_| io::Error::other("a cpio archive holds files below 4 GiB only"))?;
    let name_len = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
    let nlink = if mode & S_IFDIR != 0 { 2 } else { 1 };
    let fields = [inode, mode, 0, 0, nlink, 0, len, 0, 0, 0, 0, name_len, 0];
    let mut bytes = b"070701".to_vec();
    for field in fields {
        bytes.extend(format!("{field:08X}").into_bytes());
    }
    debug_assert_eq!(bytes.len(), HEADER);
    bytes.extend(name.as_bytes());
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    Ok(bytes)
}
