//! Our own text file `log.manifest`: what of a log is durable, and which change of its files is under way. It is the truth about
//! which segments belong to the log; without it the directory is scanned whole. No I/O.
//!
//! ```text
//! floodmark log manifest 2
//! log_start 0
//! first_dirty 0
//! closed no                                      yes only after a clean shutdown: nothing follows the durable part
//! epochs 0a1b2c3d                                CRC-32 of the leader epochs from the log's start to the recovery point
//! truncating_to 17                               only while a truncation is under way: what lies at or after it must go
//! replacing 0                                    only while a compacted segment takes the place of this one and those it merged
//! segment 0 5775 17 1700000000503 16 1 0a1b2c3d  one a sealed segment: base, bytes, end, largest timestamp, its offset (-1 -1: none),
//!                                                entries of its transaction index, their CRC-32 (- -: not known)
//! active 17 0 17 -1 -1 0 00000000                the durable part of the segment that was being written
//! crc 0a1b2c3d                                   CRC-32 of all bytes before this line
//! ```
//!
//! Version 1 knows nothing of epochs and transaction indexes; it is read, and replaced by the next one written.

use std::fmt::Write as _;

use floodmark_proto::ids::Offset;

use crate::format_error::{FormatError, Place};
use crate::index::TimestampOffset;
use crate::index::transaction_index::EntriesFacts;
use crate::text_lines::TextLines;

#[cfg(test)]
mod tests;

const FILE: &str = "log manifest";
const TITLE: &str = "floodmark log manifest ";
const VERSION: i64 = 2;
/// Without the epochs' checksum and the facts of transaction indexes.
const VERSION_WITHOUT_FACTS: i64 = 1;

/// What is known of the durable bytes of a segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SegmentRecord {
    /// Its first offset, which names its files.
    pub base_offset: Offset,
    /// Durable bytes of its `.log` file; all of it, if it is sealed.
    pub size_bytes: u64,
    /// First offset after those bytes.
    pub end_offset: Offset,
    /// Largest timestamp in them, where any batch has one.
    pub largest_timestamp: Option<TimestampOffset>,
    /// Its transaction index, as far as it tells of those bytes; `None` where that is not known.
    pub aborted: Option<EntriesFacts>,
}

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    /// First offset that may be read.
    pub log_start: Offset,
    /// Where compaction goes on.
    pub first_dirty: Offset,
    /// The log ends where its durable part does, because it was closed so.
    pub is_closed: bool,
    /// Checksum of the leader epochs from the log's start to the recovery point; `None` where it is not known.
    pub epochs: Option<u32>,
    /// A truncation that is to be finished: the log ends here.
    pub truncating_to: Option<Offset>,
    /// Base of the segment whose compacted copy takes its place and that of the ones it was merged with.
    pub replacing: Option<Offset>,
    /// In rising order.
    pub sealed: Vec<SegmentRecord>,
    /// The segment that was being written; its end is the recovery point.
    pub active: SegmentRecord,
}

impl Manifest {
    /// Everything before it was synced; recovery reads from there.
    #[must_use]
    pub fn recovery_point(&self) -> Offset {
        self.active.end_offset
    }

    /// Reads the file. Takes memory in proportion to `bytes`.
    ///
    /// Fails on a newer version before anything else is looked at, on a wrong checksum, and on any line that
    /// [`Manifest::format`] would not have written. A segment may begin after the end of the one before it, as in adopted
    /// directories, never before it.
    pub fn parse(bytes: &[u8]) -> Result<Manifest, FormatError> {
        let mut lines = TextLines::new(FILE, bytes);
        let title = lines.next(TITLE)?.strip_prefix(TITLE).ok_or(lines.malformed(TITLE))?;
        let version: i64 = lines.number(title, "version")?;
        if version > VERSION {
            return Err(FormatError::NewerVersion { file: FILE, found: version, supported: VERSION });
        }
        if version < VERSION_WITHOUT_FACTS {
            return Err(FormatError::UnknownVersion { file: FILE, found: version });
        }
        let mut manifest = Manifest {
            log_start: offset_line(&mut lines, "log_start", "log_start and an offset")?,
            first_dirty: offset_line(&mut lines, "first_dirty", "first_dirty and an offset")?,
            is_closed: closed_line(&mut lines)?,
            ..Manifest::default()
        };
        let has_facts = version > VERSION_WITHOUT_FACTS;
        let mut line = lines.next("epochs, a change under way, segment or active")?;
        if has_facts && let Some(digits) = line.strip_prefix("epochs ") {
            manifest.epochs = Some(crc_of(&lines, digits, "epochs and eight hexadecimal digits")?);
            line = lines.next("a change under way, segment or active")?;
        }
        if line.starts_with("truncating_to ") {
            manifest.truncating_to = Some(offset_of(&lines, line, "truncating_to and an offset")?);
            line = lines.next("replacing, segment or active")?;
        }
        if line.starts_with("replacing ") {
            manifest.replacing = Some(offset_of(&lines, line, "replacing and an offset")?);
            line = lines.next("segment or active")?;
        }
        while line.starts_with("segment ") {
            let segment = parse_segment(&lines, line, has_facts)?;
            check_order(&lines, manifest.sealed.last(), &segment)?;
            manifest.sealed.push(segment);
            line = lines.next("segment or active")?;
        }
        if !line.starts_with("active ") {
            return Err(lines.malformed("segment or active"));
        }
        manifest.active = parse_segment(&lines, line, has_facts)?;
        check_order(&lines, manifest.sealed.last(), &manifest.active)?;
        let before_line = bytes.len() - lines.rest().len();
        let line = lines.next("crc and eight hexadecimal digits")?;
        check_crc(&lines, line, &bytes[..before_line])?;
        if !lines.is_at_end() {
            return Err(FormatError::Trailing { file: FILE, place: Place::Line(lines.line() + 1) });
        }
        Ok(manifest)
    }

