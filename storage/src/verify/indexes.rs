//! Holds the entries of one segment's offset and time index against its batches, as these go by.

use std::path::PathBuf;

use floodmark_proto::batch::BatchHeader;
use floodmark_proto::ids::{Offset, TimestampMs};

use super::{Finding, Severity};
use crate::index::{OffsetEntry, TimeEntry, offset_index, time_index};

/// An index file in memory, and how far it has been compared.
struct Entries {
    path: PathBuf,
    bytes: Vec<u8>,
    /// Whole entries before the zeros that Kafka fills an index with.
    written: usize,
    next: usize,
}

impl Entries {
    fn new<const N: usize>(path: PathBuf, bytes: Vec<u8>) -> Entries {
        let (entries, _) = bytes.as_chunks::<N>();
        let written = entries.iter().rposition(|entry| entry != &[0; N]).map_or(0, |last| last + 1);
        Entries { path, bytes, written, next: 0 }
    }

    /// The entry that is `ahead` entries behind the next one to compare.
    fn entry<const N: usize>(&self, ahead: usize) -> Option<&[u8; N]> {
        let n = self.next + ahead;
        if n < self.written { self.bytes.as_chunks::<N>().0.get(n) } else { None }
    }

    fn finding(
        &self,
        n: usize,
        len: usize,
        offset: Option<Offset>,
        found: String,
        (severity, expected): (Severity, String),
    ) -> Finding {
        Finding { severity, path: self.path.clone(), byte: Some((n * len) as u64), offset, found, expected }
    }

    /// Bytes after the last whole entry.
    fn check_length(&self, len: usize, entries: Entry, findings: &mut Vec<Finding>) {
        let rest = self.bytes.len() % len;
        if rest > 0 {
            let n = self.bytes.len() / len;
            let found = format!("{rest} bytes behind entry {n}");
            let expected = entries.expected(&format!("whole entries of {len} bytes"));
            findings.push(self.finding(n, len, None, found, (entries.severity(), expected)));
        }
    }
}

/// What a wrong entry does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// In a log of ours it costs a longer walk: a look-up holds each entry against its batch. A power cut may leave such entries in
    /// an index whose ends are right, where nobody looks for them.
    IsHint,
    /// In a log that Kafka may read again it leads astray.
    IsBelieved,
}

impl Entry {
    fn severity(self) -> Severity {
        match self {
            Entry::IsHint => Severity::Warning,
            Entry::IsBelieved => Severity::Damage,
        }
    }

    fn expected(self, expected: &str) -> String {
        match self {
            Entry::IsHint => format!("{expected}; it costs look-ups time and no more"),
            Entry::IsBelieved => expected.to_owned(),
        }
    }
}

/// Largest times so far. A batch that compaction has emptied still carries one, which Kafka counts and we do not.
#[derive(Debug, Clone, Copy)]
struct LargestTimes {
    of_all: TimestampMs,
    with_records: TimestampMs,
}

impl Default for LargestTimes {
    fn default() -> LargestTimes {
        LargestTimes { of_all: -1, with_records: -1 }
    }
}

impl LargestTimes {
    /// True where the batch raises either.
    fn on_batch(&mut self, header: &BatchHeader) -> bool {
        let time = header.max_timestamp;
        let has_records = header.record_count > 0;
        let rises = time > self.of_all || (has_records && time > self.with_records);
        self.of_all = self.of_all.max(time);
        if has_records {
            self.with_records = self.with_records.max(time);
        }
        rises
    }
}

/// Both indexes of a segment.
pub(super) struct IndexCheck {
    base: Offset,
    offsets: Option<Entries>,
    times: Option<Entries>,
    previous_offset: Option<OffsetEntry>,
    previous_time: Option<TimeEntry>,
    largest: LargestTimes,
    /// End of the last batch or bad bytes.
    position: u64,
    entries: Entry,
    /// Behind damage the largest timestamp is not known.
    is_time_known: bool,
}

impl IndexCheck {
    /// For a segment with these index files, as far as they exist.
    pub(super) fn new(
        base: Offset,
        offsets: Option<(PathBuf, Vec<u8>)>,
        times: Option<(PathBuf, Vec<u8>)>,
        entries: Entry,
        findings: &mut Vec<Finding>,
    ) -> IndexCheck {
        let offsets = offsets.map(|(path, bytes)| Entries::new::<{ offset_index::ENTRY_LEN }>(path, bytes));
        let times = times.map(|(path, bytes)| Entries::new::<{ time_index::ENTRY_LEN }>(path, bytes));
        if let Some(index) = &offsets {
            index.check_length(offset_index::ENTRY_LEN, entries, findings);
        }
        if let Some(index) = &times {
            index.check_length(time_index::ENTRY_LEN, entries, findings);
        }
        IndexCheck {
            base,
            offsets,
            times,
            previous_offset: None,
            previous_time: None,
            largest: LargestTimes::default(),
            position: 0,
            entries,
            is_time_known: true,
        }
    }

    /// The next batch of the segment.
    pub(super) fn on_batch(&mut self, position: u64, header: &BatchHeader, findings: &mut Vec<Finding>) {
        self.check_offsets(position, header, findings);
        let rises = self.largest.on_batch(header);
        self.check_times(position, header, rises, findings);
        self.position = position + header.size_bytes() as u64;
    }

    /// Bytes that are no batch: what entries say of them cannot be judged.
    pub(super) fn on_bad_bytes(&mut self, end: u64) {
        while let Some(entry) = self.next_offset_entry().filter(|e| u64::from(e.position) < end) {
            self.previous_offset = Some(entry);
            self.skip_offset();
        }
        self.is_time_known = false;
        self.position = end;
    }

