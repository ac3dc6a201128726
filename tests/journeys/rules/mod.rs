//! The rules for documents, one by one: each case starts from a good document and breaks one rule.

mod certificates;
mod chain;
mod envelope;
mod payload;
mod policy;
mod times;

use attestation::{
    Conditions, Error, Malformed, Part, Pcr, Policy, Subject, Time, TrustAnchor, Verified, verify,
};
use pki::{INSTANCE, LEAF, MADE_AT, Minted, Plan, REGIONAL, ZONAL};
use std::fmt::{Debug, Display};

const NOT_SHORTEST: &str = "a length or number is not in its shortest form";
const BYTES_FOLLOW: &str = "bytes follow the end";

/// The CAs below the root, by position, and the part that an error names.
const CAS: [(usize, Part); 3] = [
    (REGIONAL, Part::Ca(REGIONAL)),
    (ZONAL, Part::Ca(ZONAL)),
    (INSTANCE, Part::Ca(INSTANCE)),
];
/// All certificates below the root.
const CERTIFICATES: [(usize, Part); 4] = [CAS[0], CAS[1], CAS[2], (LEAF, Part::Leaf)];

fn pcr(byte: u8) -> Pcr {
    Pcr::try_from([byte; 48].as_slice()).unwrap()
}

/// What a good document satisfies.
fn conditions() -> Conditions {
    Conditions {
        pcrs: [(0, [pcr(1)].into())].into(),
        ..Conditions::default()
    }
}

fn now() -> Time {
    Time::from_millis(MADE_AT)
}

fn verify_at(minted: &Minted, at: Time, policy: &Policy) -> Result<Verified, Error> {
    let anchor = TrustAnchor::from_der(&minted.root).unwrap();
    verify(&minted.document, &anchor, at, policy)
}

fn result_of(minted: &Minted) -> Result<Verified, Error> {
    verify_at(minted, now(), &Policy::new(conditions()).unwrap())
}

fn result(change: impl FnOnce(&mut Plan)) -> Result<Verified, Error> {
    result_of(&Plan::with(change))
}

fn error(change: impl FnOnce(&mut Plan)) -> Error {
    result(change).unwrap_err()
}

fn field(field: &'static str, problem: &'static str) -> Error {
    Malformed::Field { field, problem }.into()
}

/// The part that is not CBOR, and what is wrong with it.
fn cbor_error(error: Error) -> (&'static str, String) {
    match error {
        Error::Malformed(Malformed::Cbor { part, source }) => (
            part,
            source.to_string().split_once(": ").unwrap().1.to_owned(),
        ),
        other => panic!("{other:?}"),
    }
}

/// The subjects of the checks that failed.
fn failed(result: Result<Verified, Error>) -> Vec<Subject> {
    match result {
        Ok(_) => vec![],
        Err(Error::Rejected(checks)) => checks
            .into_iter()
            .filter(|check| !check.passed)
            .map(|check| check.subject)
            .collect(),
        Err(other) => panic!("{other}"),
    }
}

/// Compares what was found with what is expected, and fails with every case that differs.
#[track_caller]
fn assert_cases<N: Display, T: PartialEq + Debug>(cases: impl IntoIterator<Item = (N, T, T)>) {
    let wrong: Vec<String> = cases
        .into_iter()
        .filter(|(_, found, expected)| found != expected)
        .map(|(name, found, expected)| format!("{name}: {found:?}, expected {expected:?}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The table of other verifiers' mistakes names the test of each.
#[test]
fn each_mistake_of_other_verifiers_has_its_test() {
    let table = include_str!("../../../attestation/src/lib.rs");
    let tests = concat!(
        include_str!("certificates.rs"),
        include_str!("chain.rs"),
        include_str!("envelope.rs"),
        include_str!("payload.rs"),
        include_str!("policy.rs"),
        include_str!("times.rs"),
        include_str!("../documents.rs"),
        include_str!("../../../attestation/src/policy/mod.rs"),
    );
    let (_, table) = table.split_once("| mistake | test |").unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("//! | "));
    let names: Vec<&str> = rows
        .flat_map(|row| {
            row.rsplit_once(" | ")
                .unwrap()
                .1
                .split('`')
                .skip(1)
                .step_by(2)
        })
        .collect();
    assert!(names.len() > 20, "{names:?}");
    let missing: Vec<&&str> = names
        .iter()
        .filter(|name| !tests.contains(&format!("fn {name}()")))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
