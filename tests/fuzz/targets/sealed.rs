//! Sealed configs and the environments in them: they must end, and they must not panic; what is
//! read is the input, taken apart.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redoubt_fuzz::edited;
use wire::sealed::{Header, Sealed, environment};
use wire::spec::SealerKey;

fuzz_target!(|data: &[u8]| {
    let header = Header {
        name: "orders".to_owned(),
        version: 7,
        kms_key: "arn:aws:kms:us-east-1:111122223333:key/k".to_owned(),
        context: [("app".to_owned(), "orders".to_owned())].into(),
        encrypted_key: vec![9; 32],
        nonce: [3; 12],
        commitment: [4; 32],
        sealer: None,
    };
    let signed = Header {
        sealer: Some(SealerKey([1; 32])),
        ..header.clone()
    };
    for header in [header, signed] {
        let input = edited(&[header.encode(), vec![5; 100]].concat(), data);
        if let Ok(sealed) = Sealed::parse(&input) {
            reassembles(&sealed, &input);
        }
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let allowed = ["TOKEN".to_owned(), "A".to_owned()];
        if let Ok(variables) = environment(text, &allowed) {
            assert!(variables.iter().all(|(name, _)| allowed.iter().any(|one| one == name)));
        }
    }
});

/// The parts are the file, and a signature is there exactly if the header names a sealer.
fn reassembles(sealed: &Sealed<'_>, input: &[u8]) {
    let Sealed {
        header,
        authenticated,
        ciphertext,
        signature,
    } = sealed;
    assert_eq!(header.sealer.is_some(), signature.is_some());
    let before = [*authenticated, ciphertext].concat();
    match signature {
        None => assert_eq!(before, input),
        Some(signature) => {
            assert_eq!(before, signature.signed);
            assert_eq!([signature.signed, signature.bytes].concat(), input);
        }
    }
}
