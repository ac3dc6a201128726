//! Certificates are exactly DER, in the one form of X.509 that this PKI has.

use super::{BYTES_FOLLOW, CERTIFICATES, assert_cases, error, result};
use attestation::{Error, Malformed, Part, Untrusted};
use pki::{Certificate, KEY_USAGE, bytes, der, key_usage, utc};

fn malformed(part: Part, problem: &'static str) -> Error {
    Malformed::Certificate { part, problem }.into()
}

/// A good document after `change` to one of its certificates.
fn broken(place: usize, change: impl FnOnce(&mut Certificate)) -> Error {
    error(|plan| change(&mut plan.certificates[place]))
}

/// Every certificate below the root is refused after `change`.
#[track_caller]
fn each_is_refused(problem: &'static str, change: impl Fn(&mut Certificate)) {
    assert_cases(
        CERTIFICATES.map(|(place, part)| (part, broken(place, &change), malformed(part, problem))),
    );
}

/// An element, and another one that does not belong there.
fn trailing(element: &[u8]) -> Vec<u8> {
    [element, &[5, 0]].concat()
}

#[test]
fn nothing_follows_a_certificate_or_one_of_its_elements() {
    each_is_refused(BYTES_FOLLOW, |c| c.tail = vec![0]);
    each_is_refused(BYTES_FOLLOW, |c| c.signed_tail = vec![5, 0]);
    each_is_refused(BYTES_FOLLOW, |c| c.extension(KEY_USAGE).value.push(0));
    each_is_refused(BYTES_FOLLOW, |c| c.validity[1] = trailing(&c.validity[1]));
    each_is_refused(BYTES_FOLLOW, |c| {
        c.extension(KEY_USAGE).value = trailing(&key_usage(0).value);
    });
}

#[test]
fn refuses_certificates_of_another_version() {
    each_is_refused("the version is not 3", |c| c.version = 1);
}

#[test]
fn refuses_extensions_that_occur_twice_or_an_empty_list() {
    each_is_refused("an extension occurs twice", |c| {
        c.extensions.push(c.extensions[0].clone());
    });
    each_is_refused("the list of extensions is empty", |c| c.extensions.clear());
}

#[test]
fn refuses_dates_that_do_not_exist() {
    let dates = [
        "260230120000Z",
        "261301120000Z",
        "260101240000Z",
        "260101120060Z",
        "2601011200Z",
        "260101120000+",
    ];
    assert_cases(dates.into_iter().flat_map(|bad| {
        CERTIFICATES.map(|(place, part)| {
            (
                format!("{part} {bad}"),
                broken(place, |c| c.validity[0] = utc(bad)),
                malformed(part, "a date is invalid"),
            )
        })
    }));
}

#[test]
fn accepts_generalized_time_and_no_other_tag() {
    assert_cases(CERTIFICATES.map(|(place, part)| {
        let generalized = der::tlv(0x18, b"20510101000000Z");
        let result = result(|plan| plan.certificates[place].validity[1] = generalized);
        (part, result.map(drop), Ok(()))
    }));
    each_is_refused("an element has an unexpected tag", |c| {
        c.validity[0] = der::tlv(0x16, b"260101120000Z");
    });
}

fn signature(r: &[u8], s: &[u8], tail: &[u8]) -> Option<Vec<u8>> {
    Some(der::sequence(&[&der::tlv(2, r), &der::tlv(2, s), tail]))
}

#[test]
fn refuses_signatures_that_are_not_two_positive_numbers_of_48_bytes() {
    each_is_refused(BYTES_FOLLOW, |c| {
        c.signature = signature(&[1], &[1], &[5, 0]);
    });
    each_is_refused("an integer is negative", |c| {
        c.signature = signature(&[0x80], &[1], &[]);
    });
    each_is_refused("an integer is not in its shortest form", |c| {
        c.signature = signature(&[0, 1], &[1], &[]);
    });
    each_is_refused("an integer of the signature is longer than 48 bytes", |c| {
        c.signature = signature(&[1; 49], &[1], &[]);
    });
}

#[test]
fn refuses_signatures_with_a_zero() {
    let zeros = [([0], [1]), ([1], [0])];
    assert_cases(zeros.into_iter().flat_map(|(r, s)| {
        CERTIFICATES.map(|(place, part)| {
            (
                format!("{part} {r:?} {s:?}"),
                broken(place, |c| c.signature = signature(&r, &s, &[])),
                Untrusted::Signature(part).into(),
            )
        })
    }));
}

#[test]
fn refuses_bytes_that_are_not_an_element() {
    let garbage = error(|plan| plan.set("certificate", bytes(&[1])));
    assert_eq!(
        garbage,
        malformed(Part::Leaf, "an element is cut off or missing")
    );
}
