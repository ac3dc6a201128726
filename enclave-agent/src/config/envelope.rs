//! The two envelopes around a config: KMS's answer, for the RSA key of this enclave, holds the data
//! key; the data key opens the file.

use super::recipient::{self, AnswerError, Enveloped};
use crate::error::BootError;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_256, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::hkdf::{HKDF_SHA512, KeyType, Salt};
use aws_lc_rs::rsa::{
    KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey,
};
use wire::control::AbortReason;
use wire::sealed::{COMMITMENT_INFO, ENCRYPTION_INFO, Sealed};
use zeroize::Zeroizing;

const KEY_LEN: usize = 32;

/// A key pair that lives for one question to KMS.
pub(super) struct Recipient {
    key: PrivateDecryptingKey,
}

impl Recipient {
    /// RSA-2048, which KMS asks for (API reference, "RecipientInfo"). Takes a second or so.
    pub(super) fn new() -> Result<Recipient, BootError> {
        let key = PrivateDecryptingKey::generate(KeySize::Rsa2048)
            .map_err(|_| BootError::new(AbortReason::Nsm, "cannot generate a key pair"))?;
        Ok(Recipient { key })
    }

    /// SubjectPublicKeyInfo, in DER.
    pub(super) fn public_key(&self) -> Result<Vec<u8>, BootError> {
        let der: PublicKeyX509Der<'_> = self
            .key
            .public_key()
            .as_der()
            .map_err(|_| BootError::new(AbortReason::Nsm, "cannot encode the public key"))?;
        Ok(der.as_ref().to_vec())
    }

    /// The data key in KMS's answer. Everyone can encrypt for a public key: that this came from KMS
    /// is proved by TLS.
    pub(super) fn open(self, answer: &[u8]) -> Result<Zeroizing<[u8; KEY_LEN]>, BootError> {
        self.decrypt(answer).map_err(BootError::of(
            AbortReason::KmsAnswer,
            "KMS's answer cannot be opened",
        ))
    }

    fn decrypt(self, answer: &[u8]) -> Result<Zeroizing<[u8; KEY_LEN]>, OpenError> {
        let Enveloped {
            encrypted_key,
            iv,
            content,
        } = recipient::parse(answer)?;
        let oaep = OaepPrivateDecryptingKey::new(self.key).map_err(|_| OpenError::KeyPair)?;
        let mut buffer = Zeroizing::new(vec![0; oaep.min_output_size()]);
        let content_key = oaep
            .decrypt(&OAEP_SHA256_MGF1SHA256, encrypted_key, &mut buffer, None)
            .map_err(|_| OpenError::NotForUs)?;
        let unbound = UnboundCipherKey::new(&AES_256, content_key)
            .map_err(|_| OpenError::ContentKeyLength)?;
        let cbc =
            PaddedBlockDecryptingKey::cbc_pkcs7(unbound).map_err(|_| OpenError::ContentKey)?;
        let mut content = Zeroizing::new(content);
        let plain = cbc
            .decrypt(&mut content, DecryptionContext::Iv128(iv.into()))
            .map_err(|_| OpenError::Content)?;
        let key = <[u8; KEY_LEN]>::try_from(&*plain).map_err(|_| OpenError::DataKeyLength)?;
        Ok(Zeroizing::new(key))
    }
}

/// Why KMS's answer gives no data key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum OpenError {
    #[error(transparent)]
    Malformed(#[from] AnswerError),
    #[error("the key pair is unusable")]
    KeyPair,
    #[error("it is not for this enclave's key")]
    NotForUs,
    #[error("its key is not for AES-256")]
    ContentKeyLength,
    #[error("its key is unusable")]
    ContentKey,
    #[error("its content does not decrypt")]
    Content,
    #[error("the data key is not 32 bytes long")]
    DataKeyLength,
}

/// Checks that the file was sealed with this data key, decrypts it in place, and checks every bit
/// of it on the way.
pub(super) fn unseal(
    sealed: &Sealed<'_>,
    key: &[u8; KEY_LEN],
) -> Result<Zeroizing<Vec<u8>>, BootError> {
    let damaged = |_| {
        BootError::new(
            AbortReason::ConfigDamaged,
            "the config was changed after it was sealed",
        )
    };
    verify_slices_are_equal(
        derive(key, COMMITMENT_INFO)?.as_slice(),
        &sealed.header.commitment,
    )
    .map_err(|_| {
        BootError::new(
            AbortReason::ConfigDamaged,
            "the config was sealed with another data key than the one that KMS gave for it",
        )
    })?;
    let key = derive(key, ENCRYPTION_INFO)?;
    let key = UnboundKey::new(&AES_256_GCM, key.as_slice()).map_err(damaged)?;
    let key = LessSafeKey::new(key);
    let nonce = Nonce::assume_unique_for_key(sealed.header.nonce);
    let mut buffer = Zeroizing::new(sealed.ciphertext.to_vec());
    let len = key
        .open_in_place(nonce, Aad::from(sealed.authenticated), &mut buffer)
        .map_err(damaged)?
        .len();
    buffer.truncate(len);
    Ok(buffer)
}

/// A key of its own for each use of the data key (`wire::sealed`, "Key commitment").
fn derive(data_key: &[u8; KEY_LEN], info: &[u8]) -> Result<Zeroizing<[u8; KEY_LEN]>, BootError> {
    let mut key = Zeroizing::new([0; KEY_LEN]);
    let extracted = Salt::new(HKDF_SHA512, &[]).extract(data_key);
    let filled = extracted
        .expand(&[info], KeyLen)
        .and_then(|expanded| expanded.fill(key.as_mut_slice()));
    filled.map_err(|_| BootError::new(AbortReason::ConfigDamaged, "cannot derive a key"))?;
    Ok(key)
}

