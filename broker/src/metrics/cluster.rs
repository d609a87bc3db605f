//! How the cluster is, at the moment of the scrape: partitions that lack a leader or replicas, how far followers of this broker are
//! behind, and the metadata quorum as this broker sees it.

use std::collections::BTreeMap;
use std::fmt;

use floodmark_proto::ids::{BrokerId, Offset};
use floodmark_replication::cluster::image::Settings;
use floodmark_replication::cluster::settings::{self, Layers};
use floodmark_replication::cluster::{ClusterImage, Partition, Topic};
use floodmark_replication::partition::{PartitionHandle, ReplicaProgress, Role};
use floodmark_replication::quorum::LocalStatus;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::state::{family, gauge};

/// What `min.insync.replicas` is called in the table of settings.
const MIN_IN_SYNC: &str = "min.insync.replicas";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfState {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReplica {
    replica: i32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfBroker {
    broker: i32,
}

/// Partitions of the whole cluster by what they lack. One may be counted under several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) partitions: u32,
    /// Nobody leads them: they take no writes and no reads.
    pub(crate) offline: u32,
    /// Replicas are missing from the in-sync set.
    pub(crate) under_replicated: u32,
    /// Fewer in sync than `min.insync.replicas`: writes that ask for all are refused.
    pub(crate) below_minimum: u32,
    /// Replicas are being added or removed.
    pub(crate) moving: u32,
}

/// Counts over an image. `file` is what the broker that looks has as defaults for topics.
pub(crate) fn health(image: &ClusterImage, file: &Settings) -> Health {
    let mut health = Health::default();
    for topic in image.topics() {
        // Looked up where it matters alone: most topics lack nothing.
        let mut minimum = None;
        for partition in topic.partitions.values() {
            health.partitions += 1;
            health.offline += u32::from(partition.leader.is_none());
            health.moving += u32::from(partition.is_moving());
            if !is_under_replicated(partition) {
                continue;
            }
            health.under_replicated += 1;
            let minimum = *minimum.get_or_insert_with(|| min_in_sync(image, topic, file));
            health.below_minimum += u32::from(partition.isr.len() < minimum);
        }
    }
    health
}

/// Replicas that should be in sync are not. Those that a move adds are still to come.
pub(crate) fn is_under_replicated(partition: &Partition) -> bool {
    partition.origin().any(|id| !partition.isr.contains(&id))
}

/// How many replicas of a topic must be in sync.
pub(crate) fn min_in_sync(image: &ClusterImage, topic: &Topic, file: &Settings) -> usize {
    let none = Settings::new();
    let layers = Layers { topic: &topic.settings, broker: &none, cluster: image.cluster_settings(), file };
    let in_force =
        settings::find(MIN_IN_SYNC).ok().and_then(|setting| setting.explain(&layers).into_iter().next());
    in_force.and_then(|explained| explained.value.parse().ok()).unwrap_or(1)
}

pub(super) fn encode_health(encoder: &mut DescriptorEncoder<'_>, health: Health) -> fmt::Result {
    let states = [
        ("all", health.partitions),
        ("offline", health.offline),
        ("under_replicated", health.under_replicated),
        ("below_min_isr", health.below_minimum),
        ("moving", health.moving),
    ];
    let states = states.map(|(state, count)| (OfState { state }, i64::from(count)));
    family(encoder, "cluster_partitions", "Partitions of the whole cluster, by what they lack", states)
}

/// How far one follower is behind in all partitions that this broker leads.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Lag {
    /// Records and bytes; unknown as long as one of the partitions has not heard of it since this broker leads it.
    missing: Option<(i64, u64)>,
    ms_max: u64,
}

