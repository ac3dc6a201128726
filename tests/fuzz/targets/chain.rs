//! Certificates, edited one at a time in an otherwise good document, which is signed again: only
//! the chain can refuse it.
#![no_main]

use attestation::{Conditions, Error, Malformed, Pcr, Policy, Time, TrustAnchor, Verifier};
use libfuzzer_sys::fuzz_target;
use pki::{MADE_AT, Plan, bytes, cbor};
use redoubt_fuzz::edited;
use std::sync::OnceLock;

struct Good {
    verifier: Verifier,
    policy: Policy,
    /// The root first, the enclave's last.
    certificates: Vec<Vec<u8>>,
}

static GOOD: OnceLock<Good> = OnceLock::new();

fn good() -> Good {
    let certificates = Plan::default().minted_certificates();
    let pcr0 = Pcr::try_from([1; 48].as_slice()).unwrap();
    let conditions = Conditions {
        pcrs: [(0, [pcr0].into())].into(),
        ..Conditions::default()
    };
    Good {
        verifier: Verifier::new(TrustAnchor::from_der(&certificates[0]).unwrap()),
        policy: Policy::new(conditions).unwrap(),
        certificates,
    }
}

fuzz_target!(|data: &[u8]| {
    let Good {
        verifier,
        policy,
        certificates,
    } = GOOD.get_or_init(good);
    let _ = TrustAnchor::from_der(data);
    let Some((which, edits)) = data.split_first() else {
        return;
    };
    let which = usize::from(*which) % certificates.len();
    let mut changed = certificates.clone();
    changed[which] = edited(&certificates[which], edits);
    let minted = Plan::with(|plan| {
        let (leaf, cabundle) = changed.split_last().unwrap();
        plan.set("certificate", bytes(leaf));
        let list = cbor(|e| {
            let e = e.array(cabundle.len() as u64)?;
            cabundle.iter().try_fold(e, |e, der| e.bytes(der))
        });
        plan.set("cabundle", list);
    });
    match verifier.verify(&minted.document, Time::from_millis(MADE_AT), policy) {
        Ok(_) => assert_eq!(changed, *certificates, "a changed certificate passed"),
        Err(Error::Malformed(Malformed::Cbor { .. })) => panic!("the document around it is good"),
        Err(_) => {}
    }
});
