//! Counts refusals, so that a flood of them is a line a minute. Without a clock of its own.

use crate::{Actor, AuditAction, AuditEntry, AuditOutcome};
use explain::Code;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);
/// Sources that are told apart within a minute.
const MAX_SOURCES: usize = 1000;

/// What is one source: an address and the kind of refusal.
type Source = (Option<String>, &'static str);

#[derive(Debug)]
struct Counted {
    by: Actor,
    code: Code,
    count: u64,
    written: Option<Instant>,
}

/// Refusals that are not written yet, by source.
#[derive(Debug, Default)]
pub(crate) struct Refusals(BTreeMap<Source, Counted>);

impl Refusals {
    /// Counts one, and returns whether it is the first of its source.
    pub(crate) fn add(&mut self, by: Actor, code: Code) -> bool {
        let mut source = (by.address.clone(), code.as_str());
        let mut by = by;
        if self.0.len() >= MAX_SOURCES && !self.0.contains_key(&source) {
            // All others are one.
            source.0 = None;
            by = Actor::default();
        }
        let counted = self.0.entry(source).or_insert(Counted {
            by,
            code,
            count: 0,
            written: None,
        });
        counted.count += 1;
        counted.written.is_none()
    }

    /// Takes what is to be written now: the first of a source at once, the others once a minute.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<AuditEntry> {
        let is_over = |at: Instant| now.duration_since(at) >= MINUTE;
        let mut due = Vec::new();
        for counted in self.0.values_mut() {
            if counted.count > 0 && counted.written.is_none_or(is_over) {
                due.push(counted.take(now));
            }
        }
        self.0
            .retain(|_, counted| counted.written.is_none_or(|at| !is_over(at)));
        due
    }

    /// Takes all that is left.
    pub(crate) fn take_all(&mut self, now: Instant) -> Vec<AuditEntry> {
        let left = self.0.values_mut().filter(|counted| counted.count > 0);
        left.map(|counted| counted.take(now)).collect()
    }
}

impl Counted {
    fn take(&mut self, now: Instant) -> AuditEntry {
        self.written = Some(now);
        let by = self.by.clone();
        let entry = AuditEntry::new(AuditAction::Credentials, AuditOutcome::Refused, by);
        AuditEntry {
            count: Some(std::mem::take(&mut self.count)),
            ..entry.code(self.code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn stranger(n: u32) -> Actor {
        Actor::caller(None, IpAddr::from(n.to_be_bytes()))
    }

    fn counts(entries: &[AuditEntry]) -> Vec<u64> {
        entries.iter().filter_map(|entry| entry.count).collect()
    }

    #[test]
    fn the_first_is_written_at_once_and_the_others_once_a_minute() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(refusals.add(stranger(1), Code::TokenInvalid));
        assert_eq!(counts(&refusals.take_due(at(0))), [1]);
        for _ in 0..1000 {
            assert!(!refusals.add(stranger(1), Code::TokenInvalid));
        }
        assert!(refusals.take_due(at(59)).is_empty());
        assert!(refusals.add(stranger(2), Code::TokenInvalid));
        assert_eq!(counts(&refusals.take_due(at(60))), [1000, 1]);
        assert!(refusals.take_due(at(200)).is_empty() && refusals.0.is_empty());
    }

    #[test]
    fn what_is_left_at_the_end_is_counted_too() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        refusals.add(stranger(1), Code::TokenInvalid);
        refusals.take_due(now);
        refusals.add(stranger(1), Code::TokenInvalid);
        assert_eq!(counts(&refusals.take_all(now)), [1]);
    }

    #[test]
    fn sources_are_bounded_and_none_is_lost() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        let sources = u32::try_from(MAX_SOURCES).unwrap() + 7;
        for n in 0..sources {
            refusals.add(stranger(n), Code::TokenInvalid);
        }
        let due = refusals.take_due(now);
        assert_eq!(due.len(), MAX_SOURCES + 1);
        assert_eq!(counts(&due).iter().sum::<u64>(), u64::from(sources));
    }
}
