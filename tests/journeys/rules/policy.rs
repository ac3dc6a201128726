//! The conditions of a policy, each compared with a document.

use super::{conditions, failed, now, pcr, verify_at};
use attestation::{Conditions, Error, Kind, MaxAge, Origin, Policy, Subject, Time};
use pki::{MADE_AT, Minted, Plan, bytes, cbor, pcrs, registers};

/// The checks that a good document fails.
fn unmet(conditions: Conditions) -> Vec<Subject> {
    let policy = Policy::new(conditions).unwrap();
    failed(verify_at(&Plan::default().mint(), now(), &policy))
}

/// The checks that a good document fails, under its own PCR0 and one more condition.
fn with(change: impl FnOnce(&mut Conditions)) -> Vec<Subject> {
    let mut conditions = conditions();
    change(&mut conditions);
    unmet(conditions)
}

#[test]
fn each_register_has_one_of_the_allowed_values() {
    let allowed = |registers: &[(u8, &[u8])]| Conditions {
        pcrs: registers
            .iter()
            .map(|(index, any)| (*index, any.iter().map(|byte| pcr(*byte)).collect()))
            .collect(),
        ..Conditions::default()
    };
    assert_eq!(unmet(allowed(&[(0, &[1]), (15, &[16])])), []);
    assert_eq!(
        unmet(allowed(&[(0, &[7, 1])])),
        [],
        "an old image or a new one"
    );
    assert_eq!(unmet(allowed(&[(0, &[7, 8])])), [Subject::Pcr(0)]);
}

#[test]
fn a_missing_register_is_neither_zero_nor_a_match() {
    assert_eq!(
        with(|c| drop(c.pcrs.insert(16, [pcr(1)].into()))),
        [Subject::Pcr(16)],
        "missing is not zero"
    );
    assert_eq!(
        with(|c| drop(c.pcrs.insert(16, [pcr(0)].into()))),
        [Subject::Pcr(16)]
    );
}

#[test]
fn the_nonce_is_compared_as_a_whole() {
    assert_eq!(with(|c| c.nonce = Some(b"12345678".to_vec())), []);
    assert_eq!(
        with(|c| c.nonce = Some(b"12345679".to_vec())),
        [Subject::Nonce]
    );
    assert_eq!(
        with(|c| c.nonce = Some(b"1234567".to_vec())),
        [Subject::Nonce]
    );
}

#[test]
fn the_enclaves_fields_are_the_expected_ones() {
    assert_eq!(with(|c| c.public_key = Some(b"key".to_vec())), []);
    assert_eq!(
        with(|c| c.public_key = Some(b"other".to_vec())),
        [Subject::PublicKey]
    );
    assert_eq!(
        with(|c| c.user_data = Some(vec![])),
        [Subject::UserData],
        "none is not empty"
    );
}

#[test]
fn a_document_was_made_for_whom_the_policy_says() {
    let made_for = |user_data: &[u8]| Plan::with(|plan| plan.set("user_data", bytes(user_data)));
    let failed = |minted: &Minted, own: Option<&[u8]>| {
        let policy = Policy::new(Conditions {
            origin: Some(Origin::Workload),
            user_data: own.map(<[u8]>::to_vec),
            ..conditions()
        });
        failed(verify_at(minted, now(), &policy.unwrap()))
    };
    let workload = made_for(&Origin::Workload.user_data(b"mine"));
    assert_eq!(failed(&workload, None), []);
    assert_eq!(failed(&workload, Some(b"mine")), []);
    assert_eq!(failed(&workload, Some(b"other")), [Subject::UserData]);
    for origin in [Origin::Endpoint, Origin::Kms, Origin::Agent] {
        let other = made_for(&origin.user_data(b"mine"));
        assert_eq!(failed(&other, Some(b"mine")), [Subject::Origin]);
    }
    for untagged in [made_for(b"mine"), Plan::default().mint()] {
        assert_eq!(failed(&untagged, None), [Subject::Origin]);
        let both = [Subject::Origin, Subject::UserData];
        assert_eq!(failed(&untagged, Some(b"mine")), both);
    }
}

#[test]
fn the_parent_is_the_expected_one() {
    assert_eq!(
        with(|c| c.role_arn = Some("arn:aws:iam::123456789012:role/Webserver".to_owned())),
        [Subject::Pcr(3)]
    );
    assert_eq!(
        with(|c| c.instance_id = Some("i-0123456789abcdef0".to_owned())),
        [Subject::Pcr(4)]
    );
}

