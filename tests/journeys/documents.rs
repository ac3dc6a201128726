//! Documents that real enclaves gave out, and a good one of our own.

use attestation::{
    Check, Conditions, Error, Malformed, Part, Pcr, Policy, Subject, Time, TrustAnchor, Untrusted,
    ValidityTime, Verified, Verifier, verify,
};
use std::path::PathBuf;
use tests::pki::{MADE_AT, MODULE_ID, Plan};

/// The folder with third-party documents, which are not ours to keep in the repository.
fn samples() -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/attestation");
    let folder = std::env::var_os("REDOUBT_SAMPLES").map_or_else(beside, PathBuf::from);
    let found = folder.join("docs").is_dir();
    if !found {
        let notice = format!(
            "SKIPPED: {} has no documents of real enclaves (REDOUBT_SAMPLES)\n",
            folder.display()
        );
        let _ = std::io::Write::write_all(&mut std::io::stderr(), notice.as_bytes());
    }
    found.then_some(folder)
}

fn sample(name: &str) -> Option<Vec<u8>> {
    let path = samples()?.join("docs").join(format!("{name}.cose"));
    Some(std::fs::read(path).unwrap())
}

fn at(text: &str) -> Time {
    text.parse().unwrap()
}

/// All registers of a document, read without any of our code: in real documents each is its index, `58 30`, and 48 bytes.
fn all_registers(
    document: &[u8],
) -> std::collections::BTreeMap<u8, std::collections::BTreeSet<Pcr>> {
    let start = document
        .windows(5)
        .position(|window| window == b"\x64pcrs")
        .unwrap()
        + 5;
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

fn check(document: &[u8], time: &str) -> Result<Verified, Error> {
    let pcrs = all_registers(document);
    let conditions = Conditions {
        pcrs,
        allow_debug: true,
        ..Conditions::default()
    };
    verify(
        document,
        &TrustAnchor::aws(),
        at(time),
        &Policy::new(conditions).unwrap(),
    )
}

const GENUINE: [(&str, &str); 6] = [
    ("base-hinted-2026-01-03", "2026-01-03T20:41:07Z"),
    ("evervault-debug-2022-10-12", "2022-10-12T13:50:06Z"),
    ("evervault-valid-2022-10-13", "2022-10-13T08:58:02Z"),
    ("nautilus-weather-2025-04-15", "2025-04-15T02:25:23Z"),
    ("veracruz-2022-11-09", "2022-11-09T22:52:00Z"),
    ("oyster-aws-pcr16-2025-04-29", "2025-04-29T10:32:39Z"),
];

#[test]
fn genuine_documents_verify_at_their_times() {
    for (name, time) in GENUINE {
        let Some(document) = sample(name) else { return };
        let verified = check(&document, time).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(verified.debug, name.contains("debug"), "{name}");
        assert!(
            verified
                .pcrs
                .iter()
                .all(|(index, pcr)| all_registers(&document)[&index].contains(pcr)),
            "{name}"
        );
        let instance = verified.module_id.split_once("-enc").unwrap().0.to_owned();
        let by_instance = Conditions {
            instance_id: Some(instance),
            allow_debug: true,
            ..Conditions::default()
        };
        let policy = Policy::new(by_instance).unwrap();
        verify(&document, &TrustAnchor::aws(), at(time), &policy)
            .unwrap_or_else(|e| panic!("{name}, PCR4: {e}"));
    }
}

#[test]
fn genuine_documents_have_the_fields_that_are_known_of_them() {
    let verified = |name| {
        let (_, time) = GENUINE
            .into_iter()
            .find(|(known, _)| *known == name)
            .unwrap();
        Some(check(&sample(name)?, time).unwrap())
    };
    let Some(base) = verified("base-hinted-2026-01-03") else {
        return;
    };
    assert_eq!(base.user_data.unwrap().len(), 20);
    assert_eq!(
        verified("evervault-valid-2022-10-13")
            .unwrap()
            .nonce
            .unwrap()
            .len(),
        256
    );
    assert_eq!(
        verified("nautilus-weather-2025-04-15")
            .unwrap()
            .public_key
            .unwrap()
            .len(),
        32
    );
    let veracruz = verified("veracruz-2022-11-09").unwrap();
    assert_eq!(
        (
            veracruz.user_data.unwrap().len(),
            veracruz.nonce.unwrap().len()
        ),
        (32, 32)
    );
    let oyster = verified("oyster-aws-pcr16-2025-04-29").unwrap();
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
fn refuses_a_bad_signature_a_foreign_root_and_debug_mode() {
    let Some(bad) = sample("veracruz-BAD-SIG-2022-11-09") else {
        return;
    };
    assert_eq!(
        check(&bad, "2022-11-09T22:52:00Z"),
        Err(Untrusted::Signature(Part::Document).into())
    );
    let foreign = sample("oyster-CUSTOM-ROOT-2024-12-13").unwrap();
    assert_eq!(
        check(&foreign, "2024-12-13T09:05:45Z"),
        Err(Untrusted::Root.into())
    );
    let debug = sample("evervault-debug-2022-10-12").unwrap();
    let policy = Policy::new(Conditions {
        allow_debug: true,
        ..exactly(Pcr::ZERO)
    })
    .unwrap();
    assert!(
        verify(
            &debug,
            &TrustAnchor::aws(),
            at("2022-10-12T13:50:06Z"),
            &policy
        )
        .is_ok()
    );
    let policy = Policy::new(Conditions {
        role_arn: Some("arn:aws:iam::111122223333:role/orders".to_owned()),
        ..Conditions::default()
    })
    .unwrap();
    let Err(Error::Rejected(checks)) = verify(
        &debug,
        &TrustAnchor::aws(),
        at("2022-10-12T13:50:06Z"),
        &policy,
    ) else {
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
    let own_time = Conditions {
        time: ValidityTime::Document,
        nonce: Some(vec![1; 8]),
        ..exactly(first_register(&document))
    };
    let years_later = verify(
        &document,
        &TrustAnchor::aws(),
        at("2030-01-01T00:00:00Z"),
        &Policy::new(own_time).unwrap(),
    );
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

#[test]
fn a_verifier_that_remembers_links_decides_like_one_that_does_not() {
    let good = Plan::default().mint();
    let verifier = Verifier::new(TrustAnchor::from_der(&good.root).unwrap());
    let policy = Policy::new(exactly(Pcr::try_from([1; 48].as_slice()).unwrap())).unwrap();
    let now = Time::from_millis(MADE_AT);
    let first = verifier.verify(&good.document, now, &policy).unwrap();
    assert_eq!(first.module_id, MODULE_ID);
    assert_eq!(first.valid_until, at("2026-01-01T14:00:00Z"));
    assert_eq!(verifier.verify(&good.document, now, &policy), Ok(first));
    // The links are known now; what is signed by the enclave's key is not.
    let bad = Plan::with(|plan| plan.signature = tests::pki::Signature::Bytes(vec![1; 96]));
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

/// The shape that QEMU's nitro-enclave machine writes; a real one goes through `deploy.rs`.
#[test]
fn refuses_documents_that_nobody_signed() {
    let unsigned = Plan::with(|plan| {
        plan.protected = vec![0xa1, 0x01, 0x20];
        plan.signature = tests::pki::Signature::Bytes(vec![0; 64]);
    });
    let policy = Policy::new(exactly(Pcr::try_from([1; 48].as_slice()).unwrap())).unwrap();
    let anchor = TrustAnchor::from_der(&unsigned.root).unwrap();
    assert_eq!(
        verify(
            &unsigned.document,
            &anchor,
            Time::from_millis(MADE_AT),
            &policy
        ),
        Err(Untrusted::Algorithm(-1).into())
    );
    assert_eq!(
        verify(
            &[0; 16 * 1024 + 1],
            &anchor,
            Time::from_millis(MADE_AT),
            &policy
        ),
        Err(Malformed::TooLong(16 * 1024 + 1).into())
    );
}
