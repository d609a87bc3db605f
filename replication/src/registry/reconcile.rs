//! What has to be done so that the partitions of a broker are as an image says. Pure.

use std::sync::Arc;

use floodmark_proto::ids::{BrokerId, LeaderEpoch};
use floodmark_storage::LogConfig;

use crate::cluster::delta::TopicDelta;
use crate::cluster::image::Settings;
use crate::cluster::settings::{Layers, TopicSettings};
use crate::cluster::{ClusterDelta, ClusterImage, Topic};
use crate::partition::{Duty, Role};

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// Open the partition, or make it.
    Hold(Arc<Topic>, u32),
    /// Its leader or its settings are others.
    Change(Arc<Topic>, u32),
    /// Close it and remove its files.
    Remove(Arc<Topic>, u32),
}

/// The way from one image to the next one for broker `node`. What goes stands before what comes: a topic may have been deleted and made
/// again under its name.
pub(super) fn steps(old: &ClusterImage, new: &ClusterImage, node: BrokerId) -> Vec<Step> {
    let delta = ClusterDelta::between(old, new);
    let holds =
        |topic: &Topic, index: u32| topic.partition(index).is_some_and(|p| p.replicas.contains(&node));
    let (mut removed, mut others) = (Vec::new(), Vec::new());
    // Defaults of brokers reach into every topic.
    let has_new_defaults = delta.cluster_settings.is_some() || delta.broker_settings.contains_key(&node);
    if has_new_defaults {
        for topic in new.topics() {
            others.extend(held(topic, node).map(|index| Step::Change(Arc::clone(topic), index)));
        }
    }
    for change in &delta.topics {
        match change {
            TopicDelta::Deleted(topic) => {
                removed.extend(held(topic, node).map(|index| Step::Remove(Arc::clone(topic), index)));
            }
            TopicDelta::Created(topic) => {
                others.retain(|step| !matches!(step, Step::Change(changed, _) if changed.id == topic.id));
                others.extend(held(topic, node).map(|index| Step::Hold(Arc::clone(topic), index)));
            }
            TopicDelta::Changed { old, new } => {
                let all = new.partitions.iter().map(|(index, _)| *index).collect();
                let touched = if change.has_other_settings() { all } else { change.partitions() };
                for index in touched {
                    match (holds(old, index), holds(new, index)) {
                        (false, true) => others.push(Step::Hold(Arc::clone(new), index)),
                        (true, true) => others.push(Step::Change(Arc::clone(new), index)),
                        (true, false) => removed.push(Step::Remove(Arc::clone(old), index)),
                        (false, false) => {}
                    }
                }
            }
        }
    }
    removed.append(&mut others);
    removed
}

fn held(topic: &Topic, node: BrokerId) -> impl Iterator<Item = u32> {
    topic.partitions.iter().filter(move |(_, p)| p.replicas.contains(&node)).map(|(index, _)| *index)
}

/// What the cluster wants of broker `node` in one partition.
pub(super) fn duty(
    image: &ClusterImage,
    topic: &Topic,
    index: u32,
    node: BrokerId,
    file_settings: &Settings,
    log: &LogConfig,
) -> Duty {
    let nothing = Settings::new();
    let layers = Layers {
        topic: &topic.settings,
        broker: image.broker_settings(node).map_or(&nothing, |settings| settings),
        cluster: image.cluster_settings(),
        file: file_settings,
    };
    let settings = Arc::new(TopicSettings::resolve(&layers, log));
    let partition = topic.partition(index);
    let epoch = partition.map_or(LeaderEpoch(0), |p| p.leader_epoch);
    let leads = partition.is_some_and(|p| p.leader == Some(node));
    Duty {
        role: if leads { Role::Leader { epoch } } else { Role::NotLeader { epoch } },
        replicas_in_sync: partition.map_or(0, |p| p.isr.len() as u32),
        settings,
    }
}
