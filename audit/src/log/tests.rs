use super::*;
use crate::{AuditLine, verify, walk};
use std::net::IpAddr;
use tempfile::TempDir;

fn open() -> (TempDir, AuditLog) {
    let directory = tempfile::tempdir().unwrap();
    let log = AuditLog::open(directory.path()).unwrap();
    (directory, log)
}

fn lines(directory: &TempDir) -> Vec<AuditLine> {
    let mut lines = Vec::new();
    walk(directory.path(), |line| lines.push(line.clone())).unwrap();
    lines
}

#[tokio::test]
async fn an_order_is_in_the_file_before_it_is_carried_out_and_when_it_ends() {
    let (directory, log) = open();
    let by = Actor::process(Some(1000), Some(7));
    let name = |entry: AuditEntry| entry.enclave(None, Some("web"));
    let order = log.begin(AuditAction::Create, by, name).await.unwrap();
    assert_eq!(lines(&directory)[0].entry.outcome, "begun");
    order.refused(Code::NameTaken).await;
    let ended = lines(&directory).pop().unwrap();
    let AuditEntry {
        outcome,
        order,
        name,
        code,
        ..
    } = ended.entry;
    assert_eq!((outcome.as_str(), order), ("refused", Some(1)));
    assert_eq!(
        (name.as_deref(), code.as_deref()),
        (Some("web"), Some("NAME_TAKEN"))
    );
}

#[tokio::test]
async fn many_at_once_are_one_chain() {
    let (directory, log) = open();
    let tasks: Vec<_> = (0..500)
        .map(|n| {
            let (log, by) = (log.clone(), Actor::process(Some(n), None));
            let entry = AuditEntry::new(AuditAction::Credentials, AuditOutcome::Issued, by);
            tokio::spawn(async move { log.record(entry).await.unwrap() })
        })
        .collect();
    let mut seqs = Vec::new();
    for task in tasks {
        seqs.push(task.await.unwrap());
    }
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=500).collect::<Vec<u64>>());
    assert_eq!(verify(directory.path(), None).unwrap().lines, 500);
}

#[tokio::test]
async fn a_flood_of_refusals_is_a_line_and_a_number() {
    let (directory, log) = open();
    let stranger = Actor::caller(None, IpAddr::from([192, 0, 2, 1]));
    log.count_refusal(stranger.clone(), Code::TokenInvalid);
    // A line after it: the thread has seen the first.
    let entry = AuditEntry::new(
        AuditAction::Enclave,
        AuditOutcome::Deployed,
        Actor::daemon(),
    );
    log.record(entry).await.unwrap();
    log.flush().await;
    for _ in 0..10_000 {
        log.count_refusal(stranger.clone(), Code::TokenInvalid);
    }
    log.flush().await;
    let refused: Vec<AuditEntry> = lines(&directory)
        .into_iter()
        .map(|line| line.entry)
        .filter(|entry| entry.outcome == "refused")
        .collect();
    let counts: u64 = refused.iter().filter_map(|entry| entry.count).sum();
    assert!(refused.len() <= 2 && counts == 10_001, "{refused:?}");
    assert_eq!(refused[0].by.address.as_deref(), Some("192.0.2.1"));
}
