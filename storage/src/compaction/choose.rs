//! Whether cleaning pays, up to where it may go, and which neighbours become one segment. Decides; changes nothing.

use std::ops::Range;

use floodmark_proto::ids::{Offset, TimestampMs};

use crate::config::{CompactionConfig, LogConfig};
use crate::index::{fits, offset_index, time_index};

/// A sealed segment, as far as the choice must know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedSegment {
    /// Its first offset.
    pub base: Offset,
    /// First offset after it.
    pub end: Offset,
    /// Bytes of its batches.
    pub bytes: u64,
    /// Largest timestamp in it, where it has one.
    pub largest_timestamp: Option<TimestampMs>,
    /// Timestamp of its first batch, where it has one. Only asked for where there is a `max.compaction.lag.ms`.
    pub first_timestamp: Option<TimestampMs>,
    /// Entries of its offset index and its time index.
    pub index_entries: (u32, u32),
}

/// The log at the moment of the choice.
#[derive(Debug, Clone, Copy)]
pub struct LogView<'a> {
    /// Oldest first, the one being written left out.
    pub sealed: &'a [SealedSegment],
    /// First offset that may be read.
    pub log_start: Offset,
    /// Where the next batch goes.
    pub log_end: Offset,
    /// Where the last pass ended.
    pub first_dirty: Offset,
    /// Only segments that end at or before this are cleaned: the least of the recovery point (or rather the base of the segment
    /// it lies in), the high watermark and the first unstable offset.
    pub settled: Offset,
    /// The time now.
    pub now_ms: TimestampMs,
}

/// When a pass is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompactWhen {
    /// The dirty ratio is reached, or `max.compaction.lag.ms` is passed.
    Due,
    /// In any case: an operator asks, or tombstones of a log that takes no more records are to go.
    Asked,
}

/// What a pass is to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    /// Keys are mapped from here.
    pub first_dirty: Offset,
    /// End of the last segment to be cleaned.
    pub end: Offset,
    /// How many segments, counted from the first, are cleaned.
    pub segments: usize,
    /// Uncleaned bytes over all bytes that may be cleaned.
    pub dirty_ratio: f64,
    /// The manifest named this offset, at which no pass can begin; so this one begins at the log's start (R23).
    pub reset_from: Option<Offset>,
}

/// What to clean, or `None` where it does not pay yet.
#[must_use]
pub fn choose(log: &LogView<'_>, config: &CompactionConfig, when: CompactWhen) -> Option<Plan> {
    // An offset inside a batch, or in a gap, is as good as a boundary: mapping passes over the records before it.
    let is_stale = log.first_dirty < log.log_start || log.first_dirty > log.log_end;
    let first_dirty = if is_stale { log.log_start } else { log.first_dirty };
    let too_young = |s: &SealedSegment| {
        let limit = log.now_ms.saturating_sub(config.min_lag_ms);
        config.min_lag_ms > 0 && s.end > first_dirty && s.largest_timestamp.is_some_and(|t| t > limit)
    };
    let segments = log.sealed.iter().take_while(|s| s.end <= log.settled && !too_young(s)).count();
    let cleanable = &log.sealed[..segments];
    let end = cleanable.last()?.end;
    let bytes = |segments: &[SealedSegment]| segments.iter().map(|s| s.bytes).sum::<u64>();
    let (clean, dirty) = cleanable.split_at(cleanable.partition_point(|s| s.end <= first_dirty));
    let (clean_bytes, dirty_bytes) = (bytes(clean), bytes(dirty));
    let dirty_ratio = dirty_bytes as f64 / (clean_bytes + dirty_bytes).max(1) as f64;
    let overdue = |s: &SealedSegment| {
        s.first_timestamp.is_some_and(|first| log.now_ms.saturating_sub(first) > config.max_lag_ms)
    };
    let is_due = dirty_bytes > 0 && (dirty_ratio >= config.min_dirty_ratio || dirty.iter().any(overdue));
    let reset_from = is_stale.then_some(log.first_dirty);
    (is_due || when == CompactWhen::Asked).then_some(Plan {
        first_dirty: first_dirty.min(end),
        end,
        segments,
        dirty_ratio,
        reset_from,
    })
}

/// Neighbours that become one segment: as many as fit `segment.bytes`, `segment.index.bytes` and the 31 bits that an index has
/// for an offset (R19). Every segment is in one group.
#[must_use]
pub fn group(sealed: &[SealedSegment], config: &LogConfig) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let mut start = 0;
    while start < sealed.len() {
        let first = sealed[start];
        let (mut bytes, mut offsets, mut times) = (0, 0, 0);
        let fitting = sealed[start..].iter().take_while(|s| {
            bytes += s.bytes;
            offsets += u64::from(s.index_entries.0);
            times += u64::from(s.index_entries.1);
            // One slot of the time index is kept for the entry that a sealed segment ends with.
            let index_bytes =
                (offsets * offset_index::ENTRY_LEN as u64).max((times + 1) * time_index::ENTRY_LEN as u64);
            bytes <= u64::from(config.segment_bytes)
                && index_bytes <= u64::from(config.segment_index_bytes)
                && fits(first.base, s.end)
        });
        let end = start + fitting.count().max(1);
        groups.push(start..end);
        start = end;
    }
    groups
}

#[cfg(test)]
mod tests;
