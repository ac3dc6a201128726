//! The command `attest`, as a relying party runs it.

use serde_json::Value;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;
use tests::pki::{Minted, Plan, bytes, pcrs, pem, registers};
use tests::programs::ours;

const AT: &str = "2026-01-01T12:00:00Z";

/// A good document, and the root below which it stands.
struct Case {
    folder: TempDir,
}

struct Outcome {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Case {
    fn new(Minted { document, root }: &Minted) -> Case {
        let case = Case {
            folder: tempfile::tempdir().unwrap(),
        };
        case.write("document", document);
        case.write("root.pem", pem(root));
        case
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.folder.path().join(name), content).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        outcome(
            Command::new(ours("attest"))
                .current_dir(&self.folder)
                .args(arguments),
        )
    }

    /// `attest verify document` below our root, at the time it was made.
    fn verify(&self, arguments: &[&str]) -> Outcome {
        self.run(
            &[
                &["verify", "document", "--root", "root.pem", "--at", AT],
                arguments,
            ]
            .concat(),
        )
    }
}

fn outcome(command: &mut Command) -> Outcome {
    let output = command.output().unwrap();
    Outcome {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn register(index: u8, byte: u8) -> String {
    format!("{index}={}", format!("{byte:02x}").repeat(48))
}

#[test]
fn exit_codes_tell_trusted_rejected_and_unusable_apart() {
    let case = Case::new(&Plan::default().mint());
    let (right, wrong) = (register(0, 1), register(0, 9));
    let trusted = case.verify(&[
        "--pcr",
        &right,
        "--nonce",
        "3132333435363738",
        "--max-age",
        "60",
    ]);
    assert_eq!(trusted.code, 0, "{}", trusted.stderr);
    assert!(
        trusted
            .stdout
            .contains("\nTRUSTED: i-0123456789abcdef0-enc"),
        "{}",
        trusted.stdout
    );
    assert!(
        trusted
            .stdout
            .contains("caution: root.pem is trusted instead of AWS's root"),
        "{}",
        trusted.stdout
    );
    assert!(
        trusted
            .stdout
            .contains("caution: this verdict is as of 2026-01-01T12:00:00Z"),
        "{}",
        trusted.stdout
    );
    assert!(
        trusted
            .stdout
            .contains("time           ok      valid at 2026-01-01T12:00:00Z"),
        "{}",
        trusted.stdout
    );

    let rejected = case.verify(&["--pcr", &wrong]);
    assert_eq!(rejected.code, 1);
    for line in [
        "PCR0           FAILED  expected  0909",
        "found     0101",
        "The enclave runs other code.",
        "REJECTED: genuine",
    ] {
        assert!(
            rejected.stdout.contains(line),
            "{line} is missing:\n{}",
            rejected.stdout
        );
    }
    assert_eq!(
        case.verify(&["--pcr", &wrong, "--pcr", &right]).code,
        0,
        "either will do"
    );

    // AWS's root did not sign this, and no flag says otherwise.
    let foreign = case.run(&["verify", "document", "--at", AT, "--pcr", &right]);
    assert_eq!(foreign.code, 1);
    assert!(
        foreign
            .stdout
            .contains("policy         -       not checked"),
        "{}",
        foreign.stdout
    );

    case.write("document", b"no document");
    assert_eq!(case.verify(&["--pcr", &right]).code, 2);
    for (arguments, why) in [
        (
            vec!["verify", "document"],
            "this policy does not restrict which code may run",
        ),
        (
            vec!["verify", "nowhere", "--pcr", &right],
            "nowhere: No such file",
        ),
        (vec!["verify", "document", "--pcr", "0"], "the = is missing"),
        (
            vec!["verify", "document", "--pcr", &right, "--at", "document"],
            "without a nonce",
        ),
        (
            vec!["verify", "document", "--pcr", &right, "--at", "yesterday"],
            "is not a time",
        ),
        (
            vec!["verify", "document", "--pcr", &right, "--nonce", ""],
            "a nonce has 1 to 1024 bytes",
        ),
        (vec!["verify"], "Usage: attest verify"),
    ] {
        let unusable = case.run(&arguments);
        assert_eq!(
            (unusable.code, unusable.stdout.as_str()),
            (2, ""),
            "{arguments:?}"
        );
        assert!(
            unusable.stderr.contains(why),
            "{arguments:?}: {}",
            unusable.stderr
        );
    }
}

#[test]
fn json_carries_the_fields_of_verified_documents_only() {
    let case = Case::new(&Plan::default().mint());
    let json = |outcome: &Outcome| serde_json::from_str::<Value>(&outcome.stdout).unwrap();
    let trusted = json(&case.verify(&["--json", "--pcr", &register(0, 1)]));
    assert_eq!(trusted["verdict"], "trusted");
    assert_eq!(trusted["document"]["nonce"], hex::encode("12345678"));
    assert_eq!(trusted["document"]["pcrs"]["15"], "10".repeat(48));
    assert_eq!(trusted["document"]["timestamp"], AT);
    let rejected = json(&case.verify(&["--json", "--pcr", &register(0, 2)]));
    assert_eq!(
        (rejected["verdict"].as_str(), rejected.get("document")),
        (Some("rejected"), None)
    );
    let failed: Vec<&Value> = rejected["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["passed"] == false)
        .collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0]["subject"]["pcr"], 0);
    assert_eq!(failed[0]["found"], "01".repeat(48));
}

#[test]
fn policies_come_from_files_too() {
    let case = Case::new(&Plan::default().mint());
    let digits = |byte: u8| format!("{byte:02x}").repeat(48);
    let measurements = serde_json::json!({
        "HashAlgorithm": "Sha384 { ... }", "PCR0": digits(1), "PCR1": digits(2), "PCR2": digits(3)
    });
    case.write(
        "built.json",
        serde_json::json!({"eif": "x", "image": {}, "measurements": measurements}).to_string(),
    );
    case.write(
        "nitro.json",
        serde_json::json!({"EifVersion": 4, "Measurements": measurements}).to_string(),
    );
    case.write(
        "policy.toml",
        format!(
            "require_nonce = true\n[pcrs]\n0 = [\"{}\", \"{}\"]\n",
            digits(7),
            digits(1)
        ),
    );
    case.write("typo.toml", "max_age = 5\n");
    let aged = "max_age_seconds = 5\nclock_skew_seconds = 5\nnonce = \"3132333435363738\"\n";
    case.write(
        "aged.toml",
        format!("{aged}[pcrs]\n0 = \"{}\"\n", digits(1)),
    );
    assert_eq!(case.verify(&["--policy", "built.json"]).code, 0);
    assert_eq!(case.verify(&["--measurements", "built.json"]).code, 0);
    assert_eq!(
        case.verify(&["--measurements", "nitro.json", "--pcr", &register(8, 9)])
            .code,
        0
    );
    let nonce = ["--policy", "policy.toml", "--nonce", "3132333435363738"];
    assert_eq!(case.verify(&nonce).code, 0);
    assert_eq!(
        case.verify(&["--policy", "policy.toml", "--nonce", "00"])
            .code,
        1
    );
    let missing = case.verify(&["--policy", "policy.toml"]);
    assert_eq!(missing.code, 2);
    assert!(
        missing.stderr.contains("the policy requires a nonce"),
        "{}",
        missing.stderr
    );
    assert!(
        case.verify(&["--policy", "typo.toml"])
            .stderr
            .contains("unknown field `max_age`")
    );
    let conflict = case.verify(&["--measurements", "nitro.json", "--pcr", &register(0, 9)]);
    assert!(
        conflict.stderr.contains("conflicting values for PCR0"),
        "{}",
        conflict.stderr
    );
    let loose = case.verify(&["--pcr", &register(4, 5)]);
    assert_eq!(loose.code, 0);
    assert!(
        loose.stdout.contains("does not fix the code that runs"),
        "{}",
        loose.stdout
    );

    // Nothing on the command line loosens what a file says.
    for (arguments, name) in [
        (
            vec!["--policy", "policy.toml", "--pcr", &register(0, 9)],
            "PCR0",
        ),
        (
            vec!["--policy", "aged.toml", "--max-age", "9999"],
            "max_age_seconds",
        ),
        (
            vec!["--policy", "aged.toml", "--clock-skew", "9"],
            "clock_skew_seconds",
        ),
        (
            vec!["--policy", "aged.toml", "--nonce", "3132333435363738"],
            "nonce",
        ),
        (
            vec!["--policy", "built.json", "--measurements", "built.json"],
            "measurements",
        ),
    ] {
        let twice = case.verify(&arguments);
        assert_eq!(twice.code, 2);
        assert!(
            twice
                .stderr
                .contains(&format!("{name} is set by both the policy file and a flag")),
            "{}",
            twice.stderr
        );
    }
    let policy = serde_json::json!({"measurements": measurements, "require_nonce": true});
    case.write("policy.json", policy.to_string());
    assert_eq!(
        case.verify(&["--policy", "policy.json"]).code,
        2,
        "a nonce is required"
    );
    let misplaced = case.verify(&["--measurements", "policy.json"]);
    assert!(
        misplaced.stderr.contains("unknown field `require_nonce`"),
        "{}",
        misplaced.stderr
    );
}

#[test]
fn every_flag_is_a_condition() {
    use sha2::{Digest as _, Sha384};
    let named = |name: &[u8]| {
        Sha384::new()
            .chain_update([0; 48])
            .chain_update(name)
            .finalize()
            .to_vec()
    };
    let (arn, id) = (
        "arn:aws:iam::123456789012:role/orders",
        "i-0123456789abcdef0",
    );
    let signer = Plan::default().minted_certificates().pop().unwrap();
    let minted = Plan::with(|plan| {
        let mut registers = registers();
        registers[3].1 = named(arn.as_bytes());
        registers[4].1 = named(id.as_bytes());
        registers[8].1 = named(&Sha384::digest(&signer));
        registers.push((16, vec![7; 48]));
        plan.set("pcrs", pcrs(&registers));
        plan.set("user_data", bytes(&[]));
    });
    let case = Case::new(&minted);
    case.write("signer.pem", pem(&signer));
    case.write("other.pem", pem(&minted.root));
    let pcr = register(0, 1);
    for (flag, right, wrong, name) in [
        (
            "--role-arn",
            arn,
            "arn:aws:iam::123456789012:role/order",
            "PCR3",
        ),
        ("--instance-id", id, "i-0123456789abcdef1", "PCR4"),
        ("--signing-certificate", "signer.pem", "other.pem", "PCR8"),
        ("--public-key", "6b6579", "6b65", "public key"),
        ("--user-data", "", "00", "user data"),
        ("--nonce", "3132333435363738", "3132333435363739", "nonce"),
    ] {
        assert_eq!(
            case.verify(&["--pcr", &pcr, flag, right]).code,
            0,
            "{flag} {right}"
        );
        let rejected = case.verify(&["--pcr", &pcr, flag, wrong]);
        assert_eq!(rejected.code, 1, "{flag} {wrong}");
        let asked = format!("does not satisfy the policy: {name}\n");
        assert!(
            rejected.stdout.contains(&asked),
            "{flag}: {}",
            rejected.stdout
        );
    }
    assert_eq!(case.verify(&["--pcr", &pcr, "--sealed-config"]).code, 0);
    let good = Case::new(&Plan::default().mint());
    assert_eq!(good.verify(&["--pcr", &pcr, "--sealed-config"]).code, 1);
    let later = |more: &[&str]| {
        let at = [
            "verify",
            "document",
            "--root",
            "root.pem",
            "--pcr",
            &pcr,
            "--at",
            "2026-01-01T12:05:00Z",
        ];
        good.run(&[at.as_slice(), more].concat()).code
    };
    assert_eq!(
        (
            later(&[]),
            later(&["--max-age", "300"]),
            later(&["--max-age", "299"])
        ),
        (0, 0, 1)
    );
    let before = [
        "verify",
        "document",
        "--root",
        "root.pem",
        "--pcr",
        &pcr,
        "--at",
        "2026-01-01T11:59:50Z",
    ];
    assert_eq!(
        good.run(&[&before[..], &["--clock-skew", "9"]].concat())
            .code,
        1
    );
    assert_eq!(
        good.run(&[&before[..], &["--clock-skew", "10"]].concat())
            .code,
        0
    );
    let own = [
        "verify", "document", "--root", "root.pem", "--pcr", &pcr, "--at", "document",
    ];
    assert_eq!(
        good.run(&[&own[..], &["--nonce", "3132333435363738"]].concat())
            .code,
        0
    );
}

#[test]
fn documents_may_be_text_and_come_from_a_pipe() {
    let minted = Plan::default().mint();
    let case = Case::new(&minted);
    case.write("document", hex::encode(&minted.document));
    assert_eq!(case.verify(&["--pcr", &register(0, 1)]).code, 0);
    let mut child = Command::new(ours("attest"))
        .current_dir(&case.folder)
        .args([
            "verify",
            "-",
            "--root",
            "root.pem",
            "--at",
            AT,
            "--pcr",
            &register(0, 1),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(&minted.document)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn show_prints_anything_and_vouches_for_nothing() {
    let case = Case::new(&Plan::with(|plan| {
        plan.signature = tests::pki::Signature::Bytes(vec![1; 96])
    }));
    let shown = case.run(&["show", "document"]);
    assert_eq!(shown.code, 0);
    assert!(shown.stderr.contains("nothing of this was verified"));
    assert!(
        shown
            .stdout
            .contains("origin      not trusted: cabundle[0] is not the trusted root"),
        "{}",
        shown.stdout
    );
    assert!(
        shown
            .stdout
            .contains(&format!("PCR15       {}", "10".repeat(48))),
        "{}",
        shown.stdout
    );
    let json: Value =
        serde_json::from_str(&case.run(&["show", "--json", "document"]).stdout).unwrap();
    assert_eq!(
        (
            json["verified"].as_bool(),
            json["certificates"].as_array().unwrap().len()
        ),
        (Some(false), 5)
    );
    case.write("document", [0x84]);
    assert_eq!(case.run(&["show", "document"]).code, 2);
}

/// A fake enclave endpoint: answers one request with what `answer` makes of the nonce.
fn fake_enclave(answer: impl FnOnce(Vec<u8>) -> (u16, Vec<u8>) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let head: Vec<String> = lines
            .map(Result::unwrap)
            .take_while(|line| !line.is_empty())
            .collect();
        let digits = head[0]
            .split_once("GET /attestation?nonce=")
            .unwrap()
            .1
            .split(' ')
            .next()
            .unwrap();
        let (status, body) = answer(hex::decode(digits).unwrap());
        write!(
            stream,
            "HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .unwrap();
        stream.write_all(&body).unwrap();
    });
    url
}

#[test]
fn fetch_asks_with_its_own_nonce_and_verifies_the_answer() {
    let minted = |nonce: Vec<u8>| Plan::with(|plan| plan.set("nonce", bytes(&nonce))).document;
    let case = Case::new(&Plan::default().mint());
    let fetch = |url: &str| {
        let pcr = register(0, 1);
        case.run(&[
            "fetch", url, "--root", "root.pem", "--at", AT, "--pcr", &pcr, "--output", "kept",
        ])
    };
    // Every document of this process stands below the same root.
    let good = fetch(&fake_enclave(move |nonce| (200, minted(nonce))));
    assert_eq!(good.code, 0, "{}{}", good.stdout, good.stderr);
    assert!(Path::new(&case.folder.path().join("kept")).is_file());
    let replayed = fetch(&fake_enclave(move |_| {
        (200, minted(b"an older question".to_vec()))
    }));
    assert_eq!(replayed.code, 1);
    assert!(
        replayed
            .stdout
            .contains("This document was made for another request"),
        "{}",
        replayed.stdout
    );
    let busy = fetch(&fake_enclave(|_| (503, b"busy".to_vec())));
    assert_eq!(busy.code, 2);
    assert!(busy.stderr.contains("the endpoint returned 503"), "{}", busy.stderr);
    let endless = fetch(&fake_enclave(|_| (200, vec![0x84; 1 << 20])));
    assert_eq!(endless.code, 2, "{}", endless.stderr);
    let nobody = fetch(&format!("http://127.0.0.1:{}", tests::free_port()));
    assert_eq!(nobody.code, 2);
    assert!(
        nobody.stderr.contains("check the URL"),
        "{}",
        nobody.stderr
    );
}

#[test]
fn debug_mode_must_be_asked_for() {
    let debug = Plan::with(|plan| {
        let mut registers = registers();
        registers[..3]
            .iter_mut()
            .for_each(|(_, pcr)| *pcr = vec![0; 48]);
        plan.set("pcrs", pcrs(&registers));
    });
    let case = Case::new(&debug);
    let zero = register(0, 0);
    assert_eq!(
        case.verify(&["--pcr", &zero]).code,
        2,
        "that is no condition"
    );
    assert_eq!(case.verify(&["--pcr", &register(3, 4)]).code, 1);
    assert_eq!(case.verify(&["--pcr", &zero, "--allow-debug"]).code, 0);
}
