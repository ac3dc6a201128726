//! What is promised of the agent's binary, which is measured and lives in the enclave's memory.

use std::process::Command;
use tests::programs::{lib, run};

/// The agent is measured: where it is built must not show. What cargo would say of the folder is
/// said of the crate.
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
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
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
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn the_agent_is_small() {
    let len = std::fs::metadata(lib().join("enclave-agent"))
        .unwrap()
        .len();
    assert!(len <= 8_000_000, "{len} bytes");
}
