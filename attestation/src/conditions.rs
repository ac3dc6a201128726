//! Conditions as people and programs write them, in TOML, in JSON or in code.
//! [`Policy`](crate::Policy) checks that they make sense.

use crate::kind::Kind;
use crate::max_age::MaxAge;
use crate::origin::Origin;
use crate::pcr::{Measurements, Pcr};
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The time at which certificates must be valid.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ValidityTime {
    /// The time of the verification, which the caller gives.
    #[default]
    Now,
    /// The document's own timestamp, for archived documents and verifiers without a clock. An old
    /// document then passes like a new one, so this requires a nonce of at least 8 bytes.
    Document,
}

/// Everything that a policy can ask for. What is left out is not checked, except that the document
/// must come from an enclave, which must not run in debug mode, and that a document without a nonce
/// must be fresh.
///
/// In a file, unknown keys are errors. The output of `eif-builder build --json` is such a file; its
/// keys `eif`, `image`, `parts` and `cautions` are for people and mean nothing here.
///
/// ```
/// let conditions: attestation::Conditions = toml::from_str(&format!(
///     r#"
///     role_arn = "arn:aws:iam::111122223333:role/orders" # PCR3
///     max_age_seconds = 300
///     [pcrs]
///     0 = ["{}", "{}"] # either, while a new version rolls out
///     "#,
///     "3d".repeat(48),
///     "2a".repeat(48),
/// ))?;
/// assert_eq!(conditions.pcrs.get(&0).map(|allowed| allowed.len()), Some(2));
/// assert!(toml::from_str::<attestation::Conditions>("max_age = 300").is_err());
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Conditions {
    /// The product that the document comes from; an enclave by default.
    pub kind: Kind,
    /// The values that are allowed for each register, by index, 0 to 31.
    #[serde(deserialize_with = "registers")]
    pub pcrs: BTreeMap<u8, BTreeSet<Pcr>>,
    /// PCR0, 1, 2, and 8 if present, as builders print them.
    pub measurements: Option<Measurements>,
    /// PCR3: the ARN of the parent instance's IAM role.
    pub role_arn: Option<String>,
    /// PCR4: the id of the parent instance, `i-…`.
    pub instance_id: Option<String>,
    /// PCR8: the certificate that the image is signed with, in PEM.
    pub signing_certificate: Option<String>,
    /// PCR16 must be extended and locked: the enclave opened a sealed config. Which one only a value
    /// for PCR16 says. Builders write it for images whose spec declares a config.
    pub sealed_config: bool,
    /// The nonce that the document must carry: 1 to 1024 bytes; 8 to 64 to stay within EAT (RFC
    /// 9711, 4.1). In hexadecimal in files.
    #[serde(deserialize_with = "digits")]
    pub nonce: Option<Vec<u8>>,
    /// Makes [`Policy::new`](crate::Policy::new) fail unless a nonce is set.
    pub require_nonce: bool,
    /// The public key that the document must carry: at most 1024 bytes. In hexadecimal in files.
    #[serde(deserialize_with = "digits")]
    pub public_key: Option<Vec<u8>>,
    /// The user data that the document must carry: at most 1024 bytes. If empty, the document must
    /// carry empty user data, not none. With an origin, what must follow its tag: at most
    /// [`Origin::MAX_USER_DATA`] bytes. In hexadecimal in files.
    #[serde(deserialize_with = "digits")]
    pub user_data: Option<Vec<u8>>,
    /// For whom the agent of a Redoubt enclave must have had the document made. Documents of other
    /// enclaves have no origin.
    pub origin: Option<Origin>,
    /// The greatest age of the document: 5 minutes by default if there is no nonce. In files
    /// `max_age_seconds`.
    #[serde(rename = "max_age_seconds")]
    pub max_age: MaxAge,
    /// The time at which certificates must be valid. [`ValidityTime::Document`] requires a nonce of
    /// at least 8 bytes.
    pub time: ValidityTime,
    /// How far the caller's clock may be off in either direction, in seconds: at most 600; 60 by
    /// default.
    pub clock_skew_seconds: Option<u64>,
    /// Accepts enclaves in debug mode, whose PCR0, 1 and 2 are zero. For tests only: the parent
    /// instance can read their memory.
    pub allow_debug: bool,
    #[doc(hidden)]
    pub eif: Option<IgnoredAny>,
    #[doc(hidden)]
    pub image: Option<IgnoredAny>,
    #[doc(hidden)]
    pub parts: Option<IgnoredAny>,
    #[doc(hidden)]
    pub cautions: Option<IgnoredAny>,
}

fn digits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
    let text = String::deserialize(deserializer)?;
    hex::decode(&text)
        .map(Some)
        .map_err(|e| D::Error::custom(format!("expected hexadecimal digits: {e}")))
}

type Registers = BTreeMap<u8, BTreeSet<Pcr>>;

/// `{"0": "…", "PCR8": ["…", "…"]}`; each register once.
fn registers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Registers, D::Error> {
    deserializer.deserialize_map(RegistersVisitor)
}

struct RegistersVisitor;

#[derive(Deserialize)]
#[serde(untagged)]
#[serde(expecting = "a register is 96 hexadecimal digits, or a list of such")]
enum Values {
    One(Pcr),
    Any(BTreeSet<Pcr>),
}

impl<'de> Visitor<'de> for RegistersVisitor {
    type Value = Registers;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PCR indexes and their values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Registers, A::Error> {
        let mut registers = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            let digits = key.strip_prefix("PCR").unwrap_or(&key);
            let index: u8 = digits.parse().map_err(|_| {
                A::Error::custom(format!("{key:?} is not the index of a PCR (0 to 31)"))
            })?;
            let values = match map.next_value::<Values>()? {
                Values::One(pcr) => BTreeSet::from([pcr]),
                Values::Any(pcrs) => pcrs,
            };
            if registers.insert(index, values).is_some() {
                return Err(A::Error::custom(format!("PCR{index} occurs twice")));
            }
        }
        Ok(registers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toml(text: &str) -> Result<Conditions, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn refuses_keys_that_it_does_not_know_or_sees_twice() {
        let a = "01".repeat(48);
        for bad in [
            "pcr0 = 1".to_owned(),
            "time = \"yesterday\"".to_owned(),
            "nonce = \"xyz\"".to_owned(),
            format!("[pcrs]\nx = \"{a}\""),
            format!("[pcrs]\n256 = \"{a}\""),
            "[pcrs]\n0 = \"0101\"".to_owned(),
            format!("[pcrs]\n0 = \"{a}\"\nPCR0 = \"{a}\""),
        ] {
            assert!(toml(&bad).is_err(), "{bad}");
        }
        let json = format!(r#"{{"pcrs": {{"0": "{a}", "0": "{a}"}}}}"#);
        let error = serde_json::from_str::<Conditions>(&json)
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("PCR0 occurs twice"), "{error}");
    }
}
