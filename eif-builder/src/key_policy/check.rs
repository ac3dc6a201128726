//! Finds the statements of a policy that open the key.

use super::attack::{ATTEMPTS, Attack, Attempt, register_index};
use super::condition::{Fact, hold};
use super::document::{Effect, KeyPolicy, Statement};
use super::generate::SealingKey;
use attestation::{Measurements, Pcr};
use serde::Serialize;
use std::collections::BTreeSet;

/// What a policy should say, for a sharper check: it must admit these images and no others.
#[derive(Debug, Clone, Copy)]
pub struct ExpectedImages<'a> {
    /// The key and its context.
    pub subject: &'a SealingKey,
    /// Of the images that may open it.
    pub measurements: &'a [Measurements],
}

/// What is wrong with a policy. Displayed as a sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "problem")]
#[non_exhaustive]
pub enum KeyPolicyFinding {
    /// A statement lets an attack through.
    Opens {
        /// The statement's position, from 1.
        statement: usize,
        /// Its `Sid`.
        sid: Option<String>,
        /// What it lets through.
        attack: Attack,
    },
    /// No statement lets the attack through, and none denies it: what an Allow that is added later
    /// or a grant lets through is open.
    Unguarded {
        /// What nothing denies.
        attack: Attack,
    },
    /// An expected enclave cannot open the key.
    LockedOut {
        /// The enclave's PCR0.
        pcr0: Pcr,
    },
}

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyPolicyReport {
    /// Attack by attack; empty if nothing was found.
    pub findings: Vec<KeyPolicyFinding>,
    /// Who may replace the policy, and so can always open the key: `*` or ARNs.
    pub administrators: BTreeSet<String>,
}

impl KeyPolicy {
    /// Plays every [`Attack`] against this policy. With `expected`, also looks for images that should
    /// not be admitted and for enclaves that are locked out.
    pub fn check(&self, expected: Option<ExpectedImages<'_>>) -> KeyPolicyReport {
        let check = Check {
            policy: self,
            key: expected.map(|expected| expected.subject.key.as_str()),
        };
        let mut findings: Vec<KeyPolicyFinding> = ATTEMPTS
            .iter()
            .flat_map(|attempt| check.attempt(attempt))
            .collect();
        weaker_findings_out(&mut findings);
        findings.extend(check.open_administration());
        if let Some(expected) = expected {
            findings.extend(check.unexpected_images(expected.measurements));
            findings.extend(check.locked_out(expected));
        }
        KeyPolicyReport {
            findings,
            administrators: check.administrators(),
        }
    }
}

/// Which statement opens the key by [`Attack::OtherCode`] does so by PCR1 and PCR2 as well.
fn weaker_findings_out(findings: &mut Vec<KeyPolicyFinding>) {
    let open: BTreeSet<usize> = findings
        .iter()
        .filter_map(|finding| match finding {
            KeyPolicyFinding::Opens {
                statement,
                attack: Attack::OtherCode,
                ..
            } => Some(*statement),
            _ => None,
        })
        .collect();
    findings.retain(|finding| match finding {
        KeyPolicyFinding::Opens {
            statement,
            attack: Attack::OtherApplication | Attack::OtherKernel,
            ..
        } => !open.contains(statement),
        KeyPolicyFinding::Unguarded { attack } => {
            !matches!(attack, Attack::OtherApplication | Attack::OtherKernel)
        }
        _ => true,
    });
}

struct Check<'a> {
    policy: &'a KeyPolicy,
    key: Option<&'a str>,
}

impl<'a> Check<'a> {
    fn numbered(&self, effect: Effect) -> impl Iterator<Item = (usize, &'a Statement)> {
        let statements = (1..).zip(self.policy.statements());
        statements.filter(move |(_, statement)| statement.effect == effect)
    }

    fn attempt(&self, attempt: &Attempt) -> Vec<KeyPolicyFinding> {
        let fact = |key: &str| attempt.fact(key);
        let open: Vec<KeyPolicyFinding> = self
            .open(attempt.action, &fact)
            .filter(|_| attempt.attack != Attack::Grant || !self.grants_are_harmless())
            .map(|(statement, found)| opens(statement, found, attempt.attack))
            .collect();
        // Administration that nothing allows cannot be allowed by a grant.
        let by_grant = matches!(attempt.action, "kms:Decrypt" | "kms:ReEncryptFrom");
        let denied = self.denies(&["*".to_owned()], attempt.action, &fact);
        if open.is_empty() && by_grant && !denied {
            let attack = attempt.attack;
            return vec![KeyPolicyFinding::Unguarded { attack }];
        }
        open
    }

    /// The statements that may allow the action and that no other surely denies.
    fn open(
        &self,
        action: &'static str,
        fact: &'a dyn Fn(&str) -> Fact,
    ) -> impl Iterator<Item = (usize, &'a Statement)> {
        self.numbered(Effect::Allow)
            .filter(move |(_, statement)| statement.covers_action(action))
            .filter(move |(_, statement)| hold(&statement.condition, fact) != Some(false))
            .filter(move |(_, statement)| !self.denies(&statement.allowed(), action, fact))
    }

    /// Whether the action is surely denied to all of these principals.
    fn denies(&self, principals: &[String], action: &str, fact: &dyn Fn(&str) -> Fact) -> bool {
        let mut denials = self.numbered(Effect::Deny).map(|(_, statement)| statement);
        denials.any(|statement| {
            statement.covers_action(action)
                && statement.covers_key(self.key)
                && statement.denies_all(principals)
                && hold(&statement.condition, fact) == Some(true)
        })
    }

