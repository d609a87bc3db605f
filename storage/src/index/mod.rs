//! The sparse indexes of one segment: their layouts, their search, and the one rule for when an entry is written.
//! Must not know files: entries come through an accessor, so a map, a buffer and a simulated disk serve alike.

pub mod offset_index;
pub mod time_index;
pub mod transaction_index;

#[cfg(test)]
mod tests;

use floodmark_proto::batch::BatchHeader;
use floodmark_proto::ids::{Offset, TimestampMs};

pub use offset_index::OffsetEntry;
pub use time_index::TimeEntry;
pub use transaction_index::AbortedTransaction;

use crate::format_error::{FormatError, Place};

/// A timestamp and where it is: the last offset of the batch that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampOffset {
    /// The timestamp.
    pub timestamp: TimestampMs,
    /// Last offset of the first batch whose largest timestamp this is.
    pub offset: Offset,
}

/// How dense and how large the indexes of a segment may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexPolicy {
    /// An entry is written for the first batch after more than this many bytes since the last entry
    /// (`index.interval.bytes`).
    pub interval_bytes: u32,
    /// Cap on each index file (`segment.index.bytes`); whole entries only.
    pub max_index_bytes: u32,
}

impl IndexPolicy {
    fn max_offset_entries(&self) -> u32 {
        self.max_index_bytes / offset_index::ENTRY_LEN as u32
    }

    /// One less than fits: the last slot is kept for the entry written when the segment is sealed.
    fn max_time_entries(&self) -> u32 {
        (self.max_index_bytes / time_index::ENTRY_LEN as u32).saturating_sub(1)
    }
}

/// True where `offset` can be written relative to `base`: indexes hold 31 bits. Where it does not fit the segment
/// must roll.
#[must_use]
pub fn fits(base: Offset, offset: Offset) -> bool {
    relative(base, offset).is_some()
}

fn relative(base: Offset, offset: Offset) -> Option<u32> {
    let distance = offset.0.checked_sub(base.0)?;
    i32::try_from(distance).ok().filter(|d| *d >= 0).map(|d| d as u32)
}

/// What one batch adds to the indexes of its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IndexEntries {
    /// Goes to the offset index.
    pub offset: Option<OffsetEntry>,
    /// Goes to the time index.
    pub time: Option<TimeEntry>,
}

/// Decides which entries a segment's indexes get. Appending and rebuilding both run it, so both give the same bytes.
///
/// Kafka's rule: a batch gets an offset entry (its last offset, the position of its first byte) if more than
/// `interval_bytes` lie between the start of the last indexed batch, or of the segment, and its own start. So the
/// batch at position 0 never gets one. At the same moment the time index gets (largest timestamp so far, last offset
/// of the first batch that had it), if that timestamp is larger than the one written last.
#[derive(Debug, Clone)]
pub struct Indexer {
    base_offset: Offset,
    policy: IndexPolicy,
    last_indexed_position: u32,
    offset_entries: u32,
    time_entries: u32,
    last_written_timestamp: Option<TimestampMs>,
    largest: Option<TimestampOffset>,
}

impl Indexer {
    /// For a segment that holds nothing yet, or whose batches are all going to be fed again.
    #[must_use]
    pub fn new(base_offset: Offset, policy: IndexPolicy) -> Indexer {
        Indexer {
            base_offset,
            policy,
            last_indexed_position: 0,
            offset_entries: 0,
            time_entries: 0,
            last_written_timestamp: None,
            largest: None,
        }
    }

    /// For a segment whose indexes hold `offset_entries` and `time_entries` entries, the last of which are given.
    ///
    /// The caller then feeds every batch from the last offset entry's position on (from 0 without one), that batch
    /// included.
    #[must_use]
    pub fn resume(
        base_offset: Offset,
        policy: IndexPolicy,
        offsets: Option<(u32, OffsetEntry)>,
        times: Option<(u32, TimeEntry)>,
    ) -> Indexer {
        let mut indexer = Indexer::new(base_offset, policy);
        if let Some((entries, last)) = offsets {
            indexer.offset_entries = entries;
            indexer.last_indexed_position = last.position;
        }
        if let Some((entries, last)) = times {
            indexer.time_entries = entries;
            indexer.last_written_timestamp = Some(last.timestamp);
            indexer.largest =
                Some(TimestampOffset { timestamp: last.timestamp, offset: last.offset(base_offset) });
        }
        indexer
    }

