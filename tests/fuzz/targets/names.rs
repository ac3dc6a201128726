//! Questions for names, which the workload sends to the agent: reading must end and must not panic,
//! and an answer repeats its question.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redoubt_fuzz::edited;

#[path = "../../../enclave-agent/src/network/names/message.rs"]
#[allow(dead_code)]
mod message;

/// `api.example.com`, A, IN, and EDNS behind it.
const GOOD: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\x01\x03api\x07example\x03com\0\0\x01\0\x01\0\0\x29\x04\xd0\0\0\0\0\0\0";

fuzz_target!(|data: &[u8]| {
    assert!(message::parse(GOOD).is_ok());
    let input = edited(GOOD, data);
    match message::parse(&input) {
        Ok(question) => {
            let answer = question.answer(message::Answer::Address([198, 18, 1, 0].into()));
            assert!(answer.len() <= 299 && answer.starts_with(&input[..2]));
        }
        Err(why) => {
            message::refusal(&input, why);
        }
    }
});
