//! The sealed config: a file that an operator makes once, that the parent stores and carries, and
//! that only an enclave which proves itself to KMS can open. This module reads and writes its form;
//! it holds no key and decrypts nothing.
//!
//! # Version 1
//!
//! | bytes | what |
//! |---|---|
//! | 8 | [`MAGIC`]: `redoubt`, and the number of this version |
//! | 4 | length of the header, big-endian |
//! | … | the [`Header`], one CBOR array of exactly that length |
//! | … | the config, encrypted with AES-256-GCM (NIST SP 800-38D): ciphertext, then a tag of 16 bytes |
//!
//! Everything before the ciphertext is additional authenticated data: no bit of the file can change
//! unnoticed. The data key is made by KMS's `GenerateDataKey` and travels in the header, encrypted
//! under an encryption context (AWS KMS developer guide, "Encryption context") of the config's
//! `name`, its `version` and what the spec adds. KMS encrypts 4096 bytes at most, hence the
//! envelope.
//!
//! # Which config runs
//!
//! The agent extends PCR16 with the SHA-384 of the whole file, and locks it before the workload
//! starts: PCR16 is SHA-384 of 48 zero bytes and that SHA-384. A file is proof of nothing by
//! itself: everyone who may encrypt with the KMS key can seal one. A relying party that cares
//! compares PCR16 with that of the file it means.

mod environment;

pub use environment::{EnvironmentError, InvalidLine, environment};

use crate::spec::{MeasuredConfig, RESERVED_CONTEXT};
use minicbor::{Decode, Encode};
use std::collections::BTreeMap;

/// The first bytes of every sealed config of version 1.
pub const MAGIC: [u8; 8] = *b"redoubt\x01";
/// The longest sealed config, in bytes: it travels in one frame.
pub const MAX_LEN: usize = 60 * 1024;
/// The longest config that can be sealed, in bytes.
pub const MAX_PLAINTEXT: usize = 48 * 1024;
/// The nonce of AES-GCM, in bytes (NIST SP 800-38D, 8.2.1).
pub const NONCE_LEN: usize = 12;
/// The tag of AES-GCM, in bytes.
pub const TAG_LEN: usize = 16;
/// KMS's limit for a CiphertextBlob (API reference, Decrypt), in bytes.
const MAX_ENCRYPTED_KEY: usize = 6144;

/// The public part of a sealed config.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Header {
    /// The spec's name: a config is sealed for one.
    #[n(0)]
    pub name: String,
    /// Counts up; a spec may set a minimum, so that the parent cannot bring back an old config.
    #[n(1)]
    pub version: u64,
    /// ARN of the KMS key.
    #[n(2)]
    pub kms_key: String,
    /// What the spec adds to the encryption context.
    #[n(3)]
    pub context: BTreeMap<String, String>,
    /// The data key, encrypted by KMS.
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub encrypted_key: Vec<u8>,
    /// Of AES-GCM, used once with this data key.
    #[n(5)]
    #[cbor(with = "minicbor::bytes")]
    pub nonce: [u8; NONCE_LEN],
}

/// Why bytes are not a sealed config.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealedError {
    /// Its length in bytes, more than [`MAX_LEN`].
    #[error("a sealed config has at most {MAX_LEN} bytes, this one has {0}")]
    TooLong(usize),
    /// It does not start with [`MAGIC`].
    #[error("this is no sealed config of version 1")]
    NotSealed,
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
        let rest = bytes.strip_prefix(&MAGIC).ok_or(SealedError::NotSealed)?;
        let (len, rest) = rest
            .split_first_chunk::<4>()
            .ok_or(SealedError::Damaged(Damage::CutOff))?;
        let len = usize::try_from(u32::from_be_bytes(*len)).unwrap_or(usize::MAX);
        let (encoded, ciphertext) = rest
            .split_at_checked(len)
            .ok_or(SealedError::Damaged(Damage::CutOff))?;
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
        if ciphertext.len() < TAG_LEN {
            return Err(SealedError::Damaged(Damage::CutOff));
        }
        let (authenticated, _) = bytes.split_at(bytes.len() - ciphertext.len());
        Ok(Sealed {
            header,
            authenticated,
            ciphertext,
        })
    }
}

/// Why a config is not for a spec. Texts are escaped and cut after 200 characters: the file may
/// come from a stranger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecMismatch {
    /// It was sealed for another name.
    #[error("the config was sealed for the name '{found}', but the spec has '{expected}'")]
    Name {
        /// The config's.
        found: String,
        /// The spec's.
        expected: String,
    },
    /// Its data key is encrypted with another KMS key.
    #[error("the config was sealed for the key '{found}', but the spec has '{expected}'")]
    Key {
        /// The config's.
        found: String,
        /// The spec's.
        expected: String,
    },
    /// It was sealed with another encryption context.
    #[error("the config was sealed for the context '{found}', but the spec has '{expected}'")]
    Context {
        /// The config's.
        found: String,
        /// The spec's.
        expected: String,
    },
    /// Its version is below the spec's minimum.
    #[error("the config has version {version}, the spec wants {minimum} at least")]
    TooOld {
        /// The config's.
        version: u64,
        /// The spec's.
        minimum: u64,
    },
}