/// Looks at logs for what followers have not got, so it may wait for a disk.
pub(super) fn encode_lag(
    encoder: &mut DescriptorEncoder<'_>,
    partitions: &[PartitionHandle],
    now_ms: u64,
) -> fmt::Result {
    let mut by_replica: BTreeMap<BrokerId, Lag> = BTreeMap::new();
    for partition in partitions.iter().filter(|p| matches!(p.role(), Role::Leader { .. })) {
        for progress in partition.replicas_progress(now_ms) {
            let none = Lag { missing: Some((0, 0)), ms_max: 0 };
            let lag = by_replica.entry(progress.broker).or_insert(none);
            add(lag, partition.log_end(), &progress, |from| partition.reader().bytes_from(from));
        }
    }
    let each = |value: fn(&Lag) -> Option<i64>| {
        by_replica
            .iter()
            .filter_map(move |(replica, lag)| Some((OfReplica { replica: replica.0 }, value(lag)?)))
    };
    let records = "Records that a replica lacks of partitions led here";
    family(encoder, "replication_lag_records", records, each(|lag| lag.missing.map(|(records, _)| records)))?;
    let bytes = "Bytes that a replica lacks of partitions led here";
    family(
        encoder,
        "replication_lag_bytes",
        bytes,
        each(|lag| lag.missing.map(|(_, bytes)| i64::try_from(bytes).unwrap_or(i64::MAX))),
    )?;
    let ms =
        "How long ago a replica last had all of a partition led here, of the partition where that is longest";
    family(encoder, "replication_lag_ms", ms, each(|lag| Some(i64::try_from(lag.ms_max).unwrap_or(i64::MAX))))
}

fn add(lag: &mut Lag, end: Offset, progress: &ReplicaProgress, bytes_from: impl Fn(Offset) -> u64) {
    lag.missing = lag.missing.zip(progress.log_end).map(|((records, bytes), its_end)| {
        let lacks = end.0.saturating_sub(its_end.0).max(0);
        (records + lacks, bytes + if lacks > 0 { bytes_from(its_end) } else { 0 })
    });
    lag.ms_max = lag.ms_max.max(progress.caught_up_ms_ago);
}

