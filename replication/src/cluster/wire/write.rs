//! Domain types to messages; cannot fail.

use std::sync::Arc;

use bytes::Bytes;
use floodmark_proto::ids::{BrokerEpoch, BrokerId, TopicId};
use floodmark_proto::pb::metadata as pb;

use super::super::command::{Command, ConfigChange, ConfigResource, Election, ExpectedValue, Output};
use super::super::image::{Broker, ClusterImage, Endpoint, InSyncDefaults, Partition, Settings, Topic};

pub(super) fn command(command: &Command) -> pb::Command {
    pb::Command { change: Some(change(command)) }
}

fn change(command: &Command) -> pb::command::Change {
    use pb::command::Change;
    match command {
        Command::RegisterBroker {
            broker,
            incarnation,
            rack,
            endpoints,
            feature_levels,
            directories,
            in_sync_defaults,
        } => Change::RegisterBroker(pb::RegisterBroker {
            broker: broker.0,
            incarnation: Bytes::copy_from_slice(incarnation.as_bytes()),
            rack: rack.clone(),
            endpoints: endpoints.iter().map(endpoint).collect(),
            feature_level_min: feature_levels.0.into(),
            feature_level_max: feature_levels.1.into(),
            directories: self::directories(directories),
            in_sync_defaults: in_sync_defaults.as_ref().map(self::in_sync_defaults),
        }),
        Command::FenceBroker { broker, epoch } => Change::FenceBroker(broker_ref(*broker, *epoch)),
        Command::UnfenceBroker { broker, epoch } => Change::UnfenceBroker(broker_ref(*broker, *epoch)),
        Command::BeginShutdown { broker, epoch } => Change::BeginShutdown(broker_ref(*broker, *epoch)),
        Command::RemoveBroker { broker, keeps_replicas } => {
            Change::RemoveBroker(pb::RemoveBroker { broker: broker.0, keeps_replicas: *keeps_replicas })
        }
        Command::LoseReplicas { broker, epoch, partitions } => Change::LoseReplicas(pb::LoseReplicas {
            broker: Some(broker_ref(*broker, *epoch)),
            partitions: partitions
                .iter()
                .map(|(topic, partition)| partition_ref(*topic, *partition))
                .collect(),
        }),
        Command::MovePartition { topic, partition, replicas } => Change::MovePartition(pb::MovePartition {
            topic: topic_id(*topic),
            partition: *partition,
            replicas: replicas.iter().map(|r| r.0).collect(),
        }),
        Command::CancelMove { topic, partition } => Change::CancelMove(partition_ref(*topic, *partition)),
        Command::FinishMove { topic, partition, partition_epoch } => Change::FinishMove(pb::FinishMove {
            topic: topic_id(*topic),
            partition: *partition,
            partition_epoch: *partition_epoch,
        }),
        Command::CreateTopic { name, id, assignments, settings } => Change::CreateTopic(pb::CreateTopic {
            name: name.clone(),
            id: topic_id(*id),
            assignments: assignments.iter().map(|replicas| assignment(replicas)).collect(),
            settings: settings.iter().map(|(name, value)| setting(name, value)).collect(),
        }),
        Command::DeleteTopic { topic } => Change::DeleteTopic(topic_id(*topic)),
        Command::AddPartitions { topic, count_now, assignments } => {
            Change::AddPartitions(pb::AddPartitions {
                topic: topic_id(*topic),
                count_now: *count_now,
                assignments: assignments.iter().map(|replicas| assignment(replicas)).collect(),
            })
        }
        Command::SetConfig { resource, changes } => Change::SetConfig(pb::SetConfig {
            resource: Some(config_resource(resource)),
            changes: changes.iter().map(config_change).collect(),
        }),
        Command::ChangeIsr { topic, partition, leader, leader_epoch, partition_epoch, isr } => {
            Change::ChangeIsr(pb::ChangeIsr {
                topic: topic_id(*topic),
                partition: *partition,
                leader: leader.0,
                leader_epoch: leader_epoch.0,
                partition_epoch: *partition_epoch,
                isr: isr.iter().map(|(broker, epoch)| broker_ref(*broker, *epoch)).collect(),
            })
        }
        Command::ElectLeader { topic, partition, election } => Change::ElectLeader(pb::ElectLeader {
            topic: topic_id(*topic),
            partition: *partition,
            election: self::election(*election).into(),
        }),
        Command::AllocateProducerIds { broker, epoch, count } => {
            Change::AllocateProducerIds(pb::AllocateProducerIds {
                broker: Some(broker_ref(*broker, *epoch)),
                count: *count,
            })
        }
        Command::SetFeatureLevel { level } => Change::SetFeatureLevel(u32::from(*level)),
    }
}

fn election(election: Election) -> pb::Election {
    match election {
        Election::Preferred => pb::Election::Preferred,
        Election::InSync => pb::Election::InSync,
        Election::Unclean => pb::Election::Unclean,
    }
}

fn config_resource(resource: &ConfigResource) -> pb::set_config::Resource {
    use pb::set_config::Resource;
    match resource {
        ConfigResource::Topic(id) => Resource::Topic(topic_id(*id)),
        ConfigResource::Broker(broker) => Resource::Broker(broker.0),
        ConfigResource::Cluster => Resource::Cluster(pb::set_config::Cluster {}),
    }
}

