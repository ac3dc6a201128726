//! COSE_Sign1 with ES384, and nothing else.

use super::{BYTES_FOLLOW, NOT_SHORTEST, assert_cases, cbor_error, error, result, result_of};
use attestation::{Error, Malformed, Part, Untrusted};
use pki::{Minted, Plan, Signature};

fn envelope(problem: &'static str) -> Error {
    Malformed::Envelope(problem).into()
}

/// A good document after `change` to its bytes.
fn raw(change: impl FnOnce(&mut Vec<u8>)) -> Error {
    let good = Plan::default().mint();
    let mut document = good.document.clone();
    change(&mut document);
    result_of(&Minted { document, ..good }).unwrap_err()
}

#[test]
fn accepts_a_payload_of_definite_and_of_indefinite_length() {
    assert!(result(|_| ()).is_ok());
    assert!(result(|plan| plan.indefinite = true).is_ok());
}

#[test]
fn accepts_tag_18_and_no_other() {
    let tagged = |tag: &[u8]| {
        let good = Plan::default().mint();
        result_of(&Minted {
            document: [tag, &good.document].concat(),
            ..good
        })
    };
    assert!(tagged(&[0xd2]).is_ok(), "tag 18");
    assert_eq!(
        cbor_error(tagged(&[0xd1]).unwrap_err()),
        ("COSE_Sign1", "the tag is not COSE_Sign1 (18)".to_owned())
    );
    assert_eq!(
        cbor_error(tagged(&[0xd8, 18]).unwrap_err()),
        ("COSE_Sign1", NOT_SHORTEST.to_owned())
    );
}

#[test]
fn refuses_unprotected_headers() {
    assert_cases([vec![0xa1, 4, 0x40], vec![0xbf, 0xff]].map(|header| {
        (
            hex::encode(&header),
            error(|plan| plan.unprotected = header),
            envelope("the unprotected header must be empty"),
        )
    }));
}

#[test]
fn refuses_protected_headers_that_hold_anything_but_the_algorithm() {
    let headers = [
        vec![0xa2, 1, 0x38, 0x22, 4, 0x40],
        vec![0xa1, 2, 0x38, 0x22],
        vec![0xa0],
    ];
    assert_cases(headers.map(|header| {
        (
            hex::encode(&header),
            error(|plan| plan.protected = header),
            envelope("the protected header must hold the algorithm (1) and nothing else"),
        )
    }));
}

#[test]
fn refuses_other_algorithms_than_es384() {
    assert_eq!(
        error(|plan| plan.protected = vec![0xa1, 1, 0x26]),
        Untrusted::Algorithm(-7).into()
    );
    assert_eq!(
        error(|plan| plan.protected = vec![0xa1, 1, 0x38, 0x23]),
        Untrusted::Algorithm(-36).into()
    );
}

#[test]
fn refuses_protected_headers_that_are_not_strict_cbor() {
    let headers = [
        (vec![], "expected a map"),
        (vec![0xa1, 1, 0x38, 0x22, 0], BYTES_FOLLOW),
        (vec![0xa1, 1, 0x39, 0, 0x22], NOT_SHORTEST),
        (vec![0xb8, 1, 1, 0x38, 0x22], NOT_SHORTEST),
    ];
    assert_cases(headers.map(|(header, problem)| {
        (
            hex::encode(&header),
            cbor_error(error(|plan| plan.protected = header)),
            ("protected header", problem.to_owned()),
        )
    }));
}

#[test]
fn refuses_cose_without_exactly_four_elements() {
    let four = envelope("COSE_Sign1 has four elements");
    assert_eq!(raw(|document| document[0] = 0x83), four);
    let five = raw(|document| {
        document[0] = 0x85;
        document.push(0);
    });
    assert_eq!(five, four);
    let indefinite = raw(|document| {
        document[0] = 0x9f;
        document.push(0xff);
    });
    assert_eq!(
        cbor_error(indefinite),
        (
            "COSE_Sign1",
            "expected an array of definite length".to_owned()
        )
    );
}

#[test]
fn refuses_cose_that_is_cut_off_or_followed_by_bytes() {
    assert_eq!(
        cbor_error(raw(|document| document.push(0))),
        ("COSE_Sign1", BYTES_FOLLOW.to_owned())
    );
    assert_eq!(
        cbor_error(raw(|document| document.truncate(9))).0,
        "COSE_Sign1"
    );
    assert_eq!(cbor_error(raw(Vec::clear)).0, "COSE_Sign1");
}

/// The payload's head is 59 xx xx: the same length in four bytes, and one that no memory could
/// hold.
#[test]
fn refuses_payload_lengths_of_another_form() {
    let longer = raw(|document| {
        document.splice(7..8, [0x5a, 0, 0]);
    });
    assert_eq!(cbor_error(longer), ("COSE_Sign1", NOT_SHORTEST.to_owned()));
    let huge = raw(|document| {
        document.splice(
            7..10,
            [0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        );
    });
    assert_eq!(
        cbor_error(huge),
        (
            "COSE_Sign1",
            "expected a byte string of definite length".to_owned()
        )
    );
}

#[test]
fn refuses_signatures_of_another_length() {
    let length = envelope("an ES384 signature is r and s of 48 bytes each");
    assert_eq!(error(|plan| plan.signature = Signature::Der), length);
    assert_cases([0, 64, 95, 97].map(|len| {
        let signature = Signature::Bytes(vec![1; len]);
        (
            len,
            error(|plan| plan.signature = signature),
            length.clone(),
        )
    }));
}

#[test]
fn refuses_signatures_outside_of_the_group() {
    let order = hex::decode(concat!(
        "ffffffffffffffffffffffffffffffffffffffffffffffff",
        "c7634d81f4372ddf581a0db248b0a77aecec196accc52973"
    ))
    .unwrap();
    let signatures = [
        (vec![0; 48], vec![1; 48]),
        (vec![1; 48], vec![0; 48]),
        (order.clone(), vec![1; 48]),
        (vec![1; 48], order),
        (vec![0xff; 48], vec![0xff; 48]),
        (vec![1; 48], vec![1; 48]),
    ];
    assert_cases(signatures.map(|(r, s)| {
        let signature = [r, s].concat();
        (
            hex::encode(&signature),
            error(|plan| plan.signature = Signature::Bytes(signature)),
            Untrusted::Signature(Part::Document).into(),
        )
    }));
}
