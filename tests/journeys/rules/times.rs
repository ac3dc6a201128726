//! When certificates are valid, and when a document was made.

use super::{CERTIFICATES, assert_cases, conditions, error, now, result, verify_at};
use attestation::{
    Conditions, Error, MaxAge, Part, Policy, PolicyError, Time, ValidityTime, Verified,
};
use pki::{MADE_AT, Plan, ROOT, cbor, utc};

fn time(text: &str) -> Time {
    text.parse().unwrap()
}

fn with_root() -> impl Iterator<Item = (usize, Part)> {
    [(ROOT, Part::Ca(ROOT))].into_iter().chain(CERTIFICATES)
}

fn valid_until(place: usize, until: &str) -> Result<Verified, Error> {
    result(|plan| plan.certificates[place].validity[1] = utc(until))
}

fn valid_from(place: usize, from: &str) -> Result<Verified, Error> {
    result(|plan| plan.certificates[place].validity[0] = utc(from))
}

#[test]
fn no_certificate_has_expired_by_more_than_the_clock_skew() {
    assert_cases(with_root().map(|(place, part)| {
        let expired = Error::Expired {
            part,
            until: time("2026-01-01T11:58:59Z"),
            at: now(),
        };
        let found = valid_until(place, "260101115859Z").unwrap_err();
        (part, found, expired)
    }));
    assert_cases(with_root().map(|(place, part)| {
        let within = valid_until(place, "260101115900Z");
        (part, within.map(drop), Ok(()))
    }));
}

#[test]
fn no_certificate_begins_later_than_the_clock_skew_allows() {
    assert_cases(with_root().map(|(place, part)| {
        let future = Error::NotYetValid {
            part,
            from: time("2026-01-01T12:01:01Z"),
            at: now(),
        };
        let found = valid_from(place, "260101120101Z").unwrap_err();
        (part, found, future)
    }));
    assert_cases(with_root().map(|(place, part)| {
        let within = valid_from(place, "260101120100Z");
        (part, within.map(drop), Ok(()))
    }));
}

/// A document made so many milliseconds after the good one.
fn made(plan: &mut Plan, offset: i64) {
    let timestamp = (MADE_AT + offset).unsigned_abs();
    plan.set("timestamp", cbor(|e| e.u64(timestamp)));
}

#[test]
fn no_document_is_from_later_than_the_clock_skew_allows() {
    assert!(result(|plan| made(plan, 60_000)).is_ok());
    assert_eq!(
        error(|plan| made(plan, 60_001)),
        Error::NotYetValid {
            part: Part::Document,
            from: Time::from_millis(MADE_AT + 60_001),
            at: now()
        }
    );
}

fn own_time() -> Conditions {
    Conditions {
        time: ValidityTime::Document,
        nonce: Some(b"12345678".to_vec()),
        ..conditions()
    }
}

#[test]
fn the_documents_own_time_decides_only_with_a_nonce() {
    let without = Conditions {
        nonce: None,
        ..own_time()
    };
    assert_eq!(
        Policy::new(without).unwrap_err(),
        PolicyError::DocumentTimeWithoutNonce
    );
    let policy = Policy::new(own_time()).unwrap();
    let years_later = time("2040-01-01T00:00:00Z");
    assert!(verify_at(&Plan::default().mint(), years_later, &policy).is_ok());
}

#[test]
fn certificates_must_be_valid_at_the_documents_own_time() {
    let late = Plan::with(|plan| made(plan, 3 * 3_600_000));
    let policy = Policy::new(own_time()).unwrap();
    assert!(matches!(
        verify_at(&late, now(), &policy),
        Err(Error::Expired {
            part: Part::Leaf,
            ..
        })
    ));
}

#[test]
fn a_documents_age_is_by_the_callers_clock_even_at_its_own_time() {
    let aged = Conditions {
        max_age: MaxAge::Seconds(60),
        clock_skew_seconds: Some(5),
        ..own_time()
    };
    let aged = Policy::new(aged).unwrap();
    let minted = Plan::default().mint();
    let at = |offset: i64| {
        let now = Time::from_millis(MADE_AT + offset);
        verify_at(&minted, now, &aged).is_ok()
    };
    assert!(at(0) && at(60_000) && at(-5_000));
    assert!(!at(60_001) && !at(-5_001), "too old, and from the future");
}
