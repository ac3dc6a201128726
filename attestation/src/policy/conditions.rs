//! Conditions as people and programs write them, in TOML, in JSON or in code; and the way from there to a [`Policy`].

use super::{CODE, Clock, MEASURED, Policy};
use crate::{Measurements, Pcr};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use sha2::{Digest as _, Sha384};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The NSM takes so many bytes (nsm-api, nsm-check).
const MAX_FIELD: usize = 1024;
const MAX_PCR_INDEX: u8 = 31;
/// What EAT asks of every nonce (RFC 9711, 4.1). In bytes.
const MIN_SOLE_NONCE: usize = 8;
/// Clocks that are set by NTP differ by less; a leaf certificate is valid 3 seconds before it is first used.
const DEFAULT_CLOCK_SKEW: Duration = Duration::from_secs(60);
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(600);

/// Everything that can be asked for. What is left out is not looked at, except that debug mode is refused.
///
/// In a file, unknown keys are errors. What `eif-builder build --json` prints is such a file: `eif` and `image` are for
/// people and mean nothing here.
///
/// ```toml
/// role_arn = "arn:aws:iam::111122223333:role/orders"    # PCR3
/// max_age_seconds = 300
/// [pcrs]
/// 0 = ["<96 digits>", "<96 digits>"]                    # one of these, while a new version rolls out
/// ```
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Conditions {
    /// For each index, the values that are allowed.
    #[serde(deserialize_with = "registers")]
    pub pcrs: BTreeMap<u8, BTreeSet<Pcr>>,
    /// PCR0, 1, 2, and 8 if it is there, as builders print them.
    pub measurements: Option<Measurements>,
    /// PCR3: the IAM role of the parent instance.
    pub role_arn: Option<String>,
    /// PCR4: the parent instance, `i-…`.
    pub instance_id: Option<String>,
    /// PCR8: the certificate, in PEM, with whose key the image was signed.
    pub signing_certificate: Option<String>,
    /// PCR16 must be there and extended: a sealed config was opened.
    pub sealed_config: bool,
    /// The nonce that the document must answer, 1 to 1024 bytes, 8 to 64 for the sake of other formats (EAT).
    #[serde(deserialize_with = "digits")]
    pub nonce: Option<Vec<u8>>,
    /// Refuses to become a policy until a nonce is set.
    pub require_nonce: bool,
    #[serde(deserialize_with = "digits")]
    pub public_key: Option<Vec<u8>>,
    /// May be empty: then the document must carry empty user data, not none.
    #[serde(deserialize_with = "digits")]
    pub user_data: Option<Vec<u8>>,
    /// How old the document may be. Without it, the enclave's certificate decides: it lives for three hours.
    pub max_age_seconds: Option<u64>,
    /// At which time certificates must be valid. With [`Clock::Document`] a nonce of 8 bytes at least is needed.
    pub time: Clock,
    /// How far the caller's clock may be off, either way: 60 unless told otherwise, at most 600.
    pub clock_skew_seconds: Option<u64>,
    /// Accepts enclaves in debug mode, whose PCR0, 1 and 2 are zero. For tests: the parent reads their memory.
    pub allow_debug: bool,
    #[doc(hidden)]
    pub eif: Option<IgnoredAny>,
    #[doc(hidden)]
    pub image: Option<IgnoredAny>,
}

/// Why conditions make no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error(
        "nothing in this policy says which code may run, so any enclave would pass: name PCR0 (eif-builder build --json prints it), or another of PCR0 to 15"
    )]
    NoConditions,
    #[error("PCR{0} is asked for twice, with different values")]
    Conflict(u8),
    #[error("there is no PCR{0}; the highest is 31")]
    Index(u8),
    #[error("no value for PCR{0} is allowed")]
    Empty(u8),
    #[error("{0:?} is not the ARN of an IAM role (arn:aws:iam::111122223333:role/name)")]
    RoleArn(String),
    #[error("{0:?} is not the id of an instance (i-0123456789abcdef0)")]
    InstanceId(String),
    #[error("the signing certificate is not one in PEM")]
    SigningCertificate,
    #[error("a nonce has 1 to 1024 bytes, this one has {0}")]
    NonceLength(usize),
    #[error("the policy requires a nonce; give the one that the enclave was asked with")]
    NonceMissing,
    #[error(
        "the document's own time proves nothing without a nonce: give one, or use the time now"
    )]
    DocumentTimeWithoutNonce,
    #[error(
        "with the document's own time the nonce is all that keeps old documents out: {MIN_SOLE_NONCE} bytes at least, this one has {0}"
    )]
    ShortNonce(usize),
    #[error("{field} has at most 1024 bytes in a document, this one has {len}")]
    FieldLength { field: &'static str, len: usize },
    #[error("a clock skew of {0} seconds is too much; 600 is the limit")]
    ClockSkew(u64),
}