fn config_change(change: &ConfigChange) -> pb::ConfigChange {
    use pb::config_change::{OnlyOver, Unset};
    pb::ConfigChange {
        name: change.name.clone(),
        value: change.value.clone(),
        only_over: match &change.only_over {
            ExpectedValue::Any => None,
            ExpectedValue::Unset => Some(OnlyOver::Unset(Unset {})),
            ExpectedValue::Is(value) => Some(OnlyOver::Is(value.clone())),
        },
    }
}

pub(super) fn output(output: &Output) -> pb::Output {
    use pb::output::{Done, LeaderElected, Outcome, ProducerIds};
    let outcome = match output {
        Output::Done => Outcome::Done(Done {}),
        Output::BrokerRegistered { epoch } => Outcome::BrokerRegistered(epoch.0),
        Output::IsrChanged { partition_epoch } => Outcome::IsrChanged(*partition_epoch),
        Output::LeaderElected { leader, leader_epoch } => {
            Outcome::LeaderElected(LeaderElected { leader: leader.0, leader_epoch: leader_epoch.0 })
        }
        Output::ProducerIds { first, count } => {
            Outcome::ProducerIds(ProducerIds { first: first.0, count: *count })
        }
    };
    pb::Output { outcome: Some(outcome) }
}

pub(super) fn image(image: &ClusterImage) -> pb::Image {
    let of_broker = |(broker, settings): (&BrokerId, &Arc<Settings>)| pb::BrokerSettings {
        broker: broker.0,
        settings: self::settings(settings),
    };
    pb::Image {
        cluster_id: Bytes::copy_from_slice(&image.cluster_id.to_bytes()),
        version: image.version,
        feature_level: image.feature_level.into(),
        next_producer_id: image.next_producer_id.0,
        first_leader_epoch: image.first_leader_epoch.0,
        brokers: image.brokers().map(|b| broker(b)).collect(),
        broker_settings: image.broker_settings.iter().map(of_broker).collect(),
        cluster_settings: settings(&image.cluster_settings),
        topics: image.topics().map(|t| topic(t)).collect(),
    }
}

fn broker(broker: &Broker) -> pb::Broker {
    pb::Broker {
        id: broker.id.0,
        incarnation: Bytes::copy_from_slice(broker.incarnation.as_bytes()),
        epoch: broker.epoch.0,
        fenced: broker.fenced,
        stopping: broker.stopping,
        directories: directories(&broker.directories),
        rack: broker.rack.clone(),
        endpoints: broker.endpoints.iter().map(endpoint).collect(),
        feature_level_min: broker.feature_levels.0.into(),
        feature_level_max: broker.feature_levels.1.into(),
        in_sync_defaults: broker.in_sync_defaults.as_ref().map(in_sync_defaults),
    }
}

fn in_sync_defaults(defaults: &InSyncDefaults) -> pb::InSyncDefaults {
    pb::InSyncDefaults { synced: defaults.is_synced, min_insync_replicas: defaults.min_insync_replicas }
}

fn topic(topic: &Topic) -> pb::Topic {
    pb::Topic {
        id: topic_id(topic.id),
        name: topic.name.to_string(),
        partitions: topic.partitions.values().map(partition).collect(),
        settings: settings(&topic.settings),
        synced: topic.is_synced,
    }
}

fn partition(partition: &Partition) -> pb::Partition {
    pb::Partition {
        replicas: partition.replicas.iter().map(|r| r.0).collect(),
        isr: partition.isr.iter().map(|r| r.0).collect(),
        adding: partition.adding.iter().map(|r| r.0).collect(),
        removing: partition.removing.iter().map(|r| r.0).collect(),
        is_lost: partition.is_lost,
        leader: partition.leader.map(|l| l.0),
        leader_epoch: partition.leader_epoch.0,
        partition_epoch: partition.partition_epoch,
    }
}

fn settings(settings: &Settings) -> Vec<pb::Setting> {
    settings.iter().map(|(name, value)| setting(name, value)).collect()
}

fn setting(name: &str, value: &str) -> pb::Setting {
    pb::Setting { name: name.to_owned(), value: value.to_owned() }
}

fn endpoint(endpoint: &Endpoint) -> pb::Endpoint {
    pb::Endpoint {
        listener: endpoint.listener.clone(),
        host: endpoint.host.clone(),
        port: endpoint.port.into(),
    }
}

fn assignment(replicas: &[BrokerId]) -> pb::Replicas {
    pb::Replicas { brokers: replicas.iter().map(|r| r.0).collect() }
}

fn broker_ref(broker: BrokerId, epoch: BrokerEpoch) -> pb::BrokerRef {
    pb::BrokerRef { broker: broker.0, epoch: epoch.0 }
}

fn directories(ids: &[uuid::Uuid]) -> Vec<Bytes> {
    ids.iter().map(|id| Bytes::copy_from_slice(id.as_bytes())).collect()
}

fn partition_ref(topic: TopicId, partition: u32) -> pb::PartitionRef {
    pb::PartitionRef { topic: topic_id(topic), partition }
}

pub(super) fn topic_id(id: TopicId) -> Bytes {
    Bytes::copy_from_slice(&id.to_bytes())
}
