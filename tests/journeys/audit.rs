//! The audit log, as an operator and an auditor read it.

use crate::broker::DOCKER;
use crate::failures::SmallDisk;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tests::broker::{Broker, SECRET, token};
use tests::daemon::Daemon;
use tests::files::files_with;
use tests::registry::PASSWORD;
use tests::scene::Scene;
use tests::services::GitLab;
use tests::wait_for;
use tests::workloads::{SPEC, listing_image};

/// `enclavectl audit`, as JSON.
fn lines(daemon: &Daemon, log: &Path, more: &[&str]) -> Vec<Value> {
    let log = log.to_str().unwrap();
    let answer = daemon.ctl(&[&["--json", "audit", log], more].concat(), "");
    assert_eq!(answer.code, 0, "{answer:?}");
    let lines = answer.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn log_of(daemon: &Daemon) -> PathBuf {
    daemon.folder().join("state/audit")
}

fn is_whole(daemon: &Daemon, log: &Path) {
    let answer = daemon.ctl(&["audit", "verify", log.to_str().unwrap()], "");
    assert_eq!(answer.code, 0, "{answer:?}");
}

/// Lines of an action, as `outcome`s.
fn outcomes<'a>(lines: &'a [Value], action: &str) -> Vec<&'a str> {
    let lines = lines.iter().filter(|line| line["action"] == action);
    lines
        .map(|line| line["outcome"].as_str().unwrap())
        .collect()
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn an_enclaves_life_is_in_the_log_and_a_change_of_it_is_found() {
    let scene = Scene::new(&listing_image(), "org/app:v1");
    let daemon = scene.start(&[]);
    let created = daemon.create("app", &scene.reference, SPEC);
    assert_eq!(created.code, 0, "{created:?}");
    let record = daemon.show("app");
    assert_eq!(daemon.ctl(&["terminate", "app"], "").code, 0);
    let log = log_of(&daemon);
    is_whole(&daemon, &log);

    let lines = lines(&daemon, &log, &["--enclave", "app"]);
    for (action, expected) in [
        ("create", vec!["begun", "accepted"]),
        ("enclave", vec!["deployed", "destroyed"]),
        ("terminate", vec!["begun", "accepted"]),
    ] {
        assert_eq!(outcomes(&lines, action), expected, "{action}");
    }
    let uid = nix_uid();
    for line in lines.iter().filter(|line| line["action"] != "enclave") {
        assert_eq!(line["by"]["uid"], uid, "{line}");
        assert!(line["by"]["pid"].is_number(), "{line}");
    }
    let deployed = lines
        .iter()
        .find(|line| line["outcome"] == "deployed")
        .unwrap();
    assert_eq!(deployed["enclave"], record["id"]);
    assert_eq!(deployed["digest"], scene.digest.as_str());
    assert_eq!(deployed["pcr0"], record["measurements"]["PCR0"]);
    assert_eq!(files_with(&log, PASSWORD.as_bytes()), Vec::<String>::new());
    another_digest_in_the_log_is_found(&daemon, &log, &scene.digest);
}

fn nix_uid() -> u32 {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap())
}

