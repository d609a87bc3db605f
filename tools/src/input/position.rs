//! Places in a topic as people type them, and which offset of a partition each means.

use floodmark_proto::ids::TimestampMs;
use floodmark_storage::clock::Clock;

use super::time;

/// Where reading begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    /// Of the oldest record.
    Start,
    /// Behind the newest committed record.
    End,
    Offset(i64),
    /// So many records before the end.
    BeforeEnd(i64),
    /// Of the first record at or after this time.
    Time(TimestampMs),
}

/// For an argument.
pub(crate) fn argument(text: &str) -> Result<Position, String> {
    parse(text, Clock::System.now_ms())
}

fn parse(text: &str, now_ms: TimestampMs) -> Result<Position, String> {
    match text.trim() {
        "start" | "earliest" => return Ok(Position::Start),
        "end" | "latest" => return Ok(Position::End),
        _ => {}
    }
    if let Ok(number) = text.trim().parse::<i64>() {
        return Ok(match number {
            0.. => Position::Offset(number),
            _ => Position::BeforeEnd(number.saturating_neg()),
        });
    }
    time::parse(text, now_ms).map(Position::Time).map_err(|_| {
        let forms = time::FORMS;
        format!("{text:?} is no position; write start, end, an offset, -N for N records before the end, or a time: {forms}")
    })
}

/// What a position is held against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) start: i64,
    /// High watermark, or last stable offset where only decided records are read.
    pub(crate) end: i64,
    /// First offset at or after the position's time, where there is one.
    pub(crate) at_time: Option<i64>,
}

impl Position {
    /// The time that must be looked up before the position means an offset.
    pub(crate) fn time(self) -> Option<TimestampMs> {
        match self {
            Position::Time(time) => Some(time),
            _ => None,
        }
    }

    /// The offset that this means in a partition, between its ends.
    pub(crate) fn offset_within(self, bounds: Bounds) -> i64 {
        let offset = match self {
            Position::Start => bounds.start,
            Position::End => bounds.end,
            Position::Offset(offset) => offset,
            Position::BeforeEnd(records) => bounds.end.saturating_sub(records),
            Position::Time(_) => bounds.at_time.unwrap_or(bounds.end),
        };
        offset.min(bounds.end).max(bounds.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_understood() {
        let now = 10_000_000;
        for (text, position) in [
            ("start", Position::Start),
            ("earliest", Position::Start),
            ("end", Position::End),
            ("0", Position::Offset(0)),
            ("17", Position::Offset(17)),
            ("-10", Position::BeforeEnd(10)),
            ("-2h", Position::Time(now - 7_200_000)),
            ("2h ago", Position::Time(now - 7_200_000)),
            ("1970-01-01T00:00:01Z", Position::Time(1_000)),
        ] {
            assert_eq!(parse(text, now), Ok(position), "{text}");
        }
        let told = parse("begin", now).unwrap_err();
        assert!(told.contains("\"begin\" is no position") && told.contains("start, end"), "{told}");
    }

    #[test]
    fn a_position_is_an_offset_within_the_partition() {
        let bounds = Bounds { start: 10, end: 20, at_time: Some(15) };
        for (position, offset) in [
            (Position::Start, 10),
            (Position::End, 20),
            (Position::Offset(3), 10),
            (Position::Offset(12), 12),
            (Position::Offset(99), 20),
            (Position::BeforeEnd(3), 17),
            (Position::BeforeEnd(i64::MAX), 10),
            (Position::Time(5), 15),
        ] {
            assert_eq!(position.offset_within(bounds), offset, "{position:?}");
        }
        // A time after the last record is the end.
        assert_eq!(Position::Time(5).offset_within(Bounds { at_time: None, ..bounds }), 20);
    }
}
