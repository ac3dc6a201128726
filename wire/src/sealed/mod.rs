//! The sealed config: a file that an operator makes once, that the parent stores and carries, and
//! that only an enclave which proves itself to KMS can open. This module reads and writes its form;
//! it holds no key and decrypts nothing.
//!
//! # Version 2
//!
//! | bytes | what |
//! |---|---|
//! | 8 | [`MAGIC`]: `redoubt`, and the number of this version |
//! | 4 | length of the header, big-endian |
//! | … | the [`Header`], one CBOR array of exactly that length |
//! | … | the config, encrypted with AES-256-GCM (NIST SP 800-38D): ciphertext, then a tag of 16 bytes |
//! | 64 | only if the header names a sealer: their Ed25519 signature (RFC 8032) over all bytes before it |
//!
//! Everything before the ciphertext is additional authenticated data: no bit of the file can change
//! unnoticed. The data key is made by KMS's `GenerateDataKey` and travels in the header, encrypted
//! under an encryption context (AWS KMS developer guide, "Encryption context") of the config's
//! `name`, its `version` and what the spec adds. KMS encrypts 4096 bytes at most, hence the
//! envelope.
//!
//! # Key commitment
//!
//! AES-GCM alone does not commit to its key: one ciphertext can be made that opens under two keys,
//! to two texts (Albertini et al., "How to Abuse and Fix Authenticated Encryption Without Key
//! Commitment", USENIX Security 2022). So the data key encrypts nothing itself. Two keys of 32 bytes
//! are derived from it with HKDF-SHA-512 (RFC 5869), without a salt: one with the info
//! [`ENCRYPTION_INFO`], which encrypts, and one with [`COMMITMENT_INFO`], which stands in the header.
//! Whoever opens a file compares it before anything is decrypted. The AWS Encryption SDK's suites
//! with key commitment do the same ("AWS Encryption SDK algorithms reference").
//!
//! # The sealer
//!
//! Everyone who may encrypt with the KMS key can make a config. A spec may name a
//! [`sealer`](MeasuredConfig::sealer): then a config must carry their signature, which is verified
//! before KMS is asked. The header names the sealer too, and is authenticated: nothing is left of a
//! signed file whose signature is cut off.
//!
//! # Which config runs
//!
//! The agent extends PCR16 with the SHA-384 of the whole file, and locks it before the workload
//! starts: PCR16 is SHA-384 of 48 zero bytes and that SHA-384. A file is proof of nothing by
//! itself: everyone who may encrypt with the KMS key, or has the sealer's key where the spec names
//! one, can seal one. A relying party that cares compares PCR16 with that of the file it means.

mod environment;
mod header;

pub use environment::{EnvironmentError, InvalidLine, environment};
pub use header::{Header, SpecMismatch};

#[cfg(doc)]
use crate::spec::MeasuredConfig;

/// The first bytes of every sealed config of version 2.
pub const MAGIC: [u8; 8] = *b"redoubt\x02";
/// The info of HKDF for the key that encrypts.
pub const ENCRYPTION_INFO: &[u8] = b"redoubt sealed config 2: encryption";
/// The info of HKDF for the commitment in the header.
pub const COMMITMENT_INFO: &[u8] = b"redoubt sealed config 2: commitment";
/// The longest sealed config, in bytes: it travels in one frame.
pub const MAX_LEN: usize = 60 * 1024;
/// The longest config that can be sealed, in bytes.
pub const MAX_PLAINTEXT: usize = 48 * 1024;
/// The nonce of AES-GCM, in bytes (NIST SP 800-38D, 8.2.1).
pub const NONCE_LEN: usize = 12;
/// The tag of AES-GCM, in bytes.
pub const TAG_LEN: usize = 16;
/// A key commitment, in bytes.
pub const COMMITMENT_LEN: usize = 32;
/// An Ed25519 signature, in bytes (RFC 8032, 5.1.6).
pub const SIGNATURE_LEN: usize = 64;
/// KMS's limit for a CiphertextBlob (API reference, Decrypt), in bytes.
const MAX_ENCRYPTED_KEY: usize = 6144;

