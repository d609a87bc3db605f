//! Consumer groups as doors ask for them: where a group is coordinated, and which topic and partition a request means. The rest is
//! [`Coordinator`]'s, which this file has follow the cluster. Must never know wire types.

use std::sync::Arc;
use std::time::Duration;

use floodmark_proto::ids::BrokerId;
use floodmark_proto::kafka::ErrorCode;
use floodmark_replication::cluster::delta::TopicDelta;
use floodmark_replication::cluster::{ClusterDelta, ClusterImage, Topic};
use floodmark_replication::lease::Lease;
use floodmark_replication::quorum::QuorumHandle;
use floodmark_replication::registry::Registry;
use floodmark_replication::vital::Vitals;
use floodmark_storage::clock::Clock;
use floodmark_storage::random::Random;
use tokio::time::{Instant, sleep, timeout};

use super::error::OpError;
use super::topics::{self, NewTopic, TopicKey};
use crate::config::BrokerConfig;
use crate::groups::coordinator::{Coordinator, WhichOffsets};
use crate::groups::error::GroupError;
use crate::groups::records::{OFFSETS_TOPIC, partition_for};
use crate::groups::settings::GroupSettings;
use crate::shared::Shared;

/// The offsets topic is made when the first group asks for it; who waits longer asks again.
const CREATED_WITHIN: Duration = Duration::from_secs(5);
/// What a leader has to open before it serves its groups takes a moment; who waits longer asks again.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(5);
/// Long enough for an empty log.
const LOADED_WITHIN: Duration = Duration::from_millis(200);
const POLL: Duration = Duration::from_millis(2);
/// How soon shards that were being loaded are asked again for offsets of deleted topics, and partitions that could not be opened are looked
/// for again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Small segments, so that compaction gets at what is old, as in Kafka.
const OFFSETS_TOPIC_SETTINGS: [(&str, Option<&str>); 3] = [
    ("cleanup.policy", Some("compact")),
    ("compression.type", Some("producer")),
    ("segment.bytes", Some("104857600")),
];

/// A coordinator with the settings of a broker.
pub(crate) fn coordinator(
    config: &BrokerConfig,
    clock: Clock,
    random: Random,
    lease: Lease,
    vitals: Vitals,
) -> Coordinator {
    let ms = |millis: crate::config::Millis| i32::try_from(millis.0).unwrap_or(i32::MAX);
    let settings = GroupSettings {
        session_timeout_ms_min: ms(config.group_min_session_timeout),
        session_timeout_ms_max: ms(config.group_max_session_timeout),
        initial_rebalance_delay_ms: ms(config.group_initial_rebalance_delay),
        members_max: usize::try_from(config.group_max_size).unwrap_or(usize::MAX),
        commit_timeout: Duration::from_millis(config.offsets_commit_timeout.0),
        offset_metadata_bytes_max: usize::try_from(config.offset_metadata_bytes_max).unwrap_or(usize::MAX),
        offsets_retention_ms: i64::from(config.offsets_retention_minutes) * 60_000,
        expiry_interval_ms: i64::try_from(config.offsets_retention_check.0).unwrap_or(i64::MAX),
        ..GroupSettings::default()
    };
    Coordinator::new(settings, clock, random, lease, vitals)
}

/// Has the coordinator take over what this broker leads, give up what it does not, and forget offsets of topics that are gone. Never
/// ends by itself.
pub(crate) async fn follow(coordinator: Coordinator, quorum: QuorumHandle, registry: Registry) {
    let mut images = quorum.watch();
    let mut before: Option<Arc<ClusterImage>> = None;
    let mut may_have_orphans = true;
    loop {
        let image = Arc::clone(&images.borrow_and_update());
        registry.reconciled(image.version()).await;
        let was = before.as_ref().and_then(|before| before.topic(OFFSETS_TOPIC)).map(|topic| topic.id);
        let is = image.topic(OFFSETS_TOPIC);
        if was.is_some() && was != is.map(|topic| topic.id) {
            coordinator.set_partition_count(0);
            coordinator.stop();
        }
        // What is opened late is told by no image.
        let has_all = is.is_none_or(|topic| follow_topic(&coordinator, &registry, topic));
        may_have_orphans |= before.as_ref().is_none_or(|before| has_deleted(before, &image));
        if may_have_orphans {
            // The image is looked up for each topic: one that was made a moment ago must not be taken for gone.
            may_have_orphans = !coordinator.delete_orphans(&|topic, id| is_gone(&quorum.image(), topic, id));
        }
        before = Some(image);
        let wait = if may_have_orphans || !has_all { ASK_AGAIN } else { Duration::MAX };
        if let Ok(Err(_)) = timeout(wait, images.changed()).await {
            return;
        }
    }
}

