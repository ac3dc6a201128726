//! A workload that tries to get out: as root, as another user, and with what it can use up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tests::daemon::Daemon;
use tests::image::{Compression, Image, Layer};
use tests::programs::lib;
use tests::scene::Scene;
use tests::tcp;

/// cap_sys_admin, permitted and effective (linux/capability.h, struct vfs_cap_data).
const CAPABLE: &[u8] =
    b"\x01\x00\x00\x02\x00\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";

/// What the kit tries and must be refused, whoever it runs as.
const FORBIDDEN: &str = include_str!("escape/forbidden");
const ORDINARY: &str = include_str!("escape/ordinary");

fn image(user: &str) -> Image {
    let kit = std::fs::read(lib().join("escape-kit")).unwrap();
    let layer = Layer::default()
        .dir("etc", 0o755)
        .dir("tmp", 0o1777)
        .file(
            "etc/passwd",
            0o644,
            0,
            "root:x:0:0::/root:/bin/sh\nweb:x:1000:1000::/tmp:/bin/sh\n",
        )
        .file("escape-kit", 0o755, 0, &kit)
        .file("escape-kit-root", 0o4755, 0, &kit)
        .xattrs(&[("security.capability", CAPABLE)])
        .file("escape-kit-capable", 0o755, 0, &kit)
        .char_device("node", 1, 11);
    Image::new(serde_json::json!({ "Entrypoint": ["/escape-kit"], "User": user }))
        .layer(layer, Compression::Gzip)
}

/// The kit's output once it has tried everything, and the daemon whose enclave still runs it.
fn kit(user: &str, security: &str) -> (Scene, Daemon, String) {
    let scene = Scene::new(&image(user), "org/kit:v1");
    let daemon = scene.start(&[]);
    let spec = format!(
        "[resources]\nmemory_mib = 256\ncpus = 2\n[network]\nattestation = '127.0.0.1:0'\n\
         [logs]\nforward = true\n{security}"
    );
    let created = daemon.create("kit", &scene.reference, &spec);
    assert_eq!(created.code, 0, "{created:?}");
    let mut said = String::new();
    let patience = Instant::now() + Duration::from_secs(120);
    while !said.contains("\nEND ") {
        assert!(Instant::now() < patience, "the tries do not end: {said}");
        std::thread::sleep(Duration::from_millis(100));
        said = daemon.logs("kit");
    }
    (scene, daemon, said)
}

/// Sentence and outcome of each line that starts with `kind`.
fn outcomes<'a>(said: &'a str, kind: &str) -> BTreeMap<&'a str, &'a str> {
    let lines = said.lines().filter_map(|line| line.strip_prefix(kind));
    lines
        .map(|line| line.split_once(": ").unwrap_or((line, "")))
        .collect()
}

fn assert_all(said: &str, kind: &str, sentences: &str) {
    let outcomes = outcomes(said, kind);
    for sentence in sentences.lines() {
        assert!(
            outcomes.contains_key(sentence),
            "the workload {sentence}: {said}"
        );
    }
    assert_eq!(outcomes.len(), sentences.lines().count(), "{said}");
    // These would say that the kernel went on to look at the arguments.
    for late in ["Bad address", "Invalid argument"] {
        let looked = outcomes.iter().find(|(_, error)| error.contains(late));
        assert_eq!(looked, None, "{said}");
    }
}

/// While the workload has all that it can get, the agent answers: thrice, with a document each.
fn assert_answers(daemon: &Daemon) {
    let record = daemon.show("kit");
    let address = record["attestation"].as_str().unwrap().to_owned();
    for _ in 0..3 {
        let answer = tcp::get(&address, "/healthz");
        assert!(answer.contains("\r\n\r\nok\n"), "{answer}");
        let attested = daemon.ctl(&["attestation", "kit", "--nonce", "c0ffee"], "");
        assert_eq!(attested.code, 0, "{attested:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(daemon.show("kit")["status"], "DEPLOYED");
}

fn assert_limited(said: &str) {
    for expected in [
        "MiB of files: No space left on device",
        "out of memory: signal 9",
        "fork: Resource temporarily unavailable",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_root_workload_cannot_get_out_and_its_agent_answers_throughout() {
    let (_scene, daemon, said) = kit("root", "[security]\npids = 256\n");
    assert_all(&said, "refused: ", FORBIDDEN);
    assert_all(&said, "works: ", ORDINARY);
    assert!(
        !said.contains("POSSIBLE") && !said.contains("BROKEN"),
        "{said}"
    );
    for status in [
        "CapEff: 00000000800005fb",
        "CapPrm: 00000000800005fb",
        "CapBnd: 00000000800005fb",
        "CapInh: 0000000000000000",
        "CapAmb: 0000000000000000",
        "NoNewPrivs: 1",
        "Seccomp: 2",
    ] {
        assert!(said.contains(&format!("status: {status}\n")), "{said}");
    }
    assert_limited(&said);
    assert_answers(&daemon);
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn another_users_workload_cannot_get_out_and_has_no_capabilities() {
    let (_scene, daemon, said) = kit("web", "[security]\npids = 64\nmemory_percent = 50\n");
    assert_all(&said, "refused: ", FORBIDDEN);
    assert_all(&said, "works: ", ORDINARY);
    assert!(
        !said.contains("POSSIBLE") && !said.contains("BROKEN"),
        "{said}"
    );
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let line = format!("status: {set}: 0000000000000000\n");
        assert!(said.contains(&line), "{line}: {said}");
    }
    let processes = said
        .lines()
        .find_map(|line| line.strip_prefix("END after "));
    // Of 64, one is the kit.
    assert_eq!(processes, Some("63 processes"), "{said}");
    assert_limited(&said);
    assert_answers(&daemon);
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_privileged_workload_has_the_machine_and_its_spec_says_so() {
    let tried = [
        "opens a vsock socket",
        "opens the NSM",
        "mounts a file system",
        "sets the host name",
    ];
    let spec = format!(
        "[security]\nprivileged = true\n[run]\ncommand = ['/escape-kit', '{}']\n",
        tried.join("', '")
    );
    let (_scene, daemon, said) = kit("root", &spec);
    let possible: Vec<&str> = outcomes(&said, "POSSIBLE: ").into_keys().collect();
    assert_eq!(
        possible,
        [
            "mounts a file system",
            "opens a vsock socket",
            "opens the NSM",
            "sets the host name"
        ],
        "{said}"
    );
    assert_answers(&daemon);
}
