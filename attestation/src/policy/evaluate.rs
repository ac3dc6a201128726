//! The conditions of a policy, compared with a document that is genuine.

use super::Policy;
use crate::check::{Check, Subject};
use crate::crypto;
use crate::document::Fields;
use crate::kind::Kind;
use crate::origin::Origin;
use crate::pcr::Pcr;
use crate::time::Time;
use std::collections::BTreeSet;
use std::time::Duration;

/// Redoubt's agent extends it with the SHA-384 of the sealed file whose config it opened.
const SEALED_CONFIG: u8 = 16;

impl Policy {
    /// Every condition, whether it passed or not.
    pub(crate) fn check(&self, fields: &Fields<'_>, now: Time) -> Vec<Check> {
        let registers = self.registers.iter();
        let tag = fields.user_data.and_then(Origin::of);
        let user_data = match self.origin {
            Some(_) => tag.map(|(_, own)| own),
            None => fields.user_data,
        };
        let bytes = [
            (Subject::Nonce, &self.nonce, fields.nonce),
            (Subject::PublicKey, &self.public_key, fields.public_key),
            (Subject::UserData, &self.user_data, user_data),
        ];
        let mut checks = vec![
            check_kind(fields, self.kind),
            check_debug(fields, self.allow_debug),
        ];
        checks.extend(registers.map(|(index, allowed)| check_register(fields, *index, allowed)));
        checks.extend(self.sealed_config.then(|| check_sealed_config(fields)));
        let origin = tag.map(|(origin, _)| origin);
        checks.extend(self.origin.map(|expected| check_origin(expected, origin)));
        checks.extend(bytes.into_iter().filter_map(|(subject, expected, found)| {
            Some(check_bytes(subject, expected.as_ref()?, found))
        }));
        checks.extend(
            self.max_age
                .map(|max_age| self.check_age(max_age, fields.timestamp, now)),
        );
        checks
    }

    /// By the caller's clock, whatever time the certificates are checked at.
    fn check_age(&self, max_age: Duration, timestamp: Time, now: Time) -> Check {
        let from_the_future = now.plus(self.clock_skew) < timestamp;
        let age = now.since(timestamp).unwrap_or_default();
        Check {
            subject: Subject::Age,
            passed: !from_the_future && age <= max_age,
            expected: format!("at most {} s", max_age.as_secs()),
            found: if from_the_future {
                format!("made {timestamp}, after {now}")
            } else {
                format!("{:.1} s", age.as_secs_f64())
            },
        }
    }
}

fn check_kind(fields: &Fields<'_>, kind: Kind) -> Check {
    Check {
        subject: Subject::Kind,
        passed: kind.has_module_id(fields.module_id),
        expected: kind.expected().to_owned(),
        // Any text: no control characters to a terminal.
        found: fields.module_id.escape_debug().to_string(),
    }
}

fn check_debug(fields: &Fields<'_>, allowed: bool) -> Check {
    const OFF: &str = "no debug mode";
    let debug = fields.pcrs.debug();
    Check {
        subject: Subject::Debug,
        passed: !debug || allowed,
        expected: if allowed { "either" } else { OFF }.to_owned(),
        found: if debug { "debug mode" } else { OFF }.to_owned(),
    }
}

fn check_register(fields: &Fields<'_>, index: u8, allowed: &BTreeSet<Pcr>) -> Check {
    let found = fields.pcrs.get(index);
    let allowed_texts: Vec<_> = allowed.iter().map(Pcr::to_string).collect();
    Check {
        subject: Subject::Pcr(index),
        passed: found.is_some_and(|pcr| allowed.contains(pcr)),
        expected: allowed_texts.join(" or "),
        found: found.map_or_else(missing, Pcr::to_string),
    }
}

fn check_sealed_config(fields: &Fields<'_>) -> Check {
    let found = fields.pcrs.get(SEALED_CONFIG);
    Check {
        subject: Subject::SealedConfig,
        passed: found.is_some_and(|pcr| *pcr != Pcr::ZERO),
        expected: "PCR16 extended and locked".to_owned(),
        found: found.map_or_else(missing, Pcr::to_string),
    }
}

fn check_origin(expected: Origin, found: Option<Origin>) -> Check {
    Check {
        subject: Subject::Origin,
        passed: found == Some(expected),
        expected: expected.to_string(),
        found: found.map_or_else(missing, |origin| origin.to_string()),
    }
}

fn check_bytes(subject: Subject, expected: &[u8], found: Option<&[u8]>) -> Check {
    Check {
        subject,
        passed: found.is_some_and(|found| crypto::equal(found, expected)),
        expected: hexadecimal(expected),
        found: found.map_or_else(missing, hexadecimal),
    }
}

fn missing() -> String {
    "missing".to_owned()
}

fn hexadecimal(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        "empty".to_owned()
    } else {
        hex::encode(bytes)
    }
}
