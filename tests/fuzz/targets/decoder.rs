//! The strict CBOR reader, over the shape that QEMU writes: it must end, and it must not panic.
#![no_main]

use attestation::emulated::{read_emulated, read_unsigned};
use libfuzzer_sys::fuzz_target;
use pki::Plan;
use redoubt_fuzz::edited;
use std::sync::OnceLock;

static GOOD: OnceLock<Vec<u8>> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    let good = GOOD.get_or_init(|| Plan::unsigned().mint().document);
    let input = edited(good, data);
    let (unsigned, fields) = (read_unsigned(&input), read_emulated(&input));
    if let Ok(unsigned) = unsigned {
        assert_eq!(fields, Ok(unsigned));
    }
});