    /// The file's text, checksum included.
    #[must_use]
    pub fn format(&self) -> String {
        let closed = if self.is_closed { "yes" } else { "no" };
        let mut text = format!(
            "{TITLE}{VERSION}\nlog_start {}\nfirst_dirty {}\nclosed {closed}\n",
            self.log_start, self.first_dirty
        );
        // Writing to a String cannot fail.
        if let Some(crc) = self.epochs {
            let _ = writeln!(text, "epochs {crc:08x}");
        }
        if let Some(end) = self.truncating_to {
            let _ = writeln!(text, "truncating_to {end}");
        }
        if let Some(base) = self.replacing {
            let _ = writeln!(text, "replacing {base}");
        }
        for segment in &self.sealed {
            write_segment(&mut text, "segment", segment);
        }
        write_segment(&mut text, "active", &self.active);
        let _ = writeln!(text, "crc {:08x}", crc32fast::hash(text.as_bytes()));
        text
    }
}

fn write_segment(text: &mut String, kind: &str, segment: &SegmentRecord) {
    let (timestamp, offset) = segment.largest_timestamp.map_or((-1, -1), |l| (l.timestamp, l.offset.0));
    let _ = write!(
        text,
        "{kind} {} {} {} {timestamp} {offset}",
        segment.base_offset, segment.size_bytes, segment.end_offset
    );
    let _ = match segment.aborted {
        Some(EntriesFacts { entries, crc }) => writeln!(text, " {entries} {crc:08x}"),
        None => writeln!(text, " - -"),
    };
}

fn closed_line(lines: &mut TextLines<'_>) -> Result<bool, FormatError> {
    const EXPECTED: &str = "closed yes, or closed no";
    match lines.next(EXPECTED)? {
        "closed yes" => Ok(true),
        "closed no" => Ok(false),
        _ => Err(lines.malformed(EXPECTED)),
    }
}

fn offset_of<'a>(
    lines: &TextLines<'a>,
    line: &'a str,
    expected: &'static str,
) -> Result<Offset, FormatError> {
    let [name, value] = lines.fields(line, expected)?;
    let field = if name == "replacing" { "replacing" } else { "truncating_to" };
    offset(lines, value, field)
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

fn parse_segment<'a>(
    lines: &TextLines<'a>,
    line: &'a str,
    has_facts: bool,
) -> Result<SegmentRecord, FormatError> {
    const EXPECTED: &str = "segment, base, bytes, end, largest timestamp, its offset, aborted transactions";
    let ([_, base, bytes, end, timestamp, timestamp_at], aborted) = if has_facts {
        let [kind, base, bytes, end, timestamp, at, entries, crc] = lines.fields(line, EXPECTED)?;
        ([kind, base, bytes, end, timestamp, at], parse_aborted(lines, entries, crc)?)
    } else {
        (lines.fields(line, "segment, base, bytes, end, largest timestamp and its offset")?, None)
    };
    let timestamp: i64 = lines.number(timestamp, "largest timestamp")?;
    let timestamp_at: i64 = lines.number(timestamp_at, "offset of the largest timestamp")?;
    let segment = SegmentRecord {
        base_offset: offset(lines, base, "base offset")?,
        size_bytes: lines.number(bytes, "bytes of the segment")?,
        end_offset: offset(lines, end, "end offset")?,
        largest_timestamp: (timestamp >= 0)
            .then_some(TimestampOffset { timestamp, offset: Offset(timestamp_at) }),
        aborted,
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

fn parse_aborted(
    lines: &TextLines<'_>,
    entries: &str,
    crc: &str,
) -> Result<Option<EntriesFacts>, FormatError> {
    if (entries, crc) == ("-", "-") {
        return Ok(None);
    }
    const FIELD: &str = "aborted transactions of the segment";
    let value: i64 = lines.number(entries, FIELD)?;
    let out_of_range =
        FormatError::OutOfRange { file: FILE, place: Place::Line(lines.line()), field: FIELD, value };
    let entries = u32::try_from(value).map_err(|_| out_of_range)?;
    Ok(Some(EntriesFacts { entries, crc: crc_of(lines, crc, "the checksum of aborted transactions")? }))
}

fn check_order(
    lines: &TextLines<'_>,
    previous: Option<&SegmentRecord>,
    segment: &SegmentRecord,
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
    let stored = crc_of(lines, digits, EXPECTED)?;
    let computed = crc32fast::hash(covered);
    if stored == computed { Ok(()) } else { Err(FormatError::Checksum { file: FILE, stored, computed }) }
}

fn crc_of(lines: &TextLines<'_>, digits: &str, expected: &'static str) -> Result<u32, FormatError> {
    let is_hex = digits.len() == 8 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    u32::from_str_radix(digits, 16).ok().filter(|_| is_hex).ok_or(lines.malformed(expected))
}
