//! How far consumer groups are behind, at the moment of the scrape: of the groups that this broker coordinates, in the partitions whose
//! logs it has. Series are bounded: each offset has its own while there are few, each group has a sum while there are few groups.

use std::collections::BTreeMap;
use std::fmt;

use floodmark_replication::cluster::ClusterImage;
use floodmark_replication::registry::Registry;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use super::state::{family, gauge};
use crate::groups::Coordinator;
use crate::groups::budget::Shared;

/// What one group has committed for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    group: String,
    topic: String,
    partition: i32,
    offset: i64,
    /// Committed records that the group has not read; none where the log is elsewhere.
    lag: Option<i64>,
}

/// What is told; gathered under the locks of the groups, written without them.
#[derive(Debug, Default)]
struct Gathered {
    rows: Vec<Row>,
    row_count: usize,
    lag_by_group: BTreeMap<String, i64>,
    /// More groups than may have a series.
    has_too_many_groups: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfOffset {
    group: String,
    topic: String,
    partition: i32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfGroup {
    group: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfLimit {
    limit: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfState {
    state: &'static str,
}

pub(super) fn encode_groups(
    encoder: &mut DescriptorEncoder<'_>,
    groups: &Coordinator,
    image: &ClusterImage,
    registry: &Registry,
    series_max: usize,
) -> fmt::Result {
    let states = groups.count_by_state().into_iter().map(|(state, count)| (OfState { state }, count as i64));
    family(encoder, "groups", "Groups that this broker coordinates, by state", states)?;
    encode_shared(encoder, groups.shared())?;
    let lag_of = |topic: &str, partition, offset| {
        let log = registry.get(image.topic(topic)?.id, partition)?;
        Some(log.high_watermark().0.saturating_sub(offset).max(0))
    };
    let mut gathered = Gathered::default();
    groups.each_committed_offset(|group, topic, partition, offset| {
        gathered.add(group, topic, (partition, offset, lag_of(topic, partition, offset)), series_max);
    });
    gathered.encode(encoder, series_max)
}

fn encode_shared(encoder: &mut DescriptorEncoder<'_>, shared: Shared) -> fmt::Result {
    let bytes = i64::try_from(shared.bytes).unwrap_or(i64::MAX);
    gauge(encoder, "group_member_bytes", "Bytes that members of groups on this broker have brought", bytes)?;
    let help = "Requests that were refused because of what groups share, by what was used up";
    let mut metric = encoder.encode_descriptor("group_refusals", help, None, MetricType::Counter)?;
    for (limit, count) in [("groups", shared.groups_refused), ("bytes", shared.bytes_refused)] {
        ConstCounter::new(count).encode(metric.encode_family(&OfLimit { limit })?)?;
    }
    Ok(())
}

impl Gathered {
    fn add(
        &mut self,
        group: &str,
        topic: &str,
        (partition, offset, lag): (i32, i64, Option<i64>),
        series_max: usize,
    ) {
        self.row_count += 1;
        if self.row_count <= series_max {
            let (group, topic) = (group.to_owned(), topic.to_owned());
            self.rows.push(Row { group, topic, partition, offset, lag });
        }
        let (lag, has_room) = (lag.unwrap_or(0), self.lag_by_group.len() < series_max);
        match self.lag_by_group.get_mut(group) {
            Some(sum) => *sum = sum.saturating_add(lag),
            None if has_room => {
                self.lag_by_group.insert(group.to_owned(), lag);
            }
            None => self.has_too_many_groups = true,
        }
    }

    fn encode(self, encoder: &mut DescriptorEncoder<'_>, series_max: usize) -> fmt::Result {
        if !self.has_too_many_groups {
            let sums = self.lag_by_group.into_iter().map(|(group, lag)| (OfGroup { group }, lag));
            family(encoder, "group_lag_sum", "Committed records that a group has not read", sums)?;
        }
        if self.row_count > series_max {
            return Ok(());
        }
        let label = |row: &Row| OfOffset {
            group: row.group.clone(),
            topic: row.topic.clone(),
            partition: row.partition,
        };
        let offsets = self.rows.iter().map(|row| (label(row), row.offset));
        family(encoder, "group_offset", "Offset that a group has committed", offsets)?;
        let lags = self.rows.iter().filter_map(|row| Some((label(row), row.lag?)));
        family(encoder, "group_lag", "Committed records of a partition that a group has not read", lags)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::collector::Collector;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry as MetricRegistry;

    use super::*;

    /// Group, topic, partition, offset, lag.
    type Told = (&'static str, &'static str, i32, i64, Option<i64>);

    #[derive(Debug)]
    struct Offsets(Vec<Told>, usize);

    impl Collector for Offsets {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
            let mut gathered = Gathered::default();
            for (group, topic, partition, offset, lag) in &self.0 {
                gathered.add(group, topic, (*partition, *offset, *lag), self.1);
            }
            gathered.encode(&mut encoder, self.1)
        }
    }

    fn text(rows: &[Told], series_max: usize) -> String {
        let mut registry = MetricRegistry::with_prefix("floodmark");
        registry.register_collector(Box::new(Offsets(rows.to_vec(), series_max)));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn series_are_few_or_not_there() {
        let rows = [("g", "a", 0, 5, Some(3)), ("g", "a", 1, 7, Some(4)), ("h", "b", 0, 1, None)];
        let all = text(&rows, 3);
        for line in [
            r#"floodmark_group_offset{group="g",topic="a",partition="1"} 7"#,
            r#"floodmark_group_lag{group="g",topic="a",partition="0"} 3"#,
            r#"floodmark_group_lag_sum{group="g"} 7"#,
            r#"floodmark_group_lag_sum{group="h"} 0"#,
        ] {
            assert!(all.contains(line), "{line}\n{all}");
        }
        assert!(!all.contains(r#"floodmark_group_lag{group="h""#), "its log is elsewhere: {all}");
        let sums = text(&rows, 2);
        assert!(sums.contains(r#"floodmark_group_lag_sum{group="g"} 7"#), "{sums}");
        assert!(!sums.contains("partition="), "{sums}");
        assert!(!text(&rows, 1).contains("group="));
    }
}
