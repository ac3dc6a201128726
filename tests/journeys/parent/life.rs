//! What enclaves are for, on the driver.

use super::Box;
use crate::sealed::{ENV_SCRIPT, House, INWARD, digest, image};
use std::net::SocketAddr;
use tests::kms::Kms;
use tests::metadata::fake_metadata_service;
use tests::parent::Parent;
use tests::registry::{PASSWORD, USER};
use tests::wait_for;

const SECRET: &str = "a-secret-3f9d20";

#[test]
#[cfg_attr(not(parent), ignore = "needs the parent instance: run scripts/test")]
fn a_sealed_config_reaches_a_workload_that_the_driver_started() {
    let kms = Kms::start();
    let port = kms.port;
    let house = House::behind(&image(ENV_SCRIPT, "A=1"), kms, port, "");
    let parent = Parent::boot();
    let before = parent.free();
    house.kms.trust(parent.machine.root());
    let (_, pcr0) = house.allow();
    reaches_aws(&parent, &house);
    let (sealed, _) = house.seal(&format!("TOKEN={SECRET}\n"), 1);
    parent.put("/root/config.sealed", std::fs::read(sealed).unwrap());
    let spec = std::fs::read_to_string(&house.spec).unwrap();
    let config = "--config /root/config.sealed";
    let created = parent.create_with("orders", &house.scene.reference, &spec, config);
    assert_eq!(created.code, 0, "{created:?}\n{}", parent.logs());
    let record = parent.show("orders");
    assert_eq!(record["measurements"]["PCR0"], pcr0.as_str());
    assert!(parent.get("orders", "/passwd").contains("web:x:1000"));
    wait_for("the hash of the secret", 20, || {
        parent
            .ok("enclavectl logs orders")
            .contains(&digest(SECRET))
    });
    a_relying_party_believes_it(&parent, &pcr0);
    let left = parent.run(&format!(
        "grep -rlF {SECRET} /var/lib/redoubt /run/redoubt; journalctl | grep -F {SECRET}"
    ));
    assert_eq!(left.stdout, "", "the secret is on the parent");
    parent.ok("enclavectl terminate orders");
    parent.has_back(&before);
}

/// The fake KMS, and credentials from the instance's metadata at its real address.
fn reaches_aws(parent: &Parent, house: &House) {
    parent.ok("ip address add 169.254.169.254/32 dev lo");
    let url = fake_metadata_service();
    let metadata = url.rsplit(':').next().unwrap().parse().unwrap();
    let at = SocketAddr::from(([169, 254, 169, 254], 80));
    parent.machine.bring(metadata, at).unwrap();
    parent.bring(house.kms.port);
    parent.with_registry(&house.scene.registry, &[INWARD]);
}

fn a_relying_party_believes_it(parent: &Parent, pcr0: &str) {
    let record = parent.show("orders");
    let url = format!("http://{}", record["attestation"].as_str().unwrap());
    let fetch = format!("attest fetch {url} --pcr 0={pcr0}");
    // AWS's root is the default, and did not sign this.
    assert_eq!(parent.run(&fetch).code, 1);
    parent.ok(&format!("{fetch} --root /opt/redoubt/root.pem"));
}

#[test]
#[cfg_attr(not(parent), ignore = "needs the parent instance: run scripts/test")]
fn three_enclaves_at_once_and_ends_that_nobody_asked_for() {
    let scene = Box::new(&[("HOST_PROXY_LAUNCH__HEARTBEAT_TIMEOUT_SECONDS", "20")]);
    let before = scene.parent.free();
    three_at_once(&scene);
    scene.parent.has_back(&before);
    one_that_crashes(&scene);
    scene.parent.has_back(&before);
    one_that_says_nothing(&scene);
    scene.parent.has_back(&before);
    one_in_debug_mode(&scene);
    scene.parent.has_back(&before);
}

fn three_at_once(scene: &Box) {
    let parent = &scene.parent;
    parent.put("/root/spec.toml", super::SPEC);
    parent.put("/root/password", PASSWORD);
    let create = |name: &str| {
        format!(
            "enclavectl create --name {name} --image {} --registry-username {USER} \
             --registry-password-stdin --spec /root/spec.toml </root/password & ",
            scene.scene.reference
        )
    };
    let names = ["a", "b", "c"];
    let all: String = names.iter().map(|name| create(name)).collect();
    parent.ok(&format!("{all} wait"));
    for name in names {
        let record = parent.show(name);
        let events = parent.machine.events().lines();
        assert_eq!(record["status"], "DEPLOYED", "{record}\n{events:#?}");
        scene.serves(name);
    }
    let free = parent.free();
    assert_eq!(free.slots, 3, "{free:?}");
    for name in names {
        scene.terminate(name);
    }
}

/// The hypervisor sees it end, the driver's descriptor hangs up, the record says so.
fn one_that_crashes(scene: &Box) {
    scene.deployed("crashing");
    let cid = scene.only_cid();
    assert!(scene.parent.machine.hypervisor().crash(cid));
    scene.parent.becomes("crashing", "FAILED");
    let failure = &scene.parent.show("crashing")["failure"];
    assert_eq!(failure["code"], "ENCLAVE_LOST", "{failure}");
    scene.parent.ok("enclavectl redeploy crashing");
    scene.serves("crashing");
    scene.terminate("crashing");
}

/// Its processor stops before its first byte.
fn one_that_says_nothing(scene: &Box) {
    let parent = &scene.parent;
    let machine = &parent.machine;
    let frozen = std::thread::scope(|scope| {
        let freezing = scope.spawn(|| {
            wait_for("an enclave", 100, || {
                (16..20).any(|cid| machine.hypervisor().freeze(cid))
            });
        });
        let failure = scene.failure("silent");
        freezing.join().unwrap();
        failure
    });
    assert_eq!(frozen["code"], "HEARTBEAT_MISSING", "{frozen}");
}

/// Its registers are zero, it is called so, and its console can be read.
fn one_in_debug_mode(scene: &Box) {
    let parent = &scene.parent;
    let reference = &scene.scene.reference;
    let refused = parent.create_with("closed", reference, super::SPEC, "--debug");
    let failure = parent.show("closed")["failure"].clone();
    assert_eq!(failure["code"], "DEBUG_REFUSED", "{refused:?} {failure}");
    scene.terminate("closed");
    let spec = format!("{}[security]\nallow_debug = true\n", super::SPEC);
    let created = parent.create_with("open", reference, &spec, "--debug");
    let shown = parent.ok("enclavectl show open");
    assert!(
        shown.contains("DEPLOYED") && shown.contains("DEBUG"),
        "{created:?} {shown}"
    );
    let attested = parent.run("enclavectl --json attestation open").stdout;
    assert!(attested.contains(&"0".repeat(96)), "{attested}");
    assert!(parent.machine.hypervisor().crash(scene.only_cid()));
    parent.becomes("open", "FAILED");
    let failure = parent.show("open")["failure"].clone();
    let message = failure["message"].as_str().unwrap();
    assert!(message.contains("/init"), "no console in: {message}");
    scene.terminate("open");
}
