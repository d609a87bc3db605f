//! Messages to domain types; every doubt is an error.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use floodmark_proto::ids::{BrokerEpoch, BrokerId, ClusterId, LeaderEpoch, ProducerId, TopicId};
use floodmark_proto::pb::metadata as pb;

use super::super::command::{Command, ConfigChange, ConfigResource, Election, ExpectedValue, Output};
use super::super::image::{Broker, ClusterImage, Endpoint, InSyncDefaults, Partition, Settings, Topic};
use super::super::sorted_map::SortedMap;
use super::WireError;

pub(super) fn command(message: pb::Command) -> Result<Command, WireError> {
    use pb::command::Change;
    Ok(match message.change.ok_or(WireError::Missing { what: "a command's change" })? {
        Change::RegisterBroker(m) => Command::RegisterBroker {
            broker: BrokerId(m.broker),
            incarnation: uuid("an incarnation", &m.incarnation)?,
            rack: m.rack,
            endpoints: m.endpoints.into_iter().map(endpoint).collect::<Result<_, _>>()?,
            feature_levels: feature_levels(m.feature_level_min, m.feature_level_max)?,
            directories: directories(&m.directories)?,
            in_sync_defaults: m.in_sync_defaults.as_ref().map(in_sync_defaults),
        },
        Change::FenceBroker(m) => {
            let (broker, epoch) = broker_ref(&m);
            Command::FenceBroker { broker, epoch }
        }
        Change::UnfenceBroker(m) => {
            let (broker, epoch) = broker_ref(&m);
            Command::UnfenceBroker { broker, epoch }
        }
        Change::BeginShutdown(m) => {
            let (broker, epoch) = broker_ref(&m);
            Command::BeginShutdown { broker, epoch }
        }
        Change::RemoveBroker(m) => {
            Command::RemoveBroker { broker: BrokerId(m.broker), keeps_replicas: m.keeps_replicas }
        }
        Change::LoseReplicas(m) => {
            let broker = m.broker.ok_or(WireError::Missing { what: "the broker of lost replicas" })?;
            let (broker, epoch) = broker_ref(&broker);
            let of = |m: pb::PartitionRef| Ok((topic_id(&m.topic)?, m.partition));
            let partitions = m.partitions.into_iter().map(of).collect::<Result<_, _>>()?;
            Command::LoseReplicas { broker, epoch, partitions }
        }
        Change::MovePartition(m) => Command::MovePartition {
            topic: topic_id(&m.topic)?,
            partition: m.partition,
            replicas: m.replicas.into_iter().map(BrokerId).collect(),
        },
        Change::CancelMove(m) => Command::CancelMove { topic: topic_id(&m.topic)?, partition: m.partition },
        Change::FinishMove(m) => Command::FinishMove {
            topic: topic_id(&m.topic)?,
            partition: m.partition,
            partition_epoch: m.partition_epoch,
        },
        Change::CreateTopic(m) => Command::CreateTopic {
            name: m.name,
            id: topic_id(&m.id)?,
            assignments: assignments(m.assignments),
            settings: m.settings.into_iter().map(|s| (s.name, s.value)).collect(),
        },
        Change::DeleteTopic(id) => Command::DeleteTopic { topic: topic_id(&id)? },
        Change::AddPartitions(m) => Command::AddPartitions {
            topic: topic_id(&m.topic)?,
            count_now: m.count_now,
            assignments: assignments(m.assignments),
        },
        Change::SetConfig(m) => Command::SetConfig {
            resource: config_resource(m.resource)?,
            changes: m.changes.into_iter().map(config_change).collect(),
        },
        Change::ChangeIsr(m) => Command::ChangeIsr {
            topic: topic_id(&m.topic)?,
            partition: m.partition,
            leader: BrokerId(m.leader),
            leader_epoch: LeaderEpoch(m.leader_epoch),
            partition_epoch: m.partition_epoch,
            isr: m.isr.iter().map(broker_ref).collect(),
        },
        Change::ElectLeader(m) => Command::ElectLeader {
            topic: topic_id(&m.topic)?,
            partition: m.partition,
            election: election(m.election)?,
        },
        Change::AllocateProducerIds(m) => {
            let broker = m.broker.ok_or(WireError::Missing { what: "the broker of producer ids" })?;
            let (broker, epoch) = broker_ref(&broker);
            Command::AllocateProducerIds { broker, epoch, count: m.count }
        }
        Change::SetFeatureLevel(level) => Command::SetFeatureLevel { level: feature_level(level)? },
    })
}

