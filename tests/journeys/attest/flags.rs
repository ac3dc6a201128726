//! Every flag is a condition: the right value passes, a wrong one does not.

use super::{Case, NONCE, register};
use pki::{Plan, bytes, pcrs, pem, registers};
use sha2::{Digest as _, Sha384};

const ARN: &str = "arn:aws:iam::123456789012:role/orders";
const INSTANCE_ID: &str = "i-0123456789abcdef0";

/// A register that was extended once.
fn extended_with(content: &[u8]) -> Vec<u8> {
    Sha384::new()
        .chain_update([0; 48])
        .chain_update(content)
        .finalize()
        .to_vec()
}

/// A document that has something for every flag.
fn case_with_everything() -> Case {
    let signer = Plan::default().minted_certificates().pop().unwrap();
    let minted = Plan::with(|plan| {
        let mut registers = registers();
        registers[3].1 = extended_with(ARN.as_bytes());
        registers[4].1 = extended_with(INSTANCE_ID.as_bytes());
        registers[8].1 = extended_with(&Sha384::digest(&signer));
        registers.push((16, vec![7; 48]));
        plan.set("pcrs", pcrs(&registers));
        plan.set("user_data", bytes(&[]));
    });
    let case = Case::new(&minted);
    case.write("signer.pem", pem(&signer));
    case.write("other.pem", pem(&minted.root));
    case
}

/// A test for each flag with a value: the right one, a wrong one, and what the verdict calls it.
macro_rules! conditions {
    ($($test:ident: $flag:literal $right:expr, not $wrong:expr, checks $name:literal;)*) => {$(
        #[test]
        #[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
        fn $test() {
            let (case, pcr) = (case_with_everything(), register(0, 1));
            let right = case.verify(&["--pcr", &pcr, $flag, $right]);
            assert_eq!(right.code, 0, "{right:?}");
            let rejected = case.verify(&["--pcr", &pcr, $flag, $wrong]);
            assert_eq!(rejected.code, 1, "{rejected:?}");
            rejected.prints(concat!("does not satisfy the policy: ", $name, "\n"));
        }
    )*};
}

conditions! {
    role_arn_checks_pcr3:
        "--role-arn" ARN, not "arn:aws:iam::123456789012:role/order", checks "PCR3";
    instance_id_checks_pcr4:
        "--instance-id" INSTANCE_ID, not "i-0123456789abcdef1", checks "PCR4";
    signing_certificate_checks_pcr8:
        "--signing-certificate" "signer.pem", not "other.pem", checks "PCR8";
    public_key_checks_the_public_key:
        "--public-key" "6b6579", not "6b65", checks "public key";
    user_data_checks_the_user_data:
        "--user-data" "", not "00", checks "user data";
    nonce_checks_the_nonce:
        "--nonce" NONCE, not "3132333435363739", checks "nonce";
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn sealed_config_checks_that_pcr16_was_extended() {
    let arguments = ["--pcr", &register(0, 1), "--sealed-config"];
    assert_eq!(case_with_everything().verify(&arguments).code, 0);
    assert_eq!(Case::good().verify(&arguments).code, 1);
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_policy_that_leaves_the_sealed_config_open_has_a_caution() {
    let case = case_with_everything();
    let (pcr0, pcr16) = (register(0, 1), register(16, 7));
    let caution = "add PCR16";
    let open = case.verify(&["--pcr", &pcr0, "--sealed-config", "--json"]);
    let pinned = case.verify(&["--pcr", &pcr0, "--sealed-config", "--pcr", &pcr16, "--json"]);
    assert_eq!((open.code, pinned.code), (0, 0), "{open:?}");
    let cautioned = |verdict: &str| verdict.contains(caution);
    assert_eq!(
        (cautioned(&open.stdout), cautioned(&pinned.stdout)),
        (true, false)
    );
    // The builder's output says that the image's spec declares a config.
    let registers = register(0, 1).replace("0=", "\"PCR0\": \"");
    let built = format!(
        "{{\"eif\": \"x\", \"image\": {{}}, \"cautions\": [], \"sealed_config\": true, \
         \"measurements\": {{\"HashAlgorithm\": \"Sha384 {{ ... }}\", {registers}\", \
         \"PCR1\": \"{}\", \"PCR2\": \"{}\"}}}}",
        "02".repeat(48),
        "03".repeat(48)
    );
    case.write("built.json", built);
    for flag in ["--measurements", "--policy"] {
        let verdict = case.verify(&[flag, "built.json"]);
        assert!(verdict.stdout.contains(caution), "{flag}: {verdict:?}");
    }
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn max_age_checks_the_documents_age() {
    let (good, pcr) = (Case::good(), register(0, 1));
    let later = |arguments: &[&str]| {
        let arguments = [&["--pcr", &pcr], arguments].concat();
        good.verify_at("2026-01-01T12:05:00Z", &arguments).code
    };
    assert_eq!(
        (
            later(&[]),
            later(&["--max-age", "300"]),
            later(&["--max-age", "299"])
        ),
        (0, 0, 1)
    );
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_document_without_a_nonce_is_fresh_unless_a_flag_says_otherwise() {
    let (good, pcr) = (Case::good(), register(0, 1));
    let later = |arguments: &[&str]| {
        let arguments = [&["--pcr", &pcr], arguments].concat();
        good.verify_at("2026-01-01T12:05:01Z", &arguments)
    };
    let old = later(&[]);
    assert_eq!(old.code, 1);
    old.prints("age            FAILED  expected  at most 300 s");
    for accepted in [["--nonce", NONCE], ["--max-age", "certificate"]] {
        assert_eq!(later(&accepted).code, 0, "{accepted:?}");
    }
    later(&["--max-age", "long"]).warns("give seconds, or certificate");
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn clock_skew_allows_for_a_late_clock() {
    let (good, pcr) = (Case::good(), register(0, 1));
    let before = |seconds| {
        let arguments = ["--pcr", &pcr, "--clock-skew", seconds];
        good.verify_at("2026-01-01T11:59:50Z", &arguments).code
    };
    assert_eq!(before("9"), 1);
    assert_eq!(before("10"), 0);
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn the_documents_own_time_may_be_taken_with_a_nonce() {
    let arguments = ["--pcr", &register(0, 1), "--nonce", NONCE];
    assert_eq!(Case::good().verify_at("document", &arguments).code, 0);
}
