//! What a relying party asks of a document beyond being genuine.
//!
//! [`Conditions`] are what a person or a program wrote down, in code or in a file; [`Policy`] is
//! what they become if they make sense.

mod error;
mod evaluate;
mod registers;

pub use error::PolicyError;

use crate::conditions::{Conditions, ValidityTime};
use crate::kind::Kind;
use crate::limits::MAX_FIELD;
use crate::origin::Origin;
use crate::pcr::{FIRST_UNLOCKED, Pcr};
use error::MIN_SOLE_NONCE;
use registers::Registers;
use std::collections::BTreeSet;
use std::time::Duration;

/// PCR0, 1 and 2 measure the image, and are zero in debug mode only.
const FIRST_AFTER_CODE: u8 = 3;
/// Clocks that NTP sets differ by less; an enclave's certificate is valid from 3 seconds before it
/// is first used.
const DEFAULT_CLOCK_SKEW: Duration = Duration::from_secs(60);
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(600);

/// Conditions that make sense. At least one restricts which code may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    kind: Kind,
    registers: Registers,
    sealed_config: bool,
    allow_debug: bool,
    nonce: Option<Vec<u8>>,
    public_key: Option<Vec<u8>>,
    user_data: Option<Vec<u8>>,
    origin: Option<Origin>,
    max_age: Option<Duration>,
    validity_time: ValidityTime,
    clock_skew: Duration,
}

impl Policy {
    /// Checks that `conditions` restrict the code, do not contradict each other and can be met at
    /// all.
    ///
    /// ```
    /// use attestation::{Conditions, Policy, PolicyError};
    ///
    /// let built = format!(
    ///     r#"{{"measurements": {{
    ///         "HashAlgorithm": "Sha384 {{ ... }}", "PCR0": "{0}", "PCR1": "{0}", "PCR2": "{0}"
    ///     }}}}"#,
    ///     "3d".repeat(48)
    /// );
    /// let conditions: Conditions = serde_json::from_str(&built)?;
    /// assert!(Policy::new(conditions)?.fixes_code());
    ///
    /// let any_enclave = Conditions { nonce: Some(vec![7; 32]), ..Conditions::default() };
    /// assert_eq!(Policy::new(any_enclave), Err(PolicyError::NoConditions));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`PolicyError`] names the condition: on registers first, then on the nonce, the other fields
    /// and the clock.
    pub fn new(conditions: Conditions) -> Result<Policy, PolicyError> {
        let registers = registers::allowed(&conditions)?;
        let Conditions {
            kind,
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
            origin,
            max_age,
            time,
            clock_skew_seconds,
            allow_debug,
            eif: _,
            image: _,
            parts: _,
            cautions: _,
        } = conditions;
        check_code(&registers, allow_debug)?;
        check_nonce(nonce.as_deref(), require_nonce, time)?;
        let of_user_data = origin.map_or(MAX_FIELD, |_| Origin::MAX_USER_DATA);
        check_length("public_key", public_key.as_deref(), MAX_FIELD)?;
        check_length("user_data", user_data.as_deref(), of_user_data)?;
        Ok(Policy {
            kind,
            registers,
            sealed_config,
            allow_debug,
            max_age: max_age.limit(nonce.is_some()),
            nonce,
            public_key,
            user_data,
            origin,
            validity_time: time,
            clock_skew: clock_skew(clock_skew_seconds)?,
        })
    }

    /// The time at which certificates must be valid.
    pub fn validity_time(&self) -> ValidityTime {
        self.validity_time
    }

    pub(crate) fn clock_skew(&self) -> Duration {
        self.clock_skew
    }

    /// Whether a document that passes can only come from code that the policy's author chose: it
    /// asks for PCR0, for PCR8, or for PCR1 and PCR2. Other registers leave the code open; PCR1
    /// alone does not even fix what runs at boot, since a later ramdisk replaces files of an
    /// earlier one.
    pub fn fixes_code(&self) -> bool {
        let asks = |index| {
            self.registers
                .get(&index)
                .is_some_and(|allowed| !allowed.contains(&Pcr::ZERO))
        };
        asks(0) || asks(8) || (asks(1) && asks(2))
    }
}

/// Zero is what a register holds that was never extended: PCR8 of every unsigned image, for one. It
/// restricts the code in debug mode only, and only in the three registers that are never zero
/// otherwise.
fn check_code(registers: &Registers, allow_debug: bool) -> Result<(), PolicyError> {
    let restricts = |(index, allowed): (&u8, &BTreeSet<Pcr>)| {
        let zero = allowed.contains(&Pcr::ZERO);
        *index < FIRST_UNLOCKED && (!zero || (allow_debug && *index < FIRST_AFTER_CODE))
    };
    if registers.iter().any(restricts) {
        Ok(())
    } else {
        Err(PolicyError::NoConditions)
    }
}