fn election(code: i32) -> Result<Election, WireError> {
    match pb::Election::try_from(code) {
        Ok(pb::Election::Preferred) => Ok(Election::Preferred),
        Ok(pb::Election::InSync) => Ok(Election::InSync),
        Ok(pb::Election::Unclean) => Ok(Election::Unclean),
        Ok(pb::Election::Unspecified) | Err(_) => {
            Err(WireError::Value { what: "an election", value: code.into() })
        }
    }
}

fn config_resource(resource: Option<pb::set_config::Resource>) -> Result<ConfigResource, WireError> {
    use pb::set_config::Resource;
    match resource.ok_or(WireError::Missing { what: "what settings belong to" })? {
        Resource::Topic(id) => Ok(ConfigResource::Topic(topic_id(&id)?)),
        Resource::Broker(broker) => Ok(ConfigResource::Broker(BrokerId(broker))),
        Resource::Cluster(_) => Ok(ConfigResource::Cluster),
    }
}

fn config_change(message: pb::ConfigChange) -> ConfigChange {
    use pb::config_change::OnlyOver;
    ConfigChange {
        name: message.name,
        value: message.value,
        only_over: match message.only_over {
            None => ExpectedValue::Any,
            Some(OnlyOver::Unset(_)) => ExpectedValue::Unset,
            Some(OnlyOver::Is(value)) => ExpectedValue::Is(value),
        },
    }
}

pub(super) fn output(message: pb::Output) -> Result<Output, WireError> {
    use pb::output::Outcome;
    Ok(match message.outcome.ok_or(WireError::Missing { what: "an output's outcome" })? {
        Outcome::Done(_) => Output::Done,
        Outcome::BrokerRegistered(epoch) => Output::BrokerRegistered { epoch: BrokerEpoch(epoch) },
        Outcome::IsrChanged(partition_epoch) => Output::IsrChanged { partition_epoch },
        Outcome::LeaderElected(m) => {
            Output::LeaderElected { leader: BrokerId(m.leader), leader_epoch: LeaderEpoch(m.leader_epoch) }
        }
        Outcome::ProducerIds(m) => Output::ProducerIds { first: ProducerId(m.first), count: m.count },
    })
}

pub(super) fn image(message: pb::Image) -> Result<ClusterImage, WireError> {
    let cluster_id = <[u8; 16]>::try_from(&message.cluster_id[..])
        .map_err(|_| WireError::Identifier { what: "a cluster id" })?;
    let mut image = ClusterImage::new(ClusterId::from_bytes(cluster_id));
    image.version = message.version;
    image.feature_level = feature_level(message.feature_level)?;
    image.next_producer_id = ProducerId(message.next_producer_id);
    image.first_leader_epoch = LeaderEpoch(message.first_leader_epoch);
    image.cluster_settings = Arc::new(settings(message.cluster_settings)?);
    let mut brokers = BTreeMap::new();
    for message in message.brokers {
        let broker = broker(message)?;
        if let Some(before) = brokers.insert(broker.id, Arc::new(broker)) {
            return Err(WireError::Twice { what: "broker", name: before.id.to_string() });
        }
    }
    image.brokers = Arc::new(brokers);
    let mut of_brokers = BTreeMap::new();
    for message in message.broker_settings {
        let settings = Arc::new(settings(message.settings)?);
        if of_brokers.insert(BrokerId(message.broker), settings).is_some() {
            return Err(WireError::Twice { what: "broker", name: message.broker.to_string() });
        }
    }
    image.broker_settings = Arc::new(of_brokers);
    for message in message.topics {
        let topic = topic(message)?;
        if image.topic(&topic.name).is_some() || image.topic_by_id(topic.id).is_some() {
            return Err(WireError::Twice { what: "topic", name: topic.name.to_string() });
        }
        image.put_topic(Arc::new(topic));
    }
    Ok(image)
}

