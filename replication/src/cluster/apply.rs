//! Image and command to image: total, deterministic, without I/O, clock or chance. A refused command changes nothing.
//!
//! Kept by every command: a partition's leader is live and in sync, its in-sync set is part of its replicas and never empty,
//! its epochs never go back. Brokers are in `broker`, who leads and who is in sync in `partition`, who stays so while its broker
//! does not serve in `staying`, moves in `moves`, topics in `topic`.

mod broker;
pub(crate) mod moves;
mod partition;
mod staying;
mod topic;

use std::collections::BTreeMap;
use std::sync::Arc;

use floodmark_proto::ids::{BrokerEpoch, BrokerId, ProducerId};

use super::command::{Command, CommandError, ConfigChange, ConfigResource, ExpectedValue, Output};
use super::image::{Broker, ClusterImage, Settings, Topic};

/// Settings of one resource at most.
const SETTINGS_MAX: usize = 1000;
/// Bytes of a setting's name at most; Kafka's limit for topic names serves here too.
const SETTING_NAME_BYTES_MAX: usize = 249;
/// Bytes of a setting's value at most: lists of replicas are the longest.
const SETTING_VALUE_BYTES_MAX: usize = 32 << 10;

/// Carries `command` out. Where it is refused, the image comes back as it was.
pub fn apply(image: &ClusterImage, command: &Command) -> (ClusterImage, Result<Output, CommandError>) {
    let mut next = image.clone();
    match change(&mut next, command) {
        Ok(output) => {
            next.version += 1;
            (next, Ok(output))
        }
        // What was changed before the refusal goes with the copy.
        Err(e) => (image.clone(), Err(e)),
    }
}

fn change(image: &mut ClusterImage, command: &Command) -> Result<Output, CommandError> {
    let (needed, current) = (command.feature_level(), image.feature_level);
    if needed > current {
        return Err(CommandError::NeedsFeatureLevel { needed, current });
    }
    match command {
        Command::RegisterBroker {
            broker,
            incarnation,
            rack,
            endpoints,
            feature_levels,
            directories,
            in_sync_defaults,
        } => {
            let registered = Broker {
                id: *broker,
                incarnation: *incarnation,
                epoch: BrokerEpoch(i64::try_from(image.version).unwrap_or(i64::MAX)),
                fenced: true,
                stopping: false,
                directories: directories.clone(),
                rack: rack.clone(),
                endpoints: endpoints.clone(),
                feature_levels: *feature_levels,
                in_sync_defaults: *in_sync_defaults,
            };
            broker::register(image, registered)
        }
        Command::FenceBroker { broker, epoch } => broker::fence(image, *broker, *epoch),
        Command::UnfenceBroker { broker, epoch } => broker::unfence(image, *broker, *epoch),
        Command::BeginShutdown { broker, epoch } => broker::begin_shutdown(image, *broker, *epoch),
        Command::RemoveBroker { broker, keeps_replicas } => broker::remove(image, *broker, *keeps_replicas),
        Command::LoseReplicas { broker, epoch, partitions } => {
            broker::lose_replicas(image, *broker, *epoch, partitions)
        }
        Command::AllocateProducerIds { broker, epoch, count } => {
            allocate_producer_ids(image, *broker, *epoch, *count)
        }
        Command::SetConfig { resource, changes } => set_config(image, resource, changes),
        Command::SetFeatureLevel { level } => set_feature_level(image, *level),
        Command::CreateTopic { name, id, assignments, settings } => {
            topic::create(image, name, *id, assignments, settings)
        }
        Command::DeleteTopic { topic } => topic::delete(image, *topic),
        Command::AddPartitions { topic, count_now, assignments } => {
            topic::add_partitions(image, *topic, *count_now, assignments)
        }
        Command::ChangeIsr { topic, partition, leader, leader_epoch, partition_epoch, isr } => {
            let proposal = partition::IsrProposal {
                leader: *leader,
                leader_epoch: *leader_epoch,
                partition_epoch: *partition_epoch,
                isr,
            };
            partition::change_isr(image, *topic, *partition, &proposal)
        }
        Command::ElectLeader { topic, partition, election } => {
            partition::elect_leader(image, *topic, *partition, *election)
        }
        Command::MovePartition { topic, partition, replicas } => {
            moves::begin(image, *topic, *partition, replicas)
        }
        Command::CancelMove { topic, partition } => moves::cancel(image, *topic, *partition),
        Command::FinishMove { topic, partition, partition_epoch } => {
            moves::finish(image, *topic, *partition, *partition_epoch)
        }
    }
}

