//! Documents of real enclaves, and a good one of our own.

use attestation::{
    Check, Conditions, Error, Malformed, Part, Pcr, Policy, Subject, Time, TrustAnchor, Untrusted,
    ValidityTime, Verified, Verifier, verify,
};
use pki::{MADE_AT, MODULE_ID, Plan, Signature};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::PathBuf;

/// The directory with third-party documents, which are not ours to keep in the repository.
fn samples() -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/attestation");
    let directory = std::env::var_os("REDOUBT_SAMPLES").map_or_else(beside, PathBuf::from);
    let found = directory.join("docs").is_dir();
    if !found {
        let notice = format!(
            "SKIPPED: {} has no documents of real enclaves (REDOUBT_SAMPLES)\n",
            directory.display()
        );
        // Not eprint, which the test harness would capture. The notice is a courtesy.
        std::io::stderr().write_all(notice.as_bytes()).ok();
    }
    found.then_some(directory)
}

fn sample(name: &str) -> Option<Vec<u8>> {
    let path = samples()?.join("docs").join(format!("{name}.cose"));
    Some(std::fs::read(path).unwrap())
}

fn at(text: &str) -> Time {
    text.parse().unwrap()
}

/// All registers of a document, read without any of our code: in real documents each is its index,
/// `58 30`, and 48 bytes.
fn all_registers(document: &[u8]) -> BTreeMap<u8, BTreeSet<Pcr>> {
    const NAME: &[u8] = b"\x64pcrs";
    let mut windows = document.windows(NAME.len());
    let start = windows.position(|window| window == NAME).unwrap() + NAME.len();
    let count = usize::from(document[start] - 0xa0);
    let entries = document[start + 1..].chunks(51).take(count);
    entries
        .map(|entry| (entry[0], [Pcr::try_from(&entry[3..]).unwrap()].into()))
        .collect()
}

/// PCR0 of a document.
fn first_register(document: &[u8]) -> Pcr {
    *all_registers(document)[&0].first().unwrap()
}

fn exactly(pcr0: Pcr) -> Conditions {
    Conditions {
        pcrs: [(0, [pcr0].into())].into(),
        ..Conditions::default()
    }
}

fn verify_at(document: &[u8], time: &str, conditions: Conditions) -> Result<Verified, Error> {
    let policy = Policy::new(conditions).unwrap();
    verify(document, &TrustAnchor::aws(), at(time), &policy)
}

/// Under a policy that asks for every register that the document has.
fn check(document: &[u8], time: &str) -> Result<Verified, Error> {
    let conditions = Conditions {
        pcrs: all_registers(document),
        allow_debug: true,
        ..Conditions::default()
    };
    verify_at(document, time, conditions)
}

const GENUINE: [(&str, &str); 6] = [
    ("base-hinted-2026-01-03", "2026-01-03T20:41:07Z"),
    ("evervault-debug-2022-10-12", "2022-10-12T13:50:06Z"),
    ("evervault-valid-2022-10-13", "2022-10-13T08:58:02Z"),
    ("nautilus-weather-2025-04-15", "2025-04-15T02:25:23Z"),
    ("veracruz-2022-11-09", "2022-11-09T22:52:00Z"),
    ("oyster-aws-pcr16-2025-04-29", "2025-04-29T10:32:39Z"),
];

/// A genuine document, verified at its time.
fn verified(name: &str) -> Option<Verified> {
    let (_, time) = GENUINE
        .into_iter()
        .find(|(known, _)| *known == name)
        .unwrap();
    Some(check(&sample(name)?, time).unwrap())
}

#[test]
fn genuine_documents_verify_at_their_times() {
    for (name, time) in GENUINE {
        let Some(document) = sample(name) else { return };
        let verified = check(&document, time).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(verified.debug, name.contains("debug"), "{name}");
        let registers = all_registers(&document);
        assert!(
            verified
                .pcrs
                .iter()
                .all(|(index, pcr)| registers[&index].contains(pcr)),
            "{name}"
        );
    }
}

#[test]
fn pcr4_of_genuine_documents_is_made_of_the_instance_in_their_name() {
    for (name, time) in GENUINE {
        let Some(document) = sample(name) else { return };
        let verified = check(&document, time).unwrap_or_else(|e| panic!("{name}: {e}"));
        let instance = verified.module_id.split_once("-enc").unwrap().0.to_owned();
        let by_instance = Conditions {
            instance_id: Some(instance),
            allow_debug: true,
            ..Conditions::default()
        };
        verify_at(&document, time, by_instance).unwrap_or_else(|e| panic!("{name}, PCR4: {e}"));
    }
}

