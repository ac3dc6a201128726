//! The strict CBOR reader, over the shape that QEMU writes: it must end, and it must not panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redoubt_fuzz::edited;
use redoubt_fuzz::pki::{Plan, Signature};
use std::sync::OnceLock;

static GOOD: OnceLock<Vec<u8>> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    let good = GOOD.get_or_init(|| {
        let unsigned = Plan::with(|plan| {
            plan.protected = vec![0xa1, 0x01, 0x20];
            plan.signature = Signature::Bytes(vec![0; 64]);
        });
        unsigned.document
    });
    let _ = attestation::emulated::read_unsigned(&edited(good, data));
});
