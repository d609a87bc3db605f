//! Brokers: registration, fencing, stopping, lost disks, and what that does to the partitions they hold.

use std::collections::BTreeSet;
use std::sync::Arc;

use floodmark_proto::ids::{BrokerEpoch, BrokerId, TopicId};

use super::super::command::{CommandError, Output};
use super::super::image::{
    Broker, ClusterImage, MOVES_FEATURE_LEVEL, Partition, STAYING_FEATURE_LEVEL, Topic,
};
use super::partition::{next_partition_epoch, with_leader, without_leader};
use super::staying::{change_partitions, leave, min_in_sync, taking_office, withdraw};
use super::topic::PARTITIONS_MAX;
use super::{registered, staying, within};

/// Listeners of a broker at most.
const ENDPOINTS_MAX: usize = 64;
/// Data directories of a broker at most.
const DIRECTORIES_MAX: usize = 64;
/// Bytes of a rack, a listener's name or a host at most.
const NAME_BYTES_MAX: usize = 255;

pub(super) fn register(image: &mut ClusterImage, broker: Broker) -> Result<Output, CommandError> {
    check_feature_level(&broker, image.feature_level)?;
    within("endpoints of a broker", broker.endpoints.len(), ENDPOINTS_MAX)?;
    let names = broker.endpoints.iter().flat_map(|e| [&e.listener, &e.host]).chain(broker.rack.as_ref());
    for name in names {
        within("bytes of a name", name.len(), NAME_BYTES_MAX)?;
    }
    within("directories of a broker", broker.directories.len(), DIRECTORIES_MAX)?;
    let id = broker.id;
    let mut broker = broker;
    if image.feature_level < MOVES_FEATURE_LEVEL {
        // Brokers with older programs have nowhere to keep them, and all must make the same image of a command.
        broker.directories = Vec::new();
    }
    if image.feature_level < STAYING_FEATURE_LEVEL {
        broker.in_sync_defaults = None;
    }
    check_directory(image, &broker)?;
    if let Some(before) = image.broker(id).filter(|before| before.incarnation == broker.incarnation) {
        // A registration whose answer was lost is made again; what the process has done since stands.
        (broker.epoch, broker.fenced, broker.stopping) = (before.epoch, before.fenced, before.stopping);
    } else {
        let has_disks = has_disks(image, &broker);
        withdraw(image, id, |image, topic| has_disks.then(|| min_in_sync(image, topic, &broker)));
    }
    let epoch = broker.epoch;
    Arc::make_mut(&mut image.brokers).insert(id, Arc::new(broker));
    staying::forget_unsynced(image);
    Ok(Output::BrokerRegistered { epoch })
}

/// A broker id is one disk: what it promised, and what it had in sync, is on that disk or nowhere.
fn check_directory(image: &ClusterImage, broker: &Broker) -> Result<(), CommandError> {
    let before = image.broker(broker.id).and_then(|before| before.directories.first());
    let given = broker.directories.first().copied().unwrap_or_default();
    match before {
        Some(registered) if *registered != given => {
            Err(CommandError::OtherDirectory { broker: broker.id, registered: *registered, given })
        }
        _ => Ok(()),
    }
}

/// True where the broker has every data directory that it had when it registered last, and it is known which those were. What lay in one
/// that is gone is not told apart from the rest here.
fn has_disks(image: &ClusterImage, broker: &Broker) -> bool {
    let before = image.broker(broker.id).map_or(&[][..], |before| before.directories.as_slice());
    !before.is_empty() && before.iter().all(|directory| broker.directories.contains(directory))
}

pub(super) fn fence(
    image: &mut ClusterImage,
    id: BrokerId,
    epoch: BrokerEpoch,
) -> Result<Output, CommandError> {
    let broker = registered(image, id, epoch)?;
    set_fenced(image, &broker, true);
    // One that stops in order has been waited for; where others lead they go on without it.
    let min = |image: &ClusterImage, topic: &Topic| {
        if broker.stopping { 0 } else { min_in_sync(image, topic, &broker) }
    };
    withdraw(image, id, |image, topic| Some(min(image, topic)));
    Ok(Output::Done)
}

