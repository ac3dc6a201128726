use super::*;
use crate::chain::AuditLine;
use crate::{AuditVerifyError, LineFault, verify, walk};
use tempfile::TempDir;

fn entry(n: usize) -> (AuditEntry, Room) {
    let by = Actor::process(Some(1000), Some(7));
    let entry = AuditEntry::new(AuditAction::Create, AuditOutcome::Begun, by);
    (entry.enclave(None, Some(&format!("app-{n}"))), Room::Ahead)
}

/// A writer that goes on in a new file after about three lines.
fn open(directory: &Path) -> Writer {
    Writer::open(directory, 700).unwrap()
}

fn append(writer: &mut Writer, n: usize) -> Result<u64, AuditError> {
    writer.append(&[entry(n)]).remove(0)
}

fn fill(writer: &mut Writer, count: usize) {
    for n in 0..count {
        append(writer, n).unwrap();
    }
}

fn lines(directory: &Path) -> Vec<AuditLine> {
    let mut lines = Vec::new();
    walk(directory, |line| lines.push(line.clone())).unwrap();
    lines
}

/// Memory, where there is any to be had as a directory: these tests sync thousands of times.
fn directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

#[test]
fn the_chain_goes_on_across_files_and_restarts() {
    let directory = directory();
    for n in 0..10 {
        let seq = append(&mut open(directory.path()), n).unwrap();
        assert_eq!(seq, n as u64 + 1);
    }
    let report = verify(directory.path(), None).unwrap();
    assert_eq!((report.first, report.lines, report.head.seq), (1, 10, 10));
    assert!(report.files >= 3 && report.notes.is_empty(), "{report:?}");
    // Older files may be kept elsewhere; each is a chain of its own too.
    let files = files::list(directory.path()).unwrap();
    fs::remove_file(&files[0].1).unwrap();
    let rest = verify(directory.path(), Some(&report.head.hash)).unwrap();
    assert_eq!((rest.first, rest.head), (files[1].0, report.head));
    assert_eq!(verify(&files[1].1, None).unwrap().first, files[1].0);
}

#[test]
fn entries_that_come_together_are_written_together() {
    let directory = directory();
    let mut writer = open(directory.path());
    let seqs = writer.append(&[entry(0), entry(1), entry(2)]);
    let seqs: Vec<u64> = seqs.into_iter().map(Result::unwrap).collect();
    assert_eq!(seqs, [1, 2, 3]);
    assert_eq!(lines(directory.path()).len(), 3);
}

/// Wherever the last write of a crashed daemon ended.
#[test]
fn a_crash_at_any_byte_loses_no_whole_line_and_is_written_down() {
    let original = directory();
    let mut writer = open(original.path());
    fill(&mut writer, 5);
    let before = lines(original.path());
    let (first, last) = files::list(original.path()).unwrap().pop().unwrap();
    let earlier = usize::try_from(first).unwrap() - 1;
    let bytes = fs::read(&last).unwrap();
    for end in 0..=bytes.len() {
        let copy = directory();
        for (_, path) in files::list(original.path()).unwrap() {
            fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
        let cut = copy.path().join(last.file_name().unwrap());
        let file = OpenOptions::new().write(true).open(cut).unwrap();
        file.set_len(end as u64).unwrap();
        append(&mut open(copy.path()), 9).unwrap();
        let after = lines(copy.path());
        let kept = &bytes[..end];
        let whole = kept.iter().filter(|byte| **byte == b'\n').count() + earlier;
        let is_torn = !kept.is_empty() && !kept.ends_with(b"\n");
        assert_eq!(after[..whole], before[..whole], "{end}");
        assert_eq!(after.len(), whole + 1 + usize::from(is_torn), "{end}");
        if is_torn {
            assert_eq!(after[whole].entry.outcome, "recovered");
            let aside = fs::read(copy.path().join(files::torn_name(whole as u64 + 1)));
            let start = kept
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |at| at + 1);
            assert_eq!(aside.unwrap(), kept[start..]);
        }
    }
}

