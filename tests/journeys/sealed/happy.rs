//! What a sealed config is for: the workload gets its secret, and nothing else does.

use super::{ENV_SCRIPT, House, INWARD, assert_deployed, configs, configure, digest, image};
use serde_json::Value;
use sha2::{Digest as _, Sha384};
use std::path::Path;
use std::process::Command;
use tests::daemon::Daemon;
use tests::files::files_with;
use tests::kms::{Form, Kms, attested_policy};
use tests::programs::{ours, run};
use tests::registry::{PASSWORD, base64};
use tests::tcp::get;
use tests::wait_for;

const FIRST: &str = "first-secret-86d1f0";
const SECOND: &str = "second-secret-52b7aa";

const FILE_SCRIPT: &str = "cd /run/config && busybox stat -c '%a %u %g %n' . app.env; busybox sha256sum app.env; \
     busybox mount | busybox grep -c 'tmpfs on /run/config'; exec busybox sleep 1000";

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn the_workload_gets_its_secret_and_nobody_else_sees_it() {
    let house = House::of(&image(ENV_SCRIPT, "A=1"), Kms::start(), "");
    let (_, pcr0) = house.allow();
    let daemon = house.daemon(&[INWARD]);
    let (sealed, printed) = house.seal(&format!("TOKEN={FIRST}\n"), 1);
    let created = house.create(&daemon, &sealed);
    assert_eq!(created.code, 0, "{created:?}");
    workload_knows(&daemon, FIRST);
    agent_is_small(&daemon);
    let first = daemon.show("orders");
    let found = (&first["config"]["version"], &first["measurements"]["PCR0"]);
    assert_eq!(found, (&1.into(), &pcr0.as_str().into()));
    config_is_attested(&daemon, &printed);

    next_config_runs_without_a_gap(&house, &daemon, &first);
    let record = daemon.show("orders");
    document_names_the_config(&house, &record, &pcr0);
    wait_for("the first enclave's end", 20, || {
        daemon.helpers().len() == 2
    });
    refused_config_leaves_the_one_before(&house, &daemon);
    secrets_are_nowhere(&daemon, house.scene.folder());

    let ended = daemon.ctl(&["terminate", "orders"], "");
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(configs(&daemon), 0);
}

fn workload_knows(daemon: &Daemon, secret: &str) {
    let what = format!("the hash of {secret}");
    wait_for(&what, 10, || {
        daemon.logs("orders").contains(&digest(secret))
    });
}

/// After TLS and all, by its own word: the workload does not see it.
fn agent_is_small(daemon: &Daemon) {
    let address = daemon.show("orders")["attestation"].clone();
    let health = get(address.as_str().unwrap(), "/healthz");
    let line = health.lines().find_map(|line| line.strip_prefix("agent: "));
    let memory = line.and_then(|line| line.split(' ').next()).unwrap();
    let memory: u32 = memory.parse().unwrap();
    assert!(
        memory <= 16 * 1024,
        "the agent takes {memory} KiB; at most 16 MiB are promised"
    );
}

fn config_is_attested(daemon: &Daemon, printed: &Value) {
    let attested = daemon.ctl(&["--json", "attestation", "orders"], "");
    let attested: Value = serde_json::from_str(&attested.stdout).unwrap();
    let pcrs = &attested["pcrs"];
    assert_eq!(
        pcrs["PCR16"], printed["pcr16"],
        "which config runs is attested"
    );
    assert_eq!(pcrs["PCR31"], "0".repeat(96), "and the rest is locked");
}

