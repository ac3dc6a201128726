//! `doctor` of a daemon that is to run enclaves on Nitro, on a machine that is no parent instance.

use serde_json::Value;
use std::process::Command;
use tests::daemon::{CommandOutput, Daemon, exchange};
use tests::metadata::fake_metadata_service;
use tests::ministack::MiniStack;
use tests::programs::{ours, run};

/// The line of a thing among the findings.
fn line<'a>(output: &'a CommandOutput, what: &str) -> &'a str {
    let is_of = |line: &&str| {
        let finding = line.split_once(' ').map(|(_mark, finding)| finding);
        finding.is_some_and(|finding| finding.starts_with(&format!("{what}: ")))
    };
    let found = output.stdout.lines().find(is_of);
    found.unwrap_or_else(|| panic!("nothing of {what}: {output:?}"))
}

fn is_script(text: &str) {
    run(Command::new("bash").args(["-n", "-c", text]));
}

/// What keeps the checks away from a real AWS.
fn settings<'a>(aws: &'a str, metadata: &'a str) -> [(&'a str, &'a str); 7] {
    [
        ("HOST_PROXY_LAUNCHER", "aws-nitro"),
        ("HOST_PROXY_SECRETS", "aws"),
        ("HOST_PROXY_AWS__REGION", "us-east-1"),
        ("HOST_PROXY_AWS__ENDPOINT_URL", aws),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata),
    ]
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn doctor_tells_what_will_do_from_what_was_not_checked() {
    let (aws, metadata) = (MiniStack::start(), fake_metadata_service());
    let daemon = Daemon::start(&settings(&aws.url(), &metadata));
    let found = daemon.ctl(&["doctor"], "");
    for (what, expected) in [
        (
            "instance metadata",
            "✓ instance metadata: IMDSv2 answers; the instance has the role parent",
        ),
        (
            "AWS identity",
            "✓ AWS identity: arn:aws:iam::000000000000:root",
        ),
        (
            "Secrets Manager",
            "✓ Secrets Manager: answers, and redoubt/* may be read",
        ),
        ("daemon", "✓ daemon: answers"),
    ] {
        assert_eq!(line(&found, what), expected);
    }
    for what in ["Secrets Manager, writing", "systemd unit"] {
        assert!(line(&found, what).starts_with("- "), "{found:?}");
    }
    // What launches need is looked at, whatever there is of it here.
    for what in [
        "driver",
        "allocator",
        "huge pages",
        "CPU pool",
        "vsock",
        "vsock ports",
    ] {
        assert!(!line(&found, what).is_empty());
    }
    let json = daemon.ctl(&["--json", "doctor"], "");
    let findings: Vec<Value> = serde_json::from_str(&json.stdout).unwrap();
    let is_failed = |finding: &&Value| finding["outcome"] == "failed";
    let failed: Vec<&Value> = findings.iter().filter(is_failed).collect();
    assert_eq!(
        found.code,
        if failed.is_empty() { 0 } else { 69 },
        "{found:?}"
    );
    plan_has(&daemon, &failed);
}

/// The plan has what failed, and to print it is no failure.
fn plan_has(daemon: &Daemon, failed: &[&Value]) {
    let plan = daemon.ctl(&["doctor", "--fix-plan"], "");
    assert_eq!(plan.code, 0, "{plan:?}");
    is_script(&plan.stdout);
    for finding in failed {
        let what = finding["what"].as_str().unwrap();
        assert!(plan.stdout.contains(&format!("\n# {what}: ")), "{plan:?}");
    }
    let json = daemon.ctl(&["--json", "doctor", "--fix-plan"], "");
    let plan: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(plan["steps"].as_array().unwrap().len(), failed.len());
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn without_a_daemon_doctor_plans_and_does_nothing() {
    let directory = tempfile::tempdir().unwrap();
    // Nothing listens there.
    let gone = "http://127.0.0.1:1";
    let doctor = |arguments: &[&str]| {
        let mut command = Command::new(ours("host-proxy"));
        command
            .arg("doctor")
            .args(arguments)
            .arg("--config-dir")
            .arg(directory.path());
        command
            .env("HOST_PROXY_STATE_DIR", directory.path())
            .envs(settings(gone, gone));
        exchange(&mut command, "")
    };
    let found = doctor(&[]);
    assert_eq!(found.code, 69, "{found:?}");
    assert_eq!(
        line(&found, "instance metadata"),
        "✗ instance metadata: it cannot be reached"
    );
    assert!(
        line(&found, "Secrets Manager").starts_with("✗ Secrets Manager: it cannot be reached: ")
    );
    let plan = doctor(&["--fix-plan"]);
    assert_eq!(plan.code, 0, "{plan:?}");
    is_script(&plan.stdout);
    assert!(
        plan.stdout
            .contains("\naws ec2 modify-instance-metadata-options "),
        "{plan:?}"
    );
    assert!(
        plan.stdout.contains("\n# Not checked: systemd unit: "),
        "{plan:?}"
    );
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    let unreachable = exchange(
        Command::new(ours("enclavectl"))
            .args(["doctor", "--fix-plan", "--socket"])
            .arg(directory.path().join("api.sock")),
        "",
    );
    assert_eq!(unreachable.code, 0, "{unreachable:?}");
    is_script(&unreachable.stdout);
    assert!(
        unreachable
            .stdout
            .ends_with("\nsystemctl enable --now host-proxy\n"),
        "{unreachable:?}"
    );
}
