//! Our own text file `log.manifest`: what opening a log would else have to scan for. It can be deleted and is then rebuilt. No I/O.
//!
//! ```text
//! floodmark log manifest 1
//! recovery_point 17
//! log_start 0
//! first_dirty 0
//! clean_end 54 11096                      only after a clean shutdown: log end, bytes of the active segment
//! segment 0 5775 17 1700000000503 16      one a sealed segment: base, bytes, end, largest timestamp, its offset (-1 -1: none)
//! crc 0a1b2c3d                            CRC-32 of all bytes before this line
//! ```

use std::fmt::Write as _;

use floodmark_proto::ids::Offset;

use crate::format_error::{FormatError, Place};
use crate::index::TimestampOffset;
use crate::text_lines::TextLines;

#[cfg(test)]
mod tests;

const FILE: &str = "log manifest";
const TITLE: &str = "floodmark log manifest ";
const VERSION: i64 = 1;

/// What is known of a segment that will not grow any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedSegment {
    /// Its first offset, which names its files.
    pub base_offset: Offset,
    /// Bytes of its `.log` file.
    pub size_bytes: u64,
    /// First offset after it.
    pub end_offset: Offset,
    /// Largest timestamp in it, where any batch has one.
    pub largest_timestamp: Option<TimestampOffset>,
}

/// Where the log ended when it was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanEnd {
    /// First offset after the log.
    pub end_offset: Offset,
    /// Bytes of the active segment's `.log` file.
    pub active_size_bytes: u64,
}

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Everything before it was synced; recovery reads from there.
    pub recovery_point: Offset,
    /// First offset that may be read.
    pub log_start: Offset,
    /// Where compaction goes on.
    pub first_dirty: Offset,
    /// Present only if nothing was written after the log was closed.
    pub clean_end: Option<CleanEnd>,
    /// In rising order.
    pub segments: Vec<SealedSegment>,
}

impl Manifest {
    /// Reads the file. Takes memory in proportion to `bytes`.
    ///
    /// Fails on a newer version before anything else is looked at, on a wrong checksum, and on any line that [`Manifest::format`] would not
    /// have written. A segment may begin after the end of the one before it, as in adopted directories, never before it.
    pub fn parse(bytes: &[u8]) -> Result<Manifest, FormatError> {
        let mut lines = TextLines::new(FILE, bytes);
        let title = lines.next(TITLE)?.strip_prefix(TITLE).ok_or(lines.malformed(TITLE))?;
        let version: i64 = lines.number(title, "version")?;
        if version > VERSION {
            return Err(FormatError::NewerVersion { file: FILE, found: version, supported: VERSION });
        }
        if version < VERSION {
            return Err(FormatError::UnknownVersion { file: FILE, found: version });
        }
        let mut manifest = Manifest {
            recovery_point: offset_line(&mut lines, "recovery_point", "recovery_point and an offset")?,
            log_start: offset_line(&mut lines, "log_start", "log_start and an offset")?,
            first_dirty: offset_line(&mut lines, "first_dirty", "first_dirty and an offset")?,
            ..Manifest::default()
        };
        let mut before_line = bytes.len() - lines.rest().len();
        let mut line = lines.next("clean_end, segment or crc")?;
        if line.starts_with("clean_end ") {
            manifest.clean_end = Some(parse_clean_end(&lines, line)?);
            before_line = bytes.len() - lines.rest().len();
            line = lines.next("segment or crc")?;
        }
        while line.starts_with("segment ") {
            let segment = parse_segment(&lines, line)?;
            check_order(&lines, manifest.segments.last(), &segment)?;
            manifest.segments.push(segment);
            before_line = bytes.len() - lines.rest().len();
            line = lines.next("segment or crc")?;
        }
        check_crc(&lines, line, &bytes[..before_line])?;
        if !lines.is_at_end() {
            return Err(FormatError::Trailing { file: FILE, place: Place::Line(lines.line() + 1) });
        }
        Ok(manifest)
    }

    /// The file's text, checksum included.
    #[must_use]
    pub fn format(&self) -> String {
        let mut text = format!(
            "{TITLE}{VERSION}\nrecovery_point {}\nlog_start {}\nfirst_dirty {}\n",
            self.recovery_point, self.log_start, self.first_dirty
        );
        // Writing to a String cannot fail.
        if let Some(end) = self.clean_end {
            let _ = writeln!(text, "clean_end {} {}", end.end_offset, end.active_size_bytes);
        }
        for segment in &self.segments {
            let (timestamp, offset) =
                segment.largest_timestamp.map_or((-1, -1), |l| (l.timestamp, l.offset.0));
            let _ = writeln!(
                text,
                "segment {} {} {} {timestamp} {offset}",
                segment.base_offset, segment.size_bytes, segment.end_offset
            );
        }
        let _ = writeln!(text, "crc {:08x}", crc32fast::hash(text.as_bytes()));
        text
    }
}

