//! Archives made by hand, byte by byte: what archivers write, and what none should accept.

use super::*;
use crate::rootfs::path::PathError;
use proptest::collection::vec;
use proptest::prelude::any;

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

fn read(parts: &[Vec<u8>]) -> Result<Vec<Entry>, EntryProblem> {
    let tar = parts.concat();
    let layer = VerifiedLayer::from_archive(&tar, oci::Digest::of(&tar)).unwrap();
    entries(&layer, 1).map_err(|error| match error {
        RootfsError::Entry { problem, .. } => problem,
        other => panic!("{other}"),
    })
}

fn path(path: &str) -> TreePath {
    TreePath::parse(path.as_bytes()).unwrap()
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
    assert_eq!(entry.path, path("long/name"));
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
    // The header claims 0 bytes, pax 512: a reader that believes the header sees the smuggled
    // entry.
    let smuggled = file("smuggled");
    let outer = [header("outer", b'0', 0, |_| {}), smuggled[..512].to_vec()].concat();
    let entries = read(&[
        extension(b'x', &record(b"size", b"512")),
        outer,
        file("next"),
    ])
    .unwrap();
    let names: Vec<_> = entries.into_iter().map(|entry| entry.path).collect();
    assert_eq!(names, [path("outer"), path("next")]);
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
    assert_eq!(entries[0].path, path(&long));
    assert_eq!(entries[1].path, path("b"));
}

/// A pax record before a file.
fn with_pax(key: &[u8], value: &[u8]) -> Vec<Vec<u8>> {
    vec![extension(b'x', &record(key, value)), file("c")]
}

/// A GNU long name before a file.
fn with_name(name: &str) -> Vec<Vec<u8>> {
    vec![extension(b'L', name.as_bytes()), file("c")]
}

fn entry_of_type(kind: u8) -> Vec<Vec<u8>> {
    vec![header("c", kind, 0, |_| {})]
}

fn refuses(cases: Vec<(EntryProblem, Vec<Vec<u8>>)>) {
    for (expected, parts) in cases {
        assert_eq!(read(&parts), Err(expected));
    }
}

#[test]
fn refuses_what_two_readers_could_read_differently() {
    use EntryProblem::*;
    let path = |path| record(b"path", path);
    let (a, b) = (extension(b'x', &path(b"a")), extension(b'x', &path(b"b")));
    let twice = extension(b'x', &[path(b"a"), path(b"b")].concat());
    let global = extension(b'g', &path(b"a"));
    let sparse = "GNU.sparse.major".to_owned();
    refuses(vec![
        (Checksum, vec![vec![1; 512]]),
        (DuplicateExtension("pax"), vec![a.clone(), b, file("c")]),
        (
            MalformedPax,
            vec![extension(b'x', b"99 path=a\n"), file("c")],
        ),
        (MalformedPax, vec![twice, file("c")]),
        (GlobalPax("path".to_owned()), vec![global, file("c")]),
        (EndsAfterExtension, vec![a]),
        (SparseRecord(sparse), with_pax(b"GNU.sparse.major", b"1")),
        (Sparse, entry_of_type(b'S')),
    ]);
}

#[test]
fn refuses_entries_that_a_root_file_system_cannot_hold() {
    use EntryProblem::*;
    let id = 4_294_967_296;
    let acl = "system.posix_acl_access";
    let key = format!("SCHILY.xattr.{acl}");
    let directory_with_data = with_body(header("d", b'5', 3, |_| {}), b"abc");
    let short_file = vec![header("f", b'0', 600, |_| {}), vec![0; 512]];
    refuses(vec![
        (UnexpectedBody, vec![directory_with_data]),
        (
            IdTooLarge { key: "uid", id },
            with_pax(b"uid", b"4294967296"),
        ),
        (UnknownType(b'Z'), entry_of_type(b'Z')),
        (WhiteoutDevice, entry_of_type(b'3')),
        (Xattr(acl.to_owned()), with_pax(key.as_bytes(), b"x")),
        (FileTruncated, short_file),
        (LinkTarget, entry_of_type(b'2')),
    ]);
}

#[test]
fn refuses_paths_that_lead_out_or_are_too_long() {
    use PathError::*;
    refuses(vec![
        (DotDot.into(), vec![file("../x")]),
        (DotDot.into(), vec![file("a/../../x")]),
        (Name.into(), with_pax(b"path", b"a\0b")),
        (Name.into(), with_name(&"n".repeat(256))),
        (TooLong.into(), with_name(&"n/".repeat(2100))),
        (TooDeep.into(), with_name(&"a/".repeat(1025))),
    ]);
}

#[test]
fn a_harmless_global_record_is_ignored() {
    let entries = read(&[extension(b'g', &record(b"comment", b"0123abc")), file("c")]).unwrap();
    assert_eq!(entries.len(), 1);
}

#[test]
fn an_extension_record_is_bounded_before_it_is_read() {
    let huge = header("ext", b'x', MAX_EXTENSION + 1, |_| {});
    let limit = MAX_EXTENSION;
    assert_eq!(read(&[huge]), Err(EntryProblem::ExtensionTooLong { limit }));
}

#[test]
fn keeps_all_mode_bits_and_bytes_of_names() {
    let mut entry = header("bin", b'0', 0, |header| header.set_mode(0o106755));
    entry[0] = 0xff;
    let mut fixed = tar::Header::from_byte_slice(&entry).clone();
    fixed.set_cksum();
    let entries = read(&[fixed.as_bytes().to_vec()]).unwrap();
    assert_eq!(
        (entries[0].meta.mode, entries[0].path.to_bytes()),
        (0o6755, b"\xffin".to_vec())
    );
}

proptest::proptest! {
    #[test]
    fn any_archive_gives_entries_or_an_error(bytes in vec(any::<u8>(), 0..2048)) {
        drop(read(&[bytes]));
    }
}
