//! The `.timeindex` file: timestamp to offset, sparse. Twelve bytes an entry, big-endian: largest timestamp so far
//! (signed 64 bits), last offset of the first batch that had it, relative to the segment's base (Kafka's signed 32
//! bits).

use floodmark_proto::ids::{Offset, TimestampMs};

use super::last_where;

/// Bytes of an entry.
pub const ENTRY_LEN: usize = 12;

/// One entry: no record up to this offset is younger than this timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeEntry {
    /// Largest timestamp up to and including the batch that ends with the offset.
    pub timestamp: TimestampMs,
    /// Last offset of that batch, minus the segment's base offset.
    pub relative_offset: u32,
}

impl TimeEntry {
    /// The entry as it stands in the file.
    #[must_use]
    pub fn encode(self) -> [u8; ENTRY_LEN] {
        let mut bytes = [0; ENTRY_LEN];
        bytes[..8].copy_from_slice(&self.timestamp.to_be_bytes());
        bytes[8..].copy_from_slice(&self.relative_offset.to_be_bytes());
        bytes
    }

    /// Reads an entry; any bytes are one, [`valid_prefix`] judges.
    #[must_use]
    pub fn decode(bytes: &[u8; ENTRY_LEN]) -> TimeEntry {
        let [t0, t1, t2, t3, t4, t5, t6, t7, a, b, c, d] = *bytes;
        TimeEntry {
            timestamp: i64::from_be_bytes([t0, t1, t2, t3, t4, t5, t6, t7]),
            relative_offset: u32::from_be_bytes([a, b, c, d]),
        }
    }

    /// The offset itself, in a segment with this base.
    #[must_use]
    pub fn offset(self, base: Offset) -> Offset {
        Offset(base.0.saturating_add(i64::from(self.relative_offset)))
    }
}

/// Entry `n` of an index held in memory; `None` past its last whole entry.
#[must_use]
pub fn entry_at(bytes: &[u8], n: u32) -> Option<TimeEntry> {
    let (entries, _) = bytes.as_chunks::<ENTRY_LEN>();
    entries.get(n as usize).map(TimeEntry::decode)
}

/// Last entry whose timestamp is at or before `target`. To find the first record at or after a time, look for the
/// entry at or before `time - 1` and read on from its offset. `None` means from the segment's start. Fails only as
/// `entry_at` does.
pub fn find<E>(
    entries: u32,
    entry_at: impl FnMut(u32) -> Result<TimeEntry, E>,
    target: TimestampMs,
) -> Result<Option<TimeEntry>, E> {
    last_where(entries, entry_at, |entry| entry.timestamp <= target)
}

/// Last entry whose offset is at or before `relative_target`. Fails only as `entry_at` does.
pub fn find_by_offset<E>(
    entries: u32,
    entry_at: impl FnMut(u32) -> Result<TimeEntry, E>,
    relative_target: u32,
) -> Result<Option<TimeEntry>, E> {
    last_where(entries, entry_at, |entry| entry.relative_offset <= relative_target)
}

/// How many leading entries remain when a segment is cut so that `relative_end` becomes its next offset.
/// Fails only as `entry_at` does.
pub fn entries_before<E>(
    entries: u32,
    mut entry_at: impl FnMut(u32) -> Result<TimeEntry, E>,
    relative_end: u32,
) -> Result<u32, E> {
    super::partition_point(entries, |n| entry_at(n).map(|entry| entry.relative_offset < relative_end))
}

/// How many leading entries of a file that may be damaged, or was not trimmed, can be entries.
///
/// Timestamps are not negative and rise strictly, offsets never fall (Kafka's own check) and fit 31 bits. A tail of
/// zeros is what Kafka pre-allocates and is no entry; only a file of exactly one entry may be all zeros, for records
/// of the first millisecond of 1970.
#[must_use]
pub fn valid_prefix(bytes: &[u8]) -> usize {
    let (entries, _) = bytes.as_chunks::<ENTRY_LEN>();
    let written = if bytes.len() == ENTRY_LEN {
        1
    } else {
        entries.iter().rposition(|entry| entry != &[0; ENTRY_LEN]).map_or(0, |last| last + 1)
    };
    let mut previous = None;
    for (n, entry) in entries[..written].iter().map(TimeEntry::decode).enumerate() {
        let in_range = entry.timestamp >= 0 && entry.relative_offset <= i32::MAX as u32;
        let rises = previous.is_none_or(|p: TimeEntry| {
            entry.timestamp > p.timestamp && entry.relative_offset >= p.relative_offset
        });
        if !in_range || !rises {
            return n;
        }
        previous = Some(entry);
    }
    written
}