struct KeyLen;

impl KeyType for KeyLen {
    fn len(&self) -> usize {
        KEY_LEN
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::sealed::Header;

    fn sealed(key: &[u8; KEY_LEN]) -> Vec<u8> {
        let header = Header {
            name: "n".to_owned(),
            version: 1,
            kms_key: "k".to_owned(),
            context: [("a".to_owned(), "b".to_owned())].into(),
            encrypted_key: vec![7; 20],
            nonce: [1; 12],
            commitment: *derive(key, COMMITMENT_INFO).unwrap(),
            sealer: None,
        };
        let authenticated = header.encode();
        let mut text = b"A=1".to_vec();
        aead(key)
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key([1; 12]),
                Aad::from(authenticated.as_slice()),
                &mut text,
            )
            .unwrap();
        [authenticated, text].concat()
    }

    /// AES-GCM with the key that a data key encrypts with.
    fn aead(data_key: &[u8; KEY_LEN]) -> LessSafeKey {
        let key = derive(data_key, ENCRYPTION_INFO).unwrap();
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_slice()).unwrap())
    }

    /// The bytes that follow each other from this one on.
    fn counted(from: u8) -> [u8; KEY_LEN] {
        std::array::from_fn(|n| from + u8::try_from(n).unwrap())
    }

    #[test]
    fn opens_what_other_libraries_sealed() {
        let golden = include_bytes!("../../../wire/golden/config-2.sealed");
        let sealed = Sealed::parse(golden).unwrap();
        let opened = unseal(&sealed, &counted(0)).unwrap();
        assert_eq!(opened.as_slice(), b"TOKEN=x");
    }

    /// The ciphertext is made so that AES-GCM opens it under two keys, to two texts.
    #[test]
    fn a_ciphertext_for_two_keys_opens_under_the_one_that_its_header_commits_to() {
        let bytes = include_bytes!("../../../wire/golden/config-2-twice.sealed");
        let sealed = Sealed::parse(bytes).unwrap();
        let [first, second] = [0, 32].map(counted);
        let without_commitment = |key| {
            let nonce = Nonce::assume_unique_for_key(sealed.header.nonce);
            let aad = Aad::from(sealed.authenticated);
            let mut buffer = sealed.ciphertext.to_vec();
            let text = aead(key).open_in_place(nonce, aad, &mut buffer);
            text.unwrap().to_vec()
        };
        assert_ne!(without_commitment(&first), without_commitment(&second));
        assert!(unseal(&sealed, &first).is_ok());
        let refused = unseal(&sealed, &second).unwrap_err();
        assert_eq!(refused.reason, AbortReason::ConfigDamaged);
        assert!(refused.detail.contains("another data key"), "{refused}");
    }

    #[test]
    fn no_single_bit_of_a_sealed_config_can_be_flipped() {
        let key = [9; KEY_LEN];
        let good = sealed(&key);
        let open = |bytes: &[u8]| {
            Sealed::parse(bytes)
                .ok()
                .and_then(|sealed| unseal(&sealed, &key).ok())
        };
        assert_eq!(open(&good).unwrap().as_slice(), b"A=1");
        for bit in 0..good.len() * 8 {
            let mut flipped = good.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&flipped).is_none(), "bit {bit} does not matter");
        }
        assert!(unseal(&Sealed::parse(&good).unwrap(), &[8; KEY_LEN]).is_err());
    }

    /// A complete vector: RSA key, KMS's answer, plaintext. Third-party data that is not kept in
    /// the repository.
    #[test]
    fn opens_what_kms_encrypted() {
        let beside = || {
            std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/attestation")
        };
        let directory = std::env::var_os("REDOUBT_SAMPLES")
            .map_or_else(beside, Into::into)
            .join("cms");
        let Ok(answer) = std::fs::read(directory.join("edgebit-ciphertext-for-recipient.ber"))
        else {
            return;
        };
        let pem = std::fs::read_to_string(directory.join("edgebit-rsa2048-test-key.pem")).unwrap();
        let plaintext = std::fs::read(directory.join("edgebit-plaintext.bin")).unwrap();
        let recipient = || Recipient {
            key: PrivateDecryptingKey::from_pkcs8(&pkcs8(&pem)).unwrap(),
        };
        assert_eq!(recipient().open(&answer).unwrap().as_slice(), plaintext);
        let other = Recipient::new().unwrap().open(&answer).unwrap_err();
        assert_eq!(other.reason, AbortReason::KmsAnswer);
        assert!(
            other.detail.contains("not for this enclave's key"),
            "{}",
            other.detail
        );
    }

    /// PKCS #8 of a PEM file that may hold PKCS #1 (RFC 5958, RFC 8017).
    fn pkcs8(pem: &str) -> Vec<u8> {
        let digits: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let der =
            base64::Engine::decode(&base64::engine::general_purpose::STANDARD, digits).unwrap();
        if pem.contains("BEGIN PRIVATE KEY") {
            return der;
        }
        let rsa = [
            0x02, 1, 0, 0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0,
        ];
        let long = |tag: u8, content: &[u8]| {
            [
                &[tag, 0x82][..],
                &u16::try_from(content.len()).unwrap().to_be_bytes(),
                content,
            ]
            .concat()
        };
        long(0x30, &[&rsa[..], &long(4, &der)].concat())
    }
}
