//! Which leader epoch began at which offset: what followers and consumers compare to find where two logs part.
//! Kafka's leader-epoch cache and its text file `leader-epoch-checkpoint`. No I/O: every change says whether to write
//! the file.
//!
//! The file: line `0` (version), the number of entries, one line `epoch start_offset` each, every line ended by a
//! line feed.

use std::fmt::Write as _;

use floodmark_proto::ids::{LeaderEpoch, Offset};

use crate::format_error::{FormatError, Place};
use crate::text_lines::TextLines;

#[cfg(test)]
mod tests;

const FILE: &str = "leader epoch checkpoint";
const VERSION: i64 = 0;
/// `0 0` and a line feed: what an entry takes at least, so that a count is believed only as far as the file reaches.
const ENTRY_LEN_MIN: usize = 4;

/// The first offset that a leader of this epoch wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEntry {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// Where it begins.
    pub start_offset: Offset,
}

/// Answer to "where does this epoch end".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEnd {
    /// The largest epoch at or below the one asked for; the one asked for where all smaller ones have been deleted.
    pub epoch: LeaderEpoch,
    /// First offset after that epoch.
    pub end_offset: Offset,
}

/// Epochs in rising order, with strictly rising start offsets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaderEpochs {
    entries: Vec<EpochEntry>,
}

impl LeaderEpochs {
    /// No epoch at all, as in a new log.
    #[must_use]
    pub fn new() -> LeaderEpochs {
        LeaderEpochs::default()
    }

    /// All entries, oldest first.
    #[must_use]
    pub fn entries(&self) -> &[EpochEntry] {
        &self.entries
    }

    /// The newest entry.
    #[must_use]
    pub fn latest(&self) -> Option<EpochEntry> {
        self.entries.last().copied()
    }

    /// The oldest entry.
    #[must_use]
    pub fn earliest(&self) -> Option<EpochEntry> {
        self.entries.first().copied()
    }

    /// Notes that `epoch` begins at `start_offset`; true where that changed anything and the file must be written
    /// before the log holds a batch of the epoch.
    ///
    /// The epoch that is already the newest keeps its start unless the new one is smaller. Else, as in Kafka, entries
    /// at the end that have an equal or later epoch, or an equal or later start, give way: they tell of batches that
    /// are no longer there. An unknown epoch, or a negative offset, is no entry and changes nothing.
    pub fn assign(&mut self, epoch: LeaderEpoch, start_offset: Offset) -> bool {
        if epoch.0 < 0 || start_offset.0 < 0 {
            return false;
        }
        if self.latest().is_some_and(|latest| latest.epoch == epoch && latest.start_offset <= start_offset) {
            return false;
        }
        while self.latest().is_some_and(|e| e.epoch >= epoch || e.start_offset >= start_offset) {
            self.entries.pop();
        }
        self.entries.push(EpochEntry { epoch, start_offset });
        true
    }

    /// Kafka's OffsetForLeaderEpoch: the largest known epoch at or below `requested`, and where it ends. `log_end`
    /// ends the newest.
    ///
    /// Below the oldest known epoch the answer is `requested` itself, ending where the oldest begins: its data is
    /// gone. `None` is Kafka's undefined answer (-1, -1): for a negative epoch, for one above all known ones, and for
    /// a log without epochs.
    #[must_use]
    pub fn end_offset_for(&self, requested: LeaderEpoch, log_end: Offset) -> Option<EpochEnd> {
        if requested.0 < 0 {
            return None;
        }
        if self.latest()?.epoch == requested {
            return Some(EpochEnd { epoch: requested, end_offset: log_end });
        }
        let above = self.entries.partition_point(|entry| entry.epoch <= requested);
        let end_offset = self.entries.get(above)?.start_offset;
        let epoch = above.checked_sub(1).map_or(requested, |floor| self.entries[floor].epoch);
        Some(EpochEnd { epoch, end_offset })
    }

    /// The epoch in which the record at `offset` was written; `None` before the oldest entry.
    #[must_use]
    pub fn epoch_for_offset(&self, offset: Offset) -> Option<LeaderEpoch> {
        let above = self.entries.partition_point(|entry| entry.start_offset <= offset);
        above.checked_sub(1).map(|at| self.entries[at].epoch)
    }

    /// Drops epochs that begin at or after `end`, the log's new end; true where that changed anything.
    pub fn truncate_from_end(&mut self, end: Offset) -> bool {
        let kept = self.entries.partition_point(|entry| entry.start_offset < end);
        let changed = end.0 >= 0 && kept < self.entries.len();
        if changed {
            self.entries.truncate(kept);
        }
        changed
    }

