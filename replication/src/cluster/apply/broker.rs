//! Brokers: registration, fencing, and what that does to the partitions they hold.

use std::sync::Arc;

use floodmark_proto::ids::{BrokerEpoch, BrokerId};

use super::super::command::{CommandError, Output};
use super::super::image::{Broker, ClusterImage, Partition, Topic};
use super::partition::{next_partition_epoch, with_leader, without_leader};
use super::{registered, within};

/// Listeners of a broker at most.
const ENDPOINTS_MAX: usize = 64;
/// Bytes of a rack, a listener's name or a host at most.
const NAME_BYTES_MAX: usize = 255;

pub(super) fn register(image: &mut ClusterImage, broker: Broker) -> Result<Output, CommandError> {
    check_feature_level(&broker, image.feature_level)?;
    within("endpoints of a broker", broker.endpoints.len(), ENDPOINTS_MAX)?;
    let names = broker.endpoints.iter().flat_map(|e| [&e.listener, &e.host]).chain(broker.rack.as_ref());
    for name in names {
        within("bytes of a name", name.len(), NAME_BYTES_MAX)?;
    }
    let id = broker.id;
    let mut broker = broker;
    if let Some(before) = image.broker(id).filter(|before| before.incarnation == broker.incarnation) {
        // A registration whose answer was lost is made again; what the process has done since stands.
        (broker.epoch, broker.fenced) = (before.epoch, before.fenced);
    } else {
        withdraw(image, id);
    }
    let epoch = broker.epoch;
    Arc::make_mut(&mut image.brokers).insert(id, Arc::new(broker));
    Ok(Output::BrokerRegistered { epoch })
}

pub(super) fn fence(
    image: &mut ClusterImage,
    id: BrokerId,
    epoch: BrokerEpoch,
) -> Result<Output, CommandError> {
    let broker = registered(image, id, epoch)?;
    set_fenced(image, &broker, true);
    withdraw(image, id);
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
    change_partitions(image, |_, partition| {
        if partition.leader.is_none() && partition.isr.contains(&id) {
            with_leader(partition, id)
        } else {
            None
        }
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
    let broker = Broker { fenced, ..broker.clone() };
    Arc::make_mut(&mut image.brokers).insert(broker.id, Arc::new(broker));
}

/// Takes the broker out of every in-sync set that has another member, and out of every lead. Another live replica in sync
/// takes over; where there is none, nobody does.
fn withdraw(image: &mut ClusterImage, id: BrokerId) {
    change_partitions(image, |image, partition| {
        if !partition.isr.contains(&id) {
            return None;
        }
        let others: Arc<[BrokerId]> = partition.isr.iter().copied().filter(|r| *r != id).collect();
        let is_leader = partition.leader == Some(id);
        if others.is_empty() {
            // The last one in sync stays so: only it has everything that was acknowledged.
            return if is_leader { Some(without_leader(partition)) } else { None };
        }
        let left = Partition { isr: Arc::clone(&others), ..partition.clone() };
        if !is_leader {
            return next_partition_epoch(&left);
        }
        let heir = partition.replicas.iter().copied().find(|r| others.contains(r) && image.is_live(*r));
        heir.map_or_else(|| Some(without_leader(&left)), |heir| with_leader(&left, heir))
    });
}

/// Puts what `change` makes of them in the place of partitions.
fn change_partitions(
    image: &mut ClusterImage,
    change: impl Fn(&ClusterImage, &Partition) -> Option<Partition>,
) {
    let mut changed = Vec::new();
    for topic in image.topics() {
        let found: Vec<(u32, Partition)> =
            topic.partitions.iter().filter_map(|(index, p)| Some((*index, change(image, p)?))).collect();
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
