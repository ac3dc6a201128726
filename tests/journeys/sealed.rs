//! Sealed configs, from `seal` to the workload, in QEMU, against a fake KMS; and everything that a parent may do to them.

use crate::deploy::{files_with, get, start};
use crate::{busybox, eif};
use api::EnclaveId;
use host_proxy::control::{self, Control, Report};
use host_proxy::egress::{self, EgressPolicy};
use host_proxy::logs::Logs;
use launch::{self, LaunchRequest, Listeners};
use serde_json::Value;
use sha2::{Digest as _, Sha256, Sha384};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tests::daemon::{Answer, Daemon};
use tests::image::{Compression, Image};
use tests::kms::{ACCESS_KEY_ID, Form, Kms, Mischief, SECRET_ACCESS_KEY, attested_policy};
use tests::programs::{ours, run};
use tests::registry::{PASSWORD, Registry, USER};
use tests::wait_for;
use wire::control::{AbortReason, AwsCredentials, FromHost};
use wire::sealed::Sealed;

/// The workload shows that it knows its secret without saying it: the log may leave the enclave.
const ENV_SCRIPT: &str = "printf %s \"$TOKEN\" | busybox sha256sum; busybox grep VmRSS /proc/1/status; \
     exec busybox httpd -f -p 127.0.0.1:8080 -h /etc";
const FILE_SCRIPT: &str = "cd /run/config && busybox stat -c '%a %u %g %n' . app.env; busybox sha256sum app.env; \
     busybox mount | busybox grep -c 'tmpfs on /run/config'; exec busybox sleep 1000";

fn image(script: &str, env: &str) -> Image {
    Image::new(
        serde_json::json!({ "Entrypoint": ["/bin/sh", "-c", script], "User": "web", "Env": [env] }),
    )
    .layer(busybox(), Compression::Gzip)
}

/// A KMS, a key, a registry with an image, and a spec that names them.
struct House {
    folder: TempDir,
    kms: Kms,
    key: String,
    registry: Registry,
    spec: PathBuf,
}

impl House {
    fn new(image: &Image, kms: Kms, more: &str) -> House {
        let port = kms.port;
        House::behind(image, kms, port, more)
    }

    /// With KMS's endpoint at another port than KMS's.
    fn behind(image: &Image, kms: Kms, port: u16, more: &str) -> House {
        let folder = tempfile::tempdir().unwrap();
        let key = kms.key(&attested_policy("none"));
        let registry = Registry::start();
        image.write(&folder.path().join("layout"));
        let _ = registry.push(&folder.path().join("layout"), "org/app:v1");
        let spec = folder.path().join("enclave.toml");
        let text = format!(
            "name = 'orders'\n[resources]\nmemory_mib = 192\ncpus = 1\n[network]\negress = ['localhost:{port}']\n\
             ingress = [{{ port = 8080 }}]\nattestation = '127.0.0.1:0'\n\
             [config]\nkms_key = '{key}'\nendpoint = 'localhost:{port}'\nca = '''{}'''\ncontext = {{ app = 'orders' }}\n{more}\n\
             [logs]\nforward = true\n",
            kms.ca()
        );
        std::fs::write(&spec, text).unwrap();
        House {
            folder,
            kms,
            key,
            registry,
            spec,
        }
    }

    fn reference(&self) -> String {
        format!("{}/org/app:v1", self.registry.host())
    }

    /// Builds what the daemon will build, and lets KMS decrypt for it; its path and PCR0.
    fn allow(&self) -> (PathBuf, String) {
        let path = self.folder.path().join("app.eif");
        let built = eif::build(
            &self.registry,
            &self.reference(),
            &path,
            &["--spec", self.spec.to_str().unwrap()],
        );
        let built: Value = serde_json::from_slice(&built.stdout).unwrap();
        let pcr0 = built["measurements"]["PCR0"].as_str().unwrap().to_owned();
        self.kms.set_policy(&self.key, &attested_policy(&pcr0));
        (path, pcr0)
    }