/// Why bytes are not a sealed config.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealedError {
    /// Its length in bytes, more than [`MAX_LEN`].
    #[error("a sealed config has at most {MAX_LEN} bytes, this one has {0}")]
    TooLong(usize),
    /// It does not start like a sealed config of any version.
    #[error("this is no sealed config")]
    NotSealed,
    /// It has the form of this version, not of [`MAGIC`]'s.
    #[error(
        "the config was sealed by another version of Redoubt: its form has the number {0}, and \
         this version reads 2"
    )]
    OtherVersion(u8),
    /// It starts like one and does not go on like one.
    #[error("the sealed config is damaged: {0}")]
    Damaged(Damage),
}

/// What is wrong with a damaged sealed config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It ends too early.
    #[error("it is cut off")]
    CutOff,
    /// The header is not CBOR of this form.
    #[error("its header cannot be read")]
    Header,
    /// The header is shorter than its length says.
    #[error("bytes follow its header")]
    BytesAfterHeader,
    /// No data key, or one of more than 6144 bytes, KMS's limit.
    #[error("its data key is empty or too long")]
    DataKey,
}

/// A sealed config, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Sealed<'b> {
    /// The public part.
    pub header: Header,
    /// Everything before the ciphertext.
    pub authenticated: &'b [u8],
    /// With its tag.
    pub ciphertext: &'b [u8],
    /// Of the header's sealer; present exactly if there is one, and not verified.
    pub signature: Option<Signature<'b>>,
}

/// The end of a signed file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature<'b> {
    /// What is signed: the whole file before the signature.
    pub signed: &'b [u8],
    /// Ed25519, over [`Signature::signed`].
    pub bytes: &'b [u8; SIGNATURE_LEN],
}