    /// The segment's end, which is not the one that the indexes were made for where it has damage.
    pub(super) fn finish(&mut self, has_damage: bool, findings: &mut Vec<Finding>) {
        const BATCH: &str = "the position of a batch in the segment";
        let severity = if has_damage { Severity::Warning } else { self.entries.severity() };
        while let Some(entry) = self.next_offset_entry() {
            let found = format!("an entry for position {}, behind the last batch", entry.position);
            self.report_offset(&entry, found, BATCH, severity, findings);
        }
        while let Some(entry) = self.next_time_entry() {
            let offset = entry.offset(self.base);
            let found = format!("an entry for offset {offset}, which no batch of the segment holds");
            self.report_time(&entry, found, "the offset of a batch in the segment", severity, findings);
        }
    }

    fn next_offset_entry(&self) -> Option<OffsetEntry> {
        self.offsets.as_ref()?.entry(0).map(OffsetEntry::decode)
    }

    fn next_time_entry(&self) -> Option<TimeEntry> {
        self.times.as_ref()?.entry(0).map(TimeEntry::decode)
    }

    /// True where the entry after the next one is due already, so that the next one is the odd one out.
    fn is_overtaken(&self, position: u64, last_offset: Offset) -> (bool, bool) {
        let offsets = self.offsets.as_ref().and_then(|e| e.entry(1)).map(OffsetEntry::decode);
        let times = self.times.as_ref().and_then(|e| e.entry(1)).map(TimeEntry::decode);
        (
            offsets.is_some_and(|e| (1..=position).contains(&u64::from(e.position))),
            times.is_some_and(|e| e.timestamp > 0 && e.offset(self.base) <= last_offset),
        )
    }

    fn skip_offset(&mut self) {
        self.offsets.iter_mut().for_each(|entries| entries.next += 1);
    }

    fn check_offsets(&mut self, position: u64, header: &BatchHeader, findings: &mut Vec<Finding>) {
        while let Some(entry) = self.next_offset_entry() {
            let at = u64::from(entry.position);
            if at > position && !self.is_overtaken(position, header.last_offset()).0 {
                return;
            }
            let offset = entry.offset(self.base);
            if at != position {
                // Position 0 is never written, so it is where zeros stand between entries.
                let found = format!("an entry for position {at}, where no batch begins");
                let expected = "the position of a batch, rising from entry to entry";
                self.report_offset(&entry, found, expected, self.entries.severity(), findings);
            } else if self.previous_offset.is_some_and(|p| entry.relative_offset <= p.relative_offset) {
                let found = format!("offset {offset}, no higher than the entry before");
                self.report_offset(&entry, found, "rising offsets", self.entries.severity(), findings);
            } else if offset != header.last_offset() {
                // Kafka before 3.9 wrote the last offset of an append of several batches; that costs a longer walk, no more.
                let is_later = offset > header.last_offset();
                let severity = if is_later { Severity::Warning } else { self.entries.severity() };
                let found = format!("offset {offset} for the batch at byte {position}");
                let expected = format!("{}, its last offset", header.last_offset());
                self.report_offset(&entry, found, &expected, severity, findings);
            } else {
                self.previous_offset = Some(entry);
                self.skip_offset();
            }
        }
    }

    fn report_offset(
        &mut self,
        entry: &OffsetEntry,
        found: String,
        expected: &str,
        severity: Severity,
        findings: &mut Vec<Finding>,
    ) {
        let Some(entries) = &mut self.offsets else { return };
        let offset = Some(entry.offset(self.base));
        let expected = self.entries.expected(expected);
        findings.push(entries.finding(
            entries.next,
            offset_index::ENTRY_LEN,
            offset,
            found,
            (severity, expected),
        ));
        entries.next += 1;
    }

    fn check_times(&mut self, position: u64, header: &BatchHeader, rises: bool, findings: &mut Vec<Finding>) {
        while let Some(entry) = self.next_time_entry() {
            let offset = entry.offset(self.base);
            let is_ahead = offset > header.last_offset();
            if is_ahead && !self.is_overtaken(position, header.last_offset()).1 {
                return;
            }
            let order = self
                .previous_time
                .is_none_or(|p| entry.timestamp > p.timestamp && entry.relative_offset >= p.relative_offset);
            let (found, expected) = if !order {
                (
                    format!("time {}, no later than the entry before", entry.timestamp),
                    "rising times".to_owned(),
                )
            } else if is_ahead {
                (format!("offset {offset}, higher than the entry behind"), "rising offsets".to_owned())
            } else if offset < header.base_offset && self.is_time_known {
                let found = format!("an entry for offset {offset}, which no batch holds");
                (found, "the offset of a batch in the segment".to_owned())
            } else if self.is_time_known && (!rises || entry.timestamp != header.max_timestamp) {
                let found = format!("time {} for the batch at byte {position}", entry.timestamp);
                let largest = self.largest.of_all;
                (found, format!("the largest time up to there, {largest}, at the first batch that has it"))
            } else {
                self.previous_time = Some(entry);
                self.times.iter_mut().for_each(|entries| entries.next += 1);
                continue;
            };
            self.report_time(&entry, found, &expected, self.entries.severity(), findings);
        }
    }

    fn report_time(
        &mut self,
        entry: &TimeEntry,
        found: String,
        expected: &str,
        severity: Severity,
        findings: &mut Vec<Finding>,
    ) {
        let Some(entries) = &mut self.times else { return };
        let offset = Some(entry.offset(self.base));
        let expected = self.entries.expected(expected);
        findings.push(entries.finding(
            entries.next,
            time_index::ENTRY_LEN,
            offset,
            found,
            (severity, expected),
        ));
        entries.next += 1;
    }
}
