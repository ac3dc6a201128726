//! The sealed config: a file that an operator makes once, that the parent keeps and carries, and that only an enclave which proves itself
//! to KMS can open. This module reads and writes its form; it holds no key and opens nothing.
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
//! Everything before the ciphertext is additional authenticated data: no bit of the file can change unnoticed. The data key is made by KMS's
//! `GenerateDataKey` and travels in the header, encrypted under an encryption context (AWS KMS developer guide,
//! "Encryption context") of the config's `name`, its `version` and whatever the spec adds. KMS encrypts 4096 bytes at most, hence the
//! envelope.
//!
//! # Which config runs
//!
//! The agent extends PCR16 with the SHA-384 of the whole file, and locks it before the workload starts: PCR16 is SHA-384 of 48 zero bytes and
//! that SHA-384. A file is proof of nothing by itself: whoever may use the KMS key to encrypt can seal one. A relying party
//! that cares compares PCR16 with that of the file it means.

use crate::spec::MeasuredConfig;
use minicbor::{Decode, Encode};
use std::collections::BTreeMap;

pub const MAGIC: [u8; 8] = *b"redoubt\x01";
/// The longest sealed config, in bytes: it travels in one frame.
pub const MAX_LEN: usize = 60 * 1024;
/// The longest config that can be sealed, in bytes.
pub const MAX_PLAINTEXT: usize = 48 * 1024;
/// Of AES-GCM, in bytes.
pub const NONCE_LEN: usize = 12;
pub const TAG_LEN: usize = 16;
/// KMS's limit for a CiphertextBlob (API reference, Decrypt), in bytes.
const MAX_ENCRYPTED_KEY: usize = 6144;

/// Names in the encryption context that are not the spec's to choose.
pub const RESERVED: [&str; 2] = ["name", "version"];

/// What anybody may know of a sealed config.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Header {
    /// The spec's name: a config is sealed for one.
    #[n(0)]
    pub name: String,
    /// Counts up; a spec may ask for a least one, so that the parent cannot bring back an old config.
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
    #[n(5)]
    #[cbor(with = "minicbor::bytes")]
    pub nonce: [u8; NONCE_LEN],
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealedError {
    #[error("a sealed config has at most {MAX_LEN} bytes, this one has {0}")]
    TooLong(usize),
    #[error("this is no sealed config of version 1")]
    NotSealed,
    #[error("the sealed config is damaged: {0}")]
    Damaged(&'static str),
}

/// A sealed config, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Sealed<'b> {
    pub header: Header,
    /// Everything before the ciphertext.
    pub authenticated: &'b [u8],
    /// With its tag.
    pub ciphertext: &'b [u8],
}

impl<'b> Sealed<'b> {
    pub fn parse(bytes: &'b [u8]) -> Result<Sealed<'b>, SealedError> {
        if bytes.len() > MAX_LEN {
            return Err(SealedError::TooLong(bytes.len()));
        }
        let rest = bytes.strip_prefix(&MAGIC).ok_or(SealedError::NotSealed)?;
        let (len, rest) = rest
            .split_first_chunk::<4>()
            .ok_or(SealedError::Damaged("it is cut off"))?;
        let len = usize::try_from(u32::from_be_bytes(*len)).unwrap_or(usize::MAX);
        let (encoded, ciphertext) = rest
            .split_at_checked(len)
            .ok_or(SealedError::Damaged("it is cut off"))?;
        let mut decoder = minicbor::Decoder::new(encoded);
        let header: Header = decoder
            .decode()
            .map_err(|_| SealedError::Damaged("its header cannot be read"))?;
        if decoder.position() != encoded.len() {
            return Err(SealedError::Damaged("bytes follow its header"));
        }
        if header.encrypted_key.is_empty() || header.encrypted_key.len() > MAX_ENCRYPTED_KEY {
            return Err(SealedError::Damaged("its data key is empty or too long"));
        }
        if ciphertext.len() < TAG_LEN {
            return Err(SealedError::Damaged("it is cut off"));
        }
        let (authenticated, _) = bytes.split_at(bytes.len() - ciphertext.len());
        Ok(Sealed {
            header,
            authenticated,
            ciphertext,
        })
    }
}

/// Why a config is not for a spec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    #[error("the config was sealed for the {what} '{found}', the spec says '{expected}'")]
    Other {
        what: &'static str,
        found: String,
        expected: String,
    },
    #[error("the config has version {version}, the spec wants {minimum} at least")]
    TooOld { version: u64, minimum: u64 },
}

