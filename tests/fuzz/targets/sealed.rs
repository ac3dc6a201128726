//! Sealed configs and the environments in them: they must end, and they must not panic; what is
//! read is the input, taken apart.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redoubt_fuzz::edited;
use wire::sealed::{Header, Sealed, environment};

fuzz_target!(|data: &[u8]| {
    let header = Header {
        name: "orders".to_owned(),
        version: 7,
        kms_key: "arn:aws:kms:us-east-1:111122223333:key/k".to_owned(),
        context: [("app".to_owned(), "orders".to_owned())].into(),
        encrypted_key: vec![9; 32],
        nonce: [3; 12],
    };
    let input = edited(&[header.encode(), vec![5; 40]].concat(), data);
    if let Ok(Sealed {
        authenticated,
        ciphertext,
        ..
    }) = Sealed::parse(&input)
    {
        assert_eq!([authenticated, ciphertext].concat(), input);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = environment(text);
    }
});