#[test]
fn genuine_documents_have_the_fields_that_are_known_of_them() {
    let Some(base) = verified("base-hinted-2026-01-03") else {
        return;
    };
    assert_eq!(base.user_data.unwrap().len(), 20);
    let evervault = verified("evervault-valid-2022-10-13").unwrap();
    assert_eq!(evervault.nonce.unwrap().len(), 256);
    let nautilus = verified("nautilus-weather-2025-04-15").unwrap();
    assert_eq!(nautilus.public_key.unwrap().len(), 32);
    let veracruz = verified("veracruz-2022-11-09").unwrap();
    assert_eq!(
        (
            veracruz.user_data.unwrap().len(),
            veracruz.nonce.unwrap().len()
        ),
        (32, 32)
    );
}

#[test]
fn genuine_documents_have_the_registers_that_are_known_of_them() {
    let Some(oyster) = verified("oyster-aws-pcr16-2025-04-29") else {
        return;
    };
    assert_eq!(
        (
            oyster.user_data,
            oyster.pcrs.get(16).is_some(),
            oyster.pcrs.get(17)
        ),
        (Some(vec![]), true, None)
    );
    let debug = verified("evervault-debug-2022-10-12").unwrap();
    assert_eq!(debug.pcrs.get(0), Some(&Pcr::ZERO));
    assert_ne!(
        debug.pcrs.get(4),
        Some(&Pcr::ZERO),
        "debug mode does not zero every register"
    );
}

#[test]
fn refuses_an_enclaves_document_with_a_bad_signature() {
    let Some(bad) = sample("veracruz-BAD-SIG-2022-11-09") else {
        return;
    };
    assert_eq!(
        check(&bad, "2022-11-09T22:52:00Z"),
        Err(Untrusted::Signature(Part::Document).into())
    );
}

#[test]
fn refuses_a_document_below_another_root() {
    let Some(foreign) = sample("oyster-CUSTOM-ROOT-2024-12-13") else {
        return;
    };
    assert_eq!(
        check(&foreign, "2024-12-13T09:05:45Z"),
        Err(Untrusted::Root.into())
    );
}

#[test]
fn refuses_debug_mode_unless_the_policy_allows_it() {
    const TIME: &str = "2022-10-12T13:50:06Z";
    let Some(debug) = sample("evervault-debug-2022-10-12") else {
        return;
    };
    let allowed = Conditions {
        allow_debug: true,
        ..exactly(Pcr::ZERO)
    };
    assert!(verify_at(&debug, TIME, allowed).is_ok());
    let by_role = Conditions {
        role_arn: Some("arn:aws:iam::111122223333:role/orders".to_owned()),
        ..Conditions::default()
    };
    let Err(Error::Rejected(checks)) = verify_at(&debug, TIME, by_role) else {
        panic!("a debug document passed")
    };
    let failed: Vec<_> = checks
        .iter()
        .filter(|check| !check.passed)
        .map(|check| check.subject)
        .collect();
    assert_eq!(failed, [Subject::Debug, Subject::Pcr(3)]);
}

#[test]
fn genuine_documents_expire() {
    let Some(document) = sample("base-hinted-2026-01-03") else {
        return;
    };
    assert!(matches!(
        check(&document, "2026-01-04T00:41:07Z"),
        Err(Error::Expired {
            part: Part::Leaf,
            ..
        })
    ));
    assert!(matches!(
        check(&document, "2025-12-01T00:00:00Z"),
        Err(Error::NotYetValid {
            part: Part::Ca(1),
            ..
        })
    ));
}

#[test]
fn at_its_own_time_an_expired_document_still_needs_the_nonce() {
    let Some(document) = sample("base-hinted-2026-01-03") else {
        return;
    };
    let own_time = Conditions {
        time: ValidityTime::Document,
        nonce: Some(vec![1; 8]),
        ..exactly(first_register(&document))
    };
    let years_later = verify_at(&document, "2030-01-01T00:00:00Z", own_time);
    let Err(Error::Rejected(checks)) = years_later else {
        panic!("{years_later:?}")
    };
    let nonce = checks.into_iter().find(|check| !check.passed).unwrap();
    assert_eq!(
        nonce,
        Check {
            subject: Subject::Nonce,
            passed: false,
            expected: "0101010101010101".to_owned(),
            found: "missing".to_owned()
        }
    );
}

