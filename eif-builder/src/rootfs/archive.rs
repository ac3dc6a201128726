//! Reads the tar entries of one layer (POSIX pax, GNU and v7 headers). Header fields are decoded by the `tar` crate; the walk from header
//! to header is ours, because extension records must be bounded before they are read and pax values may hold
//! newlines (a `security.capability` does).
//!
//! Where archivers disagree about an entry, it is refused: two readings of an image are two images.

use super::tree::Xattrs;
use super::{Device, Meta, RootfsError};
use oci::VerifiedLayer;
use std::collections::BTreeMap;

const BLOCK: u64 = 512;
/// Longest extension record (long name or pax), in bytes.
const MAX_EXTENSION: u64 = 1024 * 1024;
/// Longest path and link target (Linux: PATH_MAX), and longest component (NAME_MAX), in bytes.
const MAX_PATH: usize = 4096;
const MAX_NAME: usize = 255;
/// Entries of one layer. Each costs memory; real images have some ten thousand.
const MAX_ENTRIES: usize = 2_000_000;
/// Directories in one path: what the tree can be deep.
const MAX_COMPONENTS: usize = 1024;
/// Bytes of names, targets and attributes in one layer. Real images have a few MB.
const MAX_METADATA: usize = 256 * 1024 * 1024;

/// A path below the root, split; no component is empty, `.` or `..`. The root itself has none.
pub(super) type Path = Vec<Vec<u8>>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: Path,
    pub(super) meta: Meta,
    pub(super) kind: EntryKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EntryKind {
    Directory,
    /// Where the bytes stand in the archive.
    File {
        offset: u64,
        len: u64,
    },
    Symlink(Vec<u8>),
    HardLink(Path),
    Char(Device),
    Block(Device),
    Fifo,
}

/// All entries in order. `layer` is for messages: 1 is the lowest.
pub(super) fn entries(archive: &VerifiedLayer, layer: usize) -> Result<Vec<Entry>, RootfsError> {
    let mut walk = Walk {
        archive,
        layer,
        position: 0,
    };
    let mut entries = Vec::new();
    let mut metadata = 0;
    while let Some(entry) = walk.next_entry()? {
        metadata += entry.weight();
        if metadata > MAX_METADATA {
            return Err(RootfsError::TooMany {
                what: "bytes of names and attributes in one layer",
                limit: MAX_METADATA,
            });
        }
        if entries.len() == MAX_ENTRIES {
            return Err(RootfsError::TooMany {
                what: "entries in one layer",
                limit: MAX_ENTRIES,
            });
        }
        entries.push(entry);
    }
    Ok(entries)
}

impl Entry {
    /// About how many bytes of memory it takes.
    fn weight(&self) -> usize {
        let path = |path: &Path| path.iter().map(|name| name.len() + 48).sum::<usize>();
        let attributes = self
            .meta
            .xattrs
            .iter()
            .map(|(name, value)| name.len() + value.len() + 96)
            .sum::<usize>();
        let link = match &self.kind {
            EntryKind::Symlink(target) => target.len(),
            EntryKind::HardLink(target) => path(target),
            _ => 0,
        };
        size_of::<Entry>() + path(&self.path) + attributes + link
    }
}

struct Walk<'a> {
    archive: &'a VerifiedLayer,
    layer: usize,
    position: u64,
}

/// What extension records said about the entry that follows them.
#[derive(Default)]
struct Extensions {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Walk<'_> {
    fn error(&self, path: Option<&[u8]>, problem: impl Into<String>) -> RootfsError {
        let entry = path.map(|path| path.escape_ascii().to_string().chars().take(200).collect());
        RootfsError::Entry {
            layer: self.layer,
            entry,
            problem: problem.into(),
        }
    }

    fn read(&mut self, len: u64) -> Result<Vec<u8>, RootfsError> {
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        if self.position + len > self.archive.len() {
            return Err(self.error(None, "the archive ends in the middle of an entry"));
        }
        self.archive
            .read_exact_at(&mut bytes, self.position)
            .map_err(|source| RootfsError::Layer {
                layer: self.layer,
                source,
            })?;
        self.position += len;
        Ok(bytes)
    }