fn another_digest_in_the_log_is_found(daemon: &Daemon, log: &Path, digest: &str) {
    let file = log.join("audit-000000000001.jsonl");
    let forged = std::fs::read_to_string(&file).unwrap();
    let number = forged
        .lines()
        .position(|line| line.contains(digest))
        .unwrap()
        + 1;
    let other = format!("sha256:{}", "0".repeat(64));
    std::fs::write(&file, forged.replacen(digest, &other, 1)).unwrap();
    let answer = daemon.ctl(&["audit", "verify", log.to_str().unwrap()], "");
    let named = format!("line {number}: it was changed: its hash is wrong");
    assert!(
        answer.code == 65 && answer.stderr.contains(&named),
        "{answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
async fn issued_credentials_are_in_the_log_and_refusals_are_counted() {
    let password = "gldt-secret-of-test";
    let gitlab = GitLab::start(("gitlab+deploy-token-1", password)).await;
    let mut broker = Broker::start(&gitlab.settings());
    let log = log_of(&broker.daemon);
    let mine = token("ci", &["my-app"], SECRET);
    let (head, _) = broker.exchange("?project=my-app", Some(&mine));
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    // It is there now that there is an answer.
    let issued = lines(&broker.daemon, &log, &[]).pop().unwrap();
    assert_eq!(issued["outcome"], "issued");
    let by = json!({ "subject": "ci", "address": "127.0.0.1" });
    let said = ["by", "project", "access"].map(|field| &issued[field]);
    assert_eq!(said, [&by, &json!("my-app"), &json!("push")]);
    assert!(issued["expires_at"].is_string(), "{issued}");
    let id = head
        .lines()
        .find_map(|line| line.strip_prefix("x-request-id: "));
    assert_eq!(issued["request"].as_str(), id);

    for _ in 0..50 {
        assert_eq!(broker.ask("?project=my-app", Some("x.y.z")).0, 401);
    }
    assert_eq!(broker.daemon.stop(), Some(0));
    let lines = lines(&broker.daemon, &log, &[]);
    let refused: Vec<&Value> = lines
        .iter()
        .filter(|line| line["code"] == "TOKEN_INVALID")
        .collect();
    let counts: u64 = refused
        .iter()
        .filter_map(|line| line["count"].as_u64())
        .sum();
    assert_eq!(counts, 50);
    assert!(refused.len() <= 3, "{refused:?}");
    is_whole(&broker.daemon, &log);
    for secret in [password, mine.as_str()] {
        assert_eq!(files_with(&log, secret.as_bytes()), Vec::<String>::new());
    }
}

/// Status and answer of a request, if there was a whole one.
fn exchange(
    stream: std::io::Result<impl Read + Write>,
    head: &str,
    body: &str,
) -> Option<(u16, String)> {
    let mut stream = stream.ok()?;
    let length = body.len();
    let request =
        format!("{head}Host: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.get(9..12)?.parse().ok()?;
    answer.contains("\r\n\r\n").then_some((status, answer))
}

/// An order through the API's socket.
fn order(socket: &Path, line: &str, body: &Value) -> Option<(u16, String)> {
    let head = format!("{line} HTTP/1.1\r\n");
    exchange(UnixStream::connect(socket), &head, &body.to_string())
}

/// An enclave whose deploy fails at once.
fn new_enclave(name: &str) -> Value {
    json!({ "name": name, "image": "127.0.0.1:1/org/app:v1", "source_type": "public-registry" })
}

/// What was answered: names of enclaves, ids of requests.
type Answered = Arc<Mutex<Vec<String>>>;

/// Creates enclaves until the daemon is gone.
fn create_on(socket: PathBuf, round: usize, answered: Answered) {
    for n in 0.. {
        let name = format!("app-{round}-{n}");
        match order(&socket, "POST /v1/enclaves", &new_enclave(&name)) {
            Some((201, _)) => answered.lock().unwrap().push(name),
            Some(other) => panic!("{other:?}"),
            None => return,
        }
    }
}

/// Asks for credentials until the daemon is gone.
fn ask_on(port: u16, token: &str, answered: &Answered) {
    let head = format!(
        "GET /registry/credentials?project=my-app HTTP/1.1\r\nAuthorization: Bearer {token}\r\n"
    );
    while let Some((status, answer)) = exchange(TcpStream::connect(("127.0.0.1", port)), &head, "")
    {
        assert_eq!(status, 200, "{answer}");
        let id = answer
            .lines()
            .find_map(|line| line.strip_prefix("x-request-id: "));
        answered.lock().unwrap().push(id.unwrap().to_owned());
    }
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn what_was_answered_before_a_kill_is_in_the_log() {
    let rate = [("HOST_PROXY_BROKER__RATE_PER_MINUTE", "1000000")];
    let mut broker = Broker::start(&[&DOCKER[..], &rate].concat());
    let (socket, port) = (broker.daemon.folder().join("run/api.sock"), broker.port);
    let log = log_of(&broker.daemon);
    let mine = token("ci", &["my-app"], SECRET);
    let answered = Answered::default();
    for round in 0..5 {
        let before = answered.lock().unwrap().len();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| ask_on(port, &mine, &answered));
            }
            scope.spawn(|| create_on(socket.clone(), round, answered.clone()));
            let enough = before + 20 + 7 * round;
            wait_for("answers", 60, || answered.lock().unwrap().len() > enough);
            broker.daemon.crash();
        });
        broker.daemon.restart();
        is_whole(&broker.daemon, &log);
    }
    let lines = lines(&broker.daemon, &log, &[]);
    let accepted = lines.iter().filter(|line| line["outcome"] == "accepted");
    let held: Vec<&Value> = accepted
        .flat_map(|line| [&line["name"], &line["request"]])
        .collect();
    let answered = answered.lock().unwrap();
    let lost: Vec<&String> = answered
        .iter()
        .filter(|name| !held.contains(&&json!(name)))
        .collect();
    assert!(
        lost.is_empty() && answered.len() > 100,
        "of {}: {lost:?}",
        answered.len()
    );
    let created = answered.iter().filter(|name| name.starts_with("app-"));
    assert!(created.count() >= 5);
}

/// Writes until there is no room.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    for size in [4096, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_full_disk_refuses_orders_and_leaves_nothing_half_done() {
    let folder = tempfile::tempdir().unwrap();
    let (state, log) = (
        folder.path().join("state"),
        folder.path().join("state/audit"),
    );
    std::fs::create_dir_all(&log).unwrap();
    let Some(disk) = SmallDisk::mount(&log) else {
        eprintln!("SKIPPED: only root can mount a small disk");
        return;
    };
    let own = [("HOST_PROXY_STATE_DIR", state.to_str().unwrap())];
    let broker = Broker::start(&[&DOCKER[..], &own].concat());
    let (daemon, socket) = (&broker.daemon, broker.daemon.folder().join("run/api.sock"));
    let create = |name| order(&socket, "POST /v1/enclaves", &new_enclave(name)).unwrap();
    assert_eq!(create("one").0, 201);
    fill(&log.join("filler"));
    // The room that is kept ahead is used up, down to what terminations need.
    let forget = || {
        order(&socket, "DELETE /v1/registry/credentials", &Value::Null)
            .unwrap()
            .0
    };
    wait_for("the first refusal", 60, || forget() == 503);

    let (status, answer) = create("two");
    assert!(
        status == 503 && answer.contains("AUDIT_UNAVAILABLE"),
        "{answer}"
    );
    assert!(!daemon.ctl(&["list"], "").stdout.contains("two"));
    let mine = token("ci", &["my-app"], SECRET);
    let (status, told) = broker.ask("?project=my-app", Some(&mine));
    assert_eq!(
        (status, &told["error"]["code"]),
        (503, &json!("AUDIT_UNAVAILABLE"))
    );
    let ended = daemon.ctl(&["terminate", "one"], "");
    assert_eq!(ended.code, 0, "{ended:?}");

    std::fs::remove_file(log.join("filler")).unwrap();
    assert_eq!(create("two").0, 201);
    is_whole(daemon, &log);
    let lines = lines(daemon, &log, &[]);
    assert_eq!(
        outcomes(&lines, "create"),
        ["begun", "accepted", "begun", "accepted"]
    );
    assert_eq!(outcomes(&lines, "terminate"), ["begun", "accepted"]);
    drop(broker);
    drop(disk);
}
