//! Extended attributes of an entry, which pax records of star carry.

use super::pax::Records;
use crate::rootfs::error::EntryProblem;
use crate::rootfs::tree::Xattrs;

/// Longest name in bytes (Linux, include/uapi/linux/limits.h, XATTR_NAME_MAX).
const MAX_NAME: usize = 255;
/// Longest value in bytes; Linux allows one more (XATTR_SIZE_MAX).
const MAX_VALUE: usize = u16::MAX as usize;
/// The prefixes that squashfs has numbers for.
const PREFIXES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];

/// Those that a root file system keeps. Attributes of the overlay would steer the kernel, and
/// SELinux labels belong to another machine's policy: both are dropped, as umoci does.
pub(super) fn xattrs(pax: &Records) -> Result<Xattrs, EntryProblem> {
    pax.iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(b"SCHILY.xattr.")?, value)))
        .filter(|(name, _)| !is_dropped(name))
        .map(|(name, value)| {
            let known = PREFIXES.iter().any(|prefix| name.starts_with(prefix));
            if known && name.len() <= MAX_NAME && value.len() <= MAX_VALUE {
                Ok((name.to_vec(), value.clone()))
            } else {
                Err(EntryProblem::Xattr(name.escape_ascii().to_string()))
            }
        })
        .collect()
}

fn is_dropped(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.")
        || name.starts_with(b"user.overlay.")
        || name == b"security.selinux"
}
