//! Timestamps.

/// The present time, RFC 3339 in UTC with six fractional digits, so that the order of texts is the
/// order of times.
pub fn now() -> String {
    let now = time::OffsetDateTime::now_utc();
    let (year, month, day) = now.to_calendar_date();
    let (hour, minute, second, micros) = now.to_hms_micro();
    let month = u8::from(month);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}
