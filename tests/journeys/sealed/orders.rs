//! Orders whose config does not fit are refused at once.

use super::{House, INWARD};
use std::process::Command;
use tests::programs::ours;

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_file_that_is_no_sealed_config_is_refused() {
    let house = House::new("minimum_version = 2");
    let daemon = house.daemon(&[INWARD]);
    let (good, _) = house.seal("TOKEN=x", 2);
    let bytes = std::fs::read(&good).unwrap();
    let damaged = "the sealed config is damaged";
    for (name, bytes, message) in [
        ("empty", &b""[..], "this is no sealed config"),
        ("cut", &bytes[..60], damaged),
        ("flipped", &[b"r", &bytes[1..40]].concat(), damaged),
    ] {
        let path = house.scene.path(name);
        std::fs::write(&path, bytes).unwrap();
        let refused = house.create(&daemon, &path);
        assert_eq!(refused.code, 64, "{refused:?}");
        assert!(refused.stderr.contains(message), "{refused:?}");
    }
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_spec_that_asks_for_a_config_needs_one() {
    let house = House::new("minimum_version = 2");
    let daemon = house.daemon(&[INWARD]);
    let image = [
        "create",
        "--name",
        "orders",
        "--image",
        &house.scene.reference,
    ];
    let spec = ["--spec", house.spec.to_str().unwrap()];
    let missing = daemon.ctl(&[&image[..], &spec].concat(), "");
    let is_explained =
        missing.stderr.contains("asks for a sealed config") && missing.stderr.contains("--config");
    assert!(is_explained, "{missing:?}");
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn an_empty_config_is_not_sealed() {
    let house = House::new("minimum_version = 2");
    let seal = Command::new(ours("eif-builder"))
        .args(["seal", "/dev/null", "--version", "1", "-o", "/dev/null"])
        .args(["--spec", house.spec.to_str().unwrap()])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&seal.stderr);
    assert!(stderr.contains("1 to 49152 bytes"), "{stderr}");
}
