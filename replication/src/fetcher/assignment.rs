//! Which partitions a broker follows and which it leads for others, as images say. Pure.

use floodmark_proto::ids::BrokerId;

use super::PartitionKey;
use crate::cluster::delta::TopicDelta;
use crate::cluster::{ClusterDelta, ClusterImage, Partition, Topic};

/// A broker's part in one partition, as far as it copies or is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Assignment {
    /// It copies from this leader.
    Follows(BrokerId),
    /// Others copy from it.
    Leads,
    /// Neither.
    Nothing,
}

/// What becomes of the partitions that changed between two images; each of them is said, also where its part is as before.
pub(crate) fn changes(
    node: BrokerId,
    old: &ClusterImage,
    new: &ClusterImage,
) -> Vec<(PartitionKey, Assignment)> {
    let mut changes = Vec::new();
    for delta in ClusterDelta::between(old, new).topics {
        let topic = match &delta {
            TopicDelta::Deleted(topic) | TopicDelta::Created(topic) => topic,
            TopicDelta::Changed { new, .. } => new,
        };
        let is_there = !matches!(delta, TopicDelta::Deleted(_));
        let of = |index: u32| match topic.partition(index).filter(|_| is_there) {
            Some(partition) => of_partition(node, partition),
            None => Assignment::Nothing,
        };
        changes.extend(delta.partitions().into_iter().map(|index| (key(topic, index), of(index))));
    }
    changes
}

fn of_partition(node: BrokerId, partition: &Partition) -> Assignment {
    match partition.leader {
        _ if !partition.replicas.contains(&node) => Assignment::Nothing,
        Some(leader) if leader == node && partition.replicas.len() > 1 => Assignment::Leads,
        Some(leader) if leader != node => Assignment::Follows(leader),
        _ => Assignment::Nothing,
    }
}

fn key(topic: &Topic, index: u32) -> PartitionKey {
    PartitionKey { topic: topic.id, index }
}
