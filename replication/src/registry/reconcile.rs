//! What has to be done so that the partitions of a broker are as an image says: which are to be held, as what, and which are to go. Pure.

use std::sync::Arc;

use floodmark_proto::ids::BrokerId;
use floodmark_storage::LogConfig;

use crate::cluster::delta::TopicDelta;
use crate::cluster::image::Settings;
use crate::cluster::settings::{Layers, TopicSettings};
use crate::cluster::{ClusterDelta, ClusterImage, Partition, Topic};
use crate::partition::{Duty, PartitionId, Role};

/// The broker in whose place the images are looked at.
#[derive(Debug, Clone)]
pub(super) struct Viewer {
    pub(super) node: BrokerId,
    /// Its own defaults for topic settings.
    pub(super) file: Settings,
    /// What logs have in common that no topic setting says.
    pub(super) log: LogConfig,
}

/// What is to be done, the first part first: a name that one topic gave up may be another's now.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// To be removed, with their records.
    pub(super) release: Vec<PartitionId>,
    /// To be held from now on, or held otherwise than before.
    pub(super) hold: Vec<(PartitionId, Duty)>,
}

impl Viewer {
    /// What leads from `old` to `new`. Costs as much as they differ, unless settings of this broker or of all brokers do.
    pub(super) fn plan(&self, old: &ClusterImage, new: &ClusterImage) -> Plan {
        let delta = ClusterDelta::between(old, new);
        let mut plan = Plan::default();
        for topic in &delta.topics {
            plan.release.extend(self.left_by(topic));
        }
        if delta.cluster_settings.is_some() || delta.broker_settings.contains_key(&self.node) {
            for topic in new.topics() {
                self.hold(new, topic, topic.partitions.iter(), &mut plan);
            }
            return plan;
        }
        for change in &delta.topics {
            match change {
                TopicDelta::Deleted(_) => {}
                TopicDelta::Changed { new: topic, .. } if !change.has_other_settings() => {
                    let changed = change.partitions();
                    let entries = changed.iter().filter_map(|i| topic.partition(*i).map(|p| (i, p)));
                    self.hold(new, topic, entries, &mut plan);
                }
                TopicDelta::Changed { new: topic, .. } | TopicDelta::Created(topic) => {
                    self.hold(new, topic, topic.partitions.iter(), &mut plan);
                }
            }
        }
        plan
    }

    /// Partitions that were this broker's and are not any more.
    fn left_by(&self, change: &TopicDelta) -> Vec<PartitionId> {
        let (old, new) = match change {
            TopicDelta::Created(_) => return Vec::new(),
            TopicDelta::Deleted(old) => (old, None),
            TopicDelta::Changed { old, new } => (old, Some(new)),
        };
        let is_held = |topic: &Arc<Topic>, index| topic.partition(index).is_some_and(|p| self.holds(p));
        let left = |index: &u32| is_held(old, *index) && !new.is_some_and(|new| is_held(new, *index));
        change.partitions().into_iter().filter(left).filter_map(|index| id(old, index)).collect()
    }

    fn hold<'a>(
        &self,
        image: &ClusterImage,
        topic: &Topic,
        partitions: impl Iterator<Item = (&'a u32, &'a Partition)>,
        plan: &mut Plan,
    ) {
        let mut held = partitions.filter(|(_, partition)| self.holds(partition)).peekable();
        if held.peek().is_none() {
            return;
        }
        let none = Settings::new();
        let layers = Layers {
            topic: &topic.settings,
            broker: image.broker_settings(self.node).map_or(&none, |settings| settings),
            cluster: image.cluster_settings(),
            file: &self.file,
        };
        // One for all partitions of the topic: resolving reads texts.
        let settings = Arc::new(TopicSettings::resolve(&layers, &self.log));
        plan.hold.extend(held.filter_map(|(index, partition)| {
            let epoch = partition.leader_epoch;
            let role = match partition.leader {
                Some(leader) if leader == self.node => Role::Leader { epoch },
                Some(leader) => Role::Follower { epoch, leader },
                None => Role::NotLeader { epoch },
            };
            let duty = Duty {
                node: self.node,
                role,
                replicas: Arc::clone(&partition.replicas),
                isr: Arc::clone(&partition.isr),
                partition_epoch: partition.partition_epoch,
                settings: Arc::clone(&settings),
            };
            Some((id(topic, *index)?, duty))
        }));
    }

    fn holds(&self, partition: &Partition) -> bool {
        partition.replicas.contains(&self.node)
    }
}

/// `None` for a number that no protocol has room for; topics have none such.
fn id(topic: &Topic, index: u32) -> Option<PartitionId> {
    let index = i32::try_from(index).ok()?;
    Some(PartitionId { topic_id: topic.id, topic: Arc::clone(&topic.name), index })
}

#[cfg(test)]
mod tests;
