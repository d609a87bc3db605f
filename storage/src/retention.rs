//! Which segments may go by age, size and log start. Pure arithmetic: the caller knows files and clock.
//!
//! Kafka's rules. Segments go from the head on, never out of order: the first one that must stay keeps all after it.
//! One thing differs. A segment with a timestamp in the future would in Kafka stay until that time has come and its
//! retention has passed, which for a timestamp in the wrong unit is never. Here such a timestamp counts for nothing
//! and the file's last change stands in for it.

use floodmark_proto::ids::{Offset, TimestampMs};

#[cfg(test)]
mod tests;

/// How long and how much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetentionPolicy {
    /// Data older than this goes (`retention.ms`); `None` for -1, no limit.
    pub retention_ms: Option<u64>,
    /// Data goes while at least this much would remain (`retention.bytes`); `None` for -1, no limit.
    pub retention_bytes: Option<u64>,
}

/// What retention looks at in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentAge {
    /// First offset.
    pub base_offset: Offset,
    /// Bytes of the `.log` file that hold batches.
    pub size_bytes: u64,
    /// Largest timestamp of its batches, where any has one.
    pub largest_timestamp: Option<TimestampMs>,
    /// When its file was last changed; counts where no timestamp does.
    pub last_modified_ms: TimestampMs,
}

/// The log at one moment.
#[derive(Debug, Clone, Copy)]
pub struct LogView<'a> {
    /// Segments that grow no more, in order.
    pub sealed: &'a [SegmentAge],
    /// The segment that is written.
    pub active: SegmentAge,
    /// First offset after the log.
    pub log_end: Offset,
    /// First offset that may be read.
    pub log_start: Offset,
    /// Nothing at or past it is deleted, so that the log start never passes it.
    pub high_watermark: Offset,
}

/// Why a segment may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeletionReason {
    /// All of it lies before the log start.
    BeforeLogStart,
    /// The log without it is still large enough.
    Size,
    /// All of it is old enough.
    Age,
}

/// What may be done now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RetentionPlan {
    /// One for each sealed segment that may go, from the head on.
    pub delete: Vec<DeletionReason>,
    /// The active segment may go too: roll it, and it goes as a sealed one.
    pub roll_active: Option<DeletionReason>,
}

/// Decides which head segments may go at `now_ms`. Compacted topics that are not also deleted pass the default
/// policy, so that only the log start counts.
#[must_use]
pub fn plan(log: &LogView<'_>, policy: &RetentionPolicy, now_ms: TimestampMs) -> RetentionPlan {
    let sealed_bytes: u64 = log.sealed.iter().map(|segment| segment.size_bytes).fold(0, u64::saturating_add);
    let mut remaining_bytes = sealed_bytes.saturating_add(log.active.size_bytes);
    let mut plan = RetentionPlan::default();
    for (n, segment) in log.sealed.iter().enumerate() {
        let next = log.sealed.get(n + 1).unwrap_or(&log.active).base_offset;
        let reason = if next <= log.log_start {
            Some(DeletionReason::BeforeLogStart)
        } else {
            breach(segment, remaining_bytes, policy, now_ms)
        };
        let Some(reason) = reason.filter(|_| next <= log.high_watermark) else {
            return plan;
        };
        remaining_bytes = remaining_bytes.saturating_sub(segment.size_bytes);
        plan.delete.push(reason);
    }
    if log.active.size_bytes > 0 && log.log_end <= log.high_watermark {
        plan.roll_active = breach(&log.active, remaining_bytes, policy, now_ms);
    }
    plan
}

fn breach(
    segment: &SegmentAge,
    remaining_bytes: u64,
    policy: &RetentionPolicy,
    now_ms: TimestampMs,
) -> Option<DeletionReason> {
    let is_too_much =
        |limit| remaining_bytes.checked_sub(segment.size_bytes).is_some_and(|left| left >= limit);
    if policy.retention_bytes.is_some_and(is_too_much) {
        return Some(DeletionReason::Size);
    }
    let is_too_old = |limit| age_ms(segment, now_ms) > i64::try_from(limit).unwrap_or(i64::MAX);
    policy.retention_ms.is_some_and(is_too_old).then_some(DeletionReason::Age)
}

/// Negative where even the file seems to come from the future, after the clock was set back: then it stays until that
/// time.
fn age_ms(segment: &SegmentAge, now_ms: TimestampMs) -> i64 {
    let written = segment.largest_timestamp.filter(|timestamp| (0..=now_ms).contains(timestamp));
    now_ms.saturating_sub(written.unwrap_or(segment.last_modified_ms))
}