    fn daemon(&self, more: &[(&str, &str)]) -> Daemon {
        let aws = [
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID),
            ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY),
        ];
        start(&self.registry, &[&aws[..], more].concat())
    }

    /// Seals a config; the file and what the command printed.
    fn seal(&self, text: &str, version: u64) -> (PathBuf, Value) {
        let plain = self.folder.path().join("plain");
        std::fs::write(&plain, text).unwrap();
        let sealed = self.folder.path().join(format!("{version}.sealed"));
        // The demo and a test below seal with eif-builder.
        let output = Command::new(ours("enclavectl"))
            .args([
                "--json",
                "seal",
                "--version",
                &version.to_string(),
                "--spec",
            ])
            .args([self.spec.as_path(), Path::new("-o"), &sealed, &plain])
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        std::fs::remove_file(plain).unwrap();
        (sealed, serde_json::from_slice(&output.stdout).unwrap())
    }

    fn create(&self, daemon: &Daemon, name: &str, config: &Path) -> Answer {
        let (reference, spec) = (self.reference(), self.spec.display().to_string());
        let config = config.display().to_string();
        daemon.ctl(
            &[
                "create",
                "--name",
                name,
                "--image",
                &reference,
                "--registry-username",
                USER,
                "--registry-password-stdin",
                "--spec",
                &spec,
                "--config",
                &config,
            ],
            PASSWORD,
        )
    }
}

/// Where the daemon may reach the fake.
const INWARD: (&str, &str) = (
    "HOST_PROXY_EGRESS__ALLOW_NETWORKS",
    "['127.0.0.0/8', '::1/128']",
);

