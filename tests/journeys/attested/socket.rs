//! What the workload gets of the agent, and what strangers take of it.

use super::Enclave;
use serde_json::Value;
use sha2::{Digest as _, Sha384};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use tests::daemon::CommandOutput;
use tests::{tcp, wait_for};

const SPEC: &str = "[resources]\nmemory_mib = 512\ncpus = 2\n[logs]\nforward = true\n\
    [network]\nattestation = '127.0.0.1:0'\nattestation_per_source = 300\n[attestation]\nusers = ['app']\nextend = [17]\n";
/// What a program that serves a service must not take as its own agent's word.
const FORGED: &[u8] = b"redoubt/1 endpoint\nmine";
/// Clients at a time; several times what the agent serves.
const CLIENTS: usize = 300;

#[test]
#[cfg_attr(not(programs), ignore = "needs the programs: run scripts/test")]
fn the_workload_gets_what_its_spec_says_and_strangers_take_nothing_from_it() {
    let enclave = Enclave::start(include_str!("asks.py"), SPEC);
    wait_for("the workload's first documents", 120, || {
        answered(&enclave) > 0
    });
    let said = enclave.daemon.logs("app");
    other_users_are_refused(&said);
    registers_follow_the_spec(&enclave, &said);
    documents_say_for_whom_they_were_made(&enclave, &said);
    a_flood_is_refused_and_the_workload_answered(&enclave);
}

/// What the workload said about one of its tries.
fn line<'a>(said: &'a str, name: &str) -> &'a str {
    let rest = |line: &'a str| line.strip_prefix(name)?.strip_prefix(": ");
    let found = said.lines().find_map(rest);
    found.unwrap_or_else(|| panic!("{name} is not in {said}"))
}

fn other_users_are_refused(said: &str) {
    for user in ["root", "another"] {
        let refused = "403 this user is not in [attestation] users of the spec";
        assert_eq!(line(said, user), refused);
    }
    for (tried, expected) in [
        ("root removes it", "Permission denied"),
        ("root writes beside it", "Permission denied"),
        ("root moves the directory", "Device or resource busy"),
        ("root changes the mode", "Operation not permitted"),
    ] {
        assert_eq!(line(said, tried), expected, "{tried}");
    }
}

fn registers_follow_the_spec(enclave: &Enclave, said: &str) {
    let value = hex::encode(Sha384::digest([&[0; 48][..], b"release 1"].concat()));
    for (tried, expected) in [
        ("extend", format!("200 {value}")),
        ("lock", "200 PCR17 is locked".to_owned()),
        ("extend locked", "409 the register is locked".to_owned()),
        (
            "extend 16",
            "403 PCR16 is not in [attestation] extend of the spec".to_owned(),
        ),
        (
            "lock 18",
            "403 PCR18 is not in [attestation] extend of the spec".to_owned(),
        ),
        (
            "too long",
            "400 user_data is longer than 1005 bytes".to_owned(),
        ),
    ] {
        assert_eq!(line(said, tried), expected, "{tried}");
    }
    let pinned = format!("17={value}");
    let unlocked = verify(enclave, line(said, "unlocked"), &["--pcr", &pinned]);
    assert_eq!(unlocked.code, 1, "{unlocked:?}");
    let locked = verify(enclave, line(said, "locked"), &["--pcr", &pinned]);
    assert_eq!(locked.code, 0, "{locked:?}");
    let other = format!("17={}", "01".repeat(48));
    let other = verify(enclave, line(said, "locked"), &["--pcr", &other]);
    assert_eq!(other.code, 1, "{other:?}");
}

/// `attest verify` of a document that the workload printed after the status 200.
fn verify(enclave: &Enclave, printed: &str, arguments: &[&str]) -> CommandOutput {
    let digits = printed.strip_prefix("200 ").unwrap();
    std::fs::write(enclave.path("document"), digits).unwrap();
    let verify = ["verify", "document", "--nonce", "c0ffee"];
    enclave.attest(&[&verify[..], arguments].concat())
}

fn documents_say_for_whom_they_were_made(enclave: &Enclave, said: &str) {
    let document = line(said, "document");
    let mine = hex::encode(FORGED);
    let asked = ["--public-key", "0102", "--user-data", &mine, "--origin"];
    let workload = verify(enclave, document, &[&asked[..], &["workload"]].concat());
    assert_eq!(workload.code, 0, "{workload:?}");
    let verdict: Value = serde_json::from_str(&workload.stdout).unwrap();
    assert_eq!(verdict["document"]["origin"], "workload");
    assert_eq!(verdict["document"]["own_user_data"], mine.as_str());
    for origin in ["endpoint", "kms", "agent"] {
        let refused = verify(enclave, document, &["--origin", origin]);
        assert_eq!(refused.code, 1, "{refused:?}");
    }

    let url = format!("http://{}", enclave.endpoint());
    let fetch = |origin: &str| enclave.attest(&["fetch", &url, "--origin", origin]);
    let endpoint = fetch("endpoint");
    assert_eq!(endpoint.code, 0, "{endpoint:?}");
    let verdict: Value = serde_json::from_str(&endpoint.stdout).unwrap();
    assert_eq!(verdict["document"]["public_key"], Value::Null);
    assert_eq!(verdict["document"]["own_user_data"], "");
    assert_eq!(fetch("workload").code, 1);
}

/// How many documents the workload has got.
fn answered(enclave: &Enclave) -> usize {
    let said = enclave.daemon.logs("app");
    let mut counts = said
        .lines()
        .filter_map(|line| line.strip_prefix("workload answered: ")?.parse().ok());
    counts.next_back().unwrap_or(0)
}

fn a_flood_is_refused_and_the_workload_answered(enclave: &Enclave) {
    let address = enclave.endpoint();
    let (stop, refused, served) = (
        AtomicBool::new(false),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    let shared = Arc::new((stop, refused, served));
    let before = answered(enclave);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (address, shared) = (address.clone(), shared.clone());
            thread::spawn(move || flood(client, &address, &shared))
        })
        .collect();
    let (stop, refused, served) = &*shared;
    let until = Until(stop);
    wait_for(
        "answers for the workload and refusals for the flood",
        120,
        || {
            answered(enclave) > before + 50
                && refused.load(Ordering::Relaxed) > CLIENTS
                && served.load(Ordering::Relaxed) > 0
        },
    );
    drop(until);
    clients
        .into_iter()
        .for_each(|client| client.join().unwrap());
    let said = enclave.daemon.logs("app");
    assert!(!said.contains("workload refused"), "{said}");
}

/// Stops the flood, also when the test fails: its threads would go on beside the other tests.
struct Until<'a>(&'a AtomicBool);

impl Drop for Until<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One client after another, each with a question that no other asks.
fn flood(client: usize, address: &str, shared: &(AtomicBool, AtomicUsize, AtomicUsize)) {
    let (stop, refused, served) = shared;
    for round in 0_u32.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let path = format!("/attestation?nonce={client:08x}{round:08x}");
        // The host may have no place for a connection either.
        let Ok(answer) = tcp::try_get(address, &path) else {
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        if answer.starts_with(b"HTTP/1.0 429") || answer.starts_with(b"HTTP/1.1 429") {
            refused.fetch_add(1, Ordering::Relaxed);
        } else if answer.windows(6).any(|bytes| bytes == b"200 OK") {
            served.fetch_add(1, Ordering::Relaxed);
        }
    }
}
