//! The main job from end to end, in QEMU.

use serde_json::{Value, json};
use std::ffi::OsStr;
use std::net::TcpStream;
use std::process::Command;
use tests::daemon::Daemon;
use tests::files::{count, files_with};
use tests::image::{Compression, Image, Layer};
use tests::programs::{ours, run};
use tests::registry::PASSWORD;
use tests::scene::Scene;
use tests::tcp::get;
use tests::workloads::{SPEC, busybox, listing_image};
use tests::{eif, wait_for};

/// Busybox's httpd.
pub(crate) fn web_image() -> Image {
    let site = Layer::default()
        .file("srv/index.html", 0o644, 0, "hello\n")
        .file("srv/old.html", 0o644, 0, "old\n");
    let script = "echo \"up as $(busybox id -u) in $PWD with $GREETING\"; exec busybox httpd -f -p 127.0.0.1:8080";
    Image::new(json!({
        "Entrypoint": ["/bin/sh", "-c", script], "User": "web", "WorkingDir": "/srv", "Env": ["GREETING=cheer"],
    }))
    .layer(busybox(), Compression::Gzip)
    .layer(site, Compression::Zstd)
    .layer(Layer::default().file("srv/.wh.old.html", 0o644, 0, ""), Compression::None)
}

pub(crate) const WEB_SPEC: &str = "[resources]\nmemory_mib = 192\ncpus = 1\n[network]\ningress = [{ port = 8080 }]\nattestation = \"127.0.0.1:0\"\n[logs]\nforward = true\n";

/// What `create` shows.
const STAGES: [&str; 10] = [
    "credentials",
    "resolving",
    "pulling",
    "verifying",
    "building",
    "memory",
    "launching",
    "heartbeat",
    "workload",
    "attestation",
];

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_private_image_becomes_an_attested_enclave_and_leaves_nothing_behind() {
    let scene = Scene::new(&web_image(), "org/web:v1");
    let mut daemon = scene.start(&[]);
    let created = daemon.create("web", &scene.reference, WEB_SPEC);
    assert_eq!(created.code, 0, "{created:?}");
    for stage in STAGES {
        assert!(
            created.stderr.contains(stage),
            "{stage} is not in {}",
            created.stderr
        );
    }
    let record = daemon.show("web");
    assert_eq!(record["status"], "DEPLOYED");
    let address = record["ingress"][0]["address"].as_str().unwrap();
    workload_serves_as_its_spec_and_image_say(&daemon, address);
    let measured = measurements(&scene, &daemon);
    document_matches(&daemon, &measured);
    relying_party_gets_a_document(&scene, &record, measured["PCR0"].as_str().unwrap());
    password_is_encrypted_or_nowhere(&daemon, &record);
    assert_eq!(daemon.helpers().len(), 2, "QEMU and its vsock switch");
    termination_leaves_nothing(&mut daemon, address);
}

/// As its user, in its directory, with its environment, behind the one port that the spec opens.
fn workload_serves_as_its_spec_and_image_say(daemon: &Daemon, address: &str) {
    let page = get(address, "/");
    assert!(
        page.starts_with("HTTP/1.") && page.ends_with("hello\n"),
        "{page}"
    );
    assert!(
        get(address, "/old.html").contains(" 404 "),
        "a whiteout hides the file"
    );
    assert_eq!(daemon.logs("web"), "up as 1000 in /srv with cheer\n");
}

/// What eif-builder measures for the same image and spec.
fn measurements(scene: &Scene, daemon: &Daemon) -> Value {
    let spec = daemon.folder().join("web.toml");
    let arguments = ["--spec", spec.to_str().unwrap()];
    let eif = scene.path("app.eif");
    let built = eif::build(&scene.registry, &scene.reference, &eif, &arguments);
    eif::printed(&built)["measurements"].clone()
}

/// What QEMU's NSM measured is what was built.
fn document_matches(daemon: &Daemon, measured: &Value) {
    let attested = daemon.ctl(&["--json", "attestation", "web", "--nonce", "c0ffee"], "");
    assert_eq!(attested.code, 0, "{attested:?}");
    let attested: Value = serde_json::from_str(&attested.stdout).unwrap();
    for pcr in ["PCR0", "PCR1", "PCR2"] {
        assert_eq!(attested["pcrs"][pcr], measured[pcr], "{pcr}");
    }
    let verdict = (
        &attested["fresh"],
        &attested["matches"],
        &attested["signed"],
    );
    assert_eq!(verdict, (&true.into(), &true.into(), &false.into()));
}