fn check_nonce(
    nonce: Option<&[u8]>,
    required: bool,
    time: ValidityTime,
) -> Result<(), PolicyError> {
    let own_time = time == ValidityTime::Document;
    match nonce.map(<[u8]>::len) {
        None if required => Err(PolicyError::NonceMissing),
        None if own_time => Err(PolicyError::DocumentTimeWithoutNonce),
        Some(len) if !(1..=MAX_FIELD).contains(&len) => Err(PolicyError::NonceLength(len)),
        Some(len) if own_time && len < MIN_SOLE_NONCE => Err(PolicyError::ShortNonce(len)),
        _ => Ok(()),
    }
}

fn check_length(
    field: &'static str,
    value: Option<&[u8]>,
    limit: usize,
) -> Result<(), PolicyError> {
    match value.map(<[u8]>::len) {
        Some(len) if len > limit => Err(PolicyError::FieldLength { field, len, limit }),
        _ => Ok(()),
    }
}

fn clock_skew(seconds: Option<u64>) -> Result<Duration, PolicyError> {
    let skew = seconds.map_or(DEFAULT_CLOCK_SKEW, Duration::from_secs);
    if skew > MAX_CLOCK_SKEW {
        return Err(PolicyError::ClockSkew(skew.as_secs()));
    }
    Ok(skew)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::max_age::MaxAge;

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
    fn a_policy_restricts_which_code_may_run() {
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
        assert_eq!(without(|c| c.max_age = MaxAge::Seconds(1)), none);
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
    fn tells_whether_the_code_is_fixed() {
        let fixes = |indexes: &[u8]| {
            let conditions = Conditions {
                pcrs: indexes
                    .iter()
                    .map(|index| (*index, [pcr(1)].into()))
                    .collect(),
                ..Conditions::default()
            };
            Policy::new(conditions).unwrap().fixes_code()
        };
        assert!(fixes(&[0]) && fixes(&[8]) && fixes(&[1, 2]));
        assert!(!fixes(&[1]) && !fixes(&[2]) && !fixes(&[3, 4]));
        let zero = [(4, [pcr(1)].into()), (8, [Pcr::ZERO].into())].into();
        let policy = Policy::new(Conditions {
            pcrs: zero,
            ..Conditions::default()
        })
        .unwrap();
        assert!(!policy.fixes_code(), "every unsigned image has a zero PCR8");
    }

    #[test]
    fn refuses_nonces_that_documents_cannot_answer() {
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
            with(|c| c.time = ValidityTime::Document),
            Err(PolicyError::DocumentTimeWithoutNonce)
        );
        let own_time = |len: usize| {
            with(|c| (c.time, c.nonce) = (ValidityTime::Document, Some(vec![1; len]))).map(drop)
        };
        assert_eq!(
            (own_time(7), own_time(8)),
            (Err(PolicyError::ShortNonce(7)), Ok(()))
        );
    }

    #[test]
    fn refuses_values_beyond_the_limits() {
        assert_eq!(
            with(|c| c.clock_skew_seconds = Some(601)),
            Err(PolicyError::ClockSkew(601))
        );
        assert_eq!(
            with(|c| c.user_data = Some(vec![0; 1025])),
            Err(PolicyError::FieldLength {
                field: "user_data",
                len: 1025,
                limit: 1024
            })
        );
        let tagged = |len: usize| {
            let origin = Some(Origin::Workload);
            with(|c| (c.user_data, c.origin) = (Some(vec![0; len]), origin)).map(drop)
        };
        assert_eq!(tagged(1005), Ok(()));
        assert_eq!(
            tagged(1006),
            Err(PolicyError::FieldLength {
                field: "user_data",
                len: 1006,
                limit: 1005
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
    }

    #[test]
    fn refuses_names_that_make_no_register() {
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

    #[test]
    fn reads_every_key_from_toml() {
        let (a, b) = ("01".repeat(48), "02".repeat(48));
        let all = format!(
            r#"
            kind = "any"
            role_arn = "arn:aws:iam::123456789012:role/x"
            instance_id = "i-0123abcd"
            sealed_config = true
            nonce = "0102030405060708"
            require_nonce = true
            public_key = "ab"
            user_data = ""
            origin = "workload"
            max_age_seconds = 300
            time = "document"
            clock_skew_seconds = 5
            allow_debug = true
            [pcrs]
            0 = ["{a}", "{b}"]
            PCR2 = "{a}"
            "#
        );
        let conditions: Conditions = toml::from_str(&all).unwrap();
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
            (policy.validity_time, policy.clock_skew.as_secs()),
            (ValidityTime::Document, 5)
        );
        assert_eq!(
            (policy.kind, policy.max_age),
            (Kind::Any, Some(Duration::from_secs(300)))
        );
        assert_eq!(policy.origin, Some(Origin::Workload));
    }

    #[test]
    fn reads_the_output_of_eif_builder() {
        let (a, b) = ("01".repeat(48), "02".repeat(48));
        let built = format!(
            r#"{{"eif": "app.eif", "image": {{"reference": "x", "digest": "y"}}, "parts": {{"kernel": "z"}},
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
}