impl Policy {
    pub fn new(conditions: Conditions) -> Result<Policy, PolicyError> {
        let registers = all_registers(&conditions)?;
        let Conditions {
            pcrs: _,
            measurements: _,
            role_arn: _,
            instance_id: _,
            signing_certificate: _,
            sealed_config,
            nonce,
            require_nonce,
            public_key,
            user_data,
            max_age_seconds,
            time,
            clock_skew_seconds,
            allow_debug,
            eif: _,
            image: _,
        } = conditions;
        // Zero is what a register holds that nothing was measured into: PCR8 of every unsigned image, for one. Only in debug mode
        // does it say something, and only of the three registers that are never zero otherwise.
        let tells_code = |(index, allowed): (&u8, &BTreeSet<Pcr>)| {
            let zero = allowed.contains(&Pcr::ZERO);
            *index < MEASURED && (!zero || (allow_debug && *index < CODE))
        };
        if !registers.iter().any(tells_code) {
            return Err(PolicyError::NoConditions);
        }
        match &nonce {
            Some(nonce) if !(1..=MAX_FIELD).contains(&nonce.len()) => {
                return Err(PolicyError::NonceLength(nonce.len()));
            }
            None if require_nonce => return Err(PolicyError::NonceMissing),
            None if time == Clock::Document => return Err(PolicyError::DocumentTimeWithoutNonce),
            Some(nonce) if time == Clock::Document && nonce.len() < MIN_SOLE_NONCE => {
                return Err(PolicyError::ShortNonce(nonce.len()));
            }
            _ => {}
        }
        for (field, value) in [("public_key", &public_key), ("user_data", &user_data)] {
            if let Some(value) = value.as_ref().filter(|value| value.len() > MAX_FIELD) {
                return Err(PolicyError::FieldLength {
                    field,
                    len: value.len(),
                });
            }
        }
        let clock_skew = clock_skew_seconds.map_or(DEFAULT_CLOCK_SKEW, Duration::from_secs);
        if clock_skew > MAX_CLOCK_SKEW {
            return Err(PolicyError::ClockSkew(clock_skew.as_secs()));
        }
        Ok(Policy {
            registers,
            sealed_config,
            allow_debug,
            nonce,
            public_key,
            user_data,
            max_age: max_age_seconds.map(Duration::from_secs),
            clock: time,
            clock_skew,
        })
    }
}

fn all_registers(conditions: &Conditions) -> Result<BTreeMap<u8, BTreeSet<Pcr>>, PolicyError> {
    let mut registers = conditions.pcrs.clone();
    if let Some((index, _)) = registers.iter().find(|(index, _)| **index > MAX_PCR_INDEX) {
        return Err(PolicyError::Index(*index));
    }
    if let Some((index, _)) = registers.iter().find(|(_, allowed)| allowed.is_empty()) {
        return Err(PolicyError::Empty(*index));
    }
    let mut ask = |index, pcr| match registers.insert(index, BTreeSet::from([pcr])) {
        Some(other) if other != BTreeSet::from([pcr]) => Err(PolicyError::Conflict(index)),
        _ => Ok(()),
    };
    if let Some(measurements) = &conditions.measurements {
        for (index, pcr) in measurements.registers() {
            ask(index, pcr)?;
        }
    }
    if let Some(arn) = &conditions.role_arn {
        ask(
            3,
            role(arn).ok_or_else(|| PolicyError::RoleArn(arn.clone()))?,
        )?;
    }
    if let Some(id) = &conditions.instance_id {
        ask(
            4,
            instance(id).ok_or_else(|| PolicyError::InstanceId(id.clone()))?,
        )?;
    }
    if let Some(pem) = &conditions.signing_certificate {
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| PolicyError::SigningCertificate)?;
        ask(8, Pcr::of_content_hash(Sha384::digest(&der).into()))?;
    }
    Ok(registers)
}

/// `arn:PARTITION:iam::ACCOUNT:role/[PATH/]NAME`.
fn role(arn: &str) -> Option<Pcr> {
    let [prefix, partition, "iam", "", account, resource] =
        *arn.splitn(6, ':').collect::<Vec<_>>().as_slice()
    else {
        return None;
    };
    let name = resource.strip_prefix("role/")?;
    let valid = prefix == "arn"
        && partition.starts_with("aws")
        && account.len() == 12
        && account.bytes().all(|b| b.is_ascii_digit())
        && !name.is_empty()
        && arn.bytes().all(|b| b.is_ascii_graphic());
    valid.then(|| Pcr::of_name(arn))
}