fn offset_line(
    lines: &mut TextLines<'_>,
    name: &'static str,
    expected: &'static str,
) -> Result<Offset, FormatError> {
    let line = lines.next(expected)?;
    let [found, value] = lines.fields(line, expected)?;
    if found != name {
        return Err(lines.malformed(expected));
    }
    offset(lines, value, name)
}

fn offset(lines: &TextLines<'_>, text: &str, field: &'static str) -> Result<Offset, FormatError> {
    let value: i64 = lines.number(text, field)?;
    if value < 0 {
        return Err(FormatError::OutOfRange { file: FILE, place: Place::Line(lines.line()), field, value });
    }
    Ok(Offset(value))
}

fn parse_clean_end<'a>(lines: &TextLines<'a>, line: &'a str) -> Result<CleanEnd, FormatError> {
    let [_, end, bytes] = lines.fields(line, "clean_end, an offset and the bytes of the active segment")?;
    Ok(CleanEnd {
        end_offset: offset(lines, end, "clean_end")?,
        active_size_bytes: lines.number(bytes, "bytes of the active segment")?,
    })
}

fn parse_segment<'a>(lines: &TextLines<'a>, line: &'a str) -> Result<SealedSegment, FormatError> {
    let [_, base, bytes, end, timestamp, timestamp_at] =
        lines.fields(line, "segment, base, bytes, end, largest timestamp and its offset")?;
    let timestamp: i64 = lines.number(timestamp, "largest timestamp")?;
    let timestamp_at: i64 = lines.number(timestamp_at, "offset of the largest timestamp")?;
    let segment = SealedSegment {
        base_offset: offset(lines, base, "base offset")?,
        size_bytes: lines.number(bytes, "bytes of the segment")?,
        end_offset: offset(lines, end, "end offset")?,
        largest_timestamp: (timestamp >= 0)
            .then_some(TimestampOffset { timestamp, offset: Offset(timestamp_at) }),
    };
    let in_segment = (segment.base_offset.0..segment.end_offset.0).contains(&timestamp_at);
    let offset_fits = if timestamp >= 0 { in_segment } else { timestamp_at == -1 };
    let out_of_range =
        |field, value| FormatError::OutOfRange { file: FILE, place: Place::Line(lines.line()), field, value };
    if timestamp < -1 {
        return Err(out_of_range("largest timestamp", timestamp));
    }
    if !offset_fits {
        return Err(out_of_range("offset of the largest timestamp", timestamp_at));
    }
    Ok(segment)
}

fn check_order(
    lines: &TextLines<'_>,
    previous: Option<&SealedSegment>,
    segment: &SealedSegment,
) -> Result<(), FormatError> {
    let out_of_order = |field, value: Offset, previous: Offset| FormatError::OutOfOrder {
        file: FILE,
        place: Place::Line(lines.line()),
        field,
        value: value.0,
        previous: previous.0,
    };
    if segment.end_offset < segment.base_offset {
        return Err(out_of_order("end offset", segment.end_offset, segment.base_offset));
    }
    match previous {
        Some(p) if segment.base_offset <= p.base_offset => {
            Err(out_of_order("base offset", segment.base_offset, p.base_offset))
        }
        Some(p) if segment.base_offset < p.end_offset => {
            Err(out_of_order("base offset", segment.base_offset, p.end_offset))
        }
        _ => Ok(()),
    }
}

fn check_crc(lines: &TextLines<'_>, line: &str, covered: &[u8]) -> Result<(), FormatError> {
    const EXPECTED: &str = "crc and eight hexadecimal digits";
    let digits = line.strip_prefix("crc ").ok_or(lines.malformed(EXPECTED))?;
    let is_hex = digits.len() == 8 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let stored = u32::from_str_radix(digits, 16).ok().filter(|_| is_hex);
    let stored = stored.ok_or(lines.malformed(EXPECTED))?;
    let computed = crc32fast::hash(covered);
    if stored == computed { Ok(()) } else { Err(FormatError::Checksum { file: FILE, stored, computed }) }
}
