//! Topics: made, removed, extended.

use std::collections::BTreeSet;
use std::sync::Arc;

use floodmark_proto::ids::{BrokerId, LeaderEpoch, TopicId};
use floodmark_storage::data_dir::PartitionName;

use super::super::command::{CommandError, Output};
use super::super::image::{ClusterImage, Partition, Settings, Topic, metric_name};
use super::super::sorted_map::SortedMap;
use super::{put_setting, staying, within};

/// Partitions of a topic at most.
pub(super) const PARTITIONS_MAX: usize = 100_000;
/// Replicas of a partition at most.
pub(super) const REPLICAS_MAX: usize = 255;

pub(super) fn create(
    image: &mut ClusterImage,
    name: &str,
    id: TopicId,
    assignments: &[Vec<BrokerId>],
    settings: &[(String, String)],
) -> Result<Output, CommandError> {
    PartitionName::new(name, 0).map_err(|reason| CommandError::InvalidTopicName { reason })?;
    if image.topic(name).is_some() {
        return Err(CommandError::TopicExists { name: name.to_owned() });
    }
    if let Some(existing) = metric_name(name).and_then(|collides_as| image.metric_names.get(&*collides_as)) {
        let existing = existing.to_string();
        return Err(CommandError::TopicNameCollides { name: name.to_owned(), existing });
    }
    if image.topic_by_id(id).is_some() {
        return Err(CommandError::TopicIdInUse { id });
    }
    let mut held = Settings::new();
    for (name, value) in settings {
        if held.contains_key(name) {
            return Err(CommandError::DuplicateConfig { name: name.clone() });
        }
        put_setting(&mut held, name, value)?;
    }
    let partitions = place(image, SortedMap::default(), assignments)?;
    let is_synced = staying::is_synced_everywhere(image, &held);
    let topic = Topic { id, name: Arc::from(name), partitions, settings: Arc::new(held), is_synced };
    image.put_topic(Arc::new(topic));
    Ok(Output::Done)
}

pub(super) fn delete(image: &mut ClusterImage, id: TopicId) -> Result<Output, CommandError> {
    let topic = image.topic_by_id(id).cloned().ok_or(CommandError::UnknownTopic { id })?;
    let highest = topic.partitions.values().map(|p| p.leader_epoch).max().unwrap_or(LeaderEpoch(0));
    let above = LeaderEpoch(highest.0.saturating_add(1));
    image.first_leader_epoch = image.first_leader_epoch.max(above);
    image.remove_topic(&topic);
    Ok(Output::Done)
}

pub(super) fn add_partitions(
    image: &mut ClusterImage,
    id: TopicId,
    count_now: u32,
    assignments: &[Vec<BrokerId>],
) -> Result<Output, CommandError> {
    let topic = image.topic_by_id(id).cloned().ok_or(CommandError::UnknownTopic { id })?;
    let actual = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
    if actual != count_now {
        let topic = topic.name.to_string();
        return Err(CommandError::PartitionCountDiffers { topic, expected: count_now, actual });
    }
    let partitions = place(image, topic.partitions.clone(), assignments)?;
    image.put_topic(Arc::new(Topic { partitions, ..Topic::clone(&topic) }));
    Ok(Output::Done)
}

/// Adds a partition for each of `assignments`.
fn place(
    image: &ClusterImage,
    mut partitions: SortedMap<u32, Partition>,
    assignments: &[Vec<BrokerId>],
) -> Result<SortedMap<u32, Partition>, CommandError> {
    if assignments.is_empty() {
        return Err(CommandError::NoPartitions);
    }
    within("partitions of a topic", partitions.len() + assignments.len(), PARTITIONS_MAX)?;
    for replicas in assignments {
        let index = u32::try_from(partitions.len()).unwrap_or(u32::MAX);
        let partition = new_partition(image, replicas)
            .map_err(|reason| CommandError::InvalidAssignment { partition: index, reason })?;
        partitions.insert(index, partition);
    }
    Ok(partitions)
}

fn new_partition(image: &ClusterImage, replicas: &[BrokerId]) -> Result<Partition, String> {
    if replicas.is_empty() {
        return Err("it has no replicas".to_owned());
    }
    if replicas.len() > REPLICAS_MAX {
        return Err(format!("it has {} replicas, more than {REPLICAS_MAX}", replicas.len()));
    }
    let mut seen = BTreeSet::new();
    for replica in replicas {
        if image.broker(*replica).is_none() {
            return Err(format!("broker {replica} is not registered"));
        }
        if !seen.insert(replica) {
            return Err(format!("broker {replica} is named twice"));
        }
    }
    // An empty log is in sync wherever somebody will take writes.
    let isr: Arc<[BrokerId]> = replicas.iter().copied().filter(|r| image.may_lead(*r)).collect();
    let leader = isr.first().copied().ok_or("none of its brokers is live")?;
    Ok(Partition {
        replicas: replicas.into(),
        isr,
        adding: Arc::new([]),
        removing: Arc::new([]),
        is_lost: false,
        leader: Some(leader),
        leader_epoch: image.first_leader_epoch,
        partition_epoch: 0,
    })
}
