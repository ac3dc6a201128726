//! KMS's answer in BER: it must end, and it must not panic; what it reads is part of the input.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redoubt_fuzz::edited;

#[path = "../../../enclave-agent/src/config/recipient.rs"]
#[allow(dead_code)]
mod recipient;

/// The shape that KMS writes: indefinite lengths, the content in pieces.
fn good() -> Vec<u8> {
    let tlv = |tag: u8, content: &[u8]| pki::der::tlv(tag, content);
    let open = |tag: u8, parts: &[&[u8]]| [&[tag, 0x80][..], &parts.concat(), &[0, 0]].concat();
    let sha256 = tlv(
        0x30,
        &[
            &tlv(6, &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1])[..],
            &[5, 0],
        ]
        .concat(),
    );
    let mgf1 = tlv(
        0x30,
        &[
            tlv(6, &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 8]),
            sha256.clone(),
        ]
        .concat(),
    );
    let parameters = tlv(0x30, &[tlv(0xa0, &sha256), tlv(0xa1, &mgf1)].concat());
    let oaep = tlv(
        0x30,
        &[
            tlv(6, &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 7]),
            parameters,
        ]
        .concat(),
    );
    let recipient = tlv(
        0x30,
        &[tlv(2, &[2]), tlv(0x80, &[7; 32]), oaep, tlv(4, &[9; 256])].concat(),
    );
    let cbc = tlv(
        0x30,
        &[
            tlv(6, &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 42]),
            tlv(4, &[1; 16]),
        ]
        .concat(),
    );
    let pieces = open(0xa0, &[&tlv(4, &[1; 32]), &tlv(4, &[2; 16])]);
    let data = tlv(6, &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1]);
    let body = open(
        0x30,
        &[
            &tlv(2, &[2]),
            &tlv(0x31, &recipient),
            &open(0x30, &[&data, &cbc, &pieces]),
        ],
    );
    let enveloped = tlv(6, &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 3]);
    open(0x30, &[&enveloped, &open(0xa0, &[&body])])
}

fuzz_target!(|data: &[u8]| {
    let good = good();
    assert_eq!(
        recipient::parse(&good).map(|enveloped| enveloped.content.len()),
        Ok(48)
    );
    let input = edited(&good, data);
    if let Ok(recipient::Enveloped { content, .. }) = recipient::parse(&input) {
        assert!(content.len() < input.len());
    }
});
