//! What a controller does for the cluster, as commands. Pure: from an image, from who lives, and from the time. Each command may
//! be given again: it is made of what is, not of what was done.

use std::collections::{BTreeMap, BTreeSet};

use floodmark_proto::ids::{BrokerId, TopicId};
use tokio::time::Instant;

use super::liveness::{Liveness, Wants};
use crate::cluster::apply::moves::is_finishable;
use crate::cluster::command::Election;
use crate::cluster::{Broker, ClusterImage, Command, Partition};

/// Leaderships that go back to preferred replicas in one round: each costs its clients a moment.
pub(crate) const ELECTIONS_MAX: usize = 256;
/// Moves that are finished in one round.
const FINISHED_MAX: usize = 256;

/// What brokers need: silent ones are fenced, ready ones let in, stopping ones relieved; the feature level follows what all know.
/// Fences come first.
pub(crate) fn for_brokers(
    image: &ClusterImage,
    liveness: &Liveness,
    feature_level_max: u16,
    now: Instant,
) -> Vec<Command> {
    let mut fences = Vec::new();
    let mut others = Vec::new();
    others.extend(raised_level(image, feature_level_max));
    for broker in image.brokers() {
        let (id, epoch) = (broker.id, broker.epoch);
        if broker.fenced {
            let is_ready = is_ready(broker, liveness, now);
            others.extend(is_ready.then_some(Command::UnfenceBroker { broker: id, epoch }));
        } else if liveness.is_silent(id, now) {
            fences.push(Command::FenceBroker { broker: id, epoch });
        } else if !broker.stopping && liveness.last(id, now).is_some_and(|last| last.wants == Wants::Stop) {
            others.push(Command::BeginShutdown { broker: id, epoch });
        }
    }
    fences.append(&mut others);
    fences
}

/// A broker that leads must know what was agreed on: its own registration at least, and nothing much older than now.
fn is_ready(broker: &Broker, liveness: &Liveness, now: Instant) -> bool {
    liveness.last(broker.id, now).is_some_and(|last| {
        let knows_itself = i64::try_from(last.image_version).is_ok_and(|version| version > broker.epoch.0);
        last.wants == Wants::Serve && knows_itself && liveness.is_fresh(last.image_version, now)
    })
}

fn raised_level(image: &ClusterImage, feature_level_max: u16) -> Option<Command> {
    let known = image.brokers().map(|broker| broker.feature_levels.1).min()?;
    let level = known.min(feature_level_max);
    (level > image.feature_level()).then_some(Command::SetFeatureLevel { level })
}

/// Looks at every partition: those that nobody leads though somebody could, those that a stopping broker still leads, moves that
/// are complete.
pub(crate) fn for_partitions(
    image: &ClusterImage,
    liveness: &Liveness,
    completed: &mut Completed,
    now: Instant,
) -> Vec<Command> {
    let mut commands = Vec::new();
    let mut held_up = BTreeSet::new();
    let mut finishable = BTreeMap::new();
    for (topic, index, partition) in partitions(image) {
        match partition.leader {
            None if partition.heir(image).is_some() => {
                commands.push(Command::ElectLeader { topic, partition: index, election: Election::InSync });
            }
            Some(leader) if is_stopping(image, leader) && partition.heir(image).is_some() => {
                held_up.insert(leader);
            }
            _ => {}
        }
        if is_finishable(image, partition) {
            finishable.insert((topic, index), partition);
        }
    }
    let again = held_up.iter().filter_map(|id| image.broker(*id));
    commands.extend(again.map(|b| Command::BeginShutdown { broker: b.id, epoch: b.epoch }));
    commands.extend(completed.finished(image, liveness, &finishable, now));
    commands
}

fn is_stopping(image: &ClusterImage, broker: BrokerId) -> bool {
    image.broker(broker).is_some_and(|broker| broker.stopping)
}

/// Partitions that another replica than the preferred one leads, though that one could. At most [`ELECTIONS_MAX`].
pub(crate) fn preferred_leaders(image: &ClusterImage) -> Vec<Command> {
    let astray = |(_, _, partition): &(TopicId, u32, &Partition)| {
        let preferred = partition.replicas.first().copied();
        let could = |id: BrokerId| partition.isr.contains(&id) && image.may_lead(id);
        partition.leader.is_some() && partition.leader != preferred && preferred.is_some_and(could)
    };
    let elect =
        |(topic, index, _)| Command::ElectLeader { topic, partition: index, election: Election::Preferred };
    partitions(image).filter(astray).map(elect).take(ELECTIONS_MAX).collect()
}

fn partitions(image: &ClusterImage) -> impl Iterator<Item = (TopicId, u32, &Partition)> {
    image.topics().flat_map(|topic| topic.partitions.iter().map(|(index, p)| (topic.id, *index, p)))
}

/// Moves whose target is in sync and leads, since when. A replica is taken out only once its broker has said that its image is
/// as new: until then it may believe that it leads.
#[derive(Debug, Default)]
pub(crate) struct Completed {
    /// Partition epoch, and the version of the image in which it was first seen.
    seen: BTreeMap<(TopicId, u32), (i32, u64)>,
}

impl Completed {
    /// True where there is a move that waits for a broker to know of it.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.seen.is_empty()
    }

    fn finished(
        &mut self,
        image: &ClusterImage,
        liveness: &Liveness,
        finishable: &BTreeMap<(TopicId, u32), &Partition>,
        now: Instant,
    ) -> Vec<Command> {
        self.seen.retain(|key, (epoch, _)| finishable.get(key).is_some_and(|p| p.partition_epoch == *epoch));
        let mut commands = Vec::new();
        for (key, partition) in finishable {
            let first = (partition.partition_epoch, image.version());
            let (partition_epoch, version) = *self.seen.entry(*key).or_insert(first);
            let knows = |id: &BrokerId| match image.broker(*id) {
                Some(broker) if !broker.fenced => {
                    liveness.last(*id, now).is_some_and(|last| last.image_version >= version)
                }
                // Fenced or gone: it has no lease.
                _ => true,
            };
            if partition.removing.iter().all(knows) && commands.len() < FINISHED_MAX {
                let (topic, partition) = *key;
                commands.push(Command::FinishMove { topic, partition, partition_epoch });
            }
        }
        commands
    }
}

#[cfg(test)]
mod tests;
