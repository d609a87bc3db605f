//! What is true at the moment of the scrape: metadata, logs and groups. Nothing is counted for it while the broker works.
//!
//! A series for each partition is made only while there are few of them; sums by topic are made always.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use floodmark_proto::ids::Offset;
use floodmark_replication::cluster::ClusterImage;
use floodmark_replication::cluster::image::Settings;
use floodmark_replication::partition::{PartitionHandle, Role};
use floodmark_replication::quorum::QuorumHandle;
use floodmark_replication::registry::Registry;
use floodmark_storage::clock::Clock;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::cluster::{encode_health, encode_lag, encode_quorum, health};
use super::groups::encode_groups;
use crate::groups::Coordinator;

/// Where the state is asked for, once it is there.
#[derive(Debug, Clone, Default)]
pub(crate) struct StateSource(Arc<OnceLock<State>>);

/// What a scrape looks at.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) quorum: QuorumHandle,
    pub(crate) registry: Registry,
    pub(crate) groups: Coordinator,
    pub(crate) clock: Clock,
    /// This broker's own defaults for topic settings.
    pub(crate) file_settings: Settings,
    pub(crate) series_max: SeriesMax,
}

/// Up to how many of them each has a series of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SeriesMax {
    pub(crate) partitions: usize,
    pub(crate) group_offsets: usize,
}

impl StateSource {
    /// From here on a scrape tells of these.
    pub(crate) fn set(&self, state: State) {
        // A broker opens its logs once.
        let _ = self.0.set(state);
    }
}

impl Collector for StateSource {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(state) = self.0.get() else { return Ok(()) };
        let State { quorum, registry, groups, series_max, .. } = state;
        let image = quorum.image();
        let status = quorum.local_status();
        encode_metadata(&mut encoder, &image, status.leader.is_some())?;
        encode_health(&mut encoder, health(&image, &state.file_settings))?;
        encode_quorum(&mut encoder, &status, quorum.leadership().borrow().is_some())?;
        encode_groups(&mut encoder, groups, &image, registry, series_max.group_offsets)?;
        encode_space(&mut encoder, registry)?;
        let partitions = registry.all();
        encode_lag(&mut encoder, &partitions, state.clock.steady_ms())?;
        let rows: Vec<PartitionRow> = partitions.iter().map(PartitionRow::of).collect();
        encode_partitions(&mut encoder, rows, registry.all_unusable().len(), series_max.partitions)
    }
}

fn encode_metadata(
    encoder: &mut DescriptorEncoder<'_>,
    image: &ClusterImage,
    has_leader: bool,
) -> fmt::Result {
    let version = i64::try_from(image.version()).unwrap_or(i64::MAX);
    gauge(encoder, "metadata_version", "Version of the cluster's metadata as it is known here", version)?;
    gauge(
        encoder,
        "metadata_has_leader",
        "1 while a leader of the metadata quorum is heard that a majority follows",
        i64::from(has_leader),
    )?;
    let live = image.brokers().filter(|broker| !broker.fenced).count() as i64;
    gauge(encoder, "brokers", "Brokers that are not fenced", live)?;
    let fenced = image.brokers().count() as i64 - live;
    gauge(encoder, "brokers_fenced", "Brokers that are registered and fenced", fenced)?;
    gauge(encoder, "topics", "Topics of the cluster", image.topic_count() as i64)
}

/// What is left on the disks of the data directories; a directory of which the system does not say has no series.
fn encode_space(encoder: &mut DescriptorEncoder<'_>, registry: &Registry) -> fmt::Result {
    let left = registry.data_dirs().iter().filter_map(|dir| {
        let bytes = dir.available_bytes().ok()?;
        Some((DataDir { dir: dir.path().display().to_string() }, signed(bytes)))
    });
    family(encoder, "data_dir_available_bytes", "Bytes left on the disk of a data directory", left)
}

