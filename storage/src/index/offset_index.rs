//! The `.index` file: offset to position, sparse. Eight bytes an entry, big-endian, both fields Kafka's signed 32
//! bits: last offset of a batch relative to the segment's base offset, position of that batch's first byte in the
//! `.log` file.

use std::convert::Infallible;

use floodmark_proto::ids::Offset;

use super::last_where;

/// Bytes of an entry.
pub const ENTRY_LEN: usize = 8;

/// One entry: the batch that ends with this offset begins at this position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetEntry {
    /// Last offset of the batch, minus the segment's base offset.
    pub relative_offset: u32,
    /// Where the batch begins in the segment.
    pub position: u32,
}

impl OffsetEntry {
    /// The entry as it stands in the file.
    #[must_use]
    pub fn encode(self) -> [u8; ENTRY_LEN] {
        let mut bytes = [0; ENTRY_LEN];
        bytes[..4].copy_from_slice(&self.relative_offset.to_be_bytes());
        bytes[4..].copy_from_slice(&self.position.to_be_bytes());
        bytes
    }

    /// Reads an entry; any bytes are one, [`valid_prefix`] judges.
    #[must_use]
    pub fn decode(bytes: &[u8; ENTRY_LEN]) -> OffsetEntry {
        let [a, b, c, d, e, f, g, h] = *bytes;
        OffsetEntry {
            relative_offset: u32::from_be_bytes([a, b, c, d]),
            position: u32::from_be_bytes([e, f, g, h]),
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
pub fn entry_at(bytes: &[u8], n: u32) -> Option<OffsetEntry> {
    let (entries, _) = bytes.as_chunks::<ENTRY_LEN>();
    entries.get(n as usize).map(OffsetEntry::decode)
}

/// Last entry whose offset is at or before `relative_target`: reading from its position on meets the target.
/// `None` means the segment must be read from its start. Fails only as `entry_at` does.
pub fn find<E>(
    entries: u32,
    entry_at: impl FnMut(u32) -> Result<OffsetEntry, E>,
    relative_target: u32,
) -> Result<Option<OffsetEntry>, E> {
    last_where(entries, entry_at, |entry| entry.relative_offset <= relative_target)
}

/// Last entry whose position is at or before `position`. Fails only as `entry_at` does.
pub fn find_by_position<E>(
    entries: u32,
    entry_at: impl FnMut(u32) -> Result<OffsetEntry, E>,
    position: u32,
) -> Result<Option<OffsetEntry>, E> {
    last_where(entries, entry_at, |entry| entry.position <= position)
}

/// How many leading entries remain when a segment is cut so that `relative_end` becomes its next offset.
/// Fails only as `entry_at` does.
pub fn entries_before<E>(
    entries: u32,
    mut entry_at: impl FnMut(u32) -> Result<OffsetEntry, E>,
    relative_end: u32,
) -> Result<u32, E> {
    super::partition_point(entries, |n| entry_at(n).map(|entry| entry.relative_offset < relative_end))
}

/// How many leading entries of a file that may be damaged, or was not trimmed, can be entries.
///
/// Offsets and positions must rise strictly from zero and fit 31 bits. The batch at position 0 is never indexed, so
/// an entry with position 0 is not one; the zeros with which Kafka pre-allocates an index end the count that way.
/// Right entries may still be missing, or point between batches: whoever reads at a position checks what it finds
/// there.
#[must_use]
pub fn valid_prefix(bytes: &[u8]) -> usize {
    let (entries, _) = bytes.as_chunks::<ENTRY_LEN>();
    let mut previous = None;
    for (n, entry) in entries.iter().map(OffsetEntry::decode).enumerate() {
        let in_range =
            entry.relative_offset <= i32::MAX as u32 && (1..=i32::MAX as u32).contains(&entry.position);
        let rises = previous.is_none_or(|p: OffsetEntry| {
            entry.relative_offset > p.relative_offset && entry.position > p.position
        });
        if !in_range || !rises {
            return n;
        }
        previous = Some(entry);
    }
    entries.len()
}

/// [`find`] in an index held in memory.
#[must_use]
pub fn find_in(bytes: &[u8], relative_target: u32) -> Option<OffsetEntry> {
    let (entries, _) = bytes.as_chunks::<ENTRY_LEN>();
    let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
    let found: Result<_, Infallible> =
        find(count, |n| Ok(OffsetEntry::decode(&entries[n as usize])), relative_target);
    match found {
        Ok(entry) => entry,
    }
}
