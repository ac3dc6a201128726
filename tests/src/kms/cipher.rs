//! Ciphertexts of the fake: AES-256-GCM, with a nonce in front.

use super::StoredKey;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use serde_json::{Value, json};

pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    bytes
}

/// The encryption context is authenticated, as in KMS.
fn authenticated(arn: &str, input: &Value) -> Vec<u8> {
    format!(
        "{arn}{}",
        input.get("EncryptionContext").unwrap_or(&json!({}))
    )
    .into_bytes()
}

pub(super) fn encrypt(key: &StoredKey, arn: &str, input: &Value, plaintext: &[u8]) -> Vec<u8> {
    let nonce: [u8; 12] = random();
    let mut ciphertext = plaintext.to_vec();
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key.material).unwrap())
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(authenticated(arn, input)),
            &mut ciphertext,
        )
        .unwrap();
    [nonce.as_slice(), &ciphertext].concat()
}

pub(super) fn open(key: &StoredKey, arn: &str, input: &Value, blob: &[u8]) -> Option<Vec<u8>> {
    let (nonce, ciphertext) = blob.split_first_chunk::<12>()?;
    let mut buffer = ciphertext.to_vec();
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key.material).unwrap());
    let aad = Aad::from(authenticated(arn, input));
    let plaintext = key
        .open_in_place(Nonce::assume_unique_for_key(*nonce), aad, &mut buffer)
        .ok()?;
    Some(plaintext.to_vec())
}
