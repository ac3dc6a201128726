//! Platform configuration registers (PCRs): 48 bytes of SHA-384 each. Every crate of Redoubt uses
//! these types.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha384};
use std::collections::BTreeMap;

const LEN: usize = 48;

/// The hypervisor measures PCR0 to 15 and locks them at boot; an enclave's code can extend those
/// from here on.
pub(crate) const FIRST_UNLOCKED: u8 = 16;

/// The value of one register. Displayed as 96 lower-case hexadecimal digits; parsed in either case.
///
/// ```
/// use attestation::{Pcr, PcrError};
///
/// let pcr: Pcr = "3D".repeat(48).parse()?;
/// assert_eq!(pcr.to_string(), "3d".repeat(48));
/// assert_eq!(pcr.as_bytes(), &[0x3d; 48]);
/// assert_eq!("3d2a".parse::<Pcr>(), Err(PcrError::Length(2)));
/// # Ok::<(), PcrError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pcr([u8; LEN]);

/// Why bytes or text are not the value of a register.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PcrError {
    /// The value has another length than 48 bytes. Carries its length in bytes.
    #[error("a PCR is {LEN} bytes long, not {0}")]
    Length(usize),
    /// The text is not hexadecimal. Carries the reason.
    #[error("a PCR is written in hexadecimal: {0}")]
    Hex(String),
}

impl Pcr {
    /// What a register holds that was never extended, and PCR0, 1 and 2 in debug mode.
    pub const ZERO: Pcr = Pcr([0; LEN]);

    /// A register that started at zero and was extended once with the SHA-384 of some content, as
    /// the Nitro hypervisor does for PCR0, 1, 2 and 8 (aws-nitro-enclaves-image-format, "PCR").
    /// `content_hash` is that SHA-384.
    pub fn of_content_hash(content_hash: [u8; LEN]) -> Pcr {
        Pcr(Sha384::new()
            .chain_update([0; LEN])
            .chain_update(content_hash)
            .finalize()
            .into())
    }

    /// A register that the hypervisor extends with the name of something outside of the image: PCR3
    /// with the ARN of the parent's IAM role, PCR4 with its instance id (AWS user guide, "Where to
    /// get an enclave's measurements").
    pub(crate) fn of_name(name: &str) -> Pcr {
        Pcr(Sha384::new()
            .chain_update([0; LEN])
            .chain_update(name)
            .finalize()
            .into())
    }

    /// The 48 bytes.
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

/// The registers that an enclave image file (EIF) must produce. The JSON form is nitro-cli's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurements {
    /// The hash of the registers.
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
    /// The certificate that the image is signed with; `None` for unsigned images.
    #[serde(rename = "PCR8", default, skip_serializing_if = "Option::is_none")]
    pub pcr8: Option<Pcr>,
}

impl Measurements {
    /// Index and value of each register, in ascending order.
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

/// The hash of the registers. nitro-cli prints the Rust debug form of its hash type and tools parse
/// it, so this is written the same way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HashAlgorithm {
    /// SHA-384, the only one.
    #[default]
    #[serde(rename = "Sha384 { ... }")]
    Sha384,
}

/// The locked registers of a document, by index, 0 to 31. A missing register is not a zero one.
/// In JSON a map from index to hexadecimal digits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pcrs(BTreeMap<u8, Pcr>);

/// The first register that differs from what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("PCR{index} is {}, expected {expected}", found.map_or("missing".to_owned(), |pcr| pcr.to_string()))]
pub struct PcrMismatch {
    /// Its index.
    pub index: u8,
    /// What was expected.
    pub expected: Pcr,
    /// What the document has; `None` if the register is missing.
    pub found: Option<Pcr>,
}

impl Pcrs {
    /// The register with this index; `None` if it is missing.
    pub fn get(&self, index: u8) -> Option<&Pcr> {
        self.0.get(&index)
    }

    /// Index and value of each register, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &Pcr)> {
        self.0.iter().map(|(index, pcr)| (*index, pcr))
    }

    /// Adds a register; `false` if the index was taken.
    pub(crate) fn insert(&mut self, index: u8, pcr: Pcr) -> bool {
        self.0.insert(index, pcr).is_none()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether these can be the registers of an enclave in debug mode: PCR0, 1 or 2 is zero or
    /// missing. AWS zeroes these three there, and no other; otherwise they are present and not
    /// zero.
    pub fn debug(&self) -> bool {
        (0..3).any(|index| self.get(index).is_none_or(|pcr| *pcr == Pcr::ZERO))
    }

    /// Compares PCR0, 1, 2, and 8 if one is expected. Zero registers, as an enclave in debug mode
    /// has them, are a mismatch like any other.
    ///
    /// # Errors
    ///
    /// [`PcrMismatch`] for the register with the lowest index that differs or is missing.
    pub fn expect(&self, expected: &Measurements) -> Result<(), PcrMismatch> {
        for (index, expected) in expected.registers() {
            let found = self.get(index).copied();
            if found != Some(expected) {
                return Err(PcrMismatch {
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
            Err(PcrMismatch {
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