pub(super) fn unfence(
    image: &mut ClusterImage,
    id: BrokerId,
    epoch: BrokerEpoch,
) -> Result<Output, CommandError> {
    let broker = registered(image, id, epoch)?;
    set_fenced(image, &broker, false);
    // Where nobody else could lead it leads again. Elsewhere it is a follower until a leader takes it in.
    change_partitions(image, |image, _, _, partition| {
        if partition.leader.is_none() && partition.isr.contains(&id) {
            partition.heir(image).and_then(|heir| taking_office(image, partition, heir))
        } else {
            None
        }
    });
    Ok(Output::Done)
}

pub(super) fn begin_shutdown(
    image: &mut ClusterImage,
    id: BrokerId,
    epoch: BrokerEpoch,
) -> Result<Output, CommandError> {
    let broker = registered(image, id, epoch)?;
    put_broker(image, Broker { stopping: true, ..Broker::clone(&broker) });
    // It stays in sync until it is fenced: a new leader commits nothing before this broker follows it, and so knows of it.
    change_partitions(image, |image, _, _, partition| {
        let heir = if partition.leader == Some(id) { partition.heir(image) } else { None };
        heir.and_then(|heir| with_leader(partition, heir))
    });
    Ok(Output::Done)
}

pub(super) fn remove(
    image: &mut ClusterImage,
    id: BrokerId,
    keeps_replicas: bool,
) -> Result<Output, CommandError> {
    let broker = image.broker(id).ok_or(CommandError::UnknownBroker { broker: id })?;
    if !broker.fenced {
        return Err(CommandError::BrokerNotFenced { broker: id });
    }
    let all = || image.topics().flat_map(|topic| topic.partitions.values());
    let held = all().filter(|partition| partition.replicas.contains(&id)).count();
    if held > 0 && !keeps_replicas {
        return Err(CommandError::BrokerHoldsReplicas { broker: id, partitions: held });
    }
    // It is fenced. Others that are, too, may have lost their disks, of which they have not said anything yet.
    let is_needed = |partition: &Partition| !partition.isr.iter().any(|r| *r != id && image.is_live(*r));
    if all().any(|partition| partition.isr.contains(&id) && is_needed(partition)) {
        return Err(CommandError::LosesInSync { broker: id });
    }
    change_partitions(
        image,
        |image, _, _, partition| {
            if partition.isr.contains(&id) { leave(image, partition, id) } else { None }
        },
    );
    Arc::make_mut(&mut image.brokers).remove(&id);
    Ok(Output::Done)
}

pub(super) fn lose_replicas(
    image: &mut ClusterImage,
    id: BrokerId,
    epoch: BrokerEpoch,
    partitions: &[(TopicId, u32)],
) -> Result<Output, CommandError> {
    registered(image, id, epoch)?;
    within("partitions that a broker has lost", partitions.len(), PARTITIONS_MAX)?;
    let lost: BTreeSet<(TopicId, u32)> = partitions.iter().copied().collect();
    change_partitions(image, |image, topic, index, partition| {
        if partition.is_lost || !partition.isr.contains(&id) || !lost.contains(&(topic.id, index)) {
            return None;
        }
        if let Some(left) = leave(image, partition, id) {
            return Some(left);
        }
        // Nobody else has all of it, and this one has nothing: it must not lead either.
        let lost = Partition { is_lost: true, ..partition.clone() };
        if lost.leader.is_some() { Some(without_leader(&lost)) } else { next_partition_epoch(&lost) }
    });
    Ok(Output::Done)
}

pub(super) fn check_feature_level(broker: &Broker, level: u16) -> Result<(), CommandError> {
    let (lowest, highest) = broker.feature_levels;
    if (lowest..=highest).contains(&level) {
        return Ok(());
    }
    Err(CommandError::UnsupportedFeatureLevel { level, broker: broker.id, lowest, highest })
}

fn set_fenced(image: &mut ClusterImage, broker: &Broker, fenced: bool) {
    put_broker(image, Broker { fenced, ..broker.clone() });
}

fn put_broker(image: &mut ClusterImage, broker: Broker) {
    Arc::make_mut(&mut image.brokers).insert(broker.id, Arc::new(broker));
}