impl Header {
    /// Checks that this is for the spec with this name and config. A forged header gets no further
    /// than KMS or the decryption; this says sooner, and why.
    ///
    /// # Errors
    /// The first [`SpecMismatch`] of name, key, context and version, in this order.
    pub fn belongs_to(&self, name: &str, config: &MeasuredConfig) -> Result<(), SpecMismatch> {
        let shown = |text: &str| text.escape_debug().take(200).collect();
        if self.name != name {
            return Err(SpecMismatch::Name {
                found: shown(&self.name),
                expected: shown(name),
            });
        }
        if self.kms_key != config.kms_key {
            return Err(SpecMismatch::Key {
                found: shown(&self.kms_key),
                expected: shown(&config.kms_key),
            });
        }
        if self.context != config.context {
            return Err(SpecMismatch::Context {
                found: shown(&format!("{:?}", self.context)),
                expected: shown(&format!("{:?}", config.context)),
            });
        }
        if self.version < config.minimum_version {
            return Err(SpecMismatch::TooOld {
                version: self.version,
                minimum: config.minimum_version,
            });
        }
        Ok(())
    }

    /// The bytes before the ciphertext, which authenticate with it.
    pub fn encode(&self) -> Vec<u8> {
        let encoded = minicbor::to_vec(self).expect("a Vec takes what is written to it");
        let len = u32::try_from(encoded.len())
            .expect("strings of a spec and a key of 6144 bytes at most");
        [MAGIC.as_slice(), &len.to_be_bytes(), &encoded].concat()
    }

    /// What KMS is given with every use of the key, and what key policies can name as
    /// `kms:EncryptionContext:…`.
    pub fn encryption_context(&self) -> BTreeMap<String, String> {
        let [name, version] = RESERVED_CONTEXT.map(str::to_owned);
        let mut context = self.context.clone();
        context.insert(name, self.name.clone());
        context.insert(version, self.version.to_string());
        context
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            name: "orders".to_owned(),
            version: 7,
            kms_key: "arn:aws:kms:us-east-1:111122223333:key/k".to_owned(),
            context: [("app".to_owned(), "orders".to_owned())].into(),
            encrypted_key: vec![9; 32],
            nonce: [3; NONCE_LEN],
        }
    }

    fn sealed(header: &Header) -> Vec<u8> {
        [header.encode(), vec![5; 20]].concat()
    }

    /// Files of version 1 must stay readable: these bytes were written once and are not
    /// regenerated.
    #[test]
    fn the_form_of_version_1_does_not_change() {
        let golden = include_bytes!("../../golden/config-1.sealed");
        assert_eq!(sealed(&header()), golden);
        let parsed = Sealed::parse(golden).unwrap();
        assert_eq!(
            (parsed.header, parsed.ciphertext),
            (header(), [5; 20].as_slice())
        );
        assert_eq!([parsed.authenticated, parsed.ciphertext].concat(), golden);
    }

    #[test]
    fn what_is_authenticated_to_kms_is_fixed() {
        let context = header().encryption_context();
        let pairs: Vec<_> = context
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            pairs,
            [("app", "orders"), ("name", "orders"), ("version", "7")]
        );
    }

    #[test]
    fn a_config_belongs_to_one_name_key_and_context_and_is_not_old() {
        let config = MeasuredConfig {
            kms_key: header().kms_key,
            region: "us-east-1".to_owned(),
            deliver: crate::spec::Deliver::Env,
            context: header().context,
            minimum_version: 7,
            endpoint: crate::spec::Destination::parse("kms:443").unwrap(),
            ca: None,
        };
        let refusal = |change: fn(&mut Header)| {
            let mut header = header();
            change(&mut header);
            header.belongs_to("orders", &config).unwrap_err()
        };
        assert_eq!(header().belongs_to("orders", &config), Ok(()));
        assert_eq!(
            Header {
                version: 8,
                ..header()
            }
            .belongs_to("orders", &config),
            Ok(())
        );
        assert_eq!(
            refusal(|header| header.version = 6),
            SpecMismatch::TooOld {
                version: 6,
                minimum: 7
            }
        );
        assert_eq!(
            refusal(|header| header.name = "x\n".to_owned()),
            SpecMismatch::Name {
                found: "x\\n".to_owned(),
                expected: "orders".to_owned()
            }
        );
        let key = refusal(|header| header.kms_key.push('x'));
        assert!(matches!(key, SpecMismatch::Key { .. }), "{key}");
        let context = refusal(|header| header.context.clear());
        assert!(matches!(context, SpecMismatch::Context { .. }), "{context}");
    }

    #[test]
    fn refuses_what_is_cut_off_or_too_long() {
        let whole = sealed(&header());
        for len in 0..whole.len() - 4 {
            assert!(Sealed::parse(&whole[..len]).is_err(), "{len} bytes");
        }
        assert_eq!(
            Sealed::parse(&vec![0; MAX_LEN + 1]),
            Err(SealedError::TooLong(MAX_LEN + 1))
        );
        assert_eq!(Sealed::parse(b"redoubt\x02"), Err(SealedError::NotSealed));
        let keyless = sealed(&Header {
            encrypted_key: vec![],
            ..header()
        });
        assert_eq!(
            Sealed::parse(&keyless),
            Err(SealedError::Damaged(Damage::DataKey))
        );
        let mut longer = whole.clone();
        longer[11] += 1;
        assert_eq!(
            Sealed::parse(&longer),
            Err(SealedError::Damaged(Damage::BytesAfterHeader))
        );
    }
}
