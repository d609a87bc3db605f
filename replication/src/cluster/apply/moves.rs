//! Partitions on their way to other brokers. A move adds replicas first, then leads from the target, and takes the others out last,
//! when they know that they lead no more. It never takes out the last replica in sync.

use std::collections::BTreeSet;
use std::sync::Arc;

use floodmark_proto::ids::{BrokerId, TopicId};

use super::super::command::{CommandError, Output};
use super::super::image::{ClusterImage, Partition};
use super::partition::{find, next_partition_epoch, put, with_leader};
use super::topic::REPLICAS_MAX;

pub(super) fn begin(
    image: &mut ClusterImage,
    topic: TopicId,
    index: u32,
    target: &[BrokerId],
) -> Result<Output, CommandError> {
    let (topic, partition) = find(image, topic, index)?;
    check_target(image, &partition, target)
        .map_err(|reason| CommandError::InvalidAssignment { partition: index, reason })?;
    let moved = retarget(image, &partition, target)?;
    put(image, &topic, index, moved);
    Ok(Output::Done)
}

pub(super) fn cancel(image: &mut ClusterImage, topic: TopicId, index: u32) -> Result<Output, CommandError> {
    let (topic, partition) = find(image, topic, index)?;
    if !partition.is_moving() {
        return Err(CommandError::NoMove { what: "cancelled".into() });
    }
    let origin: Vec<BrokerId> = partition.origin().collect();
    let moved = retarget(image, &partition, &origin)?;
    put(image, &topic, index, moved);
    Ok(Output::Done)
}

pub(super) fn finish(
    image: &mut ClusterImage,
    topic: TopicId,
    index: u32,
    partition_epoch: i32,
) -> Result<Output, CommandError> {
    let (topic, partition) = find(image, topic, index)?;
    if partition.partition_epoch != partition_epoch {
        let (given, current) = (partition_epoch, partition.partition_epoch);
        return Err(CommandError::StalePartitionEpoch { given, current });
    }
    if !is_finishable(image, &partition) {
        return Err(CommandError::NoMove { what: "finished".into() });
    }
    let replicas: Arc<[BrokerId]> = partition.target().collect();
    let isr = partition.isr.iter().copied().filter(|r| replicas.contains(r)).collect();
    let finished = Partition { replicas, isr, adding: Arc::new([]), removing: Arc::new([]), ..partition };
    let finished = next_partition_epoch(&finished).ok_or(CommandError::NoMove { what: "finished".into() })?;
    put(image, &topic, index, finished);
    Ok(Output::Done)
}

/// True where everybody to whom the partition moves is in sync, and nobody else leads it.
#[must_use]
pub(crate) fn is_finishable(image: &ClusterImage, partition: &Partition) -> bool {
    let leads_elsewhere = partition.leader.is_some_and(|leader| partition.removing.contains(&leader));
    partition.is_moving()
        && is_target_in_sync(partition)
        && !leads_elsewhere
        && keeps_copies(image, partition, partition.target())
}

/// True where nobody leaves the in-sync set, or one that stays serves: those that do not may have lost what they had, and not have said so
/// yet.
fn keeps_copies(image: &ClusterImage, partition: &Partition, stay: impl Iterator<Item = BrokerId>) -> bool {
    let stay: Vec<BrokerId> = stay.collect();
    stay.len() == partition.isr.len() || stay.iter().any(|r| image.is_live(*r))
}

/// Gives the lead to the target once all of it is in sync. The one that led stays in sync until the move is finished: its
/// successor commits nothing before it follows.
pub(super) fn led_from_target(image: &ClusterImage, partition: Partition) -> Partition {
    let leads_elsewhere = partition.leader.is_some_and(|leader| partition.removing.contains(&leader));
    if !leads_elsewhere || !is_target_in_sync(&partition) {
        return partition;
    }
    let heir = partition.heir(image).filter(|heir| !partition.removing.contains(heir));
    heir.and_then(|heir| with_leader(&partition, heir)).unwrap_or(partition)
}

fn is_target_in_sync(partition: &Partition) -> bool {
    partition.target().all(|r| partition.isr.contains(&r))
}

/// The partition on its way to `target`, from where it was before any move.
fn retarget(
    image: &ClusterImage,
    partition: &Partition,
    target: &[BrokerId],
) -> Result<Partition, CommandError> {
    let origin: Vec<BrokerId> = partition.origin().collect();
    // One that an earlier move added goes at once, but where it leads: it must learn first that it does so no more.
    let leads = partition.leader.filter(|leader| !target.contains(leader) && !origin.contains(leader));
    let leaves = origin.iter().copied().filter(|r| !target.contains(r));
    let removing: Arc<[BrokerId]> = leaves.chain(leads).collect();
    let adding: Arc<[BrokerId]> = target.iter().copied().filter(|r| !origin.contains(r)).collect();
    let replicas: Arc<[BrokerId]> = target.iter().chain(&*removing).copied().collect();
    let isr: Arc<[BrokerId]> = partition.isr.iter().copied().filter(|r| replicas.contains(r)).collect();
    if !keeps_copies(image, partition, isr.iter().copied().filter(|r| Some(*r) != leads)) {
        let broker = partition.isr.first().copied().unwrap_or(BrokerId(-1));
        return Err(CommandError::LosesInSync { broker });
    }
    let moved = Partition { replicas, isr, adding, removing, ..partition.clone() };
    if moved == *partition {
        return Ok(moved);
    }
    let exhausted = || CommandError::NoMove { what: "begun: its epochs are used up".into() };
    let moved = next_partition_epoch(&moved).ok_or_else(exhausted)?;
    let heir = if leads.is_some() { moved.heir(image).filter(|heir| Some(*heir) != leads) } else { None };
    match heir.and_then(|heir| with_leader(&moved, heir)) {
        Some(led) => Ok(led),
        None => Ok(led_from_target(image, moved)),
    }
}

fn check_target(image: &ClusterImage, partition: &Partition, target: &[BrokerId]) -> Result<(), String> {
    if target.is_empty() {
        return Err("it has no replicas".to_owned());
    }
    if target.len() > REPLICAS_MAX {
        return Err(format!("it has {} replicas, more than {REPLICAS_MAX}", target.len()));
    }
    let mut seen = BTreeSet::new();
    for replica in target {
        if !seen.insert(replica) {
            return Err(format!("broker {replica} is named twice"));
        }
        // One that holds it already may be away for a while.
        if partition.replicas.contains(replica) {
            continue;
        }
        if image.broker(*replica).is_none() {
            return Err(format!("broker {replica} is not registered"));
        }
        if !image.may_lead(*replica) {
            return Err(format!("broker {replica} is not there to take it: it is fenced or about to stop"));
        }
    }
    Ok(())
}
