//! The public part of a sealed config, and whether it is for a spec.

use super::{COMMITMENT_LEN, MAGIC, NONCE_LEN};
use crate::spec::{MeasuredConfig, RESERVED_CONTEXT, SealerKey};
use minicbor::{Decode, Encode};
use std::collections::BTreeMap;

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
    /// What is derived from the data key and identifies it: the file opens under no other.
    #[n(6)]
    #[cbor(with = "minicbor::bytes")]
    pub commitment: [u8; COMMITMENT_LEN],
    /// Whose signature follows the ciphertext; none if absent.
    #[n(7)]
    pub sealer: Option<SealerKey>,
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
    /// The spec has a sealer, and the config carries no signature.
    #[error("the config is not signed, but the spec has the sealer '{expected}'")]
    Unsigned {
        /// The spec's.
        expected: SealerKey,
    },
    /// It is signed by another sealer, or by one where the spec has none.
    #[error(
        "the config is signed by '{found}', but the spec has {}",
        expected.map_or("no sealer".to_owned(), |key| format!("the sealer '{key}'"))
    )]
    Sealer {
        /// The config's.
        found: SealerKey,
        /// The spec's.
        expected: Option<SealerKey>,
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
    /// The first [`SpecMismatch`] of name, key, context, sealer and version, in this order. That the signature
    /// holds is not checked here.
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
        match (self.sealer, config.sealer) {
            (None, Some(expected)) => return Err(SpecMismatch::Unsigned { expected }),
            (Some(found), expected) if expected != Some(found) => {
                return Err(SpecMismatch::Sealer { found, expected });
            }
            _ => {}
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
            commitment: [4; COMMITMENT_LEN],
            sealer: None,
        }
    }

    fn config() -> MeasuredConfig {
        MeasuredConfig {
            kms_key: header().kms_key,
            region: "us-east-1".to_owned(),
            deliver: crate::spec::Deliver::Env,
            variables: vec!["TOKEN".to_owned()],
            context: header().context,
            minimum_version: 7,
            sealer: None,
            allow_debug: false,
            endpoint: crate::spec::Destination::parse("kms:443").unwrap(),
            ca: None,
        }
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
        let config = config();
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
    fn a_spec_with_a_sealer_takes_no_other_config_and_one_without_takes_no_signed_one() {
        let [own, other] = [SealerKey([1; 32]), SealerKey([2; 32])];
        let check = |sealer, expected| {
            let config = MeasuredConfig {
                sealer: expected,
                ..config()
            };
            let header = Header { sealer, ..header() };
            header.belongs_to("orders", &config)
        };
        assert_eq!(check(Some(own), Some(own)), Ok(()));
        assert_eq!(
            check(None, Some(own)),
            Err(SpecMismatch::Unsigned { expected: own })
        );
        for (found, expected) in [(other, Some(own)), (own, None)] {
            assert_eq!(
                check(Some(found), expected),
                Err(SpecMismatch::Sealer { found, expected })
            );
        }
    }
}