pub(super) fn encode_quorum(
    encoder: &mut DescriptorEncoder<'_>,
    status: &LocalStatus,
    is_controller: bool,
) -> fmt::Result {
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let leader = status.leader.map_or(-1, |leader| i64::from(leader.0));
    gauge(
        encoder,
        "quorum_leader",
        "Broker that leads the metadata quorum; -1 where nobody is heard to",
        leader,
    )?;
    gauge(encoder, "quorum_term", "Term of the metadata quorum", signed(status.term))?;
    let last = status.last_log_index.map_or(-1, signed);
    gauge(encoder, "quorum_last_index", "Last entry in this broker's log of metadata; -1 without any", last)?;
    let applied = status.applied_index.map_or(-1, signed);
    gauge(
        encoder,
        "quorum_applied_index",
        "Last entry that this broker's image has; -1 without any",
        applied,
    )?;
    let voters = status.nodes.iter().filter(|node| node.is_voter).count();
    gauge(encoder, "quorum_voters", "Voters of the metadata quorum", voters as i64)?;
    gauge(encoder, "active_controller", "1 where this broker is the controller", i64::from(is_controller))?;
    let mut lag = encoder.encode_descriptor(
        "quorum_lag_entries",
        "Entries of metadata that a broker lacks; told by the controller",
        None,
        MetricType::Gauge,
    )?;
    for node in &status.nodes {
        if let (Some(matched), Some(last)) = (node.matched_index, status.last_log_index) {
            let label = OfBroker { broker: node.broker.0 };
            ConstGauge::new(signed(last.saturating_sub(matched))).encode(lag.encode_family(&label)?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use floodmark_proto::ids::LeaderEpoch;
    use floodmark_replication::cluster::Command;
    use floodmark_replication::cluster::command::{ConfigChange, ConfigResource, ExpectedValue};

    use super::*;
    use crate::test_cluster::{create, done, live};

    /// Led by the first that is in sync.
    pub(crate) fn partition(replicas: &[i32], isr: &[i32]) -> Partition {
        let ids = |ids: &[i32]| -> Arc<[BrokerId]> { ids.iter().map(|id| BrokerId(*id)).collect() };
        Partition {
            replicas: ids(replicas),
            isr: ids(isr),
            leader: isr.first().map(|id| BrokerId(*id)),
            leader_epoch: LeaderEpoch(0),
            partition_epoch: 0,
            adding: Arc::default(),
            removing: Arc::default(),
            is_lost: false,
        }
    }

    #[test]
    fn a_replica_that_a_move_adds_is_not_missed() {
        assert!(!is_under_replicated(&partition(&[1, 2, 3], &[3, 2, 1])));
        assert!(is_under_replicated(&partition(&[1, 2, 3], &[1, 2])));
        let mut moving = partition(&[1, 2, 3], &[1, 2]);
        moving.adding = [BrokerId(3)].into();
        assert!(!is_under_replicated(&moving) && moving.is_moving());
        moving.isr = [BrokerId(1)].into();
        assert!(is_under_replicated(&moving));
    }

    #[test]
    fn what_a_replica_lacks_is_not_told_before_every_partition_has_heard_of_it() {
        let progress = |log_end: Option<i64>, caught_up_ms_ago| ReplicaProgress {
            broker: BrokerId(2),
            synced_end: log_end.map(Offset),
            log_end: log_end.map(Offset),
            caught_up_ms_ago,
            is_in_sync: true,
        };
        let mut lag = Lag { missing: Some((0, 0)), ms_max: 0 };
        let mut add = |end, of: ReplicaProgress| {
            super::add(&mut lag, Offset(end), &of, |from| (end - from.0) as u64 * 10);
            lag
        };
        assert_eq!(add(10, progress(Some(10), 0)), Lag { missing: Some((0, 0)), ms_max: 0 });
        assert_eq!(add(10, progress(Some(7), 20)), Lag { missing: Some((3, 30)), ms_max: 20 });
        assert_eq!(add(90, progress(None, 50)), Lag { missing: None, ms_max: 50 });
        assert_eq!(add(10, progress(Some(7), 20)), Lag { missing: None, ms_max: 50 });
    }

    #[test]
    fn partitions_are_counted_by_what_they_lack() {
        let mut image = live(3);
        create(&mut image, "lone", &[&[2]]);
        create(&mut image, "pair", &[&[1, 2], &[1, 3]]);
        let two = image.topic("pair").unwrap().id;
        let change = ConfigChange {
            name: MIN_IN_SYNC.to_owned(),
            value: Some("2".to_owned()),
            only_over: ExpectedValue::Any,
        };
        let set = Command::SetConfig { resource: ConfigResource::Topic(two), changes: vec![change] };
        done(&mut image, &set);
        let none = Settings::new();
        assert_eq!(health(&image, &none), Health { partitions: 3, ..Health::default() });
        let epoch = image.broker(BrokerId(2)).unwrap().epoch;
        done(&mut image, &Command::FenceBroker { broker: BrokerId(2), epoch });
        let mut expected =
            Health { partitions: 3, offline: 1, under_replicated: 1, below_minimum: 1, moving: 0 };
        // The last in sync stays so, dead or alive: `lone` lacks nothing but a leader.
        assert_eq!(health(&image, &none), expected);
        done(&mut image, &Command::MovePartition { topic: two, partition: 1, replicas: vec![BrokerId(1)] });
        expected.moving = 1;
        assert_eq!(health(&image, &none), expected);
        // What a broker has in its file counts where nobody says more.
        let file = Settings::from([(MIN_IN_SYNC.to_owned(), "3".to_owned())]);
        let lone = image.topic("lone").unwrap();
        assert_eq!((min_in_sync(&image, lone, &none), min_in_sync(&image, lone, &file)), (1, 3));
        let pair = image.topic("pair").unwrap();
        assert_eq!(min_in_sync(&image, pair, &file), 2);
    }
}
