//! Platform configuration registers: 48 bytes of SHA-384 each. The only home of these types in Redoubt.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha384};
use std::collections::BTreeMap;

const LEN: usize = 48;

/// One register. Shown and parsed as 96 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pcr([u8; LEN]);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PcrError {
    #[error("a PCR is {LEN} bytes long, this one is {0}")]
    Length(usize),
    #[error("a PCR is written in hexadecimal digits: {0}")]
    Hex(String),
}

impl Pcr {
    pub const ZERO: Pcr = Pcr([0; LEN]);

    /// A register that started at zero and was extended once with the SHA-384 of some content, as the Nitro
    /// hypervisor does for PCR0, 1, 2 and 8 (aws-nitro-enclaves-image-format, "PCR"). `content_hash` is that SHA-384.
    pub fn of_content_hash(content_hash: [u8; LEN]) -> Pcr {
        Pcr(Sha384::new()
            .chain_update([0; LEN])
            .chain_update(content_hash)
            .finalize()
            .into())
    }

    /// The register that the hypervisor makes of the name of something outside of the image: PCR3 of the ARN of the parent's
    /// IAM role, PCR4 of its instance id (AWS user guide, "Where to get an enclave's measurements").
    pub(crate) fn of_name(name: &str) -> Pcr {
        Pcr(Sha384::new()
            .chain_update([0; LEN])
            .chain_update(name)
            .finalize()
            .into())
    }

    pub fn as_bytes(&self) -> &[u8; LEN] {
        &self.0
    }
}

impl TryFrom<&[u8]> for Pcr {
    type Error = PcrError;
    fn try_from(bytes: &[u8]) -> Result<Self, PcrError> {
        bytes
            .try_into()
            .map(Pcr)
            .map_err(|_| PcrError::Length(bytes.len()))
    }
}

impl std::str::FromStr for Pcr {
    type Err = PcrError;
    fn from_str(text: &str) -> Result<Self, PcrError> {
        let bytes = hex::decode(text).map_err(|e| PcrError::Hex(e.to_string()))?;
        Pcr::try_from(bytes.as_slice())
    }
}

impl TryFrom<String> for Pcr {
    type Error = PcrError;
    fn try_from(text: String) -> Result<Self, PcrError> {
        text.parse()
    }
}

impl From<Pcr> for String {
    fn from(pcr: Pcr) -> String {
        pcr.to_string()
    }
}

impl std::fmt::Display for Pcr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl std::fmt::Debug for Pcr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pcr({self})")
    }
}

/// What an EIF must measure to. The JSON form is nitro-cli's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurements {
    #[serde(rename = "HashAlgorithm")]
    pub hash_algorithm: HashAlgorithm,
    /// Kernel, command line and all ramdisks.
    #[serde(rename = "PCR0")]
    pub pcr0: Pcr,
    /// Kernel, command line and the first ramdisk.
    #[serde(rename = "PCR1")]
    pub pcr1: Pcr,
    /// The later ramdisks.
    #[serde(rename = "PCR2")]
    pub pcr2: Pcr,
    /// The certificate that the image is signed with, if it is.
    #[serde(rename = "PCR8", default, skip_serializing_if = "Option::is_none")]
    pub pcr8: Option<Pcr>,
}

impl Measurements {
    /// Index and value of each.
    pub fn registers(&self) -> impl Iterator<Item = (u8, Pcr)> {
        let Measurements {
            hash_algorithm: HashAlgorithm::Sha384,
            pcr0,
            pcr1,
            pcr2,
            pcr8,
        } = *self;
        [(0, Some(pcr0)), (1, Some(pcr1)), (2, Some(pcr2)), (8, pcr8)]
            .into_iter()
            .filter_map(|(index, pcr)| Some((index, pcr?)))
    }
}

/// nitro-cli prints the Rust debug form of its hash type; people parse it, so we print the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HashAlgorithm {
    #[default]
    #[serde(rename = "Sha384 { ... }")]
    Sha384,
}

/// The registers of a document: index 0 to 31. A register that is missing is not zero.
/// In JSON a map from index to digits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pcrs(BTreeMap<u8, Pcr>);

/// The first register that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("PCR{index} is {}, expected {expected}", found.map_or("missing".to_owned(), |pcr| pcr.to_string()))]
pub struct Mismatch {
    pub index: u8,
    pub expected: Pcr,
    pub found: Option<Pcr>,
}

impl Pcrs {
    pub fn get(&self, index: u8) -> Option<&Pcr> {
        self.0.get(&index)
    }

    pub fn iter(&self) -> impl Iterator<Item = (u8, &Pcr)> {
        self.0.iter().map(|(index, pcr)| (*index, pcr))
    }

    /// Adds a register; `false` if it was there already.
    pub(crate) fn insert(&mut self, index: u8, pcr: Pcr) -> bool {
        self.0.insert(index, pcr).is_none()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether these may be an enclave's in debug mode. AWS zeroes PCR0, 1 and 2 there, and no other; since they are there and not
    /// zero otherwise, one that is zero or missing suffices.
    pub fn debug(&self) -> bool {
        (0..3).any(|index| self.get(index).is_none_or(|pcr| *pcr == Pcr::ZERO))
    }

    /// Compares PCR0, 1, 2, and 8 if one is expected. Zero registers, as an enclave in debug mode has, are a mismatch
    /// like any other.
    pub fn expect(&self, expected: &Measurements) -> Result<(), Mismatch> {
        for (index, expected) in expected.registers() {
            let found = self.get(index).copied();
            if found != Some(expected) {
                return Err(Mismatch {
                    index,
                    expected,
                    found,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extends_from_zero_like_the_hypervisor() {
        // PCR2 of every EIF with a single ramdisk: the content is empty.
        let empty = Pcr::of_content_hash(Sha384::digest([]).into());
        assert_eq!(
            empty.to_string(),
            "21b9efbc184807662e966d34f390821309eeac6802309798826296bf3e8bec7c10edb30948c90ba67310f7b964fc500a"
        );
    }

    #[test]
    fn parses_only_48_bytes_of_hexadecimal() {
        let pcr: Pcr = "0A".repeat(48).parse().unwrap();
        assert_eq!(pcr.to_string(), "0a".repeat(48));
        assert_eq!("0a".repeat(32).parse::<Pcr>(), Err(PcrError::Length(32)));
        assert!(matches!("zz".parse::<Pcr>(), Err(PcrError::Hex(_))));
    }

    #[test]
    fn a_missing_register_is_not_a_zero_one() {
        let expected = Measurements {
            hash_algorithm: HashAlgorithm::Sha384,
            pcr0: Pcr::ZERO,
            pcr1: Pcr::ZERO,
            pcr2: Pcr::ZERO,
            pcr8: None,
        };
        let mut pcrs = Pcrs::default();
        assert_eq!(
            pcrs.expect(&expected),
            Err(Mismatch {
                index: 0,
                expected: Pcr::ZERO,
                found: None
            })
        );
        for index in 0..3 {
            assert!(pcrs.insert(index, Pcr::ZERO));
        }
        assert_eq!(pcrs.expect(&expected), Ok(()));
        assert!(!pcrs.insert(2, Pcr::ZERO));
    }
}
