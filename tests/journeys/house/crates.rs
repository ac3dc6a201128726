//! Which crate may depend on which.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use tests::programs::run;

/// Every crate, and those of ours that it may depend on.
const ALLOWED: [(&str, &[&str]); 20] = [
    ("explain", &[]),
    ("wire", &[]),
    ("attestation", &["explain"]),
    ("oci", &["explain", "wire"]),
    ("eif-builder", &["attestation", "explain", "oci", "wire"]),
    ("api", &["attestation", "explain", "oci", "wire"]),
    ("audit", &["api", "explain"]),
    ("broker", &["api", "audit", "explain", "oci", "wire"]),
    (
        "enclavectl",
        &["api", "attestation", "audit", "explain", "oci", "wire"],
    ),
    ("launch", &["api", "attestation", "explain", "wire"]),
    ("secrets", &["api", "explain", "oci", "wire"]),
    (
        "relay",
        &["api", "explain", "launch", "oci", "secrets", "wire"],
    ),
    (
        "host-proxy",
        &[
            "api",
            "attestation",
            "audit",
            "broker",
            "eif-builder",
            "explain",
            "launch",
            "oci",
            "relay",
            "secrets",
            "wire",
        ],
    ),
    ("enclave-agent", &["attestation", "wire"]),
    ("vsock-switch", &["explain"]),
    ("parent", &["pki", "vsock-switch"]),
    ("tree-listing", &[]),
    ("escape-kit", &[]),
    ("pki", &["attestation"]),
    (
        "tests",
        &[
            "api",
            "attestation",
            "audit",
            "broker",
            "eif-builder",
            "explain",
            "host-proxy",
            "launch",
            "oci",
            "parent",
            "pki",
            "relay",
            "secrets",
            "wire",
        ],
    ),
];

fn metadata(arguments: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO"));
    command
        .args(["metadata", "--format-version=1", "--offline"])
        .args(arguments);
    let text = run(command.current_dir(env!("CARGO_MANIFEST_DIR")));
    serde_json::from_str(&text).unwrap()
}

#[test]
fn dependencies_point_one_way() {
    let metadata = metadata(&["--no-deps"]);
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.into_iter().collect();
    let mut found = BTreeSet::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let allowed = allowed
            .get(name)
            .expect("a new crate: say above what it may depend on");
        for dependency in package["dependencies"].as_array().unwrap() {
            let dependency = dependency["name"].as_str().unwrap();
            let ours = ALLOWED.iter().any(|(name, _)| *name == dependency);
            assert!(
                !ours || allowed.contains(&dependency),
                "{name} must not depend on {dependency}"
            );
        }
        found.insert(name);
    }
    assert_eq!(found, allowed.keys().copied().collect());
}

/// Every package below one of ours, by name; test dependencies do not count.
fn below(metadata: &Value, root: &str) -> BTreeSet<String> {
    let name_of: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| {
            (
                package["id"].as_str().unwrap(),
                package["name"].as_str().unwrap(),
            )
        })
        .collect();
    let nodes: BTreeMap<&str, &Value> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| (node["id"].as_str().unwrap(), node))
        .collect();
    let (root, _) = name_of.iter().find(|(_, name)| **name == root).unwrap();
    let (mut seen, mut left) = (BTreeSet::new(), vec![*root]);
    while let Some(id) = left.pop() {
        if !seen.insert(id) {
            continue;
        }
        for dependency in nodes[id]["deps"].as_array().unwrap() {
            let is_normal = |kind: &Value| kind["kind"] != "dev";
            if dependency["dep_kinds"]
                .as_array()
                .unwrap()
                .iter()
                .any(is_normal)
            {
                left.push(dependency["pkg"].as_str().unwrap());
            }
        }
    }
    seen.into_iter().map(|id| name_of[id].to_owned()).collect()
}

/// A CI image that wants docker's credential helper must not get a database, an AWS SDK and a
/// launcher.
#[test]
fn the_command_line_links_nothing_of_the_daemon() {
    let metadata = metadata(&["--filter-platform=x86_64-unknown-linux-gnu"]);
    let packages = below(&metadata, "enclavectl");
    assert!(
        packages.contains("api") && packages.contains("aws-lc-rs"),
        "{packages:?}"
    );
    // aws-lc is the crypto provider of TLS, and no SDK.
    let is_sdk = |name: &str| name.starts_with("aws-") && !name.starts_with("aws-lc-");
    let forbidden = [
        "rusqlite",
        "libsqlite3-sys",
        "host-proxy",
        "eif-builder",
        "broker",
    ];
    let wrong: Vec<_> = packages
        .iter()
        .filter(|name| is_sdk(name) || forbidden.contains(&name.as_str()))
        .collect();
    assert!(wrong.is_empty(), "enclavectl must not link {wrong:?}");
    // The test can fail: the daemon does link them.
    let daemon = below(&metadata, "host-proxy");
    assert!(daemon.contains("rusqlite") && daemon.iter().any(|name| is_sdk(name)));
}
