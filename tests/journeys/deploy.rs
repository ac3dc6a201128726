//! The main job from end to end, in QEMU.

use crate::{SPEC, busybox, eif, listing_image};
use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use tests::daemon::Daemon;
use tests::image::{Compression, Image, Layer};
use tests::programs::{ours, run};
use tests::registry::{PASSWORD, Registry, USER};
use tests::wait_for;

fn settings(registry: &Registry) -> Vec<(&'static str, String)> {
    vec![(
        "HOST_PROXY_PULL__PLAIN_HTTP",
        format!("['{}']", registry.host()),
    )]
}

pub(crate) fn start(registry: &Registry, more: &[(&str, &str)]) -> Daemon {
    let own = settings(registry);
    let all: Vec<(&str, &str)> = own
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .chain(more.iter().copied())
        .collect();
    Daemon::start(&all)
}

pub(crate) fn create(
    daemon: &Daemon,
    name: &str,
    reference: &str,
    spec: &str,
) -> tests::daemon::Answer {
    let path = daemon.folder().join(format!("{name}.toml"));
    std::fs::write(&path, spec).unwrap();
    let arguments = [
        "create",
        "--name",
        name,
        "--image",
        reference,
        "--registry-username",
        USER,
        "--registry-password-stdin",
        "--spec",
        path.to_str().unwrap(),
    ];
    daemon.ctl(&arguments, PASSWORD)
}

/// Busybox's httpd.
fn web_image() -> Image {
    let site = Layer::default()
        .file("srv/index.html", 0o644, 0, "hello\n")
        .file("srv/old.html", 0o644, 0, "old\n");
    let script = "echo \"up as $(busybox id -u) in $PWD with $GREETING\"; exec busybox httpd -f -p 127.0.0.1:8080";
    Image::new(serde_json::json!({
        "Entrypoint": ["/bin/sh", "-c", script], "User": "web", "WorkingDir": "/srv", "Env": ["GREETING=cheer"],
    }))
    .layer(busybox(), Compression::Gzip)
    .layer(site, Compression::Zstd)
    .layer(Layer::default().file("srv/.wh.old.html", 0o644, 0, ""), Compression::None)
}

pub(crate) fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(std::time::Duration::from_secs(20)))
        .unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Every file below a folder that holds these bytes.
pub(crate) fn files_with(folder: &Path, needle: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() {
            found.extend(files_with(&path, needle));
        } else if kind.is_file()
            && std::fs::read(&path)
                .unwrap_or_default()
                .windows(needle.len())
                .any(|window| window == needle)
        {
            found.push(path.display().to_string());
        }
    }
    found
}

const WEB_SPEC: &str = "[resources]\nmemory_mib = 192\ncpus = 1\n[network]\ningress = [{ port = 8080 }]\nattestation = \"127.0.0.1:0\"\n[logs]\nforward = true\n";

#[test]
fn a_private_image_becomes_an_attested_enclave_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    web_image().write(&folder.path().join("layout"));
    let reference = registry.push(&folder.path().join("layout"), "org/web:v1");
    let mut daemon = start(&registry, &[]);

    let created = create(&daemon, "web", &reference, WEB_SPEC);
    assert_eq!(created.code, 0, "{created:?}");
    for stage in [
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
    ] {
        assert!(
            created.stderr.contains(stage),
            "{stage} is not in {}",
            created.stderr
        );
    }
    let record = daemon.show("web");
    assert_eq!(record["status"], "DEPLOYED");

    // The workload: as its user, in its directory, with its environment, behind the one port that the spec opens.
    let address = record["ingress"][0]["address"].as_str().unwrap();
    let page = get(address, "/");
    assert!(
        page.starts_with("HTTP/1.") && page.ends_with("hello\n"),
        "{page}"
    );
    assert!(
        get(address, "/old.html").contains(" 404 "),
        "a whiteout hides the file"
    );
    let logs = daemon.ctl(&["logs", "web"], "");
    assert_eq!(logs.stdout, "up as 1000 in /srv with cheer\n");

    // What QEMU's NSM measured is what eif-builder measures for the same image and spec.
    let eif = folder.path().join("app.eif");
    let built = eif::build(
        &registry,
        &reference,
        &eif,
        &["--spec", daemon.folder().join("web.toml").to_str().unwrap()],
    );
    let built: serde_json::Value = serde_json::from_slice(&built.stdout).unwrap();
    let attested = daemon.ctl(&["--json", "attestation", "web", "--nonce", "c0ffee"], "");
    assert_eq!(attested.code, 0, "{attested:?}");
    let attested: serde_json::Value = serde_json::from_str(&attested.stdout).unwrap();
    for pcr in ["PCR0", "PCR1", "PCR2"] {
        assert_eq!(attested["pcrs"][pcr], built["measurements"][pcr], "{pcr}");
    }
    assert_eq!(
        (
            &attested["fresh"],
            &attested["matches"],
            &attested["signed"]
        ),
        (&true.into(), &true.into(), &false.into())
    );

    // A relying party asks the enclave itself. QEMU signs nothing, and that is what it is told.
    let kept = folder.path().join("document");
    let asked = Command::new(ours("attest"))
        .args([
            "fetch",
            &format!("http://{}", record["attestation"].as_str().unwrap()),
        ])
        .args([
            "--pcr",
            &format!("0={}", built["measurements"]["PCR0"].as_str().unwrap()),
        ])
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
    assert!(
        shown.contains(built["measurements"]["PCR0"].as_str().unwrap()),
        "{shown}"
    );

    // The password is in the secret store, encrypted, and nowhere else.
    assert!(
        record["credentials_arn"]
            .as_str()
            .unwrap()
            .starts_with("file:e-")
    );
    assert_eq!(
        files_with(daemon.folder(), PASSWORD.as_bytes()),
        Vec::<String>::new()
    );
    assert!(!daemon.helpers().iter().any(|line| line.contains(PASSWORD)));
    assert_eq!(daemon.helpers().len(), 2, "QEMU and its vsock device");

    let ended = daemon.ctl(&["terminate", "web"], "");
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(daemon.helpers(), Vec::<String>::new());
    assert!(
        TcpStream::connect(address).is_err(),
        "the ingress port is closed"
    );
    for left in ["state/enclaves", "state/secrets"] {
        assert_eq!(
            std::fs::read_dir(daemon.folder().join(left))
                .unwrap()
                .count(),
            0,
            "{left}"
        );
    }
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(
        std::fs::read_dir(daemon.folder().join("run"))
            .unwrap()
            .count(),
        0,
        "run"
    );
    assert!(!daemon.log().contains(PASSWORD));
}