/// The same image, launched again, without a moment in which nothing is deployed.
fn next_config_runs_without_a_gap(house: &House, daemon: &Daemon, first: &Value) {
    let (sealed, printed) = house.seal(&format!("TOKEN={SECOND}\n"), 2);
    let configured = configure(daemon, &sealed);
    assert_eq!(configured.code, 0, "{configured:?}");
    workload_knows(daemon, SECOND);
    let record = daemon.show("orders");
    assert_deployed(&record, 2);
    let events = daemon.ctl(&["events", "orders"], "").stdout;
    let builds = events.matches("DEPLOYING (pulling the image)").count();
    assert_eq!(builds, 1, "no second build: {events}");
    assert!(events.contains("config version 2 runs"), "{events}");
    // It answers where the first one did.
    let found = (&record["ingress"], &record["attestation"]);
    assert_eq!(found, (&first["ingress"], &first["attestation"]));
    let page = get(record["ingress"][0]["address"].as_str().unwrap(), "/passwd");
    assert!(page.ends_with("/bin/sh\n"), "{page}");
    assert_eq!(printed["pcr16"], pcr16(&sealed));
}

/// PCR16 of an enclave that opened this file.
fn pcr16(sealed: &Path) -> String {
    let file = Sha384::digest(std::fs::read(sealed).unwrap());
    let pcr = Sha384::new().chain_update([0; 48]).chain_update(file);
    hex::encode(pcr.finalize())
}

/// It attests the file that it opened.
fn document_names_the_config(house: &House, record: &Value, pcr0: &str) {
    let document = house.scene.path("document");
    let url = format!("http://{}", record["attestation"].as_str().unwrap());
    let fetched = Command::new(ours("attest"))
        .args(["fetch", &url, "--pcr", &format!("0={pcr0}"), "-o"])
        .arg(&document)
        .output()
        .unwrap();
    assert_eq!(fetched.status.code(), Some(1), "QEMU signs nothing");
    let shown = run(Command::new(ours("attest")).arg("show").arg(&document));
    let line = format!("PCR16       {}", pcr16(&house.scene.path("2.sealed")));
    assert!(shown.contains(&line), "{shown}");
}

/// KMS does not open it.
fn refused_config_leaves_the_one_before(house: &House, daemon: &Daemon) {
    let policy = attested_policy("another image");
    house.kms.set_policy(&house.key, &policy);
    let (sealed, _) = house.seal("TOKEN=third", 3);
    let refused = configure(daemon, &sealed);
    assert_eq!(refused.code, 1, "{refused:?}");
    let record = daemon.show("orders");
    for text in [
        "AccessDeniedException",
        "the previous config still runs",
        record["measurements"]["PCR0"].as_str().unwrap(),
    ] {
        assert!(refused.stderr.contains(text), "{text} in {refused:?}");
    }
    assert_deployed(&record, 2);
    assert_eq!(configs(daemon), 1);
}

/// Neither secret nor password is anywhere on this side: files, log, what runs with which arguments
/// and environment.
fn secrets_are_nowhere(daemon: &Daemon, folder: &Path) {
    let [first, second] = [FIRST, SECOND].map(|secret| base64(secret.as_bytes()));
    for needle in [FIRST, SECOND, PASSWORD, &first, &second] {
        for place in [daemon.folder(), folder] {
            let found = files_with(place, needle.as_bytes());
            assert_eq!(found, Vec::<String>::new(), "{needle}");
        }
        assert!(!daemon.helpers().iter().any(|line| line.contains(needle)));
        assert!(!daemon.environment().contains(needle));
    }
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn the_config_can_be_a_file_that_only_its_user_reads() {
    let text = "any bytes, \u{1F512}\nno variables";
    let deliver = "deliver = '/run/config/app.env'";
    let house = House::of(&image(FILE_SCRIPT, "A=1"), Kms::start(), deliver);
    house.allow();
    house.kms.answer_in(Form::Pieces);
    let daemon = house.daemon(&[INWARD]);
    let (sealed, _) = house.seal(text, 1);
    let created = house.create(&daemon, &sealed);
    assert_eq!(created.code, 0, "{created:?}");
    let expected = format!(
        "500 1000 1000 .\n400 1000 1000 app.env\n{}  app.env\n1\n",
        digest(text)
    );
    wait_for("the workload's look at its config", 10, || {
        daemon.logs("orders").ends_with("1\n")
    });
    assert_eq!(daemon.logs("orders"), expected);
}
