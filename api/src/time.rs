//! Timestamps.

/// The present time, RFC 3339 in UTC with six fractional digits, so that the order of texts is the
/// order of times.
pub fn now() -> String {
    let now = time::OffsetDateTime::now_utc();
    text(now, now.microsecond(), 6)
}

/// Milliseconds since 1970, RFC 3339 in UTC with three fractional digits; beyond the year 9999, its
/// end.
pub fn at_milliseconds(milliseconds: u64) -> String {
    /// 9999-12-31T23:59:59Z.
    const LAST: u64 = 253_402_300_799;
    let seconds = i64::try_from((milliseconds / 1000).min(LAST)).unwrap_or_default();
    let time = time::OffsetDateTime::from_unix_timestamp(seconds);
    let fraction = u32::try_from(milliseconds % 1000).unwrap_or_default();
    text(
        time.unwrap_or(time::OffsetDateTime::UNIX_EPOCH),
        fraction,
        3,
    )
}

fn text(now: time::OffsetDateTime, fraction: u32, digits: usize) -> String {
    let (year, month, day) = now.to_calendar_date();
    let (hour, minute, second) = now.to_hms();
    let month = u8::from(month);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:0digits$}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_become_a_time_whatever_they_are() {
        for (milliseconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_767_472_867_042, "2026-01-03T20:41:07.042Z"),
            (u64::MAX, "9999-12-31T23:59:59.615Z"),
        ] {
            assert_eq!(at_milliseconds(milliseconds), expected);
        }
    }
}