fn has_deleted(before: &ClusterImage, now: &ClusterImage) -> bool {
    let changes = ClusterDelta::between(before, now).topics;
    changes.iter().any(|change| matches!(change, TopicDelta::Deleted(_)))
}

/// False where a partition that this broker should hold is not open, or its log hangs.
fn follow_topic(coordinator: &Coordinator, registry: &Registry, topic: &Topic) -> bool {
    let (mut count, mut has_all) = (0, true);
    for (index, partition) in topic.partitions.iter() {
        let Ok(index) = i32::try_from(*index) else { continue };
        count += 1;
        match registry.get(topic.id, index) {
            Some(handle) if handle.duty().role.epoch() < partition.leader_epoch => {
                has_all = false;
                coordinator.resign(index, partition.leader_epoch);
            }
            Some(handle) => coordinator.follow(&handle),
            None => {
                has_all &= registry.unusable(topic.id, index).is_none();
                coordinator.resign(index, partition.leader_epoch);
            }
        }
    }
    coordinator.set_partition_count(count);
    has_all
}

fn is_gone(image: &ClusterImage, topic: &str, id: [u8; 16]) -> bool {
    image.topic(topic).is_none_or(|there| id != [0; 16] && there.id.to_bytes() != id)
}

/// The broker that coordinates a group. Where no group has been yet, makes the topic that keeps them.
pub(crate) async fn find(shared: &Shared, group: &str) -> Result<BrokerId, OpError> {
    if shared.cluster.image().topic(OFFSETS_TOPIC).is_none() {
        make_offsets_topic(shared).await?;
    }
    let unavailable = || OpError::new(ErrorCode::CoordinatorNotAvailable, "the coordinator is not available");
    let image = shared.cluster.image();
    let topic = image.topic(OFFSETS_TOPIC).ok_or_else(unavailable)?;
    let count = i32::try_from(topic.partitions.iter().count()).unwrap_or(i32::MAX);
    let index = partition_for(group, count);
    let partition = u32::try_from(index).ok().and_then(|index| topic.partition(index));
    let leader = partition.and_then(|partition| partition.leader).ok_or_else(unavailable)?;
    if leader == shared.cluster.node_id() && !is_taken_over(shared, group).await {
        return Err(unavailable());
    }
    Ok(leader)
}

/// Waits until this broker serves a group that it leads: an image is known a moment before its partitions are open. Whoever is sent here
/// before that meets errors that librdkafka does not try again for offsets, but hands to its user.
async fn is_taken_over(shared: &Shared, group: &str) -> bool {
    let start = Instant::now();
    loop {
        match shared.groups.fetch_offsets(group, WhichOffsets::Of(&[]), false) {
            Err(GroupError::NotCoordinator | GroupError::CoordinatorNotAvailable) => {
                if start.elapsed() > TAKEN_OVER_WITHIN {
                    return false;
                }
            }
            // Every client knows this answer and asks again, so that a long log is not waited for.
            Err(GroupError::CoordinatorLoading) if start.elapsed() <= LOADED_WITHIN => {}
            Ok(_) | Err(_) => return true,
        }
        sleep(POLL).await;
    }
}

async fn make_offsets_topic(shared: &Shared) -> Result<(), OpError> {
    let topic = NewTopic {
        name: OFFSETS_TOPIC,
        partitions: Some(shared.config.offsets_topic_partitions),
        settings: OFFSETS_TOPIC_SETTINGS.to_vec(),
        ..Default::default()
    };
    let made = topics::create(shared, &[topic], false, CREATED_WITHIN).await;
    for error in made.into_iter().filter_map(Result::err) {
        // Another request may have been quicker.
        if error.code != ErrorCode::TopicAlreadyExists {
            tracing::error!(%error, "the topic that keeps groups cannot be made");
            return Err(OpError::new(ErrorCode::CoordinatorNotAvailable, error.message));
        }
    }
    Ok(())
}

/// Name and id of the topic that is meant, where it has that partition.
pub(crate) fn locate(
    image: &ClusterImage,
    topic: Result<TopicKey<'_>, ErrorCode>,
    partition: i32,
) -> Result<(Arc<str>, [u8; 16]), ErrorCode> {
    let topic = topics::find(image, topic?).map_err(|e| e.code)?;
    let exists = u32::try_from(partition).is_ok_and(|index| topic.partition(index).is_some());
    if exists {
        Ok((Arc::clone(&topic.name), topic.id.to_bytes()))
    } else {
        Err(ErrorCode::UnknownTopicOrPartition)
    }
}

#[cfg(test)]
mod tests;