    /// Drops epochs that end at or before `log_start`, and lets the one that spans it begin there; true where that
    /// changed anything.
    pub fn truncate_from_start(&mut self, log_start: Offset) -> bool {
        let above = self.entries.partition_point(|entry| entry.start_offset <= log_start);
        let Some(spanning) = above.checked_sub(1) else {
            return false;
        };
        if spanning == 0 && self.entries[0].start_offset == log_start {
            return false;
        }
        self.entries.drain(..spanning);
        self.entries[0].start_offset = log_start;
        true
    }

    /// CRC-32 of what the epochs say of the offsets from `start` to before `end`. Epochs that begin later, and the loss of what
    /// lies before, do not change it.
    #[must_use]
    pub fn checksum_within(&self, start: Offset, end: Offset) -> u32 {
        if start >= end {
            return 0;
        }
        let mut part = self.clone();
        part.truncate_from_end(end);
        part.truncate_from_start(start);
        crc32fast::hash(part.format().as_bytes())
    }

    /// Reads the file. Takes memory in proportion to `bytes`.
    ///
    /// Fails on another version, on a count that its lines do not match, on epochs or offsets that do not rise, and
    /// where the last line feed is missing: a torn file (R18) is rebuilt from the batches, never believed.
    pub fn parse(bytes: &[u8]) -> Result<LeaderEpochs, FormatError> {
        let mut lines = TextLines::new(FILE, bytes);
        let version = lines.next("version 0")?;
        let version: i64 = lines.number(version, "version")?;
        if version > VERSION {
            return Err(FormatError::NewerVersion { file: FILE, found: version, supported: VERSION });
        }
        if version < VERSION {
            return Err(FormatError::UnknownVersion { file: FILE, found: version });
        }
        let count = lines.next("the number of entries")?;
        let count: usize = lines.number(count, "number of entries")?;
        if count > lines.rest().len() / ENTRY_LEN_MIN {
            return Err(FormatError::CutShort {
                file: FILE,
                need_bytes: (count as u64).saturating_mul(ENTRY_LEN_MIN as u64),
                have_bytes: lines.rest().len() as u64,
            });
        }
        let mut entries: Vec<EpochEntry> = Vec::with_capacity(count);
        for _ in 0..count {
            let entry = parse_entry(&mut lines)?;
            if let Some(previous) = entries.last() {
                check_rise(lines.line(), previous, &entry)?;
            }
            entries.push(entry);
        }
        if lines.is_at_end() {
            Ok(LeaderEpochs { entries })
        } else {
            Err(FormatError::Trailing { file: FILE, place: Place::Line(lines.line() + 1) })
        }
    }

    /// The file's text, byte for byte as Kafka writes it.
    #[must_use]
    pub fn format(&self) -> String {
        let mut text = format!("{VERSION}\n{}\n", self.entries.len());
        for entry in &self.entries {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{} {}", entry.epoch, entry.start_offset);
        }
        text
    }
}

fn parse_entry(lines: &mut TextLines<'_>) -> Result<EpochEntry, FormatError> {
    const EXPECTED: &str = "an epoch and its start offset";
    let line = lines.next(EXPECTED)?;
    let [epoch, start_offset] = lines.fields(line, EXPECTED)?;
    let epoch: i32 = lines.number(epoch, "epoch")?;
    let start_offset: i64 = lines.number(start_offset, "start offset")?;
    let out_of_range =
        |field, value| FormatError::OutOfRange { file: FILE, place: Place::Line(lines.line()), field, value };
    if epoch < 0 {
        return Err(out_of_range("epoch", i64::from(epoch)));
    }
    if start_offset < 0 {
        return Err(out_of_range("start offset", start_offset));
    }
    Ok(EpochEntry { epoch: LeaderEpoch(epoch), start_offset: Offset(start_offset) })
}

fn check_rise(line: usize, previous: &EpochEntry, entry: &EpochEntry) -> Result<(), FormatError> {
    let out_of_order = |field, value, previous| FormatError::OutOfOrder {
        file: FILE,
        place: Place::Line(line),
        field,
        value,
        previous,
    };
    if entry.epoch <= previous.epoch {
        return Err(out_of_order("epoch", i64::from(entry.epoch.0), i64::from(previous.epoch.0)));
    }
    if entry.start_offset <= previous.start_offset {
        return Err(out_of_order("start offset", entry.start_offset.0, previous.start_offset.0));
    }
    Ok(())
}
