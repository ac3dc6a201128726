//! What is missing is asked for, on a terminal.

use super::scene;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use tests::programs::{ours, run};
use tests::registry::{PASSWORD, USER};
use tests::wait_for;

/// Answers prompts on a terminal of its own (script(1) makes one), and gives everything that the
/// terminal showed.
fn converse(command: &str, answers: &[(&str, &str)]) -> String {
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--command", command, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut shown = Vec::new();
    for (prompt, answer) in answers {
        while !String::from_utf8_lossy(&shown).contains(prompt) {
            let mut byte = [0];
            let read = stdout.read(&mut byte).unwrap();
            assert_eq!(
                read,
                1,
                "no '{prompt}' in {}",
                String::from_utf8_lossy(&shown)
            );
            shown.push(byte[0]);
        }
        if prompt.starts_with("Password") {
            wait_for_no_echo(&shown);
        }
        writeln!(stdin, "{answer}").unwrap();
    }
    stdout.read_to_end(&mut shown).unwrap();
    child.wait().unwrap();
    String::from_utf8_lossy(&shown).into_owned()
}

/// The program prompts first and turns the echo off then; nobody types as fast as this test. The
/// terminal's name was shown first.
fn wait_for_no_echo(shown: &[u8]) {
    let text = String::from_utf8_lossy(shown);
    let tty = text.lines().next().unwrap().trim();
    wait_for("the echo to be off", 10, || {
        let settings = run(Command::new("stty").args(["--file", tty, "--all"]));
        settings
            .split_ascii_whitespace()
            .any(|word| word == "-echo")
    });
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn create_asks_for_what_is_missing_and_does_not_show_the_password() {
    let scene = scene();
    let daemon = scene.start(&[]);
    let command = format!(
        "tty; exec {} --socket {}/run/api.sock create --no-wait",
        ours("enclavectl").display(),
        daemon.folder().display()
    );
    let shown = converse(
        &command,
        &[
            ("Name of the enclave", "asked"),
            ("Image (registry-host", &scene.reference),
            ("User name at the registry", USER),
            ("Password or access token", PASSWORD),
        ],
    );
    assert!(shown.contains("asked PENDING_DEPLOY"), "{shown}");
    assert!(!shown.contains(PASSWORD), "{shown}");
    let record = daemon.show("asked");
    let found = (record["image"].as_str(), record["source_type"].as_str());
    let expected = (Some(scene.reference.as_str()), Some("private-registry"));
    assert_eq!(found, expected);
}
