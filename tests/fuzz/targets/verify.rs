//! A whole document, edited anywhere: what verifies must say what was signed.
#![no_main]

use attestation::{Conditions, Pcr, Policy, Time, TrustAnchor, Verified, Verifier};
use libfuzzer_sys::fuzz_target;
use pki::{MADE_AT, Plan};
use redoubt_fuzz::edited;
use std::sync::OnceLock;

struct Good {
    verifier: Verifier,
    policy: Policy,
    document: Vec<u8>,
    verified: Verified,
}

static GOOD: OnceLock<Good> = OnceLock::new();

fn good() -> Good {
    let minted = Plan::default().mint();
    let pcr0 = Pcr::try_from([1; 48].as_slice()).unwrap();
    let conditions = Conditions {
        pcrs: [(0, [pcr0].into())].into(),
        ..Conditions::default()
    };
    let policy = Policy::new(conditions).unwrap();
    let verifier = Verifier::new(TrustAnchor::from_der(&minted.root).unwrap());
    let verified = verifier
        .verify(&minted.document, Time::from_millis(MADE_AT), &policy)
        .unwrap();
    Good {
        verifier,
        policy,
        document: minted.document,
        verified,
    }
}

fuzz_target!(|data: &[u8]| {
    let Good {
        verifier,
        policy,
        document,
        verified,
    } = GOOD.get_or_init(good);
    if let Ok(found) = verifier.verify(&edited(document, data), Time::from_millis(MADE_AT), policy)
    {
        assert_eq!(found, *verified);
    }
});
