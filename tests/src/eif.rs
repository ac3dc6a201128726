//! `eif-builder build` as a pipeline calls it.

use crate::programs::{lib, ours};
use crate::registry::{PASSWORD, Registry, USER};
use serde_json::Value;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Builds an image of [`Registry::start`], with more arguments.
#[must_use]
pub fn build(registry: &Registry, reference: &str, output: &Path, more: &[&str]) -> Output {
    let host = registry.host();
    let credentials = ["--username", USER, "--password-stdin"];
    let mut child = Command::new(ours("eif-builder"))
        .args(["build", reference, "--plain-http", &host])
        .args(credentials)
        .args(["--json", "-o"])
        .arg(output)
        .args(more)
        .env("REDOUBT_LIB", lib())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(PASSWORD.as_bytes()).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap()
}

/// What a successful build printed.
#[must_use]
pub fn printed(output: &Output) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}
