//! Policies that were generated, and policies that are open.

use super::{
    Attack, ExpectedImages, KeyPolicy, KeyPolicyError, KeyPolicyFinding, Principals, SealingKey,
};
use attestation::{HashAlgorithm, Measurements, Pcr};
use wire::spec::Spec;

fn measurements(byte: u8) -> Measurements {
    let pcr = |more: u8| Pcr::try_from([byte + more; 48].as_slice()).unwrap();
    Measurements {
        hash_algorithm: HashAlgorithm::Sha384,
        pcr0: pcr(0),
        pcr1: pcr(1),
        pcr2: pcr(2),
        pcr8: None,
    }
}

fn subject_of(key: &str) -> Result<SealingKey, KeyPolicyError> {
    let text = format!(
        "name = \"orders\"\n[network]\negress = [\"kms.us-east-1.amazonaws.com:443\"]\n\
         [config]\nkms_key = \"arn:aws:kms:us-east-1:111122223333:key/{key}\"\nvariables = [\"TOKEN\"]\n\
         context = {{ app = \"shop\" }}\n"
    );
    SealingKey::of(&Spec::parse(&text).unwrap())
}

fn subject() -> SealingKey {
    subject_of("k").unwrap()
}

fn generated(measurements: &[Measurements]) -> KeyPolicy {
    KeyPolicy::generate(&subject(), measurements, &Principals::default()).unwrap()
}

/// A policy of these statements.
fn policy(statements: &[String]) -> KeyPolicy {
    let statements = statements.join(",");
    KeyPolicy::parse(&format!("{{\"Statement\": [{statements}]}}")).unwrap()
}

fn statement(effect: &str, action: &str, more: &str) -> String {
    format!(
        r#"{{"Effect": "{effect}", "Principal": {{"AWS": "111122223333"}}, "Action": "{action}", "Resource": "*"{more}}}"#
    )
}

fn when(conditions: &str) -> String {
    format!(", \"Condition\": {{{conditions}}}")
}

/// The attacks that the statement with this number lets through.
fn opened(policy: &KeyPolicy, wanted: usize) -> Vec<Attack> {
    let findings = policy.check(None).findings.into_iter();
    findings
        .filter_map(|finding| match finding {
            KeyPolicyFinding::Opens {
                statement, attack, ..
            } if statement == wanted => Some(attack),
            _ => None,
        })
        .collect()
}

/// The attacks that one Allow of Decrypt under these conditions lets through.
fn opened_when(conditions: &str) -> Vec<Attack> {
    let allow = statement("Allow", "kms:Decrypt", &when(conditions));
    opened(&policy(&[allow]), 1)
}

#[test]
fn a_generated_policy_has_no_findings() {
    let both = [measurements(1), measurements(10)];
    for measurements in [&both[..1], &both[..]] {
        let policy = generated(measurements);
        let expected = ExpectedImages {
            subject: &subject(),
            measurements,
        };
        for expected in [None, Some(expected)] {
            let report = policy.check(expected);
            assert_eq!(report.findings, [], "{policy}");
            let root = "arn:aws:iam::111122223333:root".to_owned();
            assert_eq!(report.administrators, [root].into());
        }
        assert_eq!(KeyPolicy::parse(&policy.to_string()).unwrap(), policy);
    }
}

#[test]
fn a_second_allow_does_not_open_a_generated_policy() {
    let mut text: serde_json::Value =
        serde_json::from_str(&generated(&[measurements(1)]).to_string()).unwrap();
    let open = serde_json::from_str(&statement("Allow", "kms:*", "")).unwrap();
    text["Statement"].as_array_mut().unwrap().push(open);
    let report = KeyPolicy::parse(&text.to_string()).unwrap().check(None);
    assert_eq!(report.findings, []);
}

#[test]
fn without_any_of_its_denials_a_generated_policy_has_findings() {
    let whole: serde_json::Value =
        serde_json::from_str(&generated(&[measurements(1)]).to_string()).unwrap();
    let statements = whole["Statement"].as_array().unwrap();
    let needed = |sid: &str| {
        let mut text = whole.clone();
        let kept = statements.iter().filter(|s| s["Sid"] != sid).cloned();
        text["Statement"] = kept.collect();
        !KeyPolicy::parse(&text.to_string())
            .unwrap()
            .check(None)
            .findings
            .is_empty()
    };
    assert!(needed("DenyWaysAround"));
    // Each of these is guarded by another too: PCR0 includes what PCR1 and PCR2 measure.
    assert!(!needed("DenyUnlessPCR1") && !needed("DenyUnlessImageSha384"));
}