/// Every bit of a document, one after the other: the property, not a sample of it.
fn no_flipped_bit_verifies(document: &[u8], anchor: TrustAnchor, now: Time, pcr0: Pcr) {
    let verifier = Verifier::new(anchor);
    let policy = Policy::new(Conditions {
        allow_debug: true,
        ..exactly(pcr0)
    })
    .unwrap();
    assert!(verifier.verify(document, now, &policy).is_ok());
    std::thread::scope(|scope| {
        for half in 0..2 {
            let (verifier, policy) = (&verifier, &policy);
            scope.spawn(move || {
                let mut flipped = document.to_vec();
                for bit in (0..document.len() * 8).filter(|bit| bit % 2 == half) {
                    flipped[bit / 8] ^= 1 << (bit % 8);
                    assert!(
                        verifier.verify(&flipped, now, policy).is_err(),
                        "bit {bit} does not matter"
                    );
                    flipped[bit / 8] ^= 1 << (bit % 8);
                }
            });
        }
    });
    for len in 0..document.len() {
        assert!(
            verifier.verify(&document[..len], now, &policy).is_err(),
            "cut to {len} bytes"
        );
    }
}

#[test]
fn no_single_bit_of_a_genuine_document_can_be_flipped() {
    let (name, time) = GENUINE[0];
    let Some(document) = sample(name) else { return };
    no_flipped_bit_verifies(
        &document,
        TrustAnchor::aws(),
        at(time),
        first_register(&document),
    );
}

#[test]
fn no_single_bit_of_our_own_document_can_be_flipped() {
    let minted = Plan::default().mint();
    let anchor = TrustAnchor::from_der(&minted.root).unwrap();
    let pcr0 = Pcr::try_from([1; 48].as_slice()).unwrap();
    no_flipped_bit_verifies(&minted.document, anchor, Time::from_millis(MADE_AT), pcr0);
}

/// What a good document of our own satisfies.
fn own_policy() -> Policy {
    Policy::new(exactly(Pcr::try_from([1; 48].as_slice()).unwrap())).unwrap()
}

#[test]
fn a_verifier_with_a_cache_decides_like_one_without() {
    let good = Plan::default().mint();
    let verifier = Verifier::new(TrustAnchor::from_der(&good.root).unwrap());
    let policy = own_policy();
    let now = Time::from_millis(MADE_AT);
    let first = verifier.verify(&good.document, now, &policy).unwrap();
    assert_eq!(first.module_id, MODULE_ID);
    assert_eq!(first.valid_until, at("2026-01-01T14:00:00Z"));
    assert_eq!(verifier.verify(&good.document, now, &policy), Ok(first));
    // The CA certificates are cached now; what the enclave's key signs is not.
    let bad = Plan::with(|plan| plan.signature = Signature::Bytes(vec![1; 96]));
    assert_eq!(
        verifier.verify(&bad.document, now, &policy),
        Err(Untrusted::Signature(Part::Document).into())
    );
    assert!(matches!(
        verifier.verify(&good.document, at("2026-01-02T12:00:00Z"), &policy),
        Err(Error::Expired {
            part: Part::Ca(3),
            ..
        })
    ));
}

/// The form that QEMU's nitro-enclave machine writes; `deploy.rs` has a real one.
#[test]
fn refuses_unsigned_documents() {
    let unsigned = Plan::with(|plan| {
        plan.protected = vec![0xa1, 0x01, 0x20];
        plan.signature = Signature::Bytes(vec![0; 64]);
    });
    let anchor = TrustAnchor::from_der(&unsigned.root).unwrap();
    assert_eq!(
        verify(
            &unsigned.document,
            &anchor,
            Time::from_millis(MADE_AT),
            &own_policy()
        ),
        Err(Untrusted::Algorithm(-1).into())
    );
}

#[test]
fn refuses_documents_beyond_16_kib() {
    let too_long = [0; 16 * 1024 + 1];
    assert_eq!(
        verify(
            &too_long,
            &TrustAnchor::aws(),
            Time::from_millis(MADE_AT),
            &own_policy()
        ),
        Err(Malformed::TooLong(16 * 1024 + 1).into())
    );
}
