//! Timestamps as people read them.

use floodmark_proto::ids::TimestampMs;

/// RFC 3339 in UTC with milliseconds; `None` for no time, and for one that no calendar holds.
pub(crate) fn rfc3339(timestamp: TimestampMs) -> Option<String> {
    if timestamp < 0 {
        return None;
    }
    jiff::Timestamp::from_millisecond(timestamp).ok().map(|t| format!("{t:.3}"))
}

/// For a table: the calendar's time, else the bare number, `-` for none.
pub(crate) fn cell(timestamp: TimestampMs) -> String {
    match timestamp {
        -1 => "-".to_owned(),
        _ => rfc3339(timestamp).unwrap_or_else(|| timestamp.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_in_utc() {
        assert_eq!(cell(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(cell(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!((cell(-1), cell(-2), cell(i64::MAX)), ("-".into(), "-2".into(), i64::MAX.to_string()));
        assert_eq!((rfc3339(-1), rfc3339(i64::MAX)), (None, None));
    }
}
