//! Who stays in sync while its broker does not serve. Where records are synced before they count, the disk of each member has all that
//! was acknowledged, whether its process lives or not; `docs/adr/0015-staying-in-sync.md` has why, and what it rests on.

use std::sync::Arc;

use floodmark_proto::ids::{BrokerId, TopicId};

use super::super::image::{Broker, ClusterImage, Partition, STAYING_FEATURE_LEVEL, Settings, Topic};
use super::partition::{next_partition_epoch, with_leader, without_leader};

/// The two settings that are read here. Their names and these values of them mean the same in every program from the level on.
const SYNC: &str = "floodmark.sync";
const SYNCED: &str = "ack";
const MIN_IN_SYNC: &str = "min.insync.replicas";

/// Takes the broker out of every lead, and out of in-sync sets. The last one in sync stays: only it has everything that was
/// acknowledged. `fewest` is asked where others are in sync: it stays where they would be fewer, or where none of them would lead, if
/// the topic's records were always synced; with `None` it leaves in any case. Another live replica in sync takes its leads over; where
/// there is none, nobody does.
pub(super) fn withdraw(
    image: &mut ClusterImage,
    id: BrokerId,
    fewest: impl Fn(&ClusterImage, &Topic) -> Option<usize>,
) {
    change_partitions(image, |image, topic, _, partition| {
        if !partition.isr.contains(&id) {
            return None;
        }
        let lone = || (partition.leader == Some(id)).then(|| without_leader(partition));
        let Some(left) = leave(image, partition, id) else { return lone() };
        let fewest = if topic.is_synced { fewest(image, topic) } else { None };
        if fewest.is_none_or(|fewest| left.isr.len() >= fewest && left.leader.is_some()) {
            return Some(left);
        }
        // The state is another all the same: what a leader decided upon before was decided of another start of this broker.
        Some(Partition { isr: Arc::clone(&partition.isr), ..left })
    });
}

/// The partition without one member of its in-sync set; `None` where there is no other.
pub(super) fn leave(image: &ClusterImage, partition: &Partition, id: BrokerId) -> Option<Partition> {
    let others: Arc<[BrokerId]> = partition.isr.iter().copied().filter(|r| *r != id).collect();
    if others.is_empty() {
        return None;
    }
    let left = Partition { isr: others, ..partition.clone() };
    if partition.leader != Some(id) {
        return next_partition_epoch(&left);
    }
    let led = left.heir(image).and_then(|heir| with_leader(&left, heir));
    Some(led.unwrap_or_else(|| without_leader(&left)))
}

/// A partition that nobody led, led by `heir`. Who is in sync and does not serve leaves: the leader would wait for it.
pub(super) fn taking_office(
    image: &ClusterImage,
    partition: &Partition,
    heir: BrokerId,
) -> Option<Partition> {
    let isr = partition.isr.iter().copied().filter(|r| image.is_live(*r)).collect();
    with_leader(&Partition { isr, ..partition.clone() }, heir)
}

/// A partition whose in-sync set was changed by its leader, without members that do not serve where those that do are enough.
pub(super) fn without_absent(image: &ClusterImage, topic: &Topic, partition: Partition) -> Partition {
    let isr: Arc<[BrokerId]> = partition.isr.iter().copied().filter(|r| image.is_live(*r)).collect();
    let leader = partition.leader.and_then(|leader| image.broker(leader));
    let is_enough = leader.is_some_and(|leader| isr.len() >= min_in_sync(image, topic, leader));
    if isr.len() == partition.isr.len() || !is_enough {
        return partition;
    }
    next_partition_epoch(&Partition { isr, ..partition.clone() }).unwrap_or(partition)
}

/// How many must be in sync for a write to be acknowledged, as this broker knows it. Nothing is lost by a number that is not another's:
/// whoever leads waits for all that are in sync.
pub(super) fn min_in_sync(image: &ClusterImage, topic: &Topic, broker: &Broker) -> usize {
    let layers =
        [Some(&topic.settings), image.broker_settings.get(&broker.id), Some(&image.cluster_settings)];
    let set = |settings: &Arc<Settings>| settings.get(MIN_IN_SYNC)?.trim().parse::<u32>().ok();
    let min = layers.into_iter().flatten().find_map(set);
    let min = min.or(broker.in_sync_defaults.map(|defaults| defaults.min_insync_replicas));
    min.and_then(|min| usize::try_from(min).ok()).unwrap_or(1)
}

/// True where no broker that there is can count a record of a topic with these settings before it is synced. What is not known counts
/// as no.
pub(super) fn is_synced_everywhere(image: &ClusterImage, topic: &Settings) -> bool {
    if image.feature_level < STAYING_FEATURE_LEVEL {
        return false;
    }
    topic.get(SYNC).map_or_else(|| is_synced_unless_set(image), |value| value == SYNCED)
}

/// The same of a topic that does not say.
fn is_synced_unless_set(image: &ClusterImage) -> bool {
    let says_so = |settings: &Arc<Settings>| settings.get(SYNC).is_none_or(|value| value == SYNCED);
    let is_default =
        |broker: &Arc<Broker>| broker.in_sync_defaults.is_some_and(|defaults| defaults.is_synced);
    says_so(&image.cluster_settings)
        && image.broker_settings.values().all(says_so)
        && image.brokers.values().all(is_default)
}

/// Settings or brokers have changed: topics of which a broker may count records before they are synced lose that mark, for good. A
/// setting that is taken back syncs nothing that was written meanwhile.
pub(super) fn forget_unsynced(image: &mut ClusterImage) {
    if image.feature_level < STAYING_FEATURE_LEVEL {
        return;
    }
    let unless_set = is_synced_unless_set(image);
    let is_synced = |topic: &Topic| topic.settings.get(SYNC).map_or(unless_set, |value| value == SYNCED);
    let changed: Vec<TopicId> =
        image.topics().filter(|topic| topic.is_synced && !is_synced(topic)).map(|topic| topic.id).collect();
    for id in changed {
        if let Some(topic) = image.topic_by_id(id) {
            let topic = Topic { is_synced: false, ..Topic::clone(topic) };
            image.put_topic(Arc::new(topic));
        }
    }
}

/// Puts what `change` makes of them in the place of partitions.
pub(super) fn change_partitions(
    image: &mut ClusterImage,
    change: impl Fn(&ClusterImage, &Topic, u32, &Partition) -> Option<Partition>,
) {
    let mut changed = Vec::new();
    for topic in image.topics() {
        let of = |(index, p): (&u32, &Partition)| Some((*index, change(image, topic, *index, p)?));
        let found: Vec<(u32, Partition)> = topic.partitions.iter().filter_map(of).collect();
        if found.is_empty() {
            continue;
        }
        let mut topic = Topic::clone(topic);
        for (index, partition) in found {
            topic.partitions.insert(index, partition);
        }
        changed.push(Arc::new(topic));
    }
    for topic in changed {
        image.put_topic(topic);
    }
}