    /// `None` at the end: a block of zeros, or the end of the archive at a block's border.
    fn header(&mut self) -> Result<Option<tar::Header>, RootfsError> {
        if self.position == self.archive.len() {
            return Ok(None);
        }
        let block = self.read(BLOCK)?;
        if block.iter().all(|&b| b == 0) {
            return Ok(None);
        }
        let header = tar::Header::from_byte_slice(&block).clone();
        // The checksum counts its own field as blanks.
        let sum: u32 = block
            .iter()
            .enumerate()
            .map(|(at, &b)| {
                if (148..156).contains(&at) {
                    32
                } else {
                    u32::from(b)
                }
            })
            .sum();
        match header.cksum() {
            Ok(stored) if stored == sum => Ok(Some(header)),
            _ => Err(self.error(None, "a header has a wrong checksum")),
        }
    }

    fn extension(&mut self, header: &tar::Header) -> Result<Vec<u8>, RootfsError> {
        let len = header
            .entry_size()
            .map_err(|e| self.error(None, e.to_string()))?;
        if len > MAX_EXTENSION {
            return Err(self.error(
                None,
                format!("an extension record is longer than {MAX_EXTENSION} bytes"),
            ));
        }
        let bytes = self.read(len)?;
        self.skip_padding(len)?;
        Ok(bytes)
    }

    fn skip_padding(&mut self, len: u64) -> Result<(), RootfsError> {
        self.position += len.next_multiple_of(BLOCK) - len;
        match self.position <= self.archive.len() {
            true => Ok(()),
            false => Err(self.error(None, "the archive ends in the middle of an entry")),
        }
    }