#[test]
fn a_sealed_config_counts_only_if_pcr16_was_extended() {
    assert_eq!(with(|c| c.sealed_config = true), [Subject::SealedConfig]);
    let minted = Plan::with(|plan| {
        let registers = [registers(), vec![(16, vec![0; 48])]].concat();
        plan.set("pcrs", pcrs(&registers));
    });
    let sealed = Policy::new(Conditions {
        sealed_config: true,
        ..conditions()
    })
    .unwrap();
    assert!(
        matches!(verify_at(&minted, now(), &sealed), Err(Error::Rejected(_))),
        "locked, not extended"
    );
}

#[test]
fn a_document_is_no_older_than_the_policy_allows() {
    assert_eq!(with(|c| c.max_age = MaxAge::Seconds(0)), []);
    let minted = Plan::default().mint();
    let policy = Policy::new(Conditions {
        max_age: MaxAge::Seconds(60),
        ..conditions()
    })
    .unwrap();
    let old = |seconds: i64| {
        let now = Time::from_millis(MADE_AT + seconds * 1000);
        verify_at(&minted, now, &policy)
    };
    assert!(old(60).is_ok());
    let Err(Error::Rejected(checks)) = old(61) else {
        panic!("too old")
    };
    let age = checks.iter().find(|check| !check.passed).unwrap();
    assert_eq!(
        (age.subject, age.expected.as_str(), age.found.as_str()),
        (Subject::Age, "at most 60 s", "61.0 s")
    );
}

/// The checks that a good document fails after so many milliseconds.
fn failed_after(millis: i64, change: impl FnOnce(&mut Conditions)) -> Vec<Subject> {
    let mut conditions = conditions();
    change(&mut conditions);
    let policy = Policy::new(conditions).unwrap();
    let now = Time::from_millis(MADE_AT + millis);
    failed(verify_at(&Plan::default().mint(), now, &policy))
}

#[test]
fn without_a_nonce_a_document_is_five_minutes_old_at_most() {
    assert_eq!(failed_after(300_000, |_| ()), []);
    assert_eq!(failed_after(300_001, |_| ()), [Subject::Age]);
    let nonce = |c: &mut Conditions| c.nonce = Some(b"12345678".to_vec());
    assert_eq!(failed_after(3_600_000, nonce), [], "made for this request");
    let other = |c: &mut Conditions| c.nonce = Some(b"12345679".to_vec());
    assert_eq!(failed_after(3_600_000, other), [Subject::Nonce]);
    let longer = |c: &mut Conditions| c.max_age = MaxAge::Seconds(3_600);
    assert_eq!(failed_after(3_600_000, longer), []);
    let any = |c: &mut Conditions| c.max_age = MaxAge::Certificate;
    assert_eq!(failed_after(3_600_000, any), []);
}

#[test]
fn a_document_of_another_product_is_no_enclaves() {
    let sandbox = Plan::with(|plan| {
        let module_id = "i-0123456789abcdef0-sbx0123456789abcde";
        plan.set("module_id", cbor(|e| e.str(module_id)));
    });
    let with = |kind| {
        let policy = Policy::new(Conditions {
            kind,
            ..conditions()
        });
        failed(verify_at(&sandbox, now(), &policy.unwrap()))
    };
    assert_eq!(with(Kind::default()), [Subject::Kind]);
    assert_eq!(with(Kind::Enclave), [Subject::Kind]);
    assert_eq!(with(Kind::Any), []);
}

/// A document after `change` to its registers.
fn with_registers(change: impl FnOnce(&mut Vec<(u64, Vec<u8>)>)) -> Minted {
    Plan::with(|plan| {
        let mut registers = registers();
        change(&mut registers);
        plan.set("pcrs", pcrs(&registers));
    })
}

/// Names PCR3 alone, so that nothing but debug mode can fail.
fn pcr3(allow_debug: bool) -> Policy {
    let conditions = Conditions {
        pcrs: [(3, [pcr(4)].into())].into(),
        allow_debug,
        ..Conditions::default()
    };
    Policy::new(conditions).unwrap()
}

#[test]
fn one_zero_or_missing_register_of_the_image_suffices_for_debug_mode() {
    for index in 0..3 {
        let zero = with_registers(|registers| registers[index].1 = vec![0; 48]);
        let missing = with_registers(|registers| drop(registers.remove(index)));
        for minted in [zero, missing] {
            assert!(
                matches!(
                    verify_at(&minted, now(), &pcr3(false)),
                    Err(Error::Rejected(_))
                ),
                "PCR{index}"
            );
        }
    }
}

#[test]
fn debug_mode_is_refused_unless_the_policy_allows_it() {
    let debug = with_registers(|registers| {
        registers[..3]
            .iter_mut()
            .for_each(|(_, pcr)| *pcr = vec![0; 48]);
    });
    assert!(verify_at(&debug, now(), &pcr3(true)).unwrap().debug);
    let refused = verify_at(&debug, now(), &pcr3(false));
    assert!(refused.is_err(), "debug mode passed");
    assert_eq!(failed(refused), [Subject::Debug]);
}
