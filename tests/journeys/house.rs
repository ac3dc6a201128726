//! The rules of the house: which crate may know which.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use tests::programs::{lib, run};

fn allowed(name: &str) -> &'static [&'static str] {
    match name {
        "attestation" | "wire" | "tree-listing" => &[],
        "eif-builder" => &["attestation", "wire"],
        "host-proxy" => &["attestation", "eif-builder", "wire"],
        "enclave-agent" => &["wire"],
        "tests" => &["attestation", "eif-builder", "host-proxy", "wire"],
        other => panic!("{other} is new: say here what it may depend on"),
    }
}

#[test]
fn dependencies_point_one_way() {
    let metadata = run(Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR")));
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let names: BTreeSet<&str> = packages
        .iter()
        .map(|package| package["name"].as_str().unwrap())
        .collect();
    let mut found = BTreeMap::new();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let dependencies = package["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .map(|dependency| dependency["name"].as_str().unwrap());
        let inner: BTreeSet<&str> = dependencies
            .filter(|dependency| names.contains(dependency))
            .collect();
        let wrong: Vec<_> = inner
            .iter()
            .filter(|dependency| !allowed(name).contains(dependency))
            .collect();
        assert!(wrong.is_empty(), "{name} must not depend on {wrong:?}");
        found.insert(name, inner);
    }
    assert_eq!(found.len(), 7);
}

/// The agent is measured: where it is built must not show. What cargo would say of the folder is said of the crate.
#[test]
fn a_crates_identity_is_not_its_folder() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/stable-rustc");
    let identity = |metadata: &str, kind: &str| {
        let arguments = [
            "echo",
            "--crate-name",
            "wire",
            "--crate-type",
            kind,
            "-C",
            metadata,
            "-C",
            "extra-filename=-1",
        ];
        let package = [("CARGO_PKG_NAME", "wire"), ("CARGO_PKG_VERSION", "0.1.0")];
        run(Command::new(script).args(arguments).envs(package))
    };
    let here = identity("metadata=61f0", "lib");
    assert_eq!(here, identity("metadata=93aa", "lib"));
    assert_ne!(
        here,
        identity("metadata=61f0", "bin"),
        "a library and a program of one name are two crates"
    );
    assert!(here.contains("extra-filename=-1"), "{here}");
}

/// The agent is measured: paths of the machine that built it would make it another one.
#[test]
fn the_agent_holds_no_path_of_this_machine() {
    let agent = std::fs::read(lib().join("enclave-agent")).unwrap();
    let home = std::env::var("CARGO_HOME")
        .or_else(|_| std::env::var("HOME"))
        .unwrap();
    for path in [
        home.as_str(),
        env!("CARGO_MANIFEST_DIR").trim_end_matches("/tests"),
    ] {
        let needle = format!("{path}/");
        let found = agent
            .windows(needle.len())
            .position(|window| window == needle.as_bytes());
        let text = found.map(|at| {
            String::from_utf8_lossy(&agent[at..(at + 100).min(agent.len())]).into_owned()
        });
        assert_eq!(text, None, "{path}");
    }
}

/// 8 MB is the promise of the design; the agent lives in the enclave's memory.
#[test]
fn the_agent_is_small() {
    let len = std::fs::metadata(lib().join("enclave-agent"))
        .unwrap()
        .len();
    assert!(len <= 8_000_000, "{len} bytes");
}