    fn next_entry(&mut self) -> Result<Option<Entry>, RootfsError> {
        let mut extensions = Extensions::default();
        loop {
            let Some(header) = self.header()? else {
                return match extensions.is_empty() {
                    true => Ok(None),
                    false => Err(self.error(None, "the archive ends after an extension record")),
                };
            };
            let duplicate = |what: &str| format!("two {what} records stand before one entry");
            match header.entry_type() {
                tar::EntryType::GNULongName => {
                    let name = until_nul(self.extension(&header)?);
                    if extensions.long_name.replace(name).is_some() {
                        return Err(self.error(None, duplicate("long name")));
                    }
                }
                tar::EntryType::GNULongLink => {
                    let link = until_nul(self.extension(&header)?);
                    if extensions.long_link.replace(link).is_some() {
                        return Err(self.error(None, duplicate("long link")));
                    }
                }
                tar::EntryType::XHeader => {
                    if !extensions.pax.is_empty() {
                        return Err(self.error(None, duplicate("pax")));
                    }
                    let bytes = self.extension(&header)?;
                    extensions.pax =
                        pax(&bytes).ok_or_else(|| self.error(None, "a pax record is malformed"))?;
                }
                tar::EntryType::XGlobalHeader => {
                    let bytes = self.extension(&header)?;
                    let global =
                        pax(&bytes).ok_or_else(|| self.error(None, "a pax record is malformed"))?;
                    if let Some(key) = global.keys().find(|key| changes_entries(key)) {
                        return Err(self.error(
                            None,
                            format!("a global pax record sets '{}'", key.escape_ascii()),
                        ));
                    }
                }
                _ => return self.entry(&header, extensions).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        header: &tar::Header,
        extensions: Extensions,
    ) -> Result<Entry, RootfsError> {
        let Extensions {
            long_name,
            long_link,
            pax,
        } = extensions;
        let raw_path = pax
            .get(b"path".as_slice())
            .cloned()
            .or(long_name)
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let fail = |problem: String| self.error(Some(&raw_path), problem);
        if let Some(key) = pax.keys().find(|key| key.starts_with(b"GNU.sparse.")) {
            return Err(fail(format!(
                "sparse files are not supported ({})",
                key.escape_ascii()
            )));
        }
        let number = |key: &str, field: std::io::Result<u64>| match pax.get(key.as_bytes()) {
            Some(text) => decimal(text).ok_or_else(|| fail(format!("pax '{key}' is not a number"))),
            None => field.map_err(|_| fail(format!("the header's {key} is not a number"))),
        };
        let id = |key: &str, field| {
            number(key, field).and_then(|id| {
                u32::try_from(id).map_err(|_| fail(format!("{key} {id} is above 4294967295")))
            })
        };
        let len = number("size", header.entry_size())?;
        let meta = Meta {
            mode: u16::try_from(
                header
                    .mode()
                    .map_err(|_| fail("the mode is not a number".to_owned()))?
                    & 0o7777,
            )
            .unwrap_or(0),
            uid: id("uid", header.uid())?,
            gid: id("gid", header.gid())?,
            mtime: match pax.get(b"mtime".as_slice()) {
                Some(text) => {
                    seconds(text).ok_or_else(|| fail("pax 'mtime' is not a time".to_owned()))?
                }
                None => u32::try_from(header.mtime().unwrap_or(0)).unwrap_or(u32::MAX),
            },
            xattrs: xattrs(&pax).map_err(fail)?,
        };
        let path = split(&raw_path).map_err(fail)?;
        let link = || {
            let link = pax
                .get(b"linkpath".as_slice())
                .cloned()
                .or(long_link.clone());
            let link = link.or_else(|| header.link_name_bytes().map(|name| name.into_owned()));
            link.filter(|link| !link.is_empty() && link.len() <= MAX_PATH && !link.contains(&0))
                .ok_or_else(|| {
                    fail("the link's target is empty, too long or holds a NUL".to_owned())
                })
        };
        let device = || {
            let major = header.device_major().ok().flatten().unwrap_or(0);
            let minor = header.device_minor().ok().flatten().unwrap_or(0);
            match (major, minor) {
                // Overlayfs takes 0:0 for a whiteout (kernel, overlayfs.rst).
                (0, 0) => Err(fail("a device 0:0 is a whiteout to the kernel".to_owned())),
                (major, minor) if major < 1 << 12 && minor < 1 << 20 => Ok(Device { major, minor }),
                _ => Err(fail(format!(
                    "device {major}:{minor} does not exist on Linux"
                ))),
            }
        };
        use tar::EntryType as T;
        let kind = match header.entry_type() {
            // v7 archives mark a directory by its name.
            T::Regular | T::Continuous if !raw_path.ends_with(b"/") => EntryKind::File {
                offset: self.position,
                len,
            },
            T::Regular | T::Continuous | T::Directory => EntryKind::Directory,
            T::Symlink => EntryKind::Symlink(link()?),
            T::Link => EntryKind::HardLink(split(&link()?).map_err(fail)?),
            T::Char => EntryKind::Char(device()?),
            T::Block => EntryKind::Block(device()?),
            T::Fifo => EntryKind::Fifo,
            T::GNUSparse => return Err(fail("sparse files are not supported".to_owned())),
            other => {
                return Err(fail(format!(
                    "entries of type '{}' are not known",
                    char::from(other.as_byte()).escape_default()
                )));
            }
        };
        if let EntryKind::File { .. } = kind {
            if len > self.archive.len() - self.position {
                return Err(fail(
                    "the archive ends in the middle of the file".to_owned(),
                ));
            }
            self.position += len;
            self.skip_padding(len)?;
        } else if len != 0 {
            return Err(fail("only files have a body".to_owned()));
        }
        Ok(Entry { path, meta, kind })
    }
}

impl Extensions {
    fn is_empty(&self) -> bool {
        self.long_name.is_none() && self.long_link.is_none() && self.pax.is_empty()
    }
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

/// `LENGTH KEY=VALUE\n`, where LENGTH counts the whole record (POSIX.1-2017, pax, "pax Extended Header").
fn pax(mut bytes: &[u8]) -> Option<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut records = BTreeMap::new();
    while !bytes.is_empty() {
        let space = bytes.iter().take(20).position(|&b| b == b' ')?;
        let len = usize::try_from(decimal(bytes.get(..space)?)?).ok()?;
        let record = bytes.get(space + 1..len)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|&b| b == b'=')?;
        // A key that occurs again replaces, says POSIX; no honest writer does it.
        if records
            .insert(
                record.get(..equals)?.to_vec(),
                record.get(equals + 1..)?.to_vec(),
            )
            .is_some()
        {
            return None;
        }
        bytes = bytes.get(len..)?;
    }
    Some(records)
}

fn changes_entries(key: &[u8]) -> bool {
    [
        b"path".as_slice(),
        b"linkpath",
        b"size",
        b"uid",
        b"gid",
        b"mtime",
    ]
    .contains(&key)
        || key.starts_with(b"SCHILY.xattr.")
        || key.starts_with(b"GNU.sparse.")
}

fn decimal(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

/// Whole seconds; squashfs has 32 bits for them, so what lies outside is brought to the border.
fn seconds(text: &[u8]) -> Option<u32> {
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

/// Extended attributes that a root file system keeps. Those of the overlay would steer the kernel, and SELinux labels
/// belong to another machine's policy: both are left out, as umoci does.
fn xattrs(pax: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<Xattrs, String> {
    let named = pax
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(b"SCHILY.xattr.")?, value)));
    let dropped = |name: &[u8]| {
        name.starts_with(b"trusted.overlay.")
            || name.starts_with(b"user.overlay.")
            || name == b"security.selinux"
    };
    named
        .filter(|(name, _)| !dropped(name))
        .map(|(name, value)| {
            let known = [b"user.".as_slice(), b"trusted.", b"security."]
                .iter()
                .any(|prefix| name.starts_with(prefix));
            match known && name.len() <= MAX_NAME && value.len() <= usize::from(u16::MAX) {
                true => Ok((name.to_vec(), value.clone())),
                false => Err(format!(
                    "squashfs cannot hold the attribute '{}'",
                    name.escape_ascii()
                )),
            }
        })
        .collect()
}

fn split(path: &[u8]) -> Result<Path, String> {
    if path.len() > MAX_PATH {
        return Err(format!("the path is longer than {MAX_PATH} bytes"));
    }
    let components: Path = path
        .split(|&b| b == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(<[u8]>::to_vec)
        .collect();
    if components.len() > MAX_COMPONENTS {
        return Err(format!(
            "more than {MAX_COMPONENTS} directories below one another"
        ));
    }
    for part in &components {
        if part == b".." {
            return Err("the path leads out of its directory".to_owned());
        }
        if part.contains(&0) || part.len() > MAX_NAME {
            return Err(format!(
                "a name holds a NUL or is longer than {MAX_NAME} bytes"
            ));
        }
    }
    Ok(components)
}

/// A layer for tests, verified against the digest of what it is made of.
#[cfg(test)]
pub(super) fn layer_of(tar: &[u8]) -> VerifiedLayer {
    VerifiedLayer::from_archive(tar, oci::Digest::of(tar)).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, kind: u8, size: u64, change: impl Fn(&mut tar::Header)) -> Vec<u8> {
        let mut header = tar::Header::new_ustar();
        header.as_ustar_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_size(size);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        change(&mut header);
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    fn with_body(mut header: Vec<u8>, body: &[u8]) -> Vec<u8> {
        header.extend_from_slice(body);
        header.resize(header.len().next_multiple_of(512), 0);
        header
    }

    fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
        let rest = [b" ", key, b"=", value, b"\n"].concat();
        let len = (rest.len()..)
            .find(|len| len.to_string().len() + rest.len() == *len)
            .unwrap();
        [len.to_string().into_bytes(), rest].concat()
    }

    fn extension(kind: u8, body: &[u8]) -> Vec<u8> {
        with_body(header("ext", kind, body.len() as u64, |_| {}), body)
    }

    fn read(parts: &[Vec<u8>]) -> Result<Vec<Entry>, String> {
        entries(&layer_of(&parts.concat()), 1).map_err(|e| e.to_string())
    }

    fn file(name: &str) -> Vec<u8> {
        with_body(header(name, b'0', 3, |_| {}), b"abc")
    }

    #[test]
    fn pax_values_may_hold_newlines_and_beat_the_header() {
        let body = [
            record(b"path", b"long/name"),
            record(b"uid", b"70000"),
            record(b"mtime", b"-3.5"),
            record(
                b"SCHILY.xattr.security.capability",
                b"\x01\x00\x00\x02\n\n=\x00",
            ),
        ]
        .concat();
        let entries = read(&[extension(b'x', &body), file("short"), vec![0; 1024]]).unwrap();
        let [entry] = entries.as_slice() else {
            panic!("{entries:?}")
        };
        assert_eq!(entry.path, [b"long".to_vec(), b"name".to_vec()]);
        assert_eq!((entry.meta.uid, entry.meta.mtime), (70000, 0));
        assert_eq!(
            entry.meta.xattrs,
            [(
                b"security.capability".to_vec(),
                b"\x01\x00\x00\x02\n\n=\x00".to_vec()
            )]
        );
        assert_eq!(
            entry.kind,
            EntryKind::File {
                offset: 512 * 3,
                len: 3
            }
        );
    }

    #[test]
    fn a_pax_size_moves_the_next_header() {
        // The header claims 0 bytes, pax 512: a reader that believes the header sees the smuggled entry.
        let smuggled = file("smuggled");
        let outer = [header("outer", b'0', 0, |_| {}), smuggled[..512].to_vec()].concat();
        let entries = read(&[
            extension(b'x', &record(b"size", b"512")),
            outer,
            file("next"),
        ])
        .unwrap();
        let names: Vec<_> = entries.iter().map(|entry| entry.path.concat()).collect();
        assert_eq!(names, [b"outer".to_vec(), b"next".to_vec()]);
    }

    #[test]
    fn gnu_long_names_apply_to_the_next_entry_only() {
        let long = format!("{}/x", "d".repeat(200));
        let entries = read(&[
            extension(b'L', format!("{long}\0").as_bytes()),
            file("a"),
            file("b"),
        ])
        .unwrap();
        assert_eq!(entries[0].path.concat().len(), 201);
        assert_eq!(entries[1].path, [b"b".to_vec()]);
    }

    #[test]
    fn refuses_what_two_readers_could_read_differently() {
        let cases: Vec<(&str, Vec<Vec<u8>>)> = vec![
            ("wrong checksum", vec![vec![1; 512]]),
            ("leads out", vec![file("../x")]),
            ("leads out", vec![file("a/../../x")]),
            (
                "two pax",
                vec![
                    extension(b'x', &record(b"path", b"a")),
                    extension(b'x', &record(b"path", b"b")),
                    file("c"),
                ],
            ),
            (
                "malformed",
                vec![extension(b'x', b"99 path=a\n"), file("c")],
            ),
            (
                "malformed",
                vec![
                    extension(
                        b'x',
                        &[record(b"path", b"a"), record(b"path", b"b")].concat(),
                    ),
                    file("c"),
                ],
            ),
            (
                "global pax record sets 'path'",
                vec![extension(b'g', &record(b"path", b"a")), file("c")],
            ),
            (
                "after an extension",
                vec![extension(b'x', &record(b"path", b"a"))],
            ),
            (
                "sparse",
                vec![
                    extension(b'x', &record(b"GNU.sparse.major", b"1")),
                    file("c"),
                ],
            ),
            (
                "sparse",
                vec![
                    file("c")
                        .into_iter()
                        .enumerate()
                        .map(|(i, b)| if i == 156 { b'S' } else { b })
                        .collect(),
                ],
            ),
            (
                "only files have a body",
                vec![with_body(header("d", b'5', 3, |_| {}), b"abc")],
            ),
            (
                "above 4294967295",
                vec![extension(b'x', &record(b"uid", b"4294967296")), file("c")],
            ),
            (
                "holds a NUL",
                vec![extension(b'x', &record(b"path", b"a\0b")), file("c")],
            ),
            (
                "longer than 255",
                vec![extension(b'L', "n".repeat(256).as_bytes()), file("c")],
            ),
            (
                "longer than 4096",
                vec![extension(b'L', "n/".repeat(2100).as_bytes()), file("c")],
            ),
            ("not known", vec![header("z", b'Z', 0, |_| {})]),
            ("0:0 is a whiteout", vec![header("c", b'3', 0, |_| {})]),
            (
                "cannot hold the attribute",
                vec![
                    extension(b'x', &record(b"SCHILY.xattr.system.posix_acl_access", b"x")),
                    file("c"),
                ],
            ),
            (
                "middle of the file",
                vec![header("f", b'0', 600, |_| {}), vec![0; 512]],
            ),
            ("target is empty", vec![header("l", b'2', 0, |_| {})]),
        ];
        let deep = "a/".repeat(MAX_COMPONENTS + 1);
        assert!(
            read(&[extension(b'L', deep.as_bytes()), file("c")])
                .unwrap_err()
                .contains("more than 1024 directories")
        );
        for (problem, mut parts) in cases {
            if problem == "sparse" {
                // The type byte changed: mend the checksum.
                for part in &mut parts {
                    let mut fixed = tar::Header::from_byte_slice(&part[..512]).clone();
                    fixed.set_cksum();
                    part[..512].copy_from_slice(fixed.as_bytes());
                }
            }
            let error = read(&parts).unwrap_err();
            assert!(error.contains(problem), "{problem}: {error}");
        }
    }

    #[test]
    fn a_harmless_global_record_is_passed_over() {
        let entries = read(&[extension(b'g', &record(b"comment", b"0123abc")), file("c")]).unwrap();
        assert_eq!(entries.len(), 1);
    }

    #[test]
    fn an_extension_record_is_bounded_before_it_is_read() {
        let huge = header("ext", b'x', MAX_EXTENSION + 1, |_| {});
        assert!(read(&[huge]).unwrap_err().contains("longer than"));
    }

    #[test]
    fn keeps_all_mode_bits_and_bytes_of_names() {
        let mut entry = header("bin", b'0', 0, |header| header.set_mode(0o106755));
        entry[0] = 0xff;
        let mut fixed = tar::Header::from_byte_slice(&entry).clone();
        fixed.set_cksum();
        let entries = read(&[fixed.as_bytes().to_vec()]).unwrap();
        assert_eq!(
            (entries[0].meta.mode, entries[0].path[0].as_slice()),
            (0o6755, b"\xffin".as_slice())
        );
    }

    proptest::proptest! {
        #[test]
        fn any_archive_gives_entries_or_an_error(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..2048)) {
            let _ = read(&[bytes]);
        }
    }
}