/// It asks the enclave itself. QEMU signs nothing, and that is what it is told.
fn relying_party_gets_a_document(scene: &Scene, record: &Value, pcr0: &str) {
    let kept = scene.path("document");
    let url = format!("http://{}", record["attestation"].as_str().unwrap());
    let asked = Command::new(ours("attest"))
        .args(["fetch", &url, "--pcr", &format!("0={pcr0}")])
        .args([OsStr::new("--output"), kept.as_os_str()])
        .output()
        .unwrap();
    let verdict = String::from_utf8(asked.stdout).unwrap();
    assert_eq!(asked.status.code(), Some(1), "{verdict}");
    assert!(
        verdict.contains("QEMU's NSM writes -1 and signs nothing"),
        "{verdict}"
    );
    let shown = run(Command::new(ours("attest")).arg("show").arg(&kept));
    assert!(shown.contains(pcr0), "{shown}");
}

fn password_is_encrypted_or_nowhere(daemon: &Daemon, record: &Value) {
    let arn = record["credentials_arn"].as_str().unwrap();
    assert!(arn.starts_with("file:e-"), "{arn}");
    let files = files_with(daemon.folder(), PASSWORD.as_bytes());
    assert_eq!(files, Vec::<String>::new());
    assert!(!daemon.helpers().iter().any(|line| line.contains(PASSWORD)));
}

fn termination_leaves_nothing(daemon: &mut Daemon, address: &str) {
    let ended = daemon.ctl(&["terminate", "web"], "");
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(daemon.helpers(), Vec::<String>::new());
    assert!(
        TcpStream::connect(address).is_err(),
        "the ingress port is closed"
    );
    for left in ["state/enclaves", "state/eifs", "state/secrets"] {
        assert_eq!(count(&daemon.folder().join(left)), 0, "{left}");
    }
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(count(&daemon.folder().join("run")), 0, "run");
    assert!(!daemon.log().contains(PASSWORD));
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_daemon_that_is_killed_brings_its_enclaves_back_and_leaves_no_orphans() {
    let scene = Scene::new(&listing_image(), "org/app:v1");
    let mut daemon = scene.start(&[]);
    assert_eq!(daemon.create("app", &scene.reference, SPEC).code, 0);
    assert_eq!(daemon.helpers().len(), 2);

    daemon.crash();
    wait_for("the enclave to die with its daemon", 10, || {
        daemon.helpers().is_empty()
    });
    daemon.restart();
    wait_for("the enclave to come back", 60, || {
        daemon.show("app")["status"] == "DEPLOYED"
    });
    let sockets = std::fs::read_dir(daemon.folder().join("run"))
        .unwrap()
        .flatten();
    let others = sockets.filter(|entry| entry.file_name() != "api.sock");
    assert_eq!(others.count(), 1, "one enclave, one folder");
    a_second_daemon_is_refused(&daemon);
    assert_eq!(daemon.ctl(&["terminate", "app"], "").code, 0);
    assert_eq!(daemon.helpers(), Vec::<String>::new());
}

/// Over the same state.
fn a_second_daemon_is_refused(daemon: &Daemon) {
    let second = Command::new(ours("host-proxy"))
        .arg("serve")
        .env("HOST_PROXY_STATE_DIR", daemon.folder().join("state"))
        .env("HOST_PROXY_RUN_DIR", daemon.folder().join("run2"))
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(69));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another daemon uses"));
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_stop_signal_reaches_the_workload_and_a_deaf_one_is_killed() {
    let mut image = web_image();
    let script = "trap 'echo bye; exit 0' USR1; echo ready; while :; do busybox sleep 1; done";
    image.config = json!({ "Entrypoint": ["/bin/sh", "-c", script], "StopSignal": "SIGUSR1" });
    let scene = Scene::new(&image, "org/trap:v1");
    let daemon = scene.start(&[]);
    assert_eq!(daemon.create("trap", &scene.reference, SPEC).code, 0);
    let id = daemon.show("trap")["id"].as_str().unwrap().to_owned();
    let following = std::thread::scope(|scope| {
        let logs = scope.spawn(|| daemon.ctl(&["logs", "--follow", &id], "").stdout);
        wait_for("the log", 10, || daemon.logs("trap").contains("ready"));
        assert_eq!(daemon.ctl(&["terminate", "trap"], "").code, 0);
        logs.join().unwrap()
    });
    assert_eq!(following, "ready\nbye\n");

    // SIGTERM means nothing to this one: after the deadline it is killed.
    let deaf = format!(
        "{SPEC}[run]\ncommand = ['/bin/sh', '-c', 'trap \"\" TERM; while :; do busybox sleep 1; done']\nstop_signal = 'SIGTERM'\n"
    );
    assert_eq!(daemon.create("deaf", &scene.reference, &deaf).code, 0);
    assert_eq!(daemon.ctl(&["terminate", "deaf"], "").code, 0);
    assert_eq!(daemon.helpers(), Vec::<String>::new());
}
