//! What a relying party asks of a document beyond being genuine.
//!
//! [`Conditions`] are what somebody wrote down, in code or in a file; [`Policy`] is what is left when they make sense.

mod conditions;

pub use conditions::{Conditions, PolicyError};

use crate::document::Fields;
use crate::{Pcr, Time, crypto};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// PCR0 to 15 are measured by the hypervisor and locked at boot; an enclave's code writes to the others as it likes.
const MEASURED: u8 = 16;
/// PCR0, 1 and 2 are what the image measures to, and zero in debug mode only.
const CODE: u8 = 3;
/// Redoubt's agent extends it with the identity and version of the sealed config that it opened.
const SEALED_CONFIG: u8 = 16;

/// At which time certificates must be valid.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// The caller's time.
    #[default]
    Now,
    /// The time that the document gives, for archived documents and verifiers without a clock. An old document and its
    /// time are as good as new then, so it is allowed with a nonce only.
    Document,
}

/// Conditions that were found to make sense. There is at least one on the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    registers: BTreeMap<u8, BTreeSet<Pcr>>,
    sealed_config: bool,
    allow_debug: bool,
    nonce: Option<Vec<u8>>,
    public_key: Option<Vec<u8>>,
    user_data: Option<Vec<u8>>,
    max_age: Option<Duration>,
    clock: Clock,
    clock_skew: Duration,
}

/// What a check looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    Pcr(u8),
    Debug,
    SealedConfig,
    Nonce,
    PublicKey,
    UserData,
    Age,
}

/// One condition and what the document has there, in the words of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    pub subject: Subject,
    pub holds: bool,
    pub expected: String,
    pub found: String,
}

impl Policy {
    /// At which time this policy holds certificates.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    pub(crate) fn clock_skew(&self) -> Duration {
        self.clock_skew
    }

    /// Whether a document that passes can only come from code that somebody chose: PCR0, PCR8, or PCR1 with PCR2 is asked
    /// for. Others leave the code open; PCR1 alone does not even fix what runs at boot, since a later ramdisk replaces
    /// files of an earlier one.
    pub fn names_code(&self) -> bool {
        let asks = |index| {
            self.registers
                .get(&index)
                .is_some_and(|allowed| !allowed.contains(&Pcr::ZERO))
        };
        asks(0) || asks(8) || (asks(1) && asks(2))
    }

    /// Every condition, held against a document that is genuine.
    pub(crate) fn check(&self, fields: &Fields<'_>, now: Time) -> Vec<Check> {
        let mut checks = vec![self.check_debug(fields)];
        checks.extend(self.registers.iter().map(|(&index, allowed)| {
            let found = fields.pcrs.get(index);
            Check {
                subject: Subject::Pcr(index),
                holds: found.is_some_and(|pcr| allowed.contains(pcr)),
                expected: allowed
                    .iter()
                    .map(Pcr::to_string)
                    .collect::<Vec<_>>()
                    .join(" or "),
                found: found.map_or_else(missing, Pcr::to_string),
            }
        }));
        if self.sealed_config {
            let found = fields.pcrs.get(SEALED_CONFIG);
            checks.push(Check {
                subject: Subject::SealedConfig,
                holds: found.is_some_and(|pcr| *pcr != Pcr::ZERO),
                expected: "PCR16 extended and locked".to_owned(),
                found: found.map_or_else(missing, Pcr::to_string),
            });
        }
        let bytes = [
            (Subject::Nonce, &self.nonce, fields.nonce),
            (Subject::PublicKey, &self.public_key, fields.public_key),
            (Subject::UserData, &self.user_data, fields.user_data),
        ];
        checks.extend(bytes.into_iter().filter_map(|(subject, expected, found)| {
            let expected = expected.as_ref()?;
            Some(Check {
                subject,
                holds: found.is_some_and(|found| crypto::equal(found, expected)),
                expected: quoted(expected),
                found: found.map_or_else(missing, quoted),
            })
        }));
        checks.extend(
            self.max_age
                .map(|max_age| self.check_age(max_age, fields.timestamp, now)),
        );
        checks
    }

    /// By the caller's clock, whatever time the certificates are held against.
    fn check_age(&self, max_age: Duration, timestamp: Time, now: Time) -> Check {
        let from_the_future = now.plus(self.clock_skew) < timestamp;
        let age = now.since(timestamp).unwrap_or_default();
        Check {
            subject: Subject::Age,
            holds: !from_the_future && age <= max_age,
            expected: format!("at most {} s", max_age.as_secs()),
            found: match from_the_future {
                true => format!("made {timestamp}, after {now}"),
                false => format!("{:.1} s", age.as_secs_f64()),
            },
        }
    }

    fn check_debug(&self, fields: &Fields<'_>) -> Check {
        let debug = fields.pcrs.debug();
        let words = |debug| if debug { "debug mode" } else { "no debug mode" };
        Check {
            subject: Subject::Debug,
            holds: !debug || self.allow_debug,
            expected: if self.allow_debug {
                "either"
            } else {
                words(false)
            }
            .to_owned(),
            found: words(debug).to_owned(),
        }
    }
}

fn missing() -> String {
    "missing".to_owned()
}

fn quoted(bytes: &[u8]) -> String {
    match bytes {
        [] => "empty".to_owned(),
        _ => hex::encode(bytes),
    }
}

impl Check {
    /// What to do if it does not hold.
    pub fn advice(&self) -> &'static str {
        match self.subject {
            Subject::Debug => "Run the enclave without debug mode; allow it only for tests.",
            Subject::Pcr(3) => "Another IAM role is attached to the parent instance, or none.",
            Subject::Pcr(4) => "The enclave runs on another parent instance.",
            Subject::Pcr(8) => "The image was signed with another certificate, or not at all.",
            Subject::Pcr(0..MEASURED) => {
                "Other code runs. If it should, build it yourself with `eif-builder build --json` and use its output."
            }
            Subject::Pcr(_) => {
                "The enclave's code extended this register otherwise, or left it unlocked."
            }
            Subject::SealedConfig => "The enclave has not opened a sealed config.",
            Subject::Nonce => {
                "This document answers another question: ask again with a fresh nonce."
            }
            Subject::PublicKey | Subject::UserData => {
                "The enclave vouches for something else than was expected."
            }
            Subject::Age => "Ask the enclave for a new document.",
        }
    }

    pub(crate) fn failures(checks: &[Check]) -> String {
        let failed = checks.iter().filter(|check| !check.holds);
        let sentences = failed.map(|check| {
            format!(
                "{} is {}, expected {}",
                check.subject, check.found, check.expected
            )
        });
        sentences.collect::<Vec<_>>().join("; ")
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Subject::Pcr(index) => write!(f, "PCR{index}"),
            Subject::Debug => f.write_str("mode"),
            Subject::SealedConfig => f.write_str("sealed config"),
            Subject::Nonce => f.write_str("nonce"),
            Subject::PublicKey => f.write_str("public key"),
            Subject::UserData => f.write_str("user data"),
            Subject::Age => f.write_str("age"),
        }
    }
}