fn instance(id: &str) -> Option<Pcr> {
    let digits = id.strip_prefix("i-")?;
    let valid = matches!(digits.len(), 8 | 17)
        && digits
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    valid.then(|| Pcr::of_name(id))
}

fn digits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
    let text = String::deserialize(deserializer)?;
    hex::decode(&text)
        .map(Some)
        .map_err(|e| D::Error::custom(format!("expected hexadecimal digits: {e}")))
}

/// `{"0": "…", "PCR8": ["…", "…"]}`; each register once.
fn registers<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<u8, BTreeSet<Pcr>>, D::Error> {
    struct Registers;

    #[derive(Deserialize)]
    #[serde(untagged)]
    #[serde(expecting = "a register is 96 hexadecimal digits, or a list of such")]
    enum Values {
        One(Pcr),
        Any(BTreeSet<Pcr>),
    }

    impl<'de> Visitor<'de> for Registers {
        type Value = BTreeMap<u8, BTreeSet<Pcr>>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("PCR indexes and their values")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
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
                    return Err(A::Error::custom(format!("PCR{index} is there twice")));
                }
            }
            Ok(registers)
        }
    }

    deserializer.deserialize_map(Registers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pcr(byte: u8) -> Pcr {
        Pcr::try_from([byte; 48].as_slice()).unwrap()
    }

    fn with(change: impl FnOnce(&mut Conditions)) -> Result<Policy, PolicyError> {
        let mut conditions = Conditions {
            pcrs: [(0, [pcr(1)].into())].into(),
            ..Conditions::default()
        };
        change(&mut conditions);
        Policy::new(conditions)
    }

    #[test]
    fn a_policy_says_which_code_may_run() {
        assert!(with(|_| ()).is_ok());
        let without = |change: fn(&mut Conditions)| {
            with(|conditions| {
                conditions.pcrs.clear();
                change(conditions);
            })
            .map(drop)
        };
        let none = Err(PolicyError::NoConditions);
        assert_eq!(without(|_| ()), none);
        assert_eq!(without(|c| c.nonce = Some(vec![1; 8])), none);
        assert_eq!(without(|c| c.user_data = Some(vec![1; 8])), none);
        assert_eq!(without(|c| c.max_age_seconds = Some(1)), none);
        assert_eq!(without(|c| c.sealed_config = true), none);
        assert_eq!(without(|c| c.allow_debug = true), none);
        assert_eq!(
            without(|c| c.pcrs = [(16, [pcr(1)].into())].into()),
            none,
            "any code may extend PCR16"
        );
        assert_eq!(
            without(|c| c.pcrs = [(8, [Pcr::ZERO].into())].into()),
            none,
            "every unsigned image has that"
        );
        assert_eq!(
            without(|c| c.pcrs = [(0, [pcr(1), Pcr::ZERO].into())].into()),
            none
        );
        let debug =
            |c: &mut Conditions| (c.pcrs, c.allow_debug) = ([(0, [Pcr::ZERO].into())].into(), true);
        assert_eq!(without(debug), Ok(()));
        let beside =
            |c: &mut Conditions| (c.pcrs, c.allow_debug) = ([(8, [Pcr::ZERO].into())].into(), true);
        assert_eq!(
            without(beside),
            none,
            "PCR8 is zero in most enclaves, debug or not"
        );
        assert_eq!(
            without(|c| c.instance_id = Some("i-0123abcd".to_owned())),
            Ok(())
        );
    }

    #[test]
    fn knows_when_the_code_is_not_fixed() {
        let names = |indexes: &[u8]| {
            let conditions = Conditions {
                pcrs: indexes
                    .iter()
                    .map(|index| (*index, [pcr(1)].into()))
                    .collect(),
                ..Conditions::default()
            };
            Policy::new(conditions).unwrap().names_code()
        };
        assert!(names(&[0]) && names(&[8]) && names(&[1, 2]));
        assert!(!names(&[1]) && !names(&[2]) && !names(&[3, 4]));
        let zero = [(4, [pcr(1)].into()), (8, [Pcr::ZERO].into())].into();
        let policy = Policy::new(Conditions {
            pcrs: zero,
            ..Conditions::default()
        })
        .unwrap();
        assert!(!policy.names_code(), "every unsigned image has a zero PCR8");
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        assert_eq!(
            with(|c| c.nonce = Some(vec![])),
            Err(PolicyError::NonceLength(0))
        );
        assert!(with(|c| c.nonce = Some(vec![0; 1024])).is_ok());
        assert_eq!(
            with(|c| c.nonce = Some(vec![0; 1025])),
            Err(PolicyError::NonceLength(1025))
        );
        assert_eq!(
            with(|c| c.require_nonce = true),
            Err(PolicyError::NonceMissing)
        );
        assert_eq!(
            with(|c| c.time = Clock::Document),
            Err(PolicyError::DocumentTimeWithoutNonce)
        );
        let own_time = |len: usize| {
            with(|c| (c.time, c.nonce) = (Clock::Document, Some(vec![1; len]))).map(drop)
        };
        assert_eq!(
            (own_time(7), own_time(8)),
            (Err(PolicyError::ShortNonce(7)), Ok(()))
        );
        assert_eq!(
            with(|c| c.clock_skew_seconds = Some(601)),
            Err(PolicyError::ClockSkew(601))
        );
        assert_eq!(
            with(|c| c.user_data = Some(vec![0; 1025])),
            Err(PolicyError::FieldLength {
                field: "user_data",
                len: 1025
            })
        );
        assert_eq!(
            with(|c| drop(c.pcrs.insert(32, [pcr(1)].into()))),
            Err(PolicyError::Index(32))
        );
        assert_eq!(
            with(|c| drop(c.pcrs.insert(3, BTreeSet::new()))),
            Err(PolicyError::Empty(3))
        );
        let twice = with(|c| {
            c.pcrs.insert(4, [pcr(1)].into());
            c.instance_id = Some("i-0123abcd".to_owned());
        });
        assert_eq!(twice, Err(PolicyError::Conflict(4)));
        for id in ["i-", "i-0123ABCD", "i-0123abc", "0123abcd", "i-0123abcd "] {
            assert_eq!(
                with(|c| c.instance_id = Some(id.to_owned())),
                Err(PolicyError::InstanceId(id.to_owned()))
            );
        }
        for arn in [
            "arn:aws:iam::12345678901:role/x",
            "arn:aws:iam::123456789012:role/",
            "arn:aws:iam::123456789012:user/x",
            "arn:aws:sts::123456789012:assumed-role/x/y",
            "arn:aws:iam:us-east-1:123456789012:role/x",
            "arn:aws:iam::123456789012:role/x\n",
        ] {
            assert_eq!(
                with(|c| c.role_arn = Some(arn.to_owned())),
                Err(PolicyError::RoleArn(arn.to_owned()))
            );
        }
        assert_eq!(
            with(|c| c.signing_certificate = Some("x".to_owned())),
            Err(PolicyError::SigningCertificate)
        );
    }

    /// The vector is from the tests of qos_nsm; instance ids are tested against documents of real enclaves.
    #[test]
    fn pcr3_is_made_of_the_role() {
        assert_eq!(
            role("arn:aws:iam::123456789012:role/Webserver")
                .unwrap()
                .to_string(),
            "78fce75db17cd4e0a3fb8dad3ad128ca5e77edbb2b2c7f75329dccd99aa5f6ef4fc1f1a452e315b9e98f9e312e6921e6"
        );
        assert!(role("arn:aws-us-gov:iam::123456789012:role/path/to/Webserver").is_some());
    }

    fn toml(text: &str) -> Result<Conditions, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn reads_toml_and_json() {
        let (a, b) = ("01".repeat(48), "02".repeat(48));
        let all = format!(
            r#"
            role_arn = "arn:aws:iam::123456789012:role/x"
            instance_id = "i-0123abcd"
            sealed_config = true
            nonce = "0102030405060708"
            require_nonce = true
            public_key = "ab"
            user_data = ""
            max_age_seconds = 300
            time = "document"
            clock_skew_seconds = 5
            allow_debug = true
            [pcrs]
            0 = ["{a}", "{b}"]
            PCR2 = "{a}"
            "#
        );
        let conditions = toml(&all).unwrap();
        assert_eq!(
            conditions.pcrs,
            [(0, [pcr(1), pcr(2)].into()), (2, [pcr(1)].into())].into()
        );
        let policy = Policy::new(conditions).unwrap();
        assert_eq!(
            policy.registers.keys().copied().collect::<Vec<_>>(),
            [0, 2, 3, 4]
        );
        assert_eq!(
            (policy.clock, policy.clock_skew.as_secs()),
            (Clock::Document, 5)
        );

        let built = format!(
            r#"{{"eif": "app.eif", "image": {{"reference": "x", "digest": "y"}},
                "measurements": {{"HashAlgorithm": "Sha384 {{ ... }}", "PCR0": "{a}", "PCR1": "{b}", "PCR2": "{b}"}}}}"#
        );
        let policy = Policy::new(serde_json::from_str(&built).unwrap()).unwrap();
        assert_eq!(
            policy.registers,
            [
                (0, [pcr(1)].into()),
                (1, [pcr(2)].into()),
                (2, [pcr(2)].into())
            ]
            .into()
        );
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
        assert!(error.starts_with("PCR0 is there twice"), "{error}");
    }
}