#[test]
fn a_daemon_that_is_killed_brings_its_enclaves_back_and_leaves_no_orphans() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    listing_image().write(&folder.path().join("layout"));
    let reference = registry.push(&folder.path().join("layout"), "org/app:v1");
    let mut daemon = start(&registry, &[]);
    assert_eq!(create(&daemon, "app", &reference, SPEC).code, 0);
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
    assert_eq!(
        sockets
            .filter(|entry| entry.file_name() != "api.sock")
            .count(),
        1,
        "one enclave, one folder"
    );

    // A second daemon over the same state is refused.
    let second = std::process::Command::new(tests::programs::ours("host-proxy"))
        .arg("serve")
        .env("HOST_PROXY_STATE_DIR", daemon.folder().join("state"))
        .env("HOST_PROXY_RUN_DIR", daemon.folder().join("run2"))
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(69));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another daemon uses"));

    assert_eq!(daemon.ctl(&["terminate", "app"], "").code, 0);
    assert_eq!(daemon.helpers(), Vec::<String>::new());
}

#[test]
fn a_stop_signal_reaches_the_workload_and_a_deaf_one_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    let mut image = web_image();
    let script = "trap 'echo bye; exit 0' USR1; echo ready; while :; do busybox sleep 1; done";
    image.config =
        serde_json::json!({ "Entrypoint": ["/bin/sh", "-c", script], "StopSignal": "SIGUSR1" });
    image.write(&folder.path().join("layout"));
    let reference = registry.push(&folder.path().join("layout"), "org/trap:v1");
    let daemon = start(&registry, &[]);
    assert_eq!(create(&daemon, "trap", &reference, SPEC).code, 0);
    let id = daemon.show("trap")["id"].as_str().unwrap().to_owned();
    let following = std::thread::scope(|scope| {
        let logs = scope.spawn(|| daemon.ctl(&["logs", "--follow", &id], "").stdout);
        wait_for("the log", 10, || {
            daemon.ctl(&["logs", "trap"], "").stdout.contains("ready")
        });
        assert_eq!(daemon.ctl(&["terminate", "trap"], "").code, 0);
        logs.join().unwrap()
    });
    assert_eq!(following, "ready\nbye\n");

    // SIGTERM means nothing to this one: after the deadline it is killed.
    let deaf = format!(
        "{SPEC}[run]\ncommand = ['/bin/sh', '-c', 'trap \"\" TERM; while :; do busybox sleep 1; done']\nstop_signal = 'SIGTERM'\n"
    );
    assert_eq!(create(&daemon, "deaf", &reference, &deaf).code, 0);
    assert_eq!(daemon.ctl(&["terminate", "deaf"], "").code, 0);
    assert_eq!(daemon.helpers(), Vec::<String>::new());
}

/// A service of the operator's network: answers every connection with one line, and counts them.
fn outside() -> (u16, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1000]);
            let _ = stream.write_all(b"from outside\n");
        }
    });
    (port, asked)
}

#[test]
fn what_leaves_an_enclave_is_in_its_spec_and_allowed_by_its_host() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    web_image().write(&folder.path().join("layout"));
    let reference = registry.push(&folder.path().join("layout"), "org/web:v1");
    let (port, asked) = outside();
    let spec = format!(
        "{SPEC}[run]\ncommand = ['/bin/sh', '-c', 'echo \"got: $(echo hi | busybox nc 127.0.0.1 5432)\"; busybox sleep 1000']\n\
         [network]\negress = ['127.0.0.1:{port}']\nforward = [{{ listen = '127.0.0.1:5432', to = '127.0.0.1:{port}' }}]\n"
    );
    for (setting, wanted, connections) in [
        ("[]", "got: \n", 0),
        ("['127.0.0.1/32']", "got: from outside\n", 1),
    ] {
        let daemon = start(&registry, &[("HOST_PROXY_EGRESS__ALLOW_NETWORKS", setting)]);
        let created = create(&daemon, "out", &reference, &spec);
        assert_eq!(created.code, 0, "{created:?}");
        wait_for("the answer", 30, || {
            !daemon.ctl(&["logs", "out"], "").stdout.is_empty()
        });
        let said = daemon.ctl(&["logs", "out"], "").stdout;
        assert!(said.ends_with(wanted), "with {setting} it said {said}");
        assert_eq!(
            asked.load(std::sync::atomic::Ordering::Relaxed),
            connections
        );
    }
}
