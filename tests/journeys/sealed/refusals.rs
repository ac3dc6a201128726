//! Who does not get the secret, and what then happens to the enclave.

use super::{ENV_SCRIPT, House, INWARD, assert_deployed, configs, configure, image};
use serde_json::Value;
use tests::daemon::Daemon;
use tests::kms::{Mischief, attested_policy};

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn the_secret_is_refused_to_an_image_that_differs_by_one_byte() {
    let house = House::new("");
    let (_, pcr0) = house.allow();
    let (sealed, _) = house.seal("TOKEN=x", 1);
    let _ = house.scene.push(&image(ENV_SCRIPT, "A=2"), "org/app:v1");
    let daemon = house.daemon(&[INWARD]);
    let refused = house.create(&daemon, &sealed);
    assert_eq!(refused.code, 1, "{refused:?}");
    let record = daemon.show("orders");
    let own = record["measurements"]["PCR0"].as_str().unwrap();
    assert_ne!(own, pcr0);
    failure_names_the_image(&record["failure"], own);

    house.kms.set_policy(&house.key, &attested_policy(own));
    a_kms_that_does_not_attest_is_refused(&house, &daemon);
    let (next, _) = house.seal("TOKEN=y", 2);
    let configured = configure(&daemon, &next);
    assert_eq!(configured.code, 0, "from FAILED: {configured:?}");
    assert_eq!(daemon.show("orders")["config"]["version"], 2);
    an_order_in_between_ends_the_wait(&house, &daemon);
}

fn failure_names_the_image(failure: &Value, pcr0: &str) {
    let found = (&failure["code"], &failure["stage"]);
    assert_eq!(found, (&"KMS_REFUSED".into(), &"configure".into()));
    let message = failure["message"].as_str().unwrap();
    assert!(message.contains("AccessDeniedException"), "{failure}");
    let next_step = failure["next_step"].as_str().unwrap();
    assert!(next_step.contains(pcr0), "{failure}");
}

/// The image is allowed now, but by a KMS that does not look at attestation; afterwards it looks
/// again.
fn a_kms_that_does_not_attest_is_refused(house: &House, daemon: &Daemon) {
    house.kms.misbehave(Mischief::AnswersPlaintext);
    assert_eq!(daemon.ctl(&["redeploy", "orders"], "").code, 1);
    let failure = &daemon.show("orders")["failure"];
    assert_eq!(failure["code"], "KMS_REFUSED");
    let message = failure["message"].as_str().unwrap();
    let expected = "did not look at the attestation document";
    assert!(message.contains(expected), "{failure}");
    house.kms.misbehave(Mischief::None);
}

/// The wait for a config, and it says so.
fn an_order_in_between_ends_the_wait(house: &House, daemon: &Daemon) {
    let (third, _) = house.seal("TOKEN=z", 3);
    let arguments = ["configure", "orders", third.to_str().unwrap(), "--no-wait"];
    let ordered = daemon.ctl(&arguments, "");
    assert_eq!(ordered.code, 0, "{ordered:?}");
    let again = configure(daemon, &third);
    let busy = "while another config is on its way";
    assert!(again.stderr.contains(busy), "{again:?}");
    assert_eq!(daemon.ctl(&["redeploy", "orders"], "").code, 0);
    assert_deployed(&daemon.show("orders"), 2);
    let events = daemon.ctl(&["events", "orders"], "").stdout;
    let refused = "config version 3 was refused: the enclave was stopped before";
    assert!(events.contains(refused), "{events}");
    assert_eq!(configs(daemon), 1);
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn what_the_host_refuses_is_told_as_such() {
    let house = House::new("");
    house.allow();
    let (sealed, _) = house.seal("TOKEN=x", 1);
    let daemon = house.daemon(&[]);
    assert_eq!(house.create(&daemon, &sealed).code, 1);
    let failure = &daemon.show("orders")["failure"];
    assert_eq!(failure["code"], "KMS_UNREACHABLE");
    let next_step = failure["next_step"].as_str().unwrap();
    assert!(next_step.contains("egress.allow_networks"), "{failure}");
}