/// A partition of this broker.
#[derive(Debug, Clone)]
struct PartitionRow {
    topic: Arc<str>,
    index: i32,
    start: Offset,
    high_watermark: Offset,
    end: Offset,
    bytes: u64,
    is_led: bool,
    is_stopped: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DataDir {
    dir: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Topic {
    topic: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Partition {
    topic: String,
    partition: i32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartitionState {
    state: &'static str,
}

impl PartitionRow {
    fn of(partition: &PartitionHandle) -> PartitionRow {
        let id = partition.id();
        PartitionRow {
            topic: Arc::clone(&id.topic),
            index: id.index,
            start: partition.log_start(),
            high_watermark: partition.high_watermark(),
            end: partition.log_end(),
            bytes: partition.size_bytes(),
            is_led: matches!(partition.role(), Role::Leader { .. }),
            is_stopped: partition.stopped().is_some(),
        }
    }

    fn state(&self) -> &'static str {
        match self {
            PartitionRow { is_stopped: true, .. } => "stopped",
            PartitionRow { is_led: true, .. } => "leader",
            PartitionRow { .. } => "not_leader",
        }
    }
}

fn encode_partitions(
    encoder: &mut DescriptorEncoder<'_>,
    mut rows: Vec<PartitionRow>,
    unusable: usize,
    series_max: usize,
) -> fmt::Result {
    rows.sort_by(|a, b| (&a.topic, a.index).cmp(&(&b.topic, b.index)));
    let states = ["leader", "not_leader", "stopped"].map(|state| {
        let count = rows.iter().filter(|row| row.state() == state).count();
        // A log that was never opened takes no writes either.
        let count = if state == "stopped" { count + unusable } else { count };
        (PartitionState { state }, count as i64)
    });
    family(encoder, "partitions", "Partitions on this broker, by what they do", states)?;
    let mut by_topic: BTreeMap<&Arc<str>, i64> = BTreeMap::new();
    for row in &rows {
        *by_topic.entry(&row.topic).or_default() += signed(row.bytes);
    }
    let by_topic = by_topic.into_iter().map(|(topic, bytes)| (Topic { topic: topic.to_string() }, bytes));
    family(encoder, "topic_log_bytes", "Bytes of a topic's logs on this broker", by_topic)?;
    if rows.len() > series_max {
        return Ok(());
    }
    let mut of_each = |name, help, value: fn(&PartitionRow) -> i64| {
        let label = |row: &PartitionRow| Partition { topic: row.topic.to_string(), partition: row.index };
        family(encoder, name, help, rows.iter().map(|row| (label(row), value(row))))
    };
    of_each("log_bytes", "Bytes of a log", |row| signed(row.bytes))?;
    of_each("log_start_offset", "First offset of a log", |row| row.start.0)?;
    of_each("log_high_watermark", "Everything before it is committed", |row| row.high_watermark.0)?;
    of_each("log_end_offset", "Offset that the next record gets", |row| row.end.0)
}

pub(super) fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: i64) -> fmt::Result {
    ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

pub(super) fn family<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (L, i64)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in values {
        ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry as MetricRegistry;

    use super::*;

    #[derive(Debug)]
    struct Rows(Vec<PartitionRow>, usize);

    impl Collector for Rows {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
            encode_partitions(&mut encoder, self.0.clone(), 1, self.1)
        }
    }

    fn text(rows: Vec<PartitionRow>, series_max: usize) -> String {
        let mut registry = MetricRegistry::with_prefix("floodmark");
        registry.register_collector(Box::new(Rows(rows, series_max)));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    fn row(topic: &str, index: i32, is_led: bool, is_stopped: bool) -> PartitionRow {
        let offset = |n: i64| Offset(n + i64::from(index));
        let (start, high_watermark, end) = (offset(10), offset(20), offset(30));
        PartitionRow {
            topic: topic.into(),
            index,
            start,
            high_watermark,
            end,
            bytes: 100,
            is_led,
            is_stopped,
        }
    }

    #[test]
    fn each_partition_has_its_series_while_there_are_few() {
        let rows = vec![row("b", 0, true, true), row("a", 1, true, false), row("a", 0, false, false)];
        let few = text(rows.clone(), 3);
        for line in [
            r#"floodmark_partitions{state="leader"} 1"#,
            r#"floodmark_partitions{state="not_leader"} 1"#,
            r#"floodmark_partitions{state="stopped"} 2"#,
            r#"floodmark_topic_log_bytes{topic="a"} 200"#,
            r#"floodmark_topic_log_bytes{topic="b"} 100"#,
            r#"floodmark_log_bytes{topic="a",partition="1"} 100"#,
            r#"floodmark_log_start_offset{topic="a",partition="1"} 11"#,
            r#"floodmark_log_high_watermark{topic="a",partition="1"} 21"#,
            r#"floodmark_log_end_offset{topic="b",partition="0"} 30"#,
        ] {
            assert!(few.contains(line), "{line}\n{few}");
        }
        let many = text(rows, 2);
        assert!(many.contains(r#"floodmark_topic_log_bytes{topic="a"} 200"#), "{many}");
        assert!(!many.contains("partition="), "{many}");
    }
}
