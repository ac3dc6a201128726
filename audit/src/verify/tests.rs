use super::*;
use crate::writer::{Room, Writer};
use crate::{Actor, AuditEntry, AuditOutcome};
use proptest::prelude::*;
use std::sync::LazyLock;
use tempfile::TempDir;

/// Names and bytes of a log's files.
type Files = Vec<(String, Vec<u8>)>;

/// A log of several files, and its head.
static LOG: LazyLock<(Files, String)> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(directory.path(), 1500).unwrap();
    for n in 0..17 {
        let by = Actor::process(Some(n), None);
        let entry = AuditEntry::new(AuditAction::Create, AuditOutcome::Begun, by);
        writer
            .append(&[(entry.enclave(None, Some("a\\\"b")), Room::Ahead)])
            .remove(0)
            .unwrap();
    }
    let files = files::list(directory.path()).unwrap();
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read(path).unwrap())
    };
    let head = verify(directory.path(), None).unwrap().head.hash;
    (
        files.into_iter().map(|(_, path)| read(path)).collect(),
        head,
    )
});

/// What someone does to a file. Places are taken modulo what there is.
#[derive(Debug, Clone)]
enum Change {
    Byte(usize, u8),
    Remove(usize),
    Repeat(usize, usize),
    Swap(usize, usize),
    Cut(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let mut lines: Vec<Vec<u8>> = bytes
            .split_inclusive(|byte| *byte == b'\n')
            .map(<[u8]>::to_vec)
            .collect();
        let count = lines.len();
        match *self {
            Change::Byte(at, by) => {
                let at = at % bytes.len();
                bytes[at] ^= by;
                return;
            }
            Change::Cut(at) => return bytes.truncate(at % bytes.len()),
            Change::Remove(at) => drop(lines.remove(at % count)),
            Change::Repeat(at, to) => lines.insert(to % (count + 1), lines[at % count].clone()),
            Change::Swap(one, other) => lines.swap(one % count, other % count),
        }
        *bytes = lines.concat();
    }
}

fn change() -> impl Strategy<Value = Change> {
    let place = || any::<usize>();
    prop_oneof![
        (place(), 1u8..).prop_map(|(at, by)| Change::Byte(at, by)),
        place().prop_map(Change::Remove),
        (place(), place()).prop_map(|(at, to)| Change::Repeat(at, to)),
        (place(), place()).prop_map(|(one, other)| Change::Swap(one, other)),
        place().prop_map(Change::Cut),
    ]
}

fn write(files: &[(String, Vec<u8>)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(directory.path().join(name), bytes).unwrap();
    }
    directory
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn any_single_change_is_found(file in any::<usize>(), change in change()) {
        let (mut files, head) = LOG.clone();
        let at = file % files.len();
        change.apply(&mut files[at].1);
        let is_changed = files[at].1 != LOG.0[at].1;
        let directory = write(&files);
        prop_assert_eq!(verify(directory.path(), Some(&head)).is_err(), is_changed);
    }
}

#[test]
fn the_first_wrong_line_is_named() {
    let (files, head) = &*LOG;
    assert!(files.len() > 2, "{}", files.len());
    let fault = |file: usize, change: Change| {
        let mut files = files.clone();
        change.apply(&mut files[file].1);
        match verify(write(&files).path(), Some(head)) {
            Err(AuditVerifyError::Wrong { path, line, fault }) => {
                assert_eq!(path.file_name().unwrap().to_str().unwrap(), files[file].0);
                (line, fault)
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(fault(1, Change::Byte(20, 1)).0, 1);
    assert_eq!(
        fault(0, Change::Remove(1)),
        (
            2,
            LineFault::Number {
                expected: 2,
                found: 3
            }
        )
    );
    assert_eq!(
        fault(0, Change::Repeat(1, 2)),
        (
            3,
            LineFault::Number {
                expected: 3,
                found: 2
            }
        )
    );
    assert_eq!(fault(0, Change::Cut(400)), (2, LineFault::Unfinished));
    let first = files::first(Path::new(&files[1].0)).unwrap();
    let number = LineFault::Number {
        expected: first,
        found: first + 1,
    };
    assert_eq!(fault(1, Change::Remove(0)), (1, number));
}

#[test]
fn lines_that_are_gone_from_the_end_are_found_by_a_head_that_was_kept() {
    let (files, head) = &*LOG;
    let mut files = files.clone();
    let last = files.last_mut().unwrap();
    let end = last.1[..last.1.len() - 1]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    last.1.truncate(end);
    let directory = write(&files);
    assert!(verify(directory.path(), None).is_ok());
    let error = verify(directory.path(), Some(head)).unwrap_err();
    assert!(matches!(&error, AuditVerifyError::NoHead(hash) if hash == head));
}

#[test]
fn a_chain_that_was_computed_anew_in_the_middle_is_found() {
    let (files, _) = &*LOG;
    let mut files = files.clone();
    let mut head = ChainHead::genesis();
    let mut forged = Vec::new();
    for line in files[0]
        .1
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let mut line = chain::read(line, None).unwrap();
        line.entry.name = Some("forged".to_owned());
        let (bytes, next) = chain::line(&head, &line.time, &line.entry).unwrap();
        forged.extend(bytes);
        head = next;
    }
    files[0].1 = forged;
    let error = verify(write(&files).path(), None).unwrap_err();
    assert!(matches!(
        error,
        AuditVerifyError::Wrong {
            line: 1,
            fault: LineFault::Previous,
            ..
        }
    ));
}

#[test]
fn a_directory_without_a_log_is_no_whole_log() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(
        verify(directory.path(), None),
        Err(AuditVerifyError::Empty(_))
    ));
    let missing = directory.path().join("missing");
    assert!(matches!(
        verify(&missing, None),
        Err(AuditVerifyError::Read { .. })
    ));
}