/// The registration that a command means.
fn registered(
    image: &ClusterImage,
    broker: BrokerId,
    epoch: BrokerEpoch,
) -> Result<Arc<Broker>, CommandError> {
    let found = image.broker(broker).ok_or(CommandError::UnknownBroker { broker })?;
    if found.epoch != epoch {
        return Err(CommandError::StaleBrokerEpoch { broker, given: epoch, current: found.epoch });
    }
    Ok(Arc::clone(found))
}

fn set_config(
    image: &mut ClusterImage,
    resource: &ConfigResource,
    changes: &[ConfigChange],
) -> Result<Output, CommandError> {
    match resource {
        ConfigResource::Cluster => {
            image.cluster_settings = changed_settings(&image.cluster_settings, changes)?;
        }
        ConfigResource::Broker(broker) => {
            let settings = image.broker_settings.get(broker).cloned().unwrap_or_default();
            let settings = changed_settings(&settings, changes)?;
            let all = Arc::make_mut(&mut image.broker_settings);
            if settings.is_empty() {
                all.remove(broker);
            } else {
                all.insert(*broker, settings);
            }
        }
        ConfigResource::Topic(id) => {
            let topic = image.topic_by_id(*id).ok_or(CommandError::UnknownTopic { id: *id })?;
            let settings = changed_settings(&topic.settings, changes)?;
            let topic = Topic { settings, ..Topic::clone(topic) };
            image.put_topic(Arc::new(topic));
        }
    }
    staying::forget_unsynced(image);
    Ok(Output::Done)
}

fn changed_settings(held: &Arc<Settings>, changes: &[ConfigChange]) -> Result<Arc<Settings>, CommandError> {
    let mut settings = Settings::clone(held);
    let mut seen = BTreeMap::new();
    for change in changes {
        let name = &change.name;
        if seen.insert(name, ()).is_some() {
            return Err(CommandError::DuplicateConfig { name: name.clone() });
        }
        let is_expected = match (&change.only_over, held.get(name)) {
            (ExpectedValue::Any, _) | (ExpectedValue::Unset, None) => true,
            (ExpectedValue::Is(expected), Some(value)) => expected == value,
            (ExpectedValue::Unset, Some(_)) | (ExpectedValue::Is(_), None) => false,
        };
        if !is_expected {
            return Err(CommandError::ConfigChanged { name: name.clone() });
        }
        match &change.value {
            Some(value) => put_setting(&mut settings, name, value)?,
            None => {
                settings.remove(name);
            }
        }
    }
    Ok(Arc::new(settings))
}

fn put_setting(settings: &mut Settings, name: &str, value: &str) -> Result<(), CommandError> {
    within("bytes of a setting's name", name.len(), SETTING_NAME_BYTES_MAX)?;
    within("bytes of a setting's value", value.len(), SETTING_VALUE_BYTES_MAX)?;
    settings.insert(name.to_owned(), value.to_owned());
    within("settings", settings.len(), SETTINGS_MAX)
}

fn within(what: &'static str, actual: usize, limit: usize) -> Result<(), CommandError> {
    if actual > limit {
        Err(CommandError::LimitExceeded { what: what.into(), actual, limit })
    } else {
        Ok(())
    }
}

fn allocate_producer_ids(
    image: &mut ClusterImage,
    broker: BrokerId,
    epoch: BrokerEpoch,
    count: u32,
) -> Result<Output, CommandError> {
    registered(image, broker, epoch)?;
    let first = image.next_producer_id;
    let next = first.0.checked_add(i64::from(count)).ok_or(CommandError::ProducerIdsExhausted)?;
    image.next_producer_id = ProducerId(next);
    Ok(Output::ProducerIds { first, count })
}

fn set_feature_level(image: &mut ClusterImage, level: u16) -> Result<Output, CommandError> {
    if level < image.feature_level {
        return Err(CommandError::FeatureLevelMayNotFall { level, current: image.feature_level });
    }
    for broker in image.brokers() {
        broker::check_feature_level(broker, level)?;
    }
    image.feature_level = level;
    Ok(Output::Done)
}

#[cfg(test)]
mod tests;
