//! Conditions in files, alone and beside flags.

use super::{Case, NONCE, digits, register};
use pki::{Plan, cbor};
use serde_json::{Value, json};

fn measurements() -> Value {
    json!({
        "HashAlgorithm": "Sha384 { ... }", "PCR0": digits(1), "PCR1": digits(2), "PCR2": digits(3)
    })
}

/// A good document, and files with conditions that it satisfies.
fn case_with_files() -> Case {
    let case = Case::good();
    let built = json!({"eif": "x", "image": {}, "measurements": measurements()});
    case.write("built.json", built.to_string());
    let nitro = json!({"EifVersion": 4, "Measurements": measurements()});
    case.write("nitro.json", nitro.to_string());
    let (old, new) = (digits(7), digits(1));
    case.write(
        "policy.toml",
        format!("require_nonce = true\n[pcrs]\n0 = [\"{old}\", \"{new}\"]\n"),
    );
    let aged = "max_age_seconds = 5\nclock_skew_seconds = 5\n";
    case.write(
        "aged.toml",
        format!("{aged}nonce = \"{NONCE}\"\n[pcrs]\n0 = \"{new}\"\n"),
    );
    let policy = json!({"measurements": measurements(), "require_nonce": true});
    case.write("policy.json", policy.to_string());
    case
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_builders_output_is_a_policy_and_measurements() {
    let case = case_with_files();
    assert_eq!(case.verify(&["--policy", "built.json"]).code, 0);
    assert_eq!(case.verify(&["--measurements", "built.json"]).code, 0);
    let nitro = case.verify(&["--measurements", "nitro.json", "--pcr", &register(8, 9)]);
    assert_eq!(nitro.code, 0);
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_policy_that_requires_a_nonce_is_unusable_without_one() {
    let case = case_with_files();
    let policy =
        |arguments: &[&str]| case.verify(&[&["--policy", "policy.toml"], arguments].concat());
    assert_eq!(policy(&["--nonce", NONCE]).code, 0);
    assert_eq!(policy(&["--nonce", "00"]).code, 1);
    let missing = policy(&[]);
    assert_eq!(missing.code, 2);
    missing.warns("the policy requires a nonce");
    assert_eq!(
        case.verify(&["--policy", "policy.json"]).code,
        2,
        "a nonce is required"
    );
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn unknown_keys_of_a_policy_are_errors() {
    let case = case_with_files();
    case.write("typo.toml", "max_age = 5\n");
    case.verify(&["--policy", "typo.toml"])
        .warns("unknown field `max_age`");
    case.verify(&["--measurements", "policy.json"])
        .warns("unknown field `require_nonce`");
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn measurements_and_a_flag_that_contradict_each_other_are_an_error() {
    case_with_files()
        .verify(&["--measurements", "nitro.json", "--pcr", &register(0, 9)])
        .warns("conflicting values for PCR0");
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_policy_that_leaves_the_code_open_is_cautioned_about() {
    let loose = Case::good().verify(&["--pcr", &register(4, 5)]);
    assert_eq!(loose.code, 0);
    loose.prints("does not fix the code that runs");
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_policy_accepts_other_products_only_if_it_says_so() {
    let sandbox = Plan::with(|plan| plan.set("module_id", cbor(|e| e.str("i-1-sbx1"))));
    let case = Case::new(&sandbox);
    let verify = |kind: &str| {
        let policy = format!("{kind}[pcrs]\n0 = \"{}\"\n", digits(1));
        case.write("policy.toml", policy);
        case.verify(&["--policy", "policy.toml"])
    };
    for enclave in ["", "kind = \"enclave\"\n"] {
        let rejected = verify(enclave);
        assert_eq!(rejected.code, 1, "{rejected:?}");
        rejected.prints("kind           FAILED  expected  an enclave: i-…-enc…");
    }
    let any = verify("kind = \"any\"\n");
    assert_eq!(any.code, 0, "{any:?}");
    any.prints("caution: this policy accepts documents of any AWS product");
    assert_eq!(verify("kind = \"sandbox\"\n").code, 2);
}

/// A test for each flag that would replace a condition of a file: nothing on the command line
/// loosens a file.
macro_rules! not_replaced {
    ($($test:ident: $condition:literal of $file:literal by $flag:literal $value:expr;)*) => {$(
        #[test]
        #[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
        fn $test() {
            let twice = case_with_files().verify(&["--policy", $file, $flag, $value]);
            assert_eq!(twice.code, 2);
            twice.warns(concat!($condition, " is set by both the policy file and a flag"));
        }
    )*};
}

not_replaced! {
    a_flag_does_not_replace_a_files_register:
        "PCR0" of "policy.toml" by "--pcr" &register(0, 9);
    a_flag_does_not_replace_a_files_greatest_age:
        "max_age_seconds" of "aged.toml" by "--max-age" "9999";
    a_flag_does_not_replace_a_files_clock_skew:
        "clock_skew_seconds" of "aged.toml" by "--clock-skew" "9";
    a_flag_does_not_replace_a_files_nonce:
        "nonce" of "aged.toml" by "--nonce" NONCE;
    a_flag_does_not_replace_a_files_measurements:
        "measurements" of "built.json" by "--measurements" "built.json";
}
