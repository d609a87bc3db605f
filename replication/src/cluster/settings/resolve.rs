//! Which value counts where several layers set one, and what the values mean for a topic's log and its producers.

use std::time::Duration;

use floodmark_proto::batch::CompressionType;
use floodmark_storage::{CompactionConfig, FlushPolicy, LogConfig};

use super::super::image::Settings;
use super::{Setting, all, list};

/// How long `floodmark.sync=interval` leaves records unsynced where `flush.ms` does not say.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// Where values come from, the strongest first. All but the topic's go by the names of broker settings.
#[derive(Debug, Clone, Copy)]
pub struct Layers<'a> {
    /// Set for the topic.
    pub topic: &'a Settings,
    /// Set for this broker while it runs.
    pub broker: &'a Settings,
    /// Set for all brokers while they run.
    pub cluster: &'a Settings,
    /// The broker's own: flags, environment, file.
    pub file: &'a Settings,
}

/// The layer that a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Set for the topic, also where it is set to the default.
    Topic,
    /// Set for this broker while it runs.
    Broker,
    /// Set for all brokers while they run.
    Cluster,
    /// The broker's own.
    File,
    /// Set by nobody.
    Default,
}

/// One value in the order in which they count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// Under which name it was set.
    pub name: &'static str,
    /// As it was set, in that name's unit.
    pub raw: String,
    /// In the topic setting's unit.
    pub value: String,
    /// By whom.
    pub source: Source,
}

impl Setting {
    /// All values that are set, the one in force first, and the default last.
    #[must_use]
    pub fn explain(&self, layers: &Layers<'_>) -> Vec<Explained> {
        let mut found = Vec::new();
        if let Some(value) = layers.topic.get(self.name) {
            found.push(self.explained(self.name, value, value.clone(), Source::Topic));
        }
        let shared =
            [(layers.broker, Source::Broker), (layers.cluster, Source::Cluster), (layers.file, Source::File)];
        for (layer, source) in shared {
            for synonym in self.synonyms {
                let Some(raw) = layer.get(synonym.name) else { continue };
                let Some(value) = times(raw, synonym.times) else { continue };
                found.push(self.explained(synonym.name, raw, value, source));
            }
        }
        found.retain(|e| self.check(&e.value).is_ok());
        let name = self.synonyms.first().map_or(self.name, |s| s.name);
        found.push(self.explained(name, self.default, self.default.to_owned(), Source::Default));
        found
    }

    fn explained(&self, name: &'static str, raw: &str, value: String, source: Source) -> Explained {
        Explained { name, raw: raw.to_owned(), value, source }
    }

    /// The value in force.
    fn in_force(&self, layers: &Layers<'_>) -> String {
        self.explain(layers).into_iter().next().map_or_else(|| self.default.to_owned(), |e| e.value)
    }
}

/// A value in another unit; one below zero has a meaning of its own and no unit.
fn times(raw: &str, factor: i64) -> Option<String> {
    if factor == 1 {
        return Some(raw.to_owned());
    }
    let number: i64 = raw.trim().parse().ok()?;
    Some(if number < 0 { number } else { number.checked_mul(factor)? }.to_string())
}

/// What a topic's settings amount to.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicSettings {
    /// For its log.
    pub log: LogConfig,
    /// `floodmark.sync`.
    pub sync: SyncPolicy,
    /// `cleanup.policy`.
    pub cleanup: Cleanup,
    /// `compression.type` and the level that goes with it.
    pub compression: Compression,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max_ms: i64,
    /// `min.insync.replicas`.
    pub min_insync_replicas: u32,
}

/// When records reach the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Before they are acknowledged to acks=all.
    Ack,
    /// Every so often.
    Interval,
    /// When the system sees fit.
    None,
}

/// What happens to old records; neither keeps all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cleanup {
    /// Whole segments go by age and size.
    pub delete: bool,
    /// The last record of each key is kept.
    pub compact: bool,
}

/// In which codec batches are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// As they come.
    Producer,
    /// In this one, at this level where it is not the codec's default.
    Codec(CompressionType, Option<i32>),
}

/// Whose time records carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    /// Their producer's.
    CreateTime,
    /// The broker's.
    LogAppendTime,
}