fn digest(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

fn logs(daemon: &Daemon, name: &str) -> String {
    daemon.ctl(&["logs", name], "").stdout
}

#[test]
fn the_workload_gets_its_secret_and_nobody_else_sees_it() {
    const FIRST: &str = "first-secret-86d1f0";
    const SECOND: &str = "second-secret-52b7aa";
    let house = House::new(&image(ENV_SCRIPT, "A=1"), Kms::start(), "");
    let (_, pcr0) = house.allow();
    let daemon = house.daemon(&[INWARD]);
    let (sealed, printed) = house.seal(&format!("TOKEN={FIRST}\n"), 1);
    let created = house.create(&daemon, "orders", &sealed);
    assert_eq!(created.code, 0, "{created:?}");
    wait_for("the first secret's hash", 10, || {
        logs(&daemon, "orders").contains(&digest(FIRST))
    });
    wait_for("the agent's memory", 10, || {
        logs(&daemon, "orders").contains("kB")
    });
    let memory = logs(&daemon, "orders")
        .split_whitespace()
        .find_map(|word| word.parse::<u32>().ok())
        .unwrap();
    assert!(
        memory <= 16 * 1024,
        "the agent takes {memory} KiB, after TLS and all; 16 MiB are the design's promise"
    );
    let record = daemon.show("orders");
    assert_eq!(
        (
            &record["config"]["version"],
            &record["measurements"]["PCR0"]
        ),
        (&1.into(), &pcr0.as_str().into())
    );
    let first = record;
    let attested = daemon.ctl(&["--json", "attestation", "orders"], "");
    let attested: Value = serde_json::from_str(&attested.stdout).unwrap();
    assert_eq!(
        attested["pcrs"]["PCR16"], printed["pcr16"],
        "which config runs is attested"
    );
    assert_eq!(
        attested["pcrs"]["PCR31"],
        "0".repeat(96),
        "and the rest is locked"
    );

    // The next config: the same image, launched again, without a moment in which nothing is deployed.
    let (sealed, printed) = house.seal(&format!("TOKEN={SECOND}\n"), 2);
    let configured = daemon.ctl(&["configure", "orders", sealed.to_str().unwrap()], "");
    assert_eq!(configured.code, 0, "{configured:?}");
    wait_for("the second secret's hash", 10, || {
        logs(&daemon, "orders").contains(&digest(SECOND))
    });
    let record = daemon.show("orders");
    assert_eq!(
        (&record["config"]["version"], &record["status"]),
        (&2.into(), &"DEPLOYED".into())
    );
    let events = daemon.ctl(&["events", "orders"], "").stdout;
    assert_eq!(
        events.matches("DEPLOYING (pulling the image)").count(),
        1,
        "no second build: {events}"
    );
    assert!(events.contains("config version 2 runs"), "{events}");
    // It answers where the first one did, and attests the file that it opened.
    assert_eq!(
        (&record["ingress"], &record["attestation"]),
        (&first["ingress"], &first["attestation"])
    );
    let page = get(record["ingress"][0]["address"].as_str().unwrap(), "/passwd");
    assert!(page.ends_with("/bin/sh\n"), "{page}");
    let document = house.folder.path().join("document");
    let fetched = Command::new(ours("attest"))
        .args([
            "fetch",
            &format!("http://{}", record["attestation"].as_str().unwrap()),
            "-o",
        ])
        .args([
            document.as_os_str(),
            "--pcr".as_ref(),
            format!("0={pcr0}").as_ref(),
        ])
        .output()
        .unwrap();
    assert_eq!(fetched.status.code(), Some(1), "QEMU signs nothing");
    let shown = run(Command::new(ours("attest")).arg("show").arg(&document));
    let pcr16 = Sha384::new()
        .chain_update([0; 48])
        .chain_update(Sha384::digest(std::fs::read(&sealed).unwrap()))
        .finalize();
    assert_eq!(printed["pcr16"], hex::encode(pcr16));
    assert!(
        shown.contains(&format!("PCR16       {}", hex::encode(pcr16))),
        "{shown}"
    );
    wait_for("the first enclave's end", 20, || {
        daemon.helpers().len() == 2
    });

    // A config that KMS will not open leaves the one before in place.
    house
        .kms
        .set_policy(&house.key, &attested_policy("another image"));
    let (sealed, _) = house.seal("TOKEN=third", 3);
    let refused = daemon.ctl(&["configure", "orders", sealed.to_str().unwrap()], "");
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.stderr.contains("AccessDeniedException"),
        "{refused:?}"
    );
    assert!(
        refused.stderr.contains("the previous config still runs"),
        "{refused:?}"
    );
    assert!(
        refused
            .stderr
            .contains(record["measurements"]["PCR0"].as_str().unwrap()),
        "{refused:?}"
    );
    let record = daemon.show("orders");
    assert_eq!(
        (&record["config"]["version"], &record["status"]),
        (&2.into(), &"DEPLOYED".into())
    );
    assert_eq!(
        std::fs::read_dir(daemon.folder().join("state/configs"))
            .unwrap()
            .count(),
        1
    );

    // Neither secret nor password is anywhere on this side: files, log, what runs with which arguments and environment.
    let base64 = |text: &str| tests::registry::base64(text.as_bytes());
    for needle in [FIRST, SECOND, PASSWORD, &base64(FIRST), &base64(SECOND)] {
        assert_eq!(
            files_with(daemon.folder(), needle.as_bytes()),
            Vec::<String>::new(),
            "{needle}"
        );
        assert_eq!(
            files_with(house.folder.path(), needle.as_bytes()),
            Vec::<String>::new(),
            "{needle}"
        );
        assert!(!daemon.helpers().iter().any(|line| line.contains(needle)));
        assert!(!daemon.environment().contains(needle));
    }
    let ended = daemon.ctl(&["terminate", "orders"], "");
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(
        std::fs::read_dir(daemon.folder().join("state/configs"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn the_secret_is_refused_to_an_image_that_differs_by_one_byte() {
    let house = House::new(&image(ENV_SCRIPT, "A=1"), Kms::start(), "");
    let (_, pcr0) = house.allow();
    let (sealed, _) = house.seal("TOKEN=x", 1);
    image(ENV_SCRIPT, "A=2").write(&house.folder.path().join("other"));
    let _ = house
        .registry
        .push(&house.folder.path().join("other"), "org/app:v1");
    let daemon = house.daemon(&[INWARD]);
    let refused = house.create(&daemon, "orders", &sealed);
    assert_eq!(refused.code, 1, "{refused:?}");
    let record = daemon.show("orders");
    let failure = &record["failure"];
    assert_eq!(
        (&failure["code"], &failure["stage"]),
        (&"KMS_REFUSED".into(), &"configure".into())
    );
    assert!(
        failure["message"]
            .as_str()
            .unwrap()
            .contains("AccessDeniedException"),
        "{failure}"
    );
    let own = record["measurements"]["PCR0"].as_str().unwrap();
    assert_ne!(own, pcr0);
    assert!(
        failure["next_step"].as_str().unwrap().contains(own),
        "{failure}"
    );

    // Allowed now, but by a KMS that does not look at attestation; and then by one that looks.
    house.kms.set_policy(&house.key, &attested_policy(own));
    house.kms.misbehave(Mischief::AnswersPlaintext);
    assert_eq!(daemon.ctl(&["redeploy", "orders"], "").code, 1);
    let failure = &daemon.show("orders")["failure"];
    assert_eq!(failure["code"], "KMS_REFUSED");
    assert!(
        failure["message"]
            .as_str()
            .unwrap()
            .contains("did not look at the attestation document"),
        "{failure}"
    );
    house.kms.misbehave(Mischief::None);
    let (next, _) = house.seal("TOKEN=y", 2);
    let configured = daemon.ctl(&["configure", "orders", next.to_str().unwrap()], "");
    assert_eq!(configured.code, 0, "from FAILED: {configured:?}");
    assert_eq!(daemon.show("orders")["config"]["version"], 2);
    // An order that comes in between ends the wait for the config, and says so.
    let (third, _) = house.seal("TOKEN=z", 3);
    let ordered = daemon.ctl(
        &["configure", "orders", third.to_str().unwrap(), "--no-wait"],
        "",
    );
    assert_eq!(ordered.code, 0, "{ordered:?}");
    let again = daemon.ctl(&["configure", "orders", third.to_str().unwrap()], "");
    assert!(
        again.stderr.contains("while another config is on its way"),
        "{again:?}"
    );
    assert_eq!(daemon.ctl(&["redeploy", "orders"], "").code, 0);
    let record = daemon.show("orders");
    assert_eq!(
        (&record["config"]["version"], &record["status"]),
        (&2.into(), &"DEPLOYED".into())
    );
    let events = daemon.ctl(&["events", "orders"], "").stdout;
    assert!(
        events.contains("config version 3 was refused: the enclave was stopped before"),
        "{events}"
    );
    assert_eq!(
        std::fs::read_dir(daemon.folder().join("state/configs"))
            .unwrap()
            .count(),
        1
    );
}

#[test]
fn what_the_host_refuses_is_told_as_such() {
    let house = House::new(&image(ENV_SCRIPT, "A=1"), Kms::start(), "");
    house.allow();
    let (sealed, _) = house.seal("TOKEN=x", 1);
    let daemon = house.daemon(&[]);
    assert_eq!(house.create(&daemon, "orders", &sealed).code, 1);
    let failure = &daemon.show("orders")["failure"];
    assert_eq!(failure["code"], "KMS_UNREACHABLE");
    assert!(
        failure["next_step"]
            .as_str()
            .unwrap()
            .contains("egress.allow_networks"),
        "{failure}"
    );
}

#[test]
fn the_config_can_be_a_file_that_only_its_user_reads() {
    let text = "any bytes, \u{1F512}\nno variables";
    let house = House::new(
        &image(FILE_SCRIPT, "A=1"),
        Kms::start(),
        "deliver = '/run/config/app.env'",
    );
    house.allow();
    house.kms.answer_in(Form::Pieces);
    let daemon = house.daemon(&[INWARD]);
    let (sealed, _) = house.seal(text, 1);
    let created = house.create(&daemon, "orders", &sealed);
    assert_eq!(created.code, 0, "{created:?}");
    let expected = format!(
        "500 1000 1000 .\n400 1000 1000 app.env\n{}  app.env\n1\n",
        digest(text)
    );
    wait_for("the workload's look at its config", 10, || {
        logs(&daemon, "orders").ends_with("1\n")
    });
    assert_eq!(logs(&daemon, "orders"), expected);
}

#[test]
fn orders_whose_config_does_not_fit_are_refused_at_once() {
    let house = House::new(
        &image(ENV_SCRIPT, "A=1"),
        Kms::start(),
        "minimum_version = 2",
    );
    let daemon = house.daemon(&[INWARD]);
    let (good, _) = house.seal("TOKEN=x", 2);
    let bytes = std::fs::read(&good).unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = house.folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    for (path, message) in [
        (write("empty", b""), "this is no sealed config"),
        (write("cut", &bytes[..60]), "the sealed config is damaged"),
        (
            write("flipped", &[b"r", &bytes[1..40]].concat()),
            "the sealed config is damaged",
        ),
    ] {
        let refused = house.create(&daemon, "orders", &path);
        assert_eq!(refused.code, 64, "{refused:?}");
        assert!(refused.stderr.contains(message), "{refused:?}");
    }
    let plain = [
        "create",
        "--name",
        "orders",
        "--image",
        &house.reference(),
        "--spec",
        house.spec.to_str().unwrap(),
    ];
    let missing = daemon.ctl(&plain, "");
    assert!(
        missing.stderr.contains("asks for a sealed config") && missing.stderr.contains("--config"),
        "{missing:?}"
    );
    let old = Command::new(ours("eif-builder"))
        .args([
            "seal",
            "/dev/null",
            "--version",
            "1",
            "-o",
            "/dev/null",
            "--spec",
            house.spec.to_str().unwrap(),
        ])
        .output()
        .unwrap();
    assert!(
        String::from_utf8_lossy(&old.stderr).contains("1 to 49152 bytes"),
        "an empty config"
    );
}

/// Plays the host to the end of a boot, and gives what the agent said last. The egress is a real one.
fn host(eif: &Path, spec: &wire::spec::MeasuredSpec, boot: FromHost, allowed: bool) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let run_dir = tempfile::Builder::new()
        .prefix("rh")
        .tempdir_in("/tmp")
        .unwrap();
    let config = host_proxy::config::load(run_dir.path(), None, std::iter::empty())
        .unwrap()
        .config;
    runtime.block_on(async {
        let resources = wire::spec::Resources {
            memory_mib: 192,
            cpus: 1,
        };
        let id = EnclaveId::random().unwrap();
        let launcher = launch::for_provider(config.launcher, &config.qemu);
        let reservation = launcher.reserve(resources).unwrap();
        let request = LaunchRequest {
            id: &id,
            eif,
            resources,
            run_dir: run_dir.path(),
        };
        let (running, listeners) = launcher.launch(request, reservation).await.unwrap();
        let Listeners {
            heartbeat,
            control,
            egress,
        } = listeners;
        let inward = ["127.0.0.0/8", "::1/128"]
            .map(|text| oci::network::Network::try_from(text.to_owned()).unwrap());
        let allow_networks = if allowed { inward.to_vec() } else { vec![] };
        let policy = EgressPolicy {
            network: spec.network.clone(),
            allow_networks,
        };
        let serving = tokio::spawn(egress::serve(egress, policy));
        control::heartbeat(&heartbeat).await.unwrap();
        let mut control = Control::accept(&control, boot, Logs::default())
            .await
            .unwrap();
        let report = tokio::time::timeout(Duration::from_secs(90), control.report()).await;
        serving.abort();
        drop(running);
        report.expect("the agent hangs")
    })
}

fn credentials() -> Option<AwsCredentials> {
    Some(AwsCredentials {
        access_key_id: ACCESS_KEY_ID.to_owned().into(),
        secret_access_key: SECRET_ACCESS_KEY.to_owned().into(),
        session_token: None,
    })
}

fn failed(report: Report) -> (AbortReason, String) {
    match report {
        Report::Failed { reason, detail } => (reason, detail),
        other => panic!("{other:?}"),
    }
}

/// A spec as it is in the image, to play the host with.
fn resolved(house: &House) -> wire::spec::MeasuredSpec {
    let manifest = wire::spec::Spec::parse(&std::fs::read_to_string(&house.spec).unwrap()).unwrap();
    manifest.resolve(wire::spec::ImageDefaults::any()).unwrap()
}

#[test]
fn a_hostile_parent_gets_reasons_and_never_a_running_workload() {
    let house = House::new(
        &image(ENV_SCRIPT, "A=1"),
        Kms::start(),
        "minimum_version = 2",
    );
    let (eif, _) = house.allow();
    let spec = resolved(&house);
    let (path, _) = house.seal("TOKEN=x", 2);
    let good = std::fs::read(&path).unwrap();
    let boot = |config: Option<Vec<u8>>, credentials| FromHost::Boot {
        config,
        credentials,
    };
    assert_eq!(
        host(&eif, &spec, boot(Some(good.clone()), credentials()), true),
        Report::Started
    );

    let reseal = |change: &dyn Fn(&mut wire::sealed::Header)| {
        let Sealed {
            mut header,
            ciphertext,
            ..
        } = Sealed::parse(&good).unwrap();
        change(&mut header);
        Some([header.encode(), ciphertext.to_vec()].concat())
    };
    let other_key = house.kms.key(&attested_policy("x"));
    // Genuine files that were sealed for this enclave, of another key, another version, and the same one.
    let blob_of = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        Sealed::parse(&bytes).unwrap().header.encrypted_key
    };
    let (newer, _) = house.seal("TOKEN=newer", 3);
    let newer = blob_of(&newer);
    let (twin, _) = house.seal("TOKEN=twin", 2);
    let twin = blob_of(&twin);
    let text = std::fs::read_to_string(&house.spec).unwrap();
    std::fs::write(&house.spec, text.replace("minimum_version = 2", "")).unwrap();
    let (old, _) = house.seal("TOKEN=old", 1);
    std::fs::write(&house.spec, text.replace(&house.key, &other_key)).unwrap();
    let (elsewhere, _) = house.seal("TOKEN=elsewhere", 2);
    let (old, elsewhere) = (std::fs::read(old).unwrap(), blob_of(&elsewhere));
    std::fs::write(&house.spec, text).unwrap();
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        Some(bytes)
    };
    let last = good.len() - 1;
    let nobody = AwsCredentials {
        access_key_id: "AKIANOBODY".to_owned().into(),
        ..credentials().unwrap()
    };
    for (what, config, credentials, failure, part) in [
        (
            "nothing",
            None,
            credentials(),
            AbortReason::ConfigMissing,
            "the host sent none",
        ),
        (
            "no credentials",
            Some(good.clone()),
            None,
            AbortReason::ConfigMissing,
            "no AWS credentials",
        ),
        (
            "bad credentials",
            Some(good.clone()),
            Some(nobody),
            AbortReason::KmsRefused,
            "UnrecognizedClientException",
        ),
        (
            "cut off",
            Some(good[..last].to_vec()),
            credentials(),
            AbortReason::ConfigDamaged,
            "changed after it was sealed",
        ),
        (
            "a flipped bit",
            flipped(last),
            credentials(),
            AbortReason::ConfigDamaged,
            "changed after it was sealed",
        ),
        (
            "another name",
            reseal(&|h| h.name = "other".to_owned()),
            credentials(),
            AbortReason::ConfigForeign,
            "the name 'other'",
        ),
        (
            "another key",
            reseal(&|h| h.kms_key = other_key.clone()),
            credentials(),
            AbortReason::ConfigForeign,
            "the key",
        ),
        (
            "another context",
            reseal(&|h| h.context.clear()),
            credentials(),
            AbortReason::ConfigForeign,
            "the context",
        ),
        (
            "an older file",
            Some(old),
            credentials(),
            AbortReason::ConfigTooOld,
            "version 1, the spec wants 2",
        ),
        (
            "a newer file's data key",
            reseal(&|h| h.encrypted_key = newer.clone()),
            credentials(),
            AbortReason::ConfigDamaged,
            "InvalidCiphertext",
        ),
        (
            "another key's data key",
            reseal(&|h| h.encrypted_key = elsewhere.clone()),
            credentials(),
            AbortReason::ConfigDamaged,
            "InvalidCiphertext",
        ),
        (
            "its twin's data key",
            reseal(&|h| h.encrypted_key = twin.clone()),
            credentials(),
            AbortReason::ConfigDamaged,
            "changed after it was sealed",
        ),
        (
            "a lie about the version",
            reseal(&|h| h.version = 3),
            credentials(),
            AbortReason::ConfigDamaged,
            "InvalidCiphertext",
        ),
        (
            "another data key",
            reseal(&|h| h.encrypted_key[20] ^= 1),
            credentials(),
            AbortReason::ConfigDamaged,
            "InvalidCiphertext",
        ),
    ] {
        let (found, detail) = failed(host(&eif, &spec, boot(config, credentials), true));
        assert_eq!(found, failure, "{what}: {detail}");
        assert!(detail.contains(part), "{what}: {detail}");
    }
    let (found, detail) = failed(host(&eif, &spec, boot(Some(good), credentials()), false));
    assert_eq!(found, AbortReason::EgressRefused, "{detail}");
}

#[test]
fn only_a_kms_that_attests_and_proves_itself_will_do() {
    let house = House::new(&image(ENV_SCRIPT, "A=1"), Kms::start(), "");
    let (eif, _) = house.allow();
    let spec = resolved(&house);
    let (path, _) = house.seal("TOKEN=x", 1);
    let boot = || FromHost::Boot {
        config: Some(std::fs::read(&path).unwrap()),
        credentials: credentials(),
    };
    for (mischief, failure, part) in [
        (
            Mischief::AnswersPlaintext,
            AbortReason::KmsAnswer,
            "did not look at the attestation document",
        ),
        (
            Mischief::AnswersLocalStack,
            AbortReason::KmsAnswer,
            "an emulator may have answered",
        ),
        (
            Mischief::Hangs,
            AbortReason::KmsUnreachable,
            "KMS could not be asked",
        ),
        (
            Mischief::Stalls,
            AbortReason::KmsUnreachable,
            "KMS could not be asked",
        ),
    ] {
        house.kms.misbehave(mischief);
        let (found, detail) = failed(host(&eif, &spec, boot(), true));
        assert_eq!(found, failure, "{mischief:?}: {detail}");
        assert!(detail.contains(part), "{mischief:?}: {detail}");
    }
}

#[test]
fn a_server_with_another_name_is_not_kms() {
    let house = House::new(
        &image(ENV_SCRIPT, "A=1"),
        Kms::start_as("kms.example.com"),
        "",
    );
    let path = house.folder.path().join("app.eif");
    eif::build(
        &house.registry,
        &house.reference(),
        &path,
        &["--spec", house.spec.to_str().unwrap()],
    );
    let header = wire::sealed::Header {
        name: "orders".to_owned(),
        version: 1,
        kms_key: house.key.clone(),
        context: [("app".to_owned(), "orders".to_owned())].into(),
        encrypted_key: vec![1; 60],
        nonce: [0; 12],
    };
    let config = Some([header.encode(), vec![0; 40]].concat());
    let boot = FromHost::Boot {
        config,
        credentials: credentials(),
    };
    let (found, detail) = failed(host(&path, &resolved(&house), boot, true));
    assert_eq!(found, AbortReason::KmsTls, "{detail}");
    assert_eq!(house.kms.seen(), Vec::<String>::new());
}

/// Carries connections to `port` and keeps what passed, in both directions.
fn recorder(port: u16) -> (u16, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap().port();
    let tape = Arc::new(Mutex::new(Vec::new()));
    let recording = tape.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(("127.0.0.1", port)).unwrap();
            for (mut from, mut to) in [
                (client.try_clone().unwrap(), server.try_clone().unwrap()),
                (server, client),
            ] {
                let tape = recording.clone();
                std::thread::spawn(move || {
                    let mut buffer = [0; 16 * 1024];
                    while let Ok(n @ 1..) = from.read(&mut buffer) {
                        tape.lock().unwrap().extend_from_slice(&buffer[..n]);
                        if to.write_all(&buffer[..n]).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
    (own, tape)
}

#[test]
fn the_parent_sees_ciphertext_of_the_talk_with_kms() {
    let kms = Kms::start();
    let (port, tape) = recorder(kms.port);
    let house = House::behind(&image(ENV_SCRIPT, "A=1"), kms, port, "");
    let (eif, _) = house.allow();
    let (path, _) = house.seal("TOKEN=x", 1);
    tape.lock().unwrap().clear();
    let boot = FromHost::Boot {
        config: Some(std::fs::read(&path).unwrap()),
        credentials: credentials(),
    };
    assert_eq!(host(&eif, &resolved(&house), boot, true), Report::Started);
    assert_eq!(house.kms.seen(), ["GenerateDataKey", "Decrypt"]);
    let tape = tape.lock().unwrap();
    assert_eq!(tape.first(), Some(&0x16), "a TLS handshake");
    assert!(
        tape.len() > 4000,
        "an attestation document and more went by"
    );
    for needle in [
        "TrentService",
        "CiphertextForRecipient",
        "AttestationDocument",
        "AWS4-HMAC",
        "HTTP/1.1",
    ] {
        assert!(
            !tape
                .windows(needle.len())
                .any(|window| window == needle.as_bytes()),
            "{needle}"
        );
    }
}

/// A fake of the instance metadata service, version 2 (EC2 user guide, "Use IMDSv2"): a session token first, then the role's credentials.
fn fake_metadata_service() -> String {
    const SESSION: &str = "a-session-token";
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
            let session = head.contains(&format!("x-aws-ec2-metadata-token: {SESSION}"));
            let role = "/latest/meta-data/iam/security-credentials/";
            let (status, body) = if head.starts_with("put /latest/api/token ") {
                (200, SESSION.to_owned())
            } else if !session {
                (401, String::new())
            } else if head.starts_with(&format!("get {role} ")) {
                (200, "parent".to_owned())
            } else if head.starts_with(&format!("get {role}parent ")) {
                let credentials = serde_json::json!({
                    "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z",
                    "AccessKeyId": ACCESS_KEY_ID, "SecretAccessKey": SECRET_ACCESS_KEY, "Token": "t",
                    "Expiration": "2099-01-01T00:00:00Z",
                });
                (200, credentials.to_string())
            } else {
                (404, String::new())
            };
            let _ = write!(
                stream,
                "HTTP/1.1 {status} x\r\nx-aws-ec2-metadata-token-ttl-seconds: 21600\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    url
}

#[test]
fn credentials_for_kms_come_from_the_instances_role() {
    let house = House::new(&image(ENV_SCRIPT, "A=1"), Kms::start(), "");
    house.allow();
    let (sealed, _) = house.seal("TOKEN=x", 1);
    let nowhere = format!("http://127.0.0.1:{}", tests::free_port());
    for (endpoint, code) in [(fake_metadata_service(), 0), (nowhere, 1)] {
        let settings = [
            INWARD,
            ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"),
            ("AWS_CONFIG_FILE", "/nonexistent"),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &endpoint),
            ("AWS_REGION", "us-east-1"),
        ];
        let daemon = start(&house.registry, &settings);
        let created = house.create(&daemon, "orders", &sealed);
        assert_eq!(created.code, code, "{created:?}");
        if code != 0 {
            assert_eq!(
                daemon.show("orders")["failure"]["code"],
                "AWS_CREDENTIALS_MISSING"
            );
        }
    }
}
