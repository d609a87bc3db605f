//! Retention: asks [`crate::retention`] what may go, and lets it go.

use std::collections::BTreeMap;

use super::{Log, files};
use crate::error::LogError;
use crate::retention::{DeletionReason, LogView, RetentionPolicy, SegmentAge, plan};
use crate::segment::Segment;
use floodmark_proto::ids::Offset;

impl Log {
    /// Removes head segments that are too old, too many, or wholly before the log's start; says why each went.
    ///
    /// Only what is committed goes. A compacted log that is not to be deleted from as well has no limits set.
    pub fn apply_retention(&mut self) -> Result<Vec<DeletionReason>, LogError> {
        self.check_open()?;
        let policy = RetentionPolicy {
            retention_ms: u64::try_from(self.config.retention_ms).ok(),
            retention_bytes: u64::try_from(self.config.retention_bytes).ok(),
        };
        let now_ms = self.context.clock.now_ms();
        let changed = files::change_times(&*self.context.disk, &self.shared.dir)?;
        let segments = self.segments().clone();
        let ages: Vec<SegmentAge> = segments.iter().map(|s| age_of(s, &changed)).collect();
        let Some((active, sealed)) = ages.split_last() else { return Ok(Vec::new()) };
        let view = LogView {
            sealed,
            active: *active,
            log_end: self.next,
            log_start: self.start(),
            high_watermark: self.reader().high_watermark(),
        };
        let plan = plan(&view, &policy, now_ms);
        let mut reasons = plan.delete;
        let mut start = reasons.len().checked_sub(1).map_or(self.start(), |last| segments[last].end());
        if let Some(reason) = plan.roll_active {
            reasons.push(reason);
            start = self.next;
        }
        if start > self.start() {
            self.delete_before(start)?;
        } else if !reasons.is_empty() {
            self.drop_before_start()?;
        }
        Ok(reasons)
    }
}

fn age_of(segment: &Segment, changed: &BTreeMap<Offset, i64>) -> SegmentAge {
    SegmentAge {
        base_offset: segment.base,
        size_bytes: segment.bytes(),
        largest_timestamp: segment.largest_timestamp().map(|l| l.timestamp),
        last_modified_ms: changed.get(&segment.base).copied().unwrap_or(0),
    }
}
