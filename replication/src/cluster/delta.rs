//! What differs between two images of a cluster. Costs as much as the difference, not as much as the images.

use std::collections::BTreeMap;
use std::sync::Arc;

use floodmark_proto::ids::{BrokerId, LeaderEpoch, ProducerId};

use super::image::{Broker, ClusterImage, Settings, Topic};

/// What leads from one image to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterDelta {
    /// Version of the newer image.
    pub version: u64,
    /// Its feature level.
    pub feature_level: u16,
    /// The first producer id that it has not given out.
    pub next_producer_id: ProducerId,
    /// Brokers that registered or changed, and `None` for those that are gone.
    pub brokers: BTreeMap<BrokerId, Option<Arc<Broker>>>,
    /// Settings of single brokers that changed, `None` where none are left.
    pub broker_settings: BTreeMap<BrokerId, Option<Arc<Settings>>>,
    /// Settings of all brokers, where they changed.
    pub cluster_settings: Option<Arc<Settings>>,
    /// Topics that changed, by id. Of a topic that was deleted and made again there are two.
    pub topics: Vec<TopicDelta>,
    first_leader_epoch: LeaderEpoch,
}

/// What became of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicDelta {
    /// It is new.
    Created(Arc<Topic>),
    /// It is gone.
    Deleted(Arc<Topic>),
    /// It has other partitions or settings than before.
    Changed {
        /// As it was.
        old: Arc<Topic>,
        /// As it is.
        new: Arc<Topic>,
    },
}

impl TopicDelta {
    /// Partitions that are new or changed, rising. Of a deleted topic, all it had.
    #[must_use]
    pub fn partitions(&self) -> Vec<u32> {
        match self {
            TopicDelta::Created(topic) | TopicDelta::Deleted(topic) => {
                topic.partitions.iter().map(|(index, _)| *index).collect()
            }
            TopicDelta::Changed { old, new } => {
                new.partitions.differences(&old.partitions).iter().map(|d| *d.key).collect()
            }
        }
    }

    /// True where a topic that was there before has other settings now.
    #[must_use]
    pub fn has_other_settings(&self) -> bool {
        matches!(self, TopicDelta::Changed { old, new } if old.settings != new.settings)
    }
}

impl ClusterDelta {
    /// What leads from `old` to `new`.
    #[must_use]
    pub fn between(old: &ClusterImage, new: &ClusterImage) -> ClusterDelta {
        let is_other = |old: &Arc<Settings>, new: &Arc<Settings>| !Arc::ptr_eq(old, new) && old != new;
        ClusterDelta {
            version: new.version,
            feature_level: new.feature_level,
            next_producer_id: new.next_producer_id,
            brokers: map_differences(&old.brokers, &new.brokers),
            broker_settings: map_differences(&old.broker_settings, &new.broker_settings),
            cluster_settings: is_other(&old.cluster_settings, &new.cluster_settings)
                .then(|| Arc::clone(&new.cluster_settings)),
            topics: topic_differences(old, new),
            first_leader_epoch: new.first_leader_epoch,
        }
    }

    /// True where nothing differs but the version.
    #[must_use]
    pub fn changes_no_topic_or_broker(&self) -> bool {
        self.topics.is_empty() && self.brokers.is_empty()
    }

    /// The newer image, from the older one.
    #[must_use]
    pub fn apply(&self, old: &ClusterImage) -> ClusterImage {
        let mut image = old.clone();
        image.version = self.version;
        image.feature_level = self.feature_level;
        image.next_producer_id = self.next_producer_id;
        image.first_leader_epoch = self.first_leader_epoch;
        put_all(&mut image.brokers, &self.brokers);
        put_all(&mut image.broker_settings, &self.broker_settings);
        if let Some(settings) = &self.cluster_settings {
            image.cluster_settings = Arc::clone(settings);
        }
        // A name that was given up may be another topic's now.
        for topic in &self.topics {
            if let TopicDelta::Deleted(topic) = topic {
                image.remove_topic(topic);
            }
        }
        for topic in &self.topics {
            if let TopicDelta::Created(topic) | TopicDelta::Changed { new: topic, .. } = topic {
                image.put_topic(Arc::clone(topic));
            }
        }
        image
    }
}

fn topic_differences(old: &ClusterImage, new: &ClusterImage) -> Vec<TopicDelta> {
    let differences = new.topics_by_id.differences(&old.topics_by_id);
    let delta = |(old, new): (Option<&Arc<Topic>>, Option<&Arc<Topic>>)| match (old, new) {
        (None, Some(new)) => Some(TopicDelta::Created(Arc::clone(new))),
        (Some(old), None) => Some(TopicDelta::Deleted(Arc::clone(old))),
        (Some(old), Some(new)) => Some(TopicDelta::Changed { old: Arc::clone(old), new: Arc::clone(new) }),
        (None, None) => None,
    };
    differences.into_iter().filter_map(|d| delta((d.old, d.new))).collect()
}

type ById<T> = Arc<BTreeMap<BrokerId, Arc<T>>>;

fn map_differences<T: PartialEq>(old: &ById<T>, new: &ById<T>) -> BTreeMap<BrokerId, Option<Arc<T>>> {
    if Arc::ptr_eq(old, new) {
        return BTreeMap::new();
    }
    let changed = new.iter().filter(|(id, value)| old.get(id) != Some(value));
    let gone = old.keys().filter(|id| !new.contains_key(id));
    let changed = changed.map(|(id, value)| (*id, Some(Arc::clone(value))));
    changed.chain(gone.map(|id| (*id, None))).collect()
}

fn put_all<T>(held: &mut ById<T>, changes: &BTreeMap<BrokerId, Option<Arc<T>>>) {
    if changes.is_empty() {
        return;
    }
    let held = Arc::make_mut(held);
    for (id, value) in changes {
        match value {
            Some(value) => held.insert(*id, Arc::clone(value)),
            None => held.remove(id),
        };
    }
}

#[cfg(test)]
mod tests;
