//! Policies of KMS keys, printed and checked, and judged by the fake KMS.

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeySize, PrivateDecryptingKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pki::{Plan, bytes, pcrs, registers};
use serde_json::{Value, json};
use std::process::{Command, Output};
use tempfile::TempDir;
use tests::kms::{Answer, HOST, Kms};
use tests::programs::ours;

const GUIDE: &str = include_str!("../../docs/guides/sealed-configs.md");
const ADMIN: &str = "arn:aws:iam::111122223333:role/admin";
/// Its configs' context, but for the name.
const APP: &str = "orders";

/// The first block of a language in the guide.
fn sample(language: &str) -> &'static str {
    let (_, block) = GUIDE.split_once(&format!("```{language}\n")).unwrap();
    block.split_once("\n```").unwrap().0
}

fn register(byte: u8) -> String {
    hex::encode([byte; 48])
}

/// A directory with a spec and with measurements of the images 1 and 2.
struct Case {
    directory: TempDir,
}

impl Case {
    fn new(spec: &str) -> Case {
        let case = Case {
            directory: tempfile::tempdir().unwrap(),
        };
        case.write("enclave.toml", spec);
        case.write_measurements("1.json", [1, 2, 3].map(register));
        case.write_measurements("2.json", [11, 12, 13].map(register));
        case
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory.path().join(name), text).unwrap();
    }

    fn write_measurements(&self, name: &str, [pcr0, pcr1, pcr2]: [String; 3]) {
        let measurements = json!({
            "HashAlgorithm": "Sha384 { ... }", "PCR0": pcr0, "PCR1": pcr1, "PCR2": pcr2
        });
        let built = json!({ "eif": "app.eif", "image": {}, "measurements": measurements });
        self.write(name, &built.to_string());
    }

    fn policy(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(ours("eif-builder"));
        let command = command.current_dir(&self.directory).arg("policy");
        command.args(arguments).output().unwrap()
    }

    /// The policy that is printed for these measurements.
    fn printed(&self, measurements: &[&str], more: &[&str]) -> String {
        let mut arguments = vec!["--spec", "enclave.toml"];
        for file in measurements {
            arguments.extend(["--measurements", *file]);
        }
        let output = self.policy(&[&arguments, more].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What `--check` finds: the problem, or the attack that a statement lets through.
    fn check(&self, policy: &Value) -> (i32, Vec<(u64, String)>) {
        self.write("checked.json", &policy.to_string());
        let output = self.policy(&["--check", "checked.json", "--json"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let findings = report["findings"].as_array().unwrap().iter();
        let opens = findings.filter(|finding| finding["problem"] == "opens");
        let found = opens.map(|finding| {
            let attack = finding["attack"].as_str().unwrap().to_owned();
            (finding["statement"].as_u64().unwrap(), attack)
        });
        (output.status.code().unwrap(), found.collect())
    }
}

/// A key of the fake KMS, and a config's data key.
struct Sealed {
    kms: Kms,
    key: String,
    data_key: Value,
    public_key: Vec<u8>,
}

impl Sealed {
    fn new() -> Sealed {
        let kms = Kms::start();
        let key = kms.key(&json!({ "Statement": [] }));
        let private = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
        let public: PublicKeyX509Der<'_> = private.public_key().as_der().unwrap();
        Sealed {
            kms,
            key,
            data_key: Value::Null,
            public_key: public.as_ref().to_vec(),
        }
    }

    fn spec(&self) -> String {
        format!(
            "name = 'orders'\n[network]\negress = ['kms.us-east-1.amazonaws.com:443']\n\
             [config]\nkms_key = '{}'\nvariables = ['TOKEN']\ncontext = {{ app = '{APP}' }}\n",
            self.key
        )
    }

    /// Sets a policy and seals for a name under one that allows it.
    fn sealed_for(&mut self, name: &str, policy: &Value) {
        let seal = json!([{ "Effect": "Allow", "Principal": "*", "Action": "kms:GenerateDataKey", "Resource": "*" }]);
        self.kms
            .set_policy(&self.key, &json!({ "Statement": seal }));
        let input = json!({ "KeyId": self.key, "EncryptionContext": context(name) });
        let answer = self.kms.ask(HOST, "GenerateDataKey", &input).unwrap();
        self.data_key = answer["CiphertextBlob"].clone();
        self.kms.set_policy(&self.key, policy);
    }

    /// Decrypts the data key as sealed for a name, from an enclave with these registers.
    fn decrypt(&self, caller: &str, name: &str, image: Option<[u8; 3]>) -> Answer {
        let mut input = json!({
            "KeyId": self.key, "CiphertextBlob": self.data_key, "EncryptionContext": context(name)
        });
        if let Some(image) = image {
            let document = STANDARD.encode(self.document(image));
            input["Recipient"] = json!({ "AttestationDocument": document });
        }
        self.kms.ask(caller, "Decrypt", &input)
    }

    fn document(&self, image: [u8; 3]) -> Vec<u8> {
        let mut plan = Plan::unsigned();
        let mut registers = registers();
        for (register, byte) in registers.iter_mut().zip(image) {
            register.1 = vec![byte; 48];
        }
        plan.set("pcrs", pcrs(&registers));
        plan.set("public_key", bytes(&self.public_key));
        plan.mint().document
    }
}

fn context(name: &str) -> Value {
    json!({ "app": APP, "name": name, "version": "1" })
}

#[track_caller]
fn assert_denied(answer: Answer, what: &str) {
    let (kind, message) = answer.expect_err(what);
    assert_eq!(kind, "AccessDeniedException", "{what}: {message}");
    assert!(message.contains("explicit deny"), "{what}: {message}");
}

/// The printed policy, with more statements.
fn with(policy: &str, more: &[Value]) -> Value {
    let mut policy: Value = serde_json::from_str(policy).unwrap();
    policy["Statement"]
        .as_array_mut()
        .unwrap()
        .extend_from_slice(more);
    policy
}

fn allow(action: &str, condition: Value) -> Value {
    json!({ "Effect": "Allow", "Principal": { "AWS": "111122223333" }, "Action": action,
        "Resource": "*", "Condition": condition })
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn the_guides_key_policy_is_what_is_printed() {
    let case = Case::new(sample("toml"));
    let pcrs = ["5b", "c4", "97"].map(|digits| digits.repeat(48));
    case.write_measurements("built.json", pcrs);
    let host = ["--host", HOST];
    let printed = case.printed(&["built.json"], &host);
    assert_eq!(printed.trim_end(), sample("json"));
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn under_a_printed_policy_the_attested_enclave_decrypts_and_no_other_request() {
    let mut sealed = Sealed::new();
    let case = Case::new(&sealed.spec());
    let printed = case.printed(&["1.json"], &["--admin", ADMIN, "--host", HOST]);
    // As if an administrator of IAM had opened it by mistake.
    let second = allow("kms:*", json!({}));
    let policy = with(&printed, &[second]);
    sealed.sealed_for("orders", &policy);
    let right = sealed.decrypt(HOST, "orders", Some([1, 2, 3])).unwrap();
    assert!(right["CiphertextForRecipient"].is_string(), "{right}");

    for (what, caller, image) in [
        ("no document", HOST, None),
        ("an administrator", ADMIN, None),
        ("another image", HOST, Some([9, 2, 3])),
        ("another kernel", HOST, Some([1, 9, 3])),
        ("another application", HOST, Some([1, 2, 9])),
        ("debug mode", HOST, Some([0, 0, 0])),
    ] {
        assert_denied(sealed.decrypt(caller, "orders", image), what);
    }
    for action in [
        "CreateGrant",
        "ReEncryptFrom",
        "ReplicateKey",
        "ImportKeyMaterial",
    ] {
        let input = json!({ "KeyId": sealed.key, "EncryptionContext": context("orders") });
        assert_denied(sealed.kms.ask(ADMIN, action, &input), action);
    }
    sealed.sealed_for("billing", &policy);
    let other = sealed.decrypt(HOST, "billing", Some([1, 2, 3]));
    assert_denied(other, "another name");
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn while_a_version_rolls_out_both_images_decrypt() {
    let mut sealed = Sealed::new();
    let case = Case::new(&sealed.spec());
    let both = case.printed(&["1.json", "2.json"], &[]);
    sealed.sealed_for("orders", &with(&both, &[]));
    for image in [[1, 2, 3], [11, 12, 13]] {
        assert!(
            sealed.decrypt(HOST, "orders", Some(image)).is_ok(),
            "{image:?}"
        );
    }
    assert_denied(sealed.decrypt(HOST, "orders", Some([9, 9, 9])), "a third");
    let new = case.printed(&["2.json"], &[]);
    sealed.kms.set_policy(&sealed.key, &with(&new, &[]));
    assert_denied(
        sealed.decrypt(HOST, "orders", Some([1, 2, 3])),
        "the old one",
    );
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_printed_policy_passes_its_check() {
    let case = Case::new(&Sealed::new().spec());
    let printed = case.printed(&["1.json"], &[]);
    case.write("printed.json", &printed);
    let all = [
        "--check",
        "printed.json",
        "--spec",
        "enclave.toml",
        "--measurements",
        "1.json",
    ];
    for arguments in [&all[..2], &all[..]] {
        let output = case.policy(arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{text}");
        let note = "note: these may change the policy, and so open the key: arn:aws:iam::111122223333:root";
        assert!(text.contains(note), "{text}");
    }
    let old = [&all[..5], &["2.json"]].concat();
    let output = case.policy(&old);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in [
        "statement 3 (OpenWhenAttested) allows Decrypt to an image",
        "cannot open the key",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

/// What an Allow of Decrypt under a condition on PCR0 looks like.
fn attested(operator: &str, key: &str, value: &str) -> Value {
    let mut conditions = json!({ "StringEquals": { "kms:EncryptionContext:name": "orders" } });
    let key = format!("kms:RecipientAttestation:{key}");
    conditions[operator] = json!({ key: value });
    allow("kms:Decrypt", conditions)
}

/// A statement that opens a key, the attack that it lets through, and the request: the name that
/// the data key is sealed for, and the image that asks.
type Open = (Value, &'static str, &'static str, Option<[u8; 3]>);

fn open_statements() -> Vec<Open> {
    let (pcr0, pcr1, pcr3) = (register(1), register(2), register(4));
    vec![
        (allow("kms:De*", json!({})), "no-document", "orders", None),
        (
            attested("StringEqualsIfExists", "PCR0", &pcr0),
            "no-document",
            "orders",
            None,
        ),
        (
            attested("ForAllValues:StringEquals", "PCR0", &pcr0),
            "no-document",
            "orders",
            None,
        ),
        (
            attested("StringNotEquals", "PCR0", &register(0)),
            "no-document",
            "orders",
            None,
        ),
        (
            attested("Null", "PCR0", "false"),
            "other-code",
            "orders",
            Some([9, 9, 9]),
        ),
        (
            attested("StringLike", "PCR0", "*"),
            "other-code",
            "orders",
            Some([9, 9, 9]),
        ),
        (
            attested("StringEquals", "PCR3", &pcr3),
            "other-code",
            "orders",
            Some([9, 9, 9]),
        ),
        (
            attested("StringEquals", "PCR1", &pcr1),
            "other-application",
            "orders",
            Some([9, 2, 9]),
        ),
        (
            attested("StringEquals", "PCR0", &register(0)),
            "debug-mode",
            "orders",
            Some([0, 0, 0]),
        ),
        (
            allow(
                "kms:Decrypt",
                json!({ "StringEquals": { "kms:RecipientAttestation:PCR0": pcr0 } }),
            ),
            "other-name",
            "billing",
            Some([1, 2, 3]),
        ),
    ]
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn each_statement_that_opens_a_key_is_named_and_the_fake_kms_agrees() {
    let mut sealed = Sealed::new();
    let case = Case::new(&sealed.spec());
    let closed = attested("StringEqualsIgnoreCase", "ImageSha384", &register(1));
    for (open, attack, name, image) in open_statements() {
        let policy = json!({ "Statement": [closed, open] });
        let (code, found) = case.check(&policy);
        assert_eq!(code, 1, "{open}");
        assert!(found.contains(&(2, attack.to_owned())), "{open}: {found:?}");
        assert!(
            found.iter().all(|(statement, _)| *statement == 2),
            "{open}: {found:?}"
        );
        sealed.sealed_for(name, &policy);
        let answer = sealed.decrypt(HOST, name, image);
        assert!(answer.is_ok(), "{open}: {answer:?}");
        sealed
            .kms
            .set_policy(&sealed.key, &json!({ "Statement": [closed] }));
        assert!(sealed.decrypt(HOST, name, image).is_err(), "{open}");
    }
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_grant_opens_a_key_without_denials_and_the_check_names_who_may_create_it() {
    let mut sealed = Sealed::new();
    let case = Case::new(&sealed.spec());
    let closed = attested("StringEqualsIgnoreCase", "ImageSha384", &register(1));
    let policy = json!({ "Statement": [closed, allow("kms:CreateGrant", json!({}))] });
    assert_eq!(case.check(&policy).1, [(2, "grant".to_owned())]);
    sealed.sealed_for("orders", &policy);
    let grant =
        json!({ "KeyId": sealed.key, "GranteePrincipal": ADMIN, "Operations": ["Decrypt"] });
    sealed.kms.ask(ADMIN, "CreateGrant", &grant).unwrap();
    assert!(sealed.decrypt(ADMIN, "orders", None).is_ok());
    // An explicit Deny beats the grant that is there.
    let printed = with(&case.printed(&["1.json"], &[]), &[]);
    sealed.kms.set_policy(&sealed.key, &printed);
    assert_denied(sealed.decrypt(ADMIN, "orders", None), "a grant");
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn what_makes_no_policy_is_refused_with_its_exit_code() {
    let case = Case::new(&Sealed::new().spec());
    case.write("none.toml", "name = 'orders'\n");
    case.write("text", "no policy");
    case.write_measurements("debug.json", [0, 0, 0].map(register));
    for (arguments, code, why) in [
        (
            &["--spec", "none.toml", "--measurements", "1.json"][..],
            78,
            "no [config]",
        ),
        (
            &["--spec", "enclave.toml", "--measurements", "debug.json"],
            65,
            "zero",
        ),
        (&["--spec", "enclave.toml"], 64, "--measurements"),
        (&["--check", "text"], 65, "not a key policy"),
        (&["--check", "nowhere"], 78, "cannot read nowhere"),
        (
            &["--check", "text", "--spec", "enclave.toml"],
            64,
            "given together",
        ),
    ] {
        let output = case.policy(arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert!(stderr.contains(why), "{arguments:?}: {stderr}");
    }
}