impl Header {
    /// Whether this is for the spec with this name and config. A forged header gets no further than KMS or the decryption; this says
    /// sooner, and why.
    pub fn belongs_to(&self, name: &str, config: &MeasuredConfig) -> Result<(), Foreign> {
        let (ours, theirs) = (
            format!("{:?}", self.context),
            format!("{:?}", config.context),
        );
        for (what, found, expected) in [
            ("name", self.name.as_str(), name),
            ("key", self.kms_key.as_str(), config.kms_key.as_str()),
            ("context", ours.as_str(), theirs.as_str()),
        ] {
            if found != expected {
                let shown = |text: &str| text.escape_debug().take(200).collect();
                return Err(Foreign::Other {
                    what,
                    found: shown(found),
                    expected: shown(expected),
                });
            }
        }
        match self.version < config.minimum_version {
            true => Err(Foreign::TooOld {
                version: self.version,
                minimum: config.minimum_version,
            }),
            false => Ok(()),
        }
    }

    /// The bytes before the ciphertext, which authenticate with it.
    pub fn encode(&self) -> Vec<u8> {
        let encoded = minicbor::to_vec(self).expect("a Vec takes what is written to it");
        let len = u32::try_from(encoded.len())
            .expect("strings of a spec and a key of 6144 bytes at most");
        [MAGIC.as_slice(), &len.to_be_bytes(), &encoded].concat()
    }

    /// What KMS is given with every use of the key, and what key policies can name as `kms:EncryptionContext:…`.
    pub fn encryption_context(&self) -> BTreeMap<String, String> {
        let mut context = self.context.clone();
        context.insert("name".to_owned(), self.name.clone());
        context.insert("version".to_owned(), self.version.to_string());
        context
    }
}

/// Reads a config that becomes an environment: `NAME=value` lines, blank ones and those that start with `#` passed over. Values are taken
/// as they are. Errors give a line's number and never its text.
pub fn environment(config: &str) -> Result<Vec<(&str, &str)>, EnvironmentError> {
    let mut variables: Vec<(&str, &str)> = Vec::new();
    for (line, text) in (1..).zip(config.lines()) {
        if text.trim().is_empty() || text.starts_with('#') {
            continue;
        }
        let (name, value) = text.split_once('=').ok_or(EnvironmentError {
            line,
            problem: "has no =",
        })?;
        let valid = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if name.is_empty() || !name.bytes().all(valid) {
            return Err(EnvironmentError {
                line,
                problem: "does not start with a variable's name",
            });
        }
        if value.contains('\0') {
            return Err(EnvironmentError {
                line,
                problem: "has a NUL byte",
            });
        }
        if variables.iter().any(|(known, _)| *known == name) {
            return Err(EnvironmentError {
                line,
                problem: "sets a variable again",
            });
        }
        variables.push((name, value));
    }
    Ok(variables)
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the config {problem}")]
pub struct EnvironmentError {
    pub line: usize,
    pub problem: &'static str,
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

    /// Files of version 1 must stay readable: these bytes were written once and are not made anew.
    #[test]
    fn the_form_of_version_1_does_not_change() {
        let golden = include_bytes!("../golden/config-1.sealed");
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
            Foreign::TooOld {
                version: 6,
                minimum: 7
            }
        );
        for (change, kind) in [
            ((|header| header.name.push('x')) as fn(&mut Header), "name"),
            (|header| header.kms_key.push('x'), "key"),
            (|header| header.context.clear(), "context"),
        ] {
            assert!(
                matches!(refusal(change), Foreign::Other { what, .. } if what == kind),
                "{kind}"
            );
        }
    }

    #[test]
    fn reads_environments_and_never_quotes_them() {
        let read = environment("# comment\nA=1\n\nB_2=x=y # not a comment\nC=").unwrap();
        assert_eq!(
            read,
            [("A", "1"), ("B_2", "x=y # not a comment"), ("C", "")]
        );
        for (text, line, problem) in [
            ("A=1\nsecret", 2, "has no ="),
            ("=x", 1, "does not start with a variable's name"),
            ("export A=x", 1, "does not start with a variable's name"),
            ("A=1\nA=2", 2, "sets a variable again"),
            ("A=\0", 1, "has a NUL byte"),
        ] {
            assert_eq!(
                environment(text),
                Err(EnvironmentError { line, problem }),
                "{text:?}"
            );
        }
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
            Err(SealedError::Damaged("its data key is empty or too long"))
        );
        let mut longer = whole.clone();
        longer[11] += 1;
        assert_eq!(
            Sealed::parse(&longer),
            Err(SealedError::Damaged("bytes follow its header"))
        );
    }
}
