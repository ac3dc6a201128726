//! `CiphertextForRecipient`, the writing side: CMS EnvelopedData in BER of indefinite length, as
//! KMS sends it, whole or in pieces.

use aws_lc_rs::cipher::{AES_256, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
use pki::der::{bits, oid, sequence, tlv};
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

/// `EnvelopedData` (RFC 5652, section 6.1) for one recipient, the key of the attestation document.
pub(super) fn envelope(public_key: &[u8], plaintext: &[u8], form: Form) -> Vec<u8> {
    let key: [u8; 32] = super::cipher::random();
    let iv: [u8; 16] = super::cipher::random();
    let content = encrypt(&key, iv, plaintext);
    let recipient = recipient(public_key, &key);
    let cbc = oid(&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 42]);
    let cbc = sequence(&[&cbc, &tlv(4, &iv)]);
    let data = oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1]);
    let enveloped = oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 3]);
    let recipients = tlv(0x31, &recipient);
    let content = match form {
        Form::LocalStack => {
            let content = sequence(&[&data, &cbc, &tlv(0x80, &content)]);
            let body = sequence(&[&tlv(2, &[0]), &recipients, &content]);
            return sequence(&[&enveloped, &tlv(0xa0, &body)]);
        }
        Form::Pieces => {
            let pieces = content.chunks(1000).flat_map(|piece| tlv(4, piece));
            open(0xa0, &[&pieces.collect::<Vec<u8>>()])
        }
        Form::Whole => tlv(0x80, &content),
    };
    let content = open(0x30, &[&data, &cbc, &content]);
    let body = open(0x30, &[&tlv(2, &[2]), &recipients, &content]);
    open(0x30, &[&enveloped, &open(0xa0, &[&body])])
}

/// AES-256 in CBC mode, with PKCS #7 padding.
fn encrypt(key: &[u8; 32], iv: [u8; 16], plaintext: &[u8]) -> Vec<u8> {
    let mut content = plaintext.to_vec();
    let key = UnboundCipherKey::new(&AES_256, key).unwrap();
    let context = EncryptionContext::Iv128(FixedLength::from(iv));
    PaddedBlockEncryptingKey::cbc_pkcs7(key)
        .unwrap()
        .less_safe_encrypt(&mut content, context)
        .unwrap();
    content
}

/// The content's key, encrypted with RSAES-OAEP; the recipient is named by the hash of its public
/// key.
fn recipient(public_key: &[u8], key: &[u8; 32]) -> Vec<u8> {
    let rsa = PublicEncryptingKey::from_der(public_key).unwrap();
    let rsa = OaepPublicEncryptingKey::new(rsa).unwrap();
    let mut encrypted = vec![0; rsa.ciphertext_size()];
    rsa.encrypt(&OAEP_SHA256_MGF1SHA256, key, &mut encrypted, None)
        .unwrap();
    let sha256 = sequence(&[&oid(&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1]), &[5, 0]]);
    let mgf1 = oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 8]);
    let mgf1 = sequence(&[&mgf1, &sha256]);
    let oaep = oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 7]);
    let parameters = sequence(&[&tlv(0xa0, &sha256), &tlv(0xa1, &mgf1)]);
    let oaep = sequence(&[&oaep, &parameters]);
    let identifier = tlv(0x80, &Sha256::digest(bits(public_key)));
    sequence(&[&tlv(2, &[2]), &identifier, &oaep, &tlv(4, &encrypted)])
}
