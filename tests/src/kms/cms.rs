//! `CiphertextForRecipient`, the writing side: CMS EnvelopedData in BER of indefinite length, as KMS sends it, whole or in pieces.

use crate::pki::der::{bits, oid, sequence, tlv};
use aws_lc_rs::cipher::{AES_256, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
use sha2::{Digest as _, Sha256};

/// Which of the forms that were seen in the wild.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// The content as one primitive element.
    #[default]
    Whole,
    /// The content in octet strings of 1000 bytes at most.
    Pieces,
    /// An emulator's: DER, version 0, the recipient by issuer and serial number.
    LocalStack,
}

/// A constructed element of indefinite length.
fn open(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    [&[tag, 0x80][..], &parts.concat(), &[0, 0]].concat()
}

pub(super) fn envelope(public_key: &[u8], plaintext: &[u8], form: Form) -> Vec<u8> {
    let content_key: [u8; 32] = super::random();
    let iv: [u8; 16] = super::random();
    let mut content = plaintext.to_vec();
    PaddedBlockEncryptingKey::cbc_pkcs7(UnboundCipherKey::new(&AES_256, &content_key).unwrap())
        .unwrap()
        .less_safe_encrypt(
            &mut content,
            EncryptionContext::Iv128(FixedLength::from(iv)),
        )
        .unwrap();
    let rsa =
        OaepPublicEncryptingKey::new(PublicEncryptingKey::from_der(public_key).unwrap()).unwrap();
    let mut encrypted_key = vec![0; rsa.ciphertext_size()];
    rsa.encrypt(
        &OAEP_SHA256_MGF1SHA256,
        &content_key,
        &mut encrypted_key,
        None,
    )
    .unwrap();

    let sha256 = sequence(&[&oid(&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1]), &[5, 0]]);
    let mgf1 = sequence(&[
        &oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 8]),
        &sha256,
    ]);
    let oaep = sequence(&[
        &oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 7]),
        &sequence(&[&tlv(0xa0, &sha256), &tlv(0xa1, &mgf1)]),
    ]);
    let identifier = tlv(0x80, &Sha256::digest(bits(public_key)));
    let recipient = sequence(&[&tlv(2, &[2]), &identifier, &oaep, &tlv(4, &encrypted_key)]);
    let cbc = sequence(&[
        &oid(&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 42]),
        &tlv(4, &iv),
    ]);
    let data = oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1]);
    let enveloped = oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 3]);
    if form == Form::LocalStack {
        let body = sequence(&[
            &tlv(2, &[0]),
            &tlv(0x31, &recipient),
            &sequence(&[&data, &cbc, &tlv(0x80, &content)]),
        ]);
        return sequence(&[&enveloped, &tlv(0xa0, &body)]);
    }
    let content = match form {
        Form::Pieces => {
            let pieces: Vec<u8> = content
                .chunks(1000)
                .flat_map(|piece| tlv(4, piece))
                .collect();
            open(0xa0, &[&pieces])
        }
        _ => tlv(0x80, &content),
    };
    let body = open(
        0x30,
        &[
            &tlv(2, &[2]),
            &tlv(0x31, &recipient),
            &open(0x30, &[&data, &cbc, &content]),
        ],
    );
    open(0x30, &[&enveloped, &open(0xa0, &[&body])])
}
