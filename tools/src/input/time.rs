//! Times as people type them: dates, and spans before now.

use floodmark_proto::ids::TimestampMs;
use floodmark_storage::clock::Clock;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::quantity;

/// What may stand for a time, for errors and help.
pub(crate) const FORMS: &str =
    "2026-11-28T10:00:00Z, 2026-11-28 (UTC), -2h, \"2h ago\", now, or @ and milliseconds since 1970";

/// For an argument; spans are counted back from the machine's time.
pub(crate) fn argument(text: &str) -> Result<TimestampMs, String> {
    parse(text, Clock::System.now_ms())
}

/// The time that `text` stands for when it is `now_ms`.
pub(crate) fn parse(text: &str, now_ms: TimestampMs) -> Result<TimestampMs, String> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("now") {
        return Ok(now_ms);
    }
    if let Some(milliseconds) = text.strip_prefix('@') {
        return milliseconds.parse().map_err(|_| format!("@{milliseconds} is no time; a time is {FORMS}"));
    }
    let span = text.strip_prefix('-').or_else(|| text.strip_suffix("ago")).map(str::trim);
    if let Some(span) = span {
        let span = quantity::duration(span)?;
        let span_ms = i64::try_from(span.as_millis()).map_err(|_| format!("{text} is too long ago"))?;
        return Ok(now_ms.saturating_sub(span_ms).max(0));
    }
    calendar(text).ok_or_else(|| format!("{text:?} is no time; a time is {FORMS}"))
}

/// A date, with a time of day or not, and with a zone or in UTC.
fn calendar(text: &str) -> Option<TimestampMs> {
    if let Ok(timestamp) = text.parse::<jiff::Timestamp>() {
        return Some(timestamp.as_millisecond());
    }
    let civil = text.parse::<DateTime>().ok()?;
    Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: TimestampMs = 1_795_867_200_000;
    const HOUR: TimestampMs = 3_600_000;

    #[test]
    fn dates_and_spans_are_times() {
        let noon = 1_795_867_200_000;
        for (text, time) in [
            ("2026-11-28T12:00:00Z", noon),
            ("2026-11-28 12:00:00Z", noon),
            ("2026-11-28T13:00:00+01:00", noon),
            ("2026-11-28T12:00", noon),
            ("2026-11-28 12:00:00.250", noon + 250),
            ("2026-11-28", noon - 12 * HOUR),
            ("@1795867200000", noon),
            ("now", NOW),
            ("-2h", NOW - 2 * HOUR),
            ("2h ago", NOW - 2 * HOUR),
            ("2 hours ago", NOW - 2 * HOUR),
            ("-1d12h", NOW - 36 * HOUR),
            ("90 m ago", NOW - HOUR * 3 / 2),
            ("-1000000w", 0),
        ] {
            assert_eq!(parse(text, NOW), Ok(time), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_told_what_is() {
        for text in ["yesterday", "", "12:00", "2026-13-01", "@", "@x", "-", "-2", "ago", "-2 fortnights"] {
            let told = parse(text, NOW).unwrap_err();
            assert!(told.contains("2h"), "{text}: {told}");
        }
    }
}
