//! The daemon signs for its enclaves: with which credentials, and that they stay with it.

use super::{ENV_SCRIPT, House, INWARD, digest, image};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use tests::daemon::Daemon;
use tests::files::holds;
use tests::kms::{ACCESS_KEY_ID, Kms, SECRET_ACCESS_KEY};
use tests::wait_for;

const SECRET: &str = "what-the-workload-knows-71c4";
const ROLE: &str = "arn:aws:iam::111122223333:role/open-configs";

/// The process that is the enclave of this daemon.
fn machine(daemon: &Daemon) -> PathBuf {
    let mine = daemon.folder().join("run").display().to_string();
    let is_machine = |process: &PathBuf| {
        let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        let program = line.split('\0').next().unwrap_or_default();
        program.contains("qemu-system") && line.contains(&mine)
    };
    let mut processes = std::fs::read_dir("/proc").unwrap().flatten();
    let found = processes.find_map(|entry| Some(entry.path()).filter(is_machine));
    found.expect("the enclave's QEMU")
}

/// What the spec asks for, in bytes.
const MEMORY: u64 = 192 << 20;

/// Which of these texts are in the enclave's memory, a mapping of its QEMU.
fn in_memory(machine: &Path, needles: &[&str]) -> Vec<bool> {
    let maps = std::fs::read_to_string(machine.join("maps")).unwrap();
    let mut ranges = maps.lines().filter_map(|line| {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        Some((number(start)?, number(end)?))
    });
    let is_memory = |(start, end): &(u64, u64)| end - start == MEMORY;
    let (start, _) = ranges.find(is_memory).expect("the enclave's memory");
    let mut memory = File::open(machine.join("mem")).unwrap();
    memory.seek(SeekFrom::Start(start)).unwrap();
    let mut bytes = Vec::new();
    memory.take(MEMORY).read_to_end(&mut bytes).unwrap();
    let found = needles
        .iter()
        .map(|needle| holds(&bytes, needle.as_bytes()));
    found.collect()
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn no_aws_credentials_are_in_the_memory_of_an_enclave() {
    let house = House::of(&image(ENV_SCRIPT, "A=1"), Kms::start(), "");
    house.allow();
    let daemon = house.daemon(&[INWARD]);
    let (sealed, _) = house.seal(&format!("TOKEN={SECRET}\n"), 1);
    let created = house.create(&daemon, &sealed);
    assert_eq!(created.code, 0, "{created:?}");
    wait_for("the workload's secret", 10, || {
        daemon.logs("orders").contains(&digest(SECRET))
    });
    // The access key's ID is in the signed request; it is no secret, and shows that this looks where
    // the request was made.
    let needles = [SECRET, ACCESS_KEY_ID, SECRET_ACCESS_KEY];
    assert_eq!(in_memory(&machine(&daemon), &needles), [true, true, false]);
}

/// The account may do everything but decrypt, which only the role may.
fn policy_of_the_role(pcr0: &str) -> Value {
    json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Allow", "Principal": "*", "Action": "kms:GenerateDataKey", "Resource": "*" },
        { "Effect": "Allow", "Principal": { "AWS": ROLE }, "Action": "kms:Decrypt", "Resource": "*", "Condition": {
            "StringEqualsIgnoreCase": { "kms:RecipientAttestation:ImageSha384": pcr0 } } }
    ] })
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_role_is_assumed_for_one_config_and_nothing_else() {
    let house = House::new("");
    let (_, pcr0) = house.build();
    house.kms.set_policy(&house.key, &policy_of_the_role(&pcr0));
    let (sealed, _) = house.seal("TOKEN=x", 1);
    let sts = house.kms.sts();
    let daemon = |role: &str| {
        let settings = [
            INWARD,
            ("HOST_PROXY_KMS__ROLE_ARN", role),
            ("HOST_PROXY_AWS__ENDPOINT_URL", &sts),
            ("HOST_PROXY_AWS__REGION", "us-east-1"),
        ];
        house.daemon(&settings)
    };
    let first = daemon(ROLE);
    let created = house.create(&first, &sealed);
    assert_eq!(created.code, 0, "{created:?}");
    let policies = house.kms.session_policies();
    let policies: Vec<Value> = policies
        .iter()
        .map(|text| serde_json::from_str(text).unwrap())
        .collect();
    let expected = json!({ "Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Action": "kms:Decrypt", "Resource": house.key,
        "Condition": { "StringEquals": {
            "kms:EncryptionContext:app": "orders",
            "kms:EncryptionContext:name": "orders",
            "kms:EncryptionContext:version": "1" } } }] });
    assert_eq!(policies, [expected]);
    drop(first);

    let forbidden = daemon("arn:aws:iam::111122223333:role/forbidden");
    assert_eq!(house.create(&forbidden, &sealed).code, 1);
    let failure = &forbidden.show("orders")["failure"];
    assert_eq!(failure["code"], "AWS_CREDENTIALS_MISSING");
    let message = failure["message"].as_str().unwrap();
    assert!(message.contains("AccessDenied"), "{failure}");
    assert!(!forbidden.log().contains(SECRET_ACCESS_KEY));
}