fn broker(message: pb::Broker) -> Result<Broker, WireError> {
    Ok(Broker {
        id: BrokerId(message.id),
        incarnation: uuid("an incarnation", &message.incarnation)?,
        epoch: BrokerEpoch(message.epoch),
        fenced: message.fenced,
        stopping: message.stopping,
        directories: directories(&message.directories)?,
        rack: message.rack,
        endpoints: message.endpoints.into_iter().map(endpoint).collect::<Result<_, _>>()?,
        feature_levels: feature_levels(message.feature_level_min, message.feature_level_max)?,
        in_sync_defaults: message.in_sync_defaults.as_ref().map(in_sync_defaults),
    })
}

fn in_sync_defaults(message: &pb::InSyncDefaults) -> InSyncDefaults {
    InSyncDefaults { is_synced: message.synced, min_insync_replicas: message.min_insync_replicas }
}

fn topic(message: pb::Topic) -> Result<Topic, WireError> {
    let mut partitions = SortedMap::default();
    for (index, partition) in (0..).zip(message.partitions) {
        partitions.insert(index, self::partition(partition));
    }
    Ok(Topic {
        id: topic_id(&message.id)?,
        name: Arc::from(message.name),
        partitions,
        settings: Arc::new(settings(message.settings)?),
        is_synced: message.synced,
    })
}

fn partition(message: pb::Partition) -> Partition {
    Partition {
        replicas: message.replicas.into_iter().map(BrokerId).collect(),
        isr: message.isr.into_iter().map(BrokerId).collect(),
        adding: message.adding.into_iter().map(BrokerId).collect(),
        removing: message.removing.into_iter().map(BrokerId).collect(),
        is_lost: message.is_lost,
        leader: message.leader.map(BrokerId),
        leader_epoch: LeaderEpoch(message.leader_epoch),
        partition_epoch: message.partition_epoch,
    }
}

fn settings(messages: Vec<pb::Setting>) -> Result<Settings, WireError> {
    let mut settings = Settings::new();
    for message in messages {
        if settings.contains_key(&message.name) {
            return Err(WireError::Twice { what: "setting", name: message.name });
        }
        settings.insert(message.name, message.value);
    }
    Ok(settings)
}

fn endpoint(message: pb::Endpoint) -> Result<Endpoint, WireError> {
    let port = u16::try_from(message.port)
        .map_err(|_| WireError::Value { what: "a port", value: message.port.into() })?;
    Ok(Endpoint { listener: message.listener, host: message.host, port })
}

fn assignments(messages: Vec<pb::Replicas>) -> Vec<Vec<BrokerId>> {
    messages.into_iter().map(|m| m.brokers.into_iter().map(BrokerId).collect()).collect()
}

fn broker_ref(message: &pb::BrokerRef) -> (BrokerId, BrokerEpoch) {
    (BrokerId(message.broker), BrokerEpoch(message.epoch))
}

fn feature_levels(min: u32, max: u32) -> Result<(u16, u16), WireError> {
    Ok((feature_level(min)?, feature_level(max)?))
}

pub(super) fn feature_level(level: u32) -> Result<u16, WireError> {
    u16::try_from(level).map_err(|_| WireError::Value { what: "a feature level", value: level.into() })
}

fn directories(ids: &[Bytes]) -> Result<Vec<uuid::Uuid>, WireError> {
    ids.iter().map(|id| uuid("a directory's id", id)).collect()
}

pub(super) fn topic_id(bytes: &Bytes) -> Result<TopicId, WireError> {
    let bytes = <[u8; 16]>::try_from(&bytes[..]).ok();
    bytes.and_then(|b| TopicId::from_bytes(b).ok()).ok_or(WireError::Identifier { what: "a topic id" })
}

pub(super) fn uuid(what: &'static str, bytes: &Bytes) -> Result<uuid::Uuid, WireError> {
    uuid::Uuid::from_slice(bytes).map_err(|_| WireError::Identifier { what })
}
