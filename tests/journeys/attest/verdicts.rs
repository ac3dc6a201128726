//! Trusted, rejected or unusable: exit codes, tables and JSON.

use super::{AT, Case, NONCE, digits, register};
use attestation::Origin;
use pki::{Plan, bytes, pcrs, registers};
use serde_json::Value;

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_good_document_is_trusted_with_cautions() {
    let right = register(0, 1);
    let trusted = Case::good().verify(&["--pcr", &right, "--nonce", NONCE, "--max-age", "60"]);
    assert_eq!(trusted.code, 0, "{}", trusted.stderr);
    trusted.prints("\nTRUSTED: i-0123456789abcdef0-enc");
    trusted.prints("caution: root.pem is trusted instead of AWS's root");
    trusted.prints("caution: this verdict is as of 2026-01-01T12:00:00Z");
    trusted.prints("time           ok      valid at 2026-01-01T12:00:00Z");
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_document_of_other_code_is_rejected() {
    let rejected = Case::good().verify(&["--pcr", &register(0, 9)]);
    assert_eq!(rejected.code, 1);
    rejected.prints("PCR0           FAILED  expected  0909");
    rejected.prints("found     0101");
    rejected.prints("The enclave runs other code.");
    rejected.prints("REJECTED: genuine");
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_register_given_twice_may_have_either_value() {
    let (right, wrong) = (register(0, 1), register(0, 9));
    let either = Case::good().verify(&["--pcr", &wrong, "--pcr", &right]);
    assert_eq!(either.code, 0, "either will do");
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_document_that_aws_did_not_sign_is_rejected_before_the_policy() {
    let right = register(0, 1);
    let foreign = Case::good().run(&["verify", "document", "--at", AT, "--pcr", &right]);
    assert_eq!(foreign.code, 1);
    foreign.prints("policy         -       not checked");
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn bytes_that_are_not_a_document_are_unusable() {
    let case = Case::good();
    case.write("document", b"no document");
    assert_eq!(case.verify(&["--pcr", &register(0, 1)]).code, 2);
}

/// Runs `attest` with arguments that leave no verdict.
#[track_caller]
fn is_unusable(arguments: &[&str], why: &str) {
    let unusable = Case::good().run(arguments);
    assert_eq!(
        (unusable.code, unusable.stdout.as_str()),
        (2, ""),
        "{arguments:?}"
    );
    unusable.warns(why);
}

/// A test for each command line that is unusable: a name, what follows `attest verify`, and what is
/// said of it. PCR0 is the right one.
macro_rules! unusable {
    ($($name:ident: $arguments:expr => $why:literal;)*) => {$(
        #[test]
        #[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
        fn $name() {
            let right = register(0, 1);
            let given: &[&str] = &$arguments;
            let mut arguments = vec!["verify"];
            arguments.extend(given.iter().map(|text| if *text == "RIGHT" { &right } else { *text }));
            is_unusable(&arguments, $why);
        }
    )*};
}

unusable! {
    a_policy_that_restricts_no_code_is_unusable:
        ["document"] => "this policy does not restrict which code may run";
    a_missing_file_is_unusable:
        ["nowhere", "--pcr", "RIGHT"] => "nowhere: No such file";
    a_register_without_a_value_is_unusable:
        ["document", "--pcr", "0"] => "the = is missing";
    the_documents_time_without_a_nonce_is_unusable:
        ["document", "--pcr", "RIGHT", "--at", "document"] => "without a nonce";
    a_time_in_words_is_unusable:
        ["document", "--pcr", "RIGHT", "--at", "yesterday"] => "is not a time";
    an_empty_nonce_is_unusable:
        ["document", "--pcr", "RIGHT", "--nonce", ""] => "a nonce has 1 to 1024 bytes";
    a_command_line_without_a_document_is_unusable:
        [] => "Usage: attest verify";
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn json_carries_the_fields_of_verified_documents() {
    let trusted = Case::good()
        .verify(&["--json", "--pcr", &register(0, 1)])
        .json();
    assert_eq!(trusted["verdict"], "trusted");
    assert_eq!(trusted["document"]["nonce"], hex::encode("12345678"));
    assert_eq!(trusted["document"]["pcrs"]["15"], digits(16));
    assert_eq!(trusted["document"]["timestamp"], AT);
}

/// The cautions that are about replays, in the text and in JSON.
#[track_caller]
fn replay_caution(arguments: &[&str], expected: Option<&str>) {
    let right = register(0, 1);
    let arguments = [&["--pcr", &right], arguments].concat();
    let text = Case::good().verify(&arguments);
    let json = Case::good().verify(&[&arguments[..], &["--json"]].concat());
    assert_eq!((text.code, json.code), (0, 0), "{arguments:?}");
    let json = json.json();
    let cautions = json["cautions"].as_array().unwrap().iter();
    let found: Vec<&str> = cautions
        .map(|caution| caution.as_str().unwrap())
        .filter(|caution| caution.starts_with("no nonce: "))
        .collect();
    assert_eq!(found, Vec::from_iter(expected), "{arguments:?}");
    for caution in &found {
        text.prints(&format!("caution: {caution}\n"));
    }
    assert_eq!(text.stdout.contains("no nonce"), expected.is_some());
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_verdict_without_a_nonce_says_for_how_long_the_document_can_be_replayed() {
    let minutes =
        "no nonce: anyone who has seen this document can present it until it is 5 minutes old";
    replay_caution(&[], Some(minutes));
    let hours =
        "no nonce: anyone who has seen this document can present it until it is three hours old";
    replay_caution(&["--max-age", "certificate"], Some(hours));
    replay_caution(&["--nonce", NONCE], None);
    replay_caution(&["--max-age", "60"], None);
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn json_of_rejected_documents_carries_checks_and_no_fields() {
    let rejected = Case::good()
        .verify(&["--json", "--pcr", &register(0, 2)])
        .json();
    assert_eq!(
        (rejected["verdict"].as_str(), rejected.get("document")),
        (Some("rejected"), None)
    );
    let checks = rejected["checks"].as_array().unwrap();
    let failed: Vec<&Value> = checks
        .iter()
        .filter(|check| check["passed"] == false)
        .collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0]["subject"]["pcr"], 0);
    assert_eq!(failed[0]["found"], digits(1));
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn debug_mode_passes_only_if_it_is_allowed() {
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

/// A client that takes the key of any document of the enclave would take one that was made for
/// another requester.
#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_policy_that_leaves_open_who_chose_a_key_has_a_caution() {
    let case = |user_data: &[u8]| {
        Case::new(&Plan::with(|plan| {
            plan.set("user_data", bytes(user_data));
        }))
    };
    let pcr = register(0, 1);
    let workload = case(&Origin::Workload.user_data(b"mine"));
    let caution = "caution: this document carries values that its requester chose";
    let open = workload.verify(&["--pcr", &pcr]);
    assert_eq!(open.code, 0, "{open:?}");
    open.prints(caution);
    open.prints(", origin workload\n");
    let asked = workload.verify(&["--pcr", &pcr, "--origin", "workload"]);
    assert!(
        asked.code == 0 && !asked.stdout.contains(caution),
        "{asked:?}"
    );
    asked.prints("origin         ok      workload");
    let other = workload.verify(&["--pcr", &pcr, "--origin", "endpoint"]);
    assert_eq!(other.code, 1, "{other:?}");
    other.prints("origin         FAILED  expected  endpoint");
    // Of an enclave without Redoubt's agent there is nothing to ask.
    let untagged = case(b"mine").verify(&["--pcr", &pcr]);
    assert!(untagged.code == 0 && !untagged.stdout.contains(caution));
}
