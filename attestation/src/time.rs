//! Points in time as values. Nothing here asks a clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Milliseconds since 1970-01-01T00:00:00Z, the unit of attestation documents. Displayed and parsed
/// as RFC 3339, serialised as that text.
///
/// ```
/// let time: attestation::Time = "2026-01-03T20:41:07.25Z".parse()?;
/// assert_eq!(time.as_millis(), 1_767_472_867_250);
/// # Ok::<(), attestation::TimeError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(i64);

impl Time {
    /// From milliseconds since 1970, negative before it.
    pub const fn from_millis(millis: i64) -> Time {
        Time(millis)
    }

    /// Milliseconds since 1970, negative before it.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The time `duration` later, to the millisecond. Saturates at the last representable time.
    pub fn plus(self, duration: Duration) -> Time {
        Time(
            self.0
                .saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)),
        )
    }

    /// How long `earlier` was before this, to the millisecond; `None` if it was later.
    pub fn since(self, earlier: Time) -> Option<Duration> {
        self.0
            .checked_sub(earlier.0)
            .and_then(|millis| u64::try_from(millis).ok())
            .map(Duration::from_millis)
    }
}

impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Time {
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Time(millis(after)),
            Err(before) => Time(-millis(before.duration())),
        }
    }
}

impl From<OffsetDateTime> for Time {
    fn from(time: OffsetDateTime) -> Time {
        Time(time.unix_timestamp() * 1000 + i64::from(time.millisecond()))
    }
}

/// The text is not a time. Carries the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a time; write it like 2026-01-03T20:41:07Z (RFC 3339)")]
pub struct TimeError(String);

impl std::str::FromStr for Time {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Time, TimeError> {
        OffsetDateTime::parse(text, &Rfc3339)
            .map(Time::from)
            .map_err(|_| TimeError(text.to_owned()))
    }
}

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let formatted = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000)
            .ok()
            .and_then(|time| time.format(&Rfc3339).ok());
        match formatted {
            Some(text) => f.write_str(&text),
            None => write!(f, "{} ms after 1970", self.0),
        }
    }
}

impl std::fmt::Debug for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Time({self})")
    }
}

impl serde::Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_shown_and_parsed_as_rfc_3339() {
        let time: Time = "2026-01-03T20:41:07.25Z".parse().unwrap();
        assert_eq!(time.as_millis(), 1_767_472_867_250);
        assert_eq!(time.to_string(), "2026-01-03T20:41:07.25Z");
        assert_eq!("2026-01-03T21:41:07.25+01:00".parse(), Ok(time));
        assert_eq!(
            "yesterday".parse::<Time>(),
            Err(TimeError("yesterday".to_owned()))
        );
        assert_eq!(
            Time::from(UNIX_EPOCH - Duration::from_secs(1)),
            Time::from_millis(-1000)
        );
        assert_eq!(
            Time::from_millis(i64::MAX).to_string(),
            format!("{} ms after 1970", i64::MAX)
        );
    }
}