#[test]
fn every_condition_that_is_too_weak_is_named() {
    use Attack::{DebugMode, NoDocument, OtherApplication, OtherCode, OtherKernel, OtherName};
    const NAME: &str = r#""StringEquals": {"kms:EncryptionContext:name": "orders"}"#;
    let pcr = |register: &str| {
        let a = "ab".repeat(48);
        format!(
            r#"{NAME}, "StringEqualsIgnoreCase": {{"kms:RecipientAttestation:{register}": "{a}"}}"#
        )
    };
    let zero = "0".repeat(96);
    for (conditions, attacks) in [
        (pcr("ImageSha384"), vec![]),
        (pcr("PCR0"), vec![]),
        (pcr("PCR8"), vec![DebugMode]),
        (pcr("PCR1"), vec![OtherApplication]),
        (pcr("PCR2"), vec![OtherKernel]),
        (pcr("PCR3"), vec![OtherCode, DebugMode]),
        (pcr("PCR16"), vec![OtherCode, DebugMode]),
        (
            pcr("ImageSha384").replace("IgnoreCase", "IgnoreCaseIfExists"),
            vec![NoDocument],
        ),
        (
            pcr("ImageSha384").replace("StringEqualsIg", "ForAllValues:StringEqualsIg"),
            vec![NoDocument],
        ),
        (
            pcr("ImageSha384").replace(&"ab".repeat(48), &zero),
            vec![DebugMode],
        ),
        (
            pcr("ImageSha384").replace(NAME, r#""Null": {"kms:EncryptionContext:name": "false"}"#),
            vec![OtherName],
        ),
        (
            format!(r#"{NAME}, "Null": {{"kms:RecipientAttestation:ImageSha384": false}}"#),
            vec![OtherCode, DebugMode],
        ),
        (
            format!(r#"{NAME}, "StringLike": {{"kms:RecipientAttestation:PCR0": "*"}}"#),
            vec![OtherCode, DebugMode],
        ),
        (
            format!(r#"{NAME}, "ArnLike": {{"aws:PrincipalArn": "*"}}"#),
            vec![NoDocument, OtherCode, DebugMode],
        ),
    ] {
        assert_eq!(opened_when(&conditions), attacks, "{conditions}");
    }
}

#[test]
fn every_action_that_leads_around_the_conditions_is_named() {
    use Attack::{Grant, ImportedMaterial, ReEncrypt, Replica};
    for (action, attack) in [
        ("kms:ReEncrypt*", ReEncrypt),
        ("kms:CreateGrant", Grant),
        ("kms:ReplicateKey", Replica),
        ("kms:ImportKeyMaterial", ImportedMaterial),
    ] {
        let policy = policy(&[statement("Allow", action, "")]);
        assert_eq!(opened(&policy, 1), [attack], "{action}");
    }
    let all = opened(&policy(&[statement("Allow", "kms:*", "")]), 1);
    assert_eq!(all.len(), 8, "{all:?}");
}

#[test]
fn a_deny_that_some_escape_closes_nothing() {
    let allow = statement("Allow", "kms:Decrypt", "");
    let keys = r#"{"kms:RecipientAttestation:PCR1": "ab", "kms:RecipientAttestation:PCR2": "ab"}"#;
    for deny in [
        // Both registers must differ: one of them is enough to get in.
        statement(
            "Deny",
            "kms:Decrypt",
            &when(&format!("\"StringNotEquals\": {keys}")),
        ),
        statement(
            "Deny",
            "kms:Decrypt",
            &when(
                r#""ArnNotEquals": {"aws:PrincipalArn": "arn:aws:iam::111122223333:role/admin"}"#,
            ),
        ),
        statement("Deny", "kms:Encrypt", ""),
        statement("Deny", "kms:Decrypt", "").replace("111122223333", "444455556666"),
    ] {
        let policy = policy(&[allow.clone(), deny.clone()]);
        assert!(opened(&policy, 1).len() > 1, "{deny}");
    }
    let deny = statement("Deny", "kms:Decrypt", "");
    assert_eq!(opened(&policy(&[allow, deny]), 1), []);
}

#[test]
fn what_an_allow_added_later_would_open_is_named() {
    let findings = policy(&[]).check(None).findings;
    let unguarded = |attack| KeyPolicyFinding::Unguarded { attack };
    let all = [
        Attack::NoDocument,
        Attack::OtherCode,
        Attack::DebugMode,
        Attack::OtherName,
        Attack::ReEncrypt,
    ];
    assert_eq!(findings, all.map(unguarded));
}

#[test]
fn an_image_that_is_not_expected_and_an_enclave_that_is_locked_out_are_named() {
    let (old, new) = (measurements(1), measurements(10));
    let check = |policy: &KeyPolicy, measurements: &[Measurements]| {
        let expected = ExpectedImages {
            subject: &subject(),
            measurements,
        };
        policy.check(Some(expected)).findings
    };
    let unexpected = KeyPolicyFinding::Opens {
        statement: 3,
        sid: Some("OpenWhenAttested".to_owned()),
        attack: Attack::UnexpectedImage,
    };
    assert_eq!(check(&generated(&[old, new]), &[new]), [unexpected]);
    let locked_out = KeyPolicyFinding::LockedOut { pcr0: new.pcr0 };
    assert_eq!(check(&generated(&[old]), &[old, new]), [locked_out]);
}

#[test]
fn administration_by_anyone_is_named() {
    let put = |more: &str| {
        let text = statement("Allow", "kms:Put*", more);
        let text = text.replace(r#"{"AWS": "111122223333"}"#, "\"*\"");
        opened(&policy(&[text]), 1)
    };
    assert_eq!(put(""), [Attack::OpenAdministration]);
    let account = when(r#""StringEquals": {"kms:CallerAccount": "111122223333"}"#);
    assert_eq!(put(&account), []);
}

#[test]
fn refuses_keys_measurements_and_principals_that_make_no_closed_policy() {
    let generate = |subject: &SealingKey, measurements: &[Measurements], hosts: &[&str]| {
        let hosts = hosts.iter().map(ToString::to_string).collect();
        let principals = Principals {
            hosts,
            ..Principals::default()
        };
        KeyPolicy::generate(subject, measurements, &principals)
    };
    let good = [measurements(1)];
    let mrk = subject_of("mrk-1").unwrap();
    let error = generate(&mrk, &good, &[]).unwrap_err();
    assert!(matches!(error, KeyPolicyError::MultiRegion(_)), "{error}");
    let error = generate(&subject(), &[], &[]).unwrap_err();
    assert!(matches!(error, KeyPolicyError::NoMeasurements), "{error}");
    let zero = Measurements {
        pcr2: Pcr::ZERO,
        ..measurements(1)
    };
    let error = generate(&subject(), &[zero], &[]).unwrap_err();
    assert!(
        matches!(error, KeyPolicyError::ZeroMeasurement(2)),
        "{error}"
    );
    for bad in [
        "*",
        "arn:aws:iam::1:role/x",
        "arn:aws:sts::111122223333:assumed-role/x/y",
    ] {
        let error = generate(&subject(), &good, &[bad]).unwrap_err();
        assert!(matches!(error, KeyPolicyError::Principal(_)), "{error}");
    }
    assert!(
        generate(
            &subject(),
            &good,
            &["arn:aws:iam::111122223333:role/parent"]
        )
        .is_ok()
    );
    let error = SealingKey::of(&Spec::default()).unwrap_err();
    assert!(matches!(error, KeyPolicyError::NoConfig), "{error}");
}

#[test]
fn refuses_text_that_is_no_policy() {
    for text in [
        "",
        "{}",
        r#"{"Statement": [{"Effect": "Perhaps"}]}"#,
        r#"{"Statement": [{"Effect": "Allow", "Actions": "kms:*"}]}"#,
    ] {
        let error = KeyPolicy::parse(text).unwrap_err();
        assert!(matches!(error, KeyPolicyError::Parse(_)), "{text}");
    }
}