/// A crash between the cut and the line that says so.
#[test]
fn a_line_that_was_set_aside_is_written_down_in_the_end() {
    let directory = directory();
    fill(&mut open(directory.path()), 1);
    fs::write(directory.path().join(files::torn_name(2)), "{\"seq\"").unwrap();
    drop(open(directory.path()));
    let lines = lines(directory.path());
    let note = lines[1].entry.note.as_deref().unwrap();
    assert!(note.starts_with("6 bytes of an unfinished line are in torn-000000000002"));
    drop(open(directory.path()));
    assert_eq!(verify(directory.path(), None).unwrap().lines, 2);
}

#[test]
fn a_write_that_fails_leaves_nothing_and_the_next_one_works() {
    let directory = directory();
    let mut writer = open(directory.path());
    append(&mut writer, 0).unwrap();
    // Part of a line arrived before the disk was full.
    writer.file.write_all(b"{\"seq\":2,\"ti").unwrap();
    let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
    let real = std::mem::replace(&mut writer.file, full);
    writer.is_torn = true;
    let (lacks, begun) = (entry(1), (entry(2).0, Room::Reserve));
    writer.reserved = 0;
    for result in writer.append(&[lacks, begun]) {
        assert!(matches!(result, Err(AuditError::File { .. })), "{result:?}");
    }
    writer.file = real;
    assert_eq!(append(&mut writer, 3).unwrap(), 2);
    let lines = lines(directory.path());
    let names: Vec<_> = lines
        .iter()
        .map(|line| line.entry.name.as_deref())
        .collect();
    assert_eq!(names, [Some("app-0"), Some("app-3")]);
}

/// On a full disk new orders are refused; what was begun ends, and what frees space is done.
#[test]
fn what_is_reserved_is_for_outcomes_and_terminations() {
    let directory = directory();
    let mut writer = open(directory.path());
    append(&mut writer, 0).unwrap();
    let blocks = std::os::unix::fs::MetadataExt::blocks(&writer.file.metadata().unwrap());
    assert!(blocks * 512 >= RESERVE, "{blocks} blocks");
    // The next file cannot be made: there is a directory in its place.
    let next = writer.directory.join(files::name(writer.head.seq + 1));
    fs::create_dir(&next).unwrap();
    writer.limit = 1;
    let mut results = writer.append(&[entry(1), (entry(2).0, Room::Reserve)]);
    assert_eq!(results.pop().unwrap().unwrap(), 2);
    assert!(results.pop().unwrap().is_err());
    fs::remove_dir(&next).unwrap();
    assert_eq!(lines(directory.path()).len(), 2);
}

#[test]
fn a_log_has_one_writer() {
    let directory = directory();
    let first = open(directory.path());
    let second = Writer::open(directory.path(), FILE_LIMIT).unwrap_err();
    assert!(matches!(second, AuditError::Locked(_)), "{second}");
    drop(first);
    open(directory.path());
}

#[test]
fn a_wrong_line_stays_where_it_is_and_the_log_goes_on_elsewhere() {
    let directory = directory();
    let mut writer = Writer::open(directory.path(), FILE_LIMIT).unwrap();
    fill(&mut writer, 4);
    let path = writer.path.clone();
    drop(writer);
    let forged = fs::read_to_string(&path).unwrap().replace("app-1", "app-x");
    fs::write(&path, &forged).unwrap();
    assert_eq!(append(&mut open(directory.path()), 5).unwrap(), 6);
    assert_eq!(fs::read_to_string(&path).unwrap(), forged);
    let error = verify(directory.path(), None).unwrap_err();
    assert!(
        matches!(
            &error,
            AuditVerifyError::Wrong {
                line: 2,
                fault: LineFault::Changed,
                ..
            }
        ),
        "{error}"
    );
    let next = directory.path().join(files::name(5));
    let report = verify(&next, None).unwrap();
    assert_eq!(
        report.notes,
        [(5, "line 2 of audit-000000000001.jsonl is wrong".to_owned())]
    );
}