    /// Takes note of a batch at `position` and says what it adds to the indexes. Batches come in log order.
    ///
    /// Fails, changing nothing, where the batch's last offset does not fit the segment (see [`fits`]). A full index
    /// gets no entry and stays correct, only sparser.
    pub fn on_batch(&mut self, header: &BatchHeader, position: u32) -> Result<IndexEntries, FormatError> {
        let last_offset = header.last_offset();
        let Some(relative_offset) = relative(self.base_offset, last_offset) else {
            return Err(FormatError::OutOfRange {
                file: "segment",
                place: Place::Byte(u64::from(position)),
                field: "last offset of the batch",
                value: last_offset.0,
            });
        };
        // A batch that compaction emptied carries a time for its producer's sake; no record has it.
        if header.record_count > 0
            && header.max_timestamp > self.largest.map_or(NO_TIMESTAMP, |l| l.timestamp)
        {
            self.largest = Some(TimestampOffset { timestamp: header.max_timestamp, offset: last_offset });
        }
        let since_last_entry = position.saturating_sub(self.last_indexed_position);
        if since_last_entry <= self.policy.interval_bytes {
            return Ok(IndexEntries::default());
        }
        self.last_indexed_position = position;
        let offset = (self.offset_entries < self.policy.max_offset_entries())
            .then_some(OffsetEntry { relative_offset, position });
        self.offset_entries += u32::from(offset.is_some());
        let time = if self.time_entries < self.policy.max_time_entries() { self.rise() } else { None };
        Ok(IndexEntries { offset, time })
    }

    /// The entry that the time index gets when its segment is sealed or closed: the largest timestamp, if not yet
    /// written.
    ///
    /// A segment that goes on after a clean close keeps it, so a rebuilt index of such a segment may lack this entry;
    /// both are correct.
    pub fn final_time_entry(&mut self) -> Option<TimeEntry> {
        self.rise()
    }

    /// True when an index has no room for another entry; the segment must roll before its next batch.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.offset_entries >= self.policy.max_offset_entries()
            || self.time_entries >= self.policy.max_time_entries()
    }

    /// Largest timestamp seen, or `None` where no batch had one.
    #[must_use]
    pub fn largest_timestamp(&self) -> Option<TimestampOffset> {
        self.largest
    }

    fn rise(&mut self) -> Option<TimeEntry> {
        let largest = self.largest?;
        if self.last_written_timestamp.is_some_and(|written| largest.timestamp <= written) {
            return None;
        }
        self.last_written_timestamp = Some(largest.timestamp);
        self.time_entries += 1;
        let relative_offset = relative(self.base_offset, largest.offset)?;
        Some(TimeEntry { timestamp: largest.timestamp, relative_offset })
    }
}

/// What a batch without a timestamp carries.
const NO_TIMESTAMP: TimestampMs = -1;

/// Number of leading entries for which `keep` holds, by binary search; `keep` must not hold again once it has failed.
fn partition_point<E>(entries: u32, mut keep: impl FnMut(u32) -> Result<bool, E>) -> Result<u32, E> {
    let (mut low, mut high) = (0, entries);
    while low < high {
        let middle = low + (high - low) / 2;
        if keep(middle)? {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// Last entry for which `keep` holds, in a table where it holds for a head and then no more.
fn last_where<T, E>(
    entries: u32,
    mut entry_at: impl FnMut(u32) -> Result<T, E>,
    keep: impl Fn(&T) -> bool,
) -> Result<Option<T>, E> {
    match partition_point(entries, |n| entry_at(n).map(|entry| keep(&entry)))? {
        0 => Ok(None),
        kept => entry_at(kept - 1).map(Some),
    }
}
