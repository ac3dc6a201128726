//! One verification, from a document to a report and an exit code.

use super::report::Report;
use attestation::{Error, Policy, Time, TimeError, TrustAnchor, ValidityTime, verify};
use explain::Exit;
use std::time::SystemTime;

/// The value of `--at`.
#[derive(Debug, Clone, Copy)]
pub(super) enum At {
    Now,
    Document,
    Time(Time),
}

impl std::str::FromStr for At {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<At, TimeError> {
        match text {
            "now" => Ok(At::Now),
            "document" => Ok(At::Document),
            time => time.parse().map(At::Time),
        }
    }
}

impl At {
    /// The only place where this program reads a clock.
    fn now(self) -> Time {
        match self {
            At::Time(time) => time,
            At::Now | At::Document => SystemTime::now().into(),
        }
    }
}

/// Everything that a verdict depends on, but the document.
#[derive(Debug)]
pub(super) struct Verification {
    pub(super) anchor: TrustAnchor,
    pub(super) policy: Policy,
    pub(super) at: At,
    pub(super) cautions: Vec<String>,
    pub(super) json: bool,
}

impl Verification {
    pub(super) fn run(&self, document: &[u8]) -> (String, Exit) {
        let now = self.at.now();
        let verdict = verify(document, &self.anchor, now, &self.policy);
        let status = match &verdict {
            Ok(_) => Exit::Success,
            Err(Error::Malformed(_)) => Exit::Unreadable,
            Err(_) => Exit::Negative,
        };
        // The document's own time is only reported once the document is trusted.
        let at = match (&verdict, self.policy.validity_time()) {
            (Ok(verified), ValidityTime::Document) => verified.timestamp,
            _ => now,
        };
        let report = Report::new(&verdict, at, &self.cautions);
        let text = if self.json {
            report.json()
        } else {
            report.table()
        };
        (text, status)
    }
}