impl TopicSettings {
    /// What `layers` amount to for a log that otherwise is like `base`. A value that does not pass its check is passed over:
    /// whoever set it should have been told.
    #[must_use]
    pub fn resolve(layers: &Layers<'_>, base: &LogConfig) -> TopicSettings {
        let values = Values(layers);
        let policy = values.text("cleanup.policy");
        let cleanup = Cleanup {
            delete: list(&policy).any(|word| word == "delete"),
            compact: list(&policy).any(|word| word == "compact"),
        };
        let sync = match values.text("floodmark.sync").trim() {
            "interval" => SyncPolicy::Interval,
            "none" => SyncPolicy::None,
            _ => SyncPolicy::Ack,
        };
        TopicSettings {
            log: values.log(base, cleanup, sync),
            sync,
            cleanup,
            compression: values.compression(),
            timestamp_type: match values.text("message.timestamp.type").trim() {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            timestamp_before_max_ms: values.long("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: values.long("message.timestamp.after.max.ms"),
            min_insync_replicas: values.unsigned("min.insync.replicas"),
        }
    }
}

struct Values<'a>(&'a Layers<'a>);

impl Values<'_> {
    fn text(&self, name: &str) -> String {
        all().iter().find(|s| s.name == name).map(|s| s.in_force(self.0)).unwrap_or_default()
    }

    fn long(&self, name: &str) -> i64 {
        self.text(name).trim().parse().unwrap_or_default()
    }

    fn unsigned(&self, name: &str) -> u32 {
        u32::try_from(self.long(name)).unwrap_or_default()
    }

    fn level(&self, name: &str) -> Option<i32> {
        self.text(name).trim().parse().ok()
    }

    fn log(&self, base: &LogConfig, cleanup: Cleanup, sync: SyncPolicy) -> LogConfig {
        let compaction = CompactionConfig {
            min_dirty_ratio: self.text("min.cleanable.dirty.ratio").trim().parse().unwrap_or(0.5),
            min_lag_ms: self.long("min.compaction.lag.ms"),
            max_lag_ms: self.long("max.compaction.lag.ms"),
            delete_retention_ms: self.long("delete.retention.ms"),
            ..base.compaction.clone().unwrap_or_default()
        };
        let kept = |value: i64| if cleanup.delete && value >= 0 { value } else { -1 };
        LogConfig {
            segment_bytes: self.unsigned("segment.bytes"),
            segment_ms: self.long("segment.ms"),
            segment_jitter_ms: self.long("segment.jitter.ms"),
            index_interval_bytes: self.unsigned("index.interval.bytes"),
            segment_index_bytes: self.unsigned("segment.index.bytes"),
            max_batch_bytes: self.unsigned("max.message.bytes"),
            retention_ms: kept(self.long("retention.ms")),
            retention_bytes: kept(self.long("retention.bytes")),
            flush: self.flush(sync),
            // Zeros ahead make syncs cheap; a log that is hardly ever synced gains nothing from them.
            prewrite_bytes: if sync == SyncPolicy::Ack { base.prewrite_bytes } else { 0 },
            key_index: self.text("floodmark.key.index").trim().eq_ignore_ascii_case("true"),
            compaction: cleanup.compact.then_some(compaction),
            ..base.clone()
        }
    }

    fn flush(&self, sync: SyncPolicy) -> FlushPolicy {
        let set = |value: i64| u64::try_from(value).ok().filter(|_| value != i64::MAX);
        let interval = set(self.long("flush.ms")).map(Duration::from_millis);
        FlushPolicy {
            records: set(self.long("flush.messages")),
            interval: interval.or((sync == SyncPolicy::Interval).then_some(SYNC_INTERVAL)),
        }
    }

    fn compression(&self) -> Compression {
        match self.text("compression.type").trim() {
            "uncompressed" => Compression::Codec(CompressionType::None, None),
            "gzip" => {
                let level = self.level("compression.gzip.level").filter(|level| *level > 0);
                Compression::Codec(CompressionType::Gzip, level)
            }
            "zstd" => Compression::Codec(CompressionType::Zstd, self.level("compression.zstd.level")),
            "lz4" => Compression::Codec(CompressionType::Lz4, None),
            "snappy" => Compression::Codec(CompressionType::Snappy, None),
            _ => Compression::Producer,
        }
    }
}
