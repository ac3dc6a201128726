//! Writes uncompressed `newc` cpio archives, the form of the kernel's initramfs (Linux,
//! Documentation/driver-api/early-userspace/buffer-format.rst). No times, no inode numbers of the
//! building machine.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use wire::ramdisk::{ALIGN, HEADER};

const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
/// No type of file, and no permissions.
const NO_FILE: u32 = 0;

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
