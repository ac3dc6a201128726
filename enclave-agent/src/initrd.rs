//! The initial RAM disk as the kernel got it: the EIF's ramdisks, one behind the other. The kernel
//! unpacks the files in them and keeps the rest where it is (`retain_initrd`).

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

/// Where the kernel shows it (Linux, init/initramfs.c).
pub(crate) const PATH: &str = "/sys/firmware/initrd";

/// Where the body of an entry is, in bytes from the start.
pub(crate) fn find(name: &str) -> io::Result<Range<u64>> {
    let file = File::open(PATH)?;
    wire::ramdisk::find(name, |buffer, at| file.read_exact_at(buffer, at))
}