impl<'b> Sealed<'b> {
    /// Takes the bytes of a sealed config apart, without opening or authenticating them. Borrows;
    /// copies the header alone.
    ///
    /// # Errors
    /// As the variants of [`SealedError`] say. A file that parses may still be forged: only
    /// decrypting it tells.
    pub fn parse(bytes: &'b [u8]) -> Result<Sealed<'b>, SealedError> {
        if bytes.len() > MAX_LEN {
            return Err(SealedError::TooLong(bytes.len()));
        }
        let rest = after_magic(bytes)?;
        let (len, rest) = rest
            .split_first_chunk::<4>()
            .ok_or(SealedError::Damaged(Damage::CutOff))?;
        let len = usize::try_from(u32::from_be_bytes(*len)).unwrap_or(usize::MAX);
        let (encoded, rest) = rest
            .split_at_checked(len)
            .ok_or(SealedError::Damaged(Damage::CutOff))?;
        let header = header(encoded)?;
        let signature = match header.sealer {
            None => None,
            Some(_) => {
                let (signed, signature) = bytes
                    .split_last_chunk()
                    .ok_or(SealedError::Damaged(Damage::CutOff))?;
                Some(Signature {
                    signed,
                    bytes: signature,
                })
            }
        };
        let len = signature.map_or(0, |signature| signature.bytes.len());
        let ciphertext = rest
            .len()
            .checked_sub(len)
            .and_then(|end| rest.get(..end))
            .ok_or(SealedError::Damaged(Damage::CutOff))?;
        if ciphertext.len() < TAG_LEN {
            return Err(SealedError::Damaged(Damage::CutOff));
        }
        let (authenticated, _) = bytes.split_at(bytes.len() - rest.len());
        Ok(Sealed {
            header,
            authenticated,
            ciphertext,
            signature,
        })
    }
}

fn after_magic(bytes: &[u8]) -> Result<&[u8], SealedError> {
    let (magic, rest) = bytes
        .split_first_chunk::<8>()
        .ok_or(SealedError::NotSealed)?;
    let [.., version] = *magic;
    match magic.strip_suffix(&[version]) {
        _ if *magic == MAGIC => Ok(rest),
        Some(b"redoubt") => Err(SealedError::OtherVersion(version)),
        _ => Err(SealedError::NotSealed),
    }
}

fn header(encoded: &[u8]) -> Result<Header, SealedError> {
    let mut decoder = minicbor::Decoder::new(encoded);
    let header: Header = decoder
        .decode()
        .map_err(|_| SealedError::Damaged(Damage::Header))?;
    if decoder.position() != encoded.len() {
        return Err(SealedError::Damaged(Damage::BytesAfterHeader));
    }
    if header.encrypted_key.is_empty() || header.encrypted_key.len() > MAX_ENCRYPTED_KEY {
        return Err(SealedError::Damaged(Damage::DataKey));
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::SealerKey;

    /// Made by golden/sealed.py, with other libraries than ours: seal and agent are held to it too.
    const GOLDEN: &[u8] = include_bytes!("../../golden/config-2.sealed");
    const SIGNED: &[u8] = include_bytes!("../../golden/config-2-signed.sealed");

    fn header() -> Header {
        Sealed::parse(GOLDEN).unwrap().header
    }

    fn sealed(header: &Header) -> Vec<u8> {
        [header.encode(), vec![5; 20]].concat()
    }

    /// Files of version 2 must stay readable: these bytes were written once and are not
    /// regenerated.
    #[test]
    fn the_form_of_version_2_does_not_change() {
        let Sealed {
            header,
            authenticated,
            ciphertext,
            signature,
        } = Sealed::parse(GOLDEN).unwrap();
        let expected = Header {
            name: "orders".to_owned(),
            version: 7,
            kms_key: "arn:aws:kms:us-east-1:111122223333:key/k".to_owned(),
            context: [("app".to_owned(), "orders".to_owned())].into(),
            encrypted_key: vec![9; 32],
            nonce: [3; NONCE_LEN],
            ..header.clone()
        };
        assert_eq!((&header, header.sealer, signature), (&expected, None, None));
        assert_eq!(ciphertext.len(), "TOKEN=x".len() + TAG_LEN);
        assert_eq!([authenticated, ciphertext].concat(), GOLDEN);
        assert_eq!(header.encode(), authenticated);

        let signed = Sealed::parse(SIGNED).unwrap();
        let sealer = signed.header.sealer.unwrap();
        assert_eq!(signed.header.encode(), signed.authenticated);
        let Signature { signed, bytes } = signed.signature.unwrap();
        assert_eq!([signed, bytes].concat(), SIGNED);
        // RFC 8032, 7.1, test 1.
        assert!(sealer.to_string().starts_with("d75a980182b10ab7"));
    }

    #[test]
    fn a_file_of_another_version_is_called_so() {
        let old = include_bytes!("../../golden/config-1.sealed");
        assert_eq!(Sealed::parse(old), Err(SealedError::OtherVersion(1)));
        assert_eq!(
            Sealed::parse(b"redoubt\x03"),
            Err(SealedError::OtherVersion(3))
        );
        assert_eq!(Sealed::parse(b"redoubx\x02"), Err(SealedError::NotSealed));
    }

    #[test]
    fn refuses_what_is_cut_off_or_too_long() {
        let signed = Header {
            sealer: Some(SealerKey([1; 32])),
            ..header()
        };
        let signed = [sealed(&signed), vec![6; SIGNATURE_LEN]].concat();
        for whole in [sealed(&header()), signed] {
            assert!(Sealed::parse(&whole).is_ok());
            for len in 0..whole.len() - 4 {
                assert!(Sealed::parse(&whole[..len]).is_err(), "{len} bytes");
            }
        }
        assert_eq!(
            Sealed::parse(&vec![0; MAX_LEN + 1]),
            Err(SealedError::TooLong(MAX_LEN + 1))
        );
        assert_eq!(Sealed::parse(b"redoubt"), Err(SealedError::NotSealed));
        let keyless = sealed(&Header {
            encrypted_key: vec![],
            ..header()
        });
        assert_eq!(
            Sealed::parse(&keyless),
            Err(SealedError::Damaged(Damage::DataKey))
        );
        let mut longer = sealed(&header());
        longer[11] += 1;
        assert_eq!(
            Sealed::parse(&longer),
            Err(SealedError::Damaged(Damage::BytesAfterHeader))
        );
    }
}
