//! One partition: who leads it and who is in sync.

use std::collections::BTreeSet;
use std::sync::Arc;

use floodmark_proto::ids::{BrokerEpoch, BrokerId, LeaderEpoch, TopicId};

use super::super::command::{CommandError, Election, Output};
use super::super::image::{ClusterImage, Partition, Topic};
use super::{moves, staying};

/// What a leader states.
pub(super) struct IsrProposal<'a> {
    pub(super) leader: BrokerId,
    pub(super) leader_epoch: LeaderEpoch,
    pub(super) partition_epoch: i32,
    pub(super) isr: &'a [(BrokerId, BrokerEpoch)],
}

pub(super) fn change_isr(
    image: &mut ClusterImage,
    topic: TopicId,
    index: u32,
    proposal: &IsrProposal<'_>,
) -> Result<Output, CommandError> {
    let (topic, partition) = find(image, topic, index)?;
    if partition.leader_epoch != proposal.leader_epoch {
        let (given, current) = (proposal.leader_epoch, partition.leader_epoch);
        return Err(CommandError::StaleLeaderEpoch { given, current });
    }
    if partition.leader != Some(proposal.leader) {
        return Err(CommandError::NotLeader { broker: proposal.leader, leader: partition.leader });
    }
    if partition.partition_epoch != proposal.partition_epoch {
        let (given, current) = (proposal.partition_epoch, partition.partition_epoch);
        return Err(CommandError::StalePartitionEpoch { given, current });
    }
    check_isr(image, &partition, proposal)?;
    let isr = proposal.isr.iter().map(|(broker, _)| *broker).collect();
    let changed = next_partition_epoch(&Partition { isr, ..partition })
        .ok_or(CommandError::InvalidIsr { reason: "the partition's epochs are used up".to_owned() })?;
    let partition_epoch = changed.partition_epoch;
    // The answer is true of the set as it was proposed; what follows from it has an epoch of its own.
    let changed = moves::led_from_target(image, changed);
    let changed = staying::without_absent(image, &topic, changed);
    put(image, &topic, index, changed);
    Ok(Output::IsrChanged { partition_epoch })
}

fn check_isr(
    image: &ClusterImage,
    partition: &Partition,
    proposal: &IsrProposal<'_>,
) -> Result<(), CommandError> {
    let invalid = |reason: String| Err(CommandError::InvalidIsr { reason });
    let mut seen = BTreeSet::new();
    for (member, epoch) in proposal.isr {
        if !partition.replicas.contains(member) {
            return invalid(format!("broker {member} is no replica"));
        }
        if !seen.insert(*member) {
            return invalid(format!("broker {member} is named twice"));
        }
        let ineligible = |reason: &'static str| {
            Err(CommandError::IneligibleReplica { broker: *member, reason: reason.into() })
        };
        match image.broker(*member) {
            None => return ineligible("it is not registered"),
            Some(broker) if broker.fenced && !partition.isr.contains(member) => {
                return ineligible("it is fenced");
            }
            // What was in sync was another start of that broker, which may have lost its disk since.
            Some(broker) if broker.epoch != *epoch => return ineligible("it has registered again since"),
            Some(broker) if broker.stopping && !partition.isr.contains(member) => {
                return ineligible("it is about to stop");
            }
            Some(_) => {}
        }
    }
    if !seen.contains(&proposal.leader) {
        return invalid(format!("the leader, broker {}, is not in it", proposal.leader));
    }
    Ok(())
}

pub(super) fn elect_leader(
    image: &mut ClusterImage,
    topic: TopicId,
    index: u32,
    election: Election,
) -> Result<Output, CommandError> {
    let (topic, partition) = find(image, topic, index)?;
    let is_electable = |r: &BrokerId| !partition.is_lost && partition.isr.contains(r) && image.may_lead(*r);
    let elected = match election {
        Election::Preferred => {
            let preferred = partition.replicas.first().copied().ok_or(CommandError::NoEligibleLeader)?;
            if partition.leader == Some(preferred) {
                return Err(CommandError::ElectionNotNeeded);
            }
            if !is_electable(&preferred) {
                return Err(CommandError::PreferredLeaderNotAvailable { broker: preferred });
            }
            with_leader(&partition, preferred)
        }
        Election::InSync | Election::Unclean if partition.leader.is_some() => {
            return Err(CommandError::ElectionNotNeeded);
        }
        Election::InSync | Election::Unclean => match (partition.heir(image), election) {
            (Some(leader), _) => staying::taking_office(image, &partition, leader),
            (None, Election::Unclean) => unclean(image, &partition),
            (None, _) => None,
        },
    };
    let elected = elected.ok_or(CommandError::NoEligibleLeader)?;
    let (leader, leader_epoch) = (elected.leader, elected.leader_epoch);
    put(image, &topic, index, elected);
    match leader {
        Some(leader) => Ok(Output::LeaderElected { leader, leader_epoch }),
        None => Err(CommandError::NoEligibleLeader),
    }
}

/// The partition led by whoever is there; what the others have and this one lacks is given up.
fn unclean(image: &ClusterImage, partition: &Partition) -> Option<Partition> {
    let can = |r: &BrokerId| image.may_lead(*r);
    let replicas = || partition.replicas.iter().copied();
    // One that has lost its disk has less than any other.
    let kept = replicas().find(|r| can(r) && !(partition.is_lost && partition.isr.contains(r)));
    let leader = kept.or_else(|| replicas().find(can))?;
    with_leader(&Partition { isr: Arc::new([leader]), is_lost: false, ..partition.clone() }, leader)
}

/// The partition under a new leader; `None` where it has no epochs left.
pub(super) fn with_leader(partition: &Partition, leader: BrokerId) -> Option<Partition> {
    let leader_epoch = LeaderEpoch(partition.leader_epoch.0.checked_add(1)?);
    next_partition_epoch(&Partition { leader: Some(leader), leader_epoch, ..partition.clone() })
}

/// The partition without a leader. Nobody acts in the epoch that begins: it says that the one before is over.
pub(super) fn without_leader(partition: &Partition) -> Partition {
    let leader_epoch = LeaderEpoch(partition.leader_epoch.0.saturating_add(1));
    let partition_epoch = partition.partition_epoch.saturating_add(1);
    Partition { leader: None, leader_epoch, partition_epoch, ..partition.clone() }
}

/// The partition with its epoch raised; `None` where it has none left.
pub(super) fn next_partition_epoch(partition: &Partition) -> Option<Partition> {
    Some(Partition { partition_epoch: partition.partition_epoch.checked_add(1)?, ..partition.clone() })
}

pub(super) fn find(
    image: &ClusterImage,
    id: TopicId,
    index: u32,
) -> Result<(Arc<Topic>, Partition), CommandError> {
    let topic = image.topic_by_id(id).ok_or(CommandError::UnknownTopic { id })?;
    let unknown = || CommandError::UnknownPartition { topic: topic.name.to_string(), partition: index };
    let partition = topic.partition(index).cloned().ok_or_else(unknown)?;
    Ok((Arc::clone(topic), partition))
}

pub(super) fn put(image: &mut ClusterImage, topic: &Topic, index: u32, partition: Partition) {
    let mut topic = topic.clone();
    topic.partitions.insert(index, partition);
    image.put_topic(Arc::new(topic));
}
