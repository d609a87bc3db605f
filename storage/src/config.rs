//! Settings of one log, with Kafka's names and defaults where Kafka has them. Data only.

use std::time::Duration;

/// How one log is kept. [`LogConfig::default`] is Kafka's defaults with durable acknowledgements.
#[derive(Debug, Clone, PartialEq)]
pub struct LogConfig {
    /// `segment.bytes`: a segment is rolled before it would grow past this.
    pub segment_bytes: u32,
    /// `segment.ms`: a segment is rolled when its records span, or it has been open for, this long.
    pub segment_ms: i64,
    /// `segment.jitter.ms`: taken off `segment_ms` by chance, so that many logs do not roll at one moment.
    pub segment_jitter_ms: i64,
    /// `index.interval.bytes`: log bytes between two index entries.
    pub index_interval_bytes: u32,
    /// `segment.index.bytes`: a segment is rolled when an index reaches this.
    pub segment_index_bytes: u32,
    /// `max.message.bytes`: largest batch taken from a client.
    pub max_batch_bytes: u32,
    /// `retention.ms`: sealed segments older than this may go; -1 keeps them.
    pub retention_ms: i64,
    /// `retention.bytes`: the oldest sealed segments above this may go; -1 keeps them.
    pub retention_bytes: i64,
    /// `producer.id.expiration.ms`: idle producers are forgotten after this.
    pub producer_expiration_ms: i64,
    /// When appended bytes are synced without anybody asking.
    pub flush: FlushPolicy,
    /// Bytes that are written ahead with zeros behind the end of the active segment; 0 turns it off.
    pub prewrite_bytes: u32,
    /// Appended bytes after which the recovery point should move, so that recovery reads no more than about this; where more comes in a quarter of a
    /// second, than that, and than eight times this at the most.
    pub checkpoint_interval_bytes: u64,
    /// `floodmark.key.index`: records are found by their key, and may be appended under a condition on it.
    pub key_index: bool,
    /// Compaction; `None` where `cleanup.policy` does not name it.
    pub compaction: Option<CompactionConfig>,
}

/// `flush.messages` and `flush.ms`: syncs beside those that acknowledgements demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlushPolicy {
    /// Sync once this many records are not synced.
    pub records: Option<u64>,
    /// Sync once the oldest unsynced record is this old.
    pub interval: Option<Duration>,
}

impl FlushPolicy {
    /// True where the policy demands a sync now.
    #[must_use]
    pub fn is_due(&self, unsynced_records: u64, unsynced_for: Duration) -> bool {
        unsynced_records > 0
            && (self.records.is_some_and(|limit| unsynced_records >= limit)
                || self.interval.is_some_and(|limit| unsynced_for >= limit))
    }
}

/// How a compacted log is cleaned.
#[derive(Debug, Clone, PartialEq)]
pub struct CompactionConfig {
    /// `min.cleanable.dirty.ratio`: uncleaned bytes over all bytes, from which cleaning pays.
    pub min_dirty_ratio: f64,
    /// `min.compaction.lag.ms`: records younger than this are left alone.
    pub min_lag_ms: i64,
    /// `max.compaction.lag.ms`: records older than this are cleaned whatever the ratio.
    pub max_lag_ms: i64,
    /// `delete.retention.ms`: how long tombstones and transaction markers outlive what they remove.
    pub delete_retention_ms: i64,
    /// Memory for the map of keys; a pass covers as many records as fit.
    pub map_bytes: usize,
    /// Bytes read and written a second at most, or `None` for as fast as the disk goes.
    pub bytes_per_second: Option<u64>,
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        const DAY_MS: i64 = 24 * 60 * 60 * 1000;
        LogConfig {
            segment_bytes: 1 << 30,
            segment_ms: 7 * DAY_MS,
            segment_jitter_ms: 0,
            index_interval_bytes: 4096,
            segment_index_bytes: 10 << 20,
            max_batch_bytes: 1_048_588,
            retention_ms: 7 * DAY_MS,
            retention_bytes: -1,
            producer_expiration_ms: DAY_MS,
            flush: FlushPolicy::default(),
            prewrite_bytes: 8 << 20,
            checkpoint_interval_bytes: 64 << 20,
            key_index: false,
            compaction: None,
        }
    }
}

impl Default for CompactionConfig {
    fn default() -> CompactionConfig {
        CompactionConfig {
            min_dirty_ratio: 0.5,
            min_lag_ms: 0,
            max_lag_ms: i64::MAX,
            delete_retention_ms: 24 * 60 * 60 * 1000,
            map_bytes: 128 << 20,
            bytes_per_second: None,
        }
    }
}