    /// An explicit Deny beats grants.
    fn grants_are_harmless(&self) -> bool {
        let mut ways = ATTEMPTS
            .iter()
            .filter(|attempt| matches!(attempt.attack, Attack::NoDocument | Attack::ReEncrypt));
        ways.all(|attempt| self.denies(&["*".to_owned()], attempt.action, &|key| attempt.fact(key)))
    }

    fn administrators(&self) -> BTreeSet<String> {
        self.open("kms:PutKeyPolicy", &unknown)
            .flat_map(|(_, statement)| statement.allowed())
            .collect()
    }

    fn open_administration(&self) -> Vec<KeyPolicyFinding> {
        let limits = |key: &String| {
            let key = key.to_ascii_lowercase();
            key == "kms:calleraccount" || key.starts_with("aws:principal")
        };
        self.open("kms:PutKeyPolicy", &unknown)
            .filter(|(_, statement)| statement.allowed().iter().any(|name| name == "*"))
            .filter(|(_, statement)| {
                !statement
                    .condition
                    .values()
                    .any(|keys| keys.keys().any(limits))
            })
            .map(|(number, statement)| opens(number, statement, Attack::OpenAdministration))
            .collect()
    }

    /// Each PCR0 that the policy names and that is not expected.
    fn unexpected_images(&self, measurements: &[Measurements]) -> Vec<KeyPolicyFinding> {
        let expected: Vec<String> = measurements.iter().map(|m| m.pcr0.to_string()).collect();
        let mut found = BTreeSet::new();
        for value in self.named_images() {
            if expected.contains(&value.to_ascii_lowercase()) {
                continue;
            }
            let fact = |key: &str| image(key, &value);
            found.extend(self.open("kms:Decrypt", &fact).map(|(number, _)| number));
        }
        self.numbered(Effect::Allow)
            .filter(|(number, _)| found.contains(number))
            .map(|(number, statement)| opens(number, statement, Attack::UnexpectedImage))
            .collect()
    }

    fn named_images(&self) -> BTreeSet<String> {
        let conditions = self
            .numbered(Effect::Allow)
            .flat_map(|(_, statement)| statement.condition.values().flatten());
        conditions
            .filter(|(key, _)| is_pcr0(&key.to_ascii_lowercase()))
            .flat_map(|(_, values)| values.as_slice().iter().map(ToString::to_string))
            .filter(|value| !value.contains(['*', '?']))
            .collect()
    }

    fn locked_out(&self, expected: ExpectedImages<'_>) -> Vec<KeyPolicyFinding> {
        let ExpectedImages {
            subject,
            measurements,
        } = expected;
        let is_locked_out = |measured: &&Measurements| {
            let fact = |key: &str| right(key, subject, measured);
            self.open("kms:Decrypt", &fact).next().is_none()
        };
        let locked_out = measurements.iter().filter(is_locked_out);
        locked_out
            .map(|measured| KeyPolicyFinding::LockedOut {
                pcr0: measured.pcr0,
            })
            .collect()
    }
}

fn opens(statement: usize, found: &Statement, attack: Attack) -> KeyPolicyFinding {
    KeyPolicyFinding::Opens {
        statement,
        sid: found.sid.clone(),
        attack,
    }
}

fn unknown(_: &str) -> Fact {
    Fact::Unknown
}

fn attested(key: &str) -> Option<u8> {
    key.strip_prefix("kms:recipientattestation:")
        .and_then(register_index)
}

fn is_pcr0(key: &str) -> bool {
    attested(key) == Some(0)
}

/// An enclave with this PCR0 and whatever else suits it.
fn image(key: &str, pcr0: &str) -> Fact {
    match attested(key) {
        Some(0) => Fact::Is(pcr0.to_owned()),
        Some(_) => Fact::Suitable,
        None if key.starts_with("kms:encryptioncontext:") => Fact::Suitable,
        None => Fact::Unknown,
    }
}

/// The request of an enclave that the key is for.
fn right(key: &str, subject: &SealingKey, measured: &Measurements) -> Fact {
    if let Some(index) = attested(key) {
        let mut registers = measured.registers();
        let found = registers.find(|(known, _)| *known == index);
        return match (index, found) {
            (_, Some((_, pcr))) => Fact::Is(pcr.to_string()),
            (8, None) => Fact::Is(Pcr::ZERO.to_string()),
            (_, None) => Fact::Unknown,
        };
    }
    match key.strip_prefix("kms:encryptioncontext:") {
        // The config's version, which the spec leaves open.
        Some("version") => Fact::Suitable,
        Some(name) => {
            let mut context = subject.context.iter();
            let found = context.find(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map_or(Fact::Absent, |(_, value)| Fact::Is(value.clone()))
        }
        None => Fact::Unknown,
    }
}

impl std::fmt::Display for KeyPolicyFinding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KeyPolicyFinding::Opens {
                statement,
                sid: Some(sid),
                attack,
            } => write!(f, "statement {statement} ({}) {attack}", sid.escape_debug()),
            KeyPolicyFinding::Opens {
                statement,
                sid: None,
                attack,
            } => write!(f, "statement {statement} {attack}"),
            KeyPolicyFinding::Unguarded { attack } => write!(
                f,
                "no statement denies what another Allow or a grant may let through: one that {attack}"
            ),
            KeyPolicyFinding::LockedOut { pcr0 } => {
                write!(f, "the enclave with PCR0 {pcr0} cannot open the key")
            }
        }
    }
}
