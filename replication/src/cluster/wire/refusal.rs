//! Refusals as messages and back: a broker hears from the leader why its command was not carried out.

use bytes::Bytes;
use floodmark_proto::ids::{BrokerEpoch, BrokerId, LeaderEpoch};
use floodmark_proto::pb::metadata as pb;
use floodmark_proto::pb::metadata::refusal::{self as of, Reason};

use super::super::command::CommandError as E;
use super::read::{feature_level, topic_id, uuid};
use super::{WireError, write};

const NOTHING: of::Nothing = of::Nothing {};

pub(super) fn to_pb(error: &E) -> pb::Refusal {
    let reason = match error.clone() {
        E::TopicExists { name } => Reason::TopicExists(name),
        E::TopicIdInUse { id } => Reason::TopicIdInUse(write::topic_id(id)),
        E::InvalidTopicName { reason } => Reason::InvalidTopicName(reason),
        E::TopicNameCollides { name, existing } => {
            Reason::TopicNameCollides(of::TopicNameCollides { name, existing })
        }
        E::UnknownTopic { id } => Reason::UnknownTopic(write::topic_id(id)),
        E::UnknownPartition { topic, partition } => {
            Reason::UnknownPartition(of::UnknownPartition { topic, partition })
        }
        E::NoPartitions => Reason::NoPartitions(NOTHING),
        E::PartitionCountDiffers { topic, expected, actual } => {
            Reason::PartitionCountDiffers(of::PartitionCountDiffers { topic, expected, actual })
        }
        E::InvalidAssignment { partition, reason } => {
            Reason::InvalidAssignment(of::InvalidAssignment { partition, reason })
        }
        E::LimitExceeded { what, actual, limit } => {
            let (what, actual, limit) = (what.into_owned(), actual as u64, limit as u64);
            Reason::LimitExceeded(of::LimitExceeded { what, actual, limit })
        }
        E::UnknownBroker { broker } => Reason::UnknownBroker(broker.0),
        E::StaleBrokerEpoch { broker, given, current } => {
            let (broker, given, current) = (broker.0, given.0, current.0);
            Reason::StaleBrokerEpoch(of::StaleBrokerEpoch { broker, given, current })
        }
        E::NotLeader { broker, leader } => {
            Reason::NotLeader(of::NotLeader { broker: broker.0, leader: leader.map(|l| l.0) })
        }
        E::StaleLeaderEpoch { given, current } => {
            Reason::StaleLeaderEpoch(of::StaleEpoch { given: given.0, current: current.0 })
        }
        E::StalePartitionEpoch { given, current } => {
            Reason::StalePartitionEpoch(of::StaleEpoch { given, current })
        }
        E::InvalidIsr { reason } => Reason::InvalidIsr(reason),
        E::IneligibleReplica { broker, reason } => {
            let (broker, reason) = (broker.0, reason.into_owned());
            Reason::IneligibleReplica(of::IneligibleReplica { broker, reason })
        }
        E::ElectionNotNeeded => Reason::ElectionNotNeeded(NOTHING),
        E::PreferredLeaderNotAvailable { broker } => Reason::PreferredLeaderNotAvailable(broker.0),
        E::NoEligibleLeader => Reason::NoEligibleLeader(NOTHING),
        E::ConfigChanged { name } => Reason::ConfigChanged(name),
        E::DuplicateConfig { name } => Reason::DuplicateConfig(name),
        E::ProducerIdsExhausted => Reason::ProducerIdsExhausted(NOTHING),
        E::UnsupportedFeatureLevel { level, broker, lowest, highest } => {
            let [level, lowest, highest] = [level, lowest, highest].map(u32::from);
            let broker = broker.0;
            Reason::UnsupportedFeatureLevel(of::UnsupportedFeatureLevel { level, broker, lowest, highest })
        }
        E::FeatureLevelMayNotFall { level, current } => {
            Reason::FeatureLevelMayNotFall(of::FeatureLevels { asked: level.into(), current: current.into() })
        }
        E::NeedsFeatureLevel { needed, current } => {
            Reason::NeedsFeatureLevel(of::FeatureLevels { asked: needed.into(), current: current.into() })
        }
        E::OtherDirectory { broker, registered, given } => {
            let [registered, given] = [registered, given].map(|id| Bytes::copy_from_slice(id.as_bytes()));
            Reason::OtherDirectory(of::OtherDirectory { broker: broker.0, registered, given })
        }
        E::BrokerNotFenced { broker } => Reason::BrokerNotFenced(broker.0),
        E::BrokerHoldsReplicas { broker, partitions } => {
            let (broker, partitions) = (broker.0, partitions as u64);
            Reason::BrokerHoldsReplicas(of::BrokerHoldsReplicas { broker, partitions })
        }
        E::LosesInSync { broker } => Reason::LosesInSync(broker.0),
        E::NoMove { what } => Reason::NoMove(what.into_owned()),
    };
    pb::Refusal { reason: Some(reason) }
}

pub(super) fn from_pb(message: pb::Refusal) -> Result<E, WireError> {
    Ok(match message.reason.ok_or(WireError::Missing { what: "a refusal's reason" })? {
        Reason::TopicExists(name) => E::TopicExists { name },
        Reason::TopicIdInUse(id) => E::TopicIdInUse { id: topic_id(&id)? },
        Reason::InvalidTopicName(reason) => E::InvalidTopicName { reason },
        Reason::TopicNameCollides(m) => E::TopicNameCollides { name: m.name, existing: m.existing },
        Reason::UnknownTopic(id) => E::UnknownTopic { id: topic_id(&id)? },
        Reason::UnknownPartition(m) => E::UnknownPartition { topic: m.topic, partition: m.partition },
        Reason::NoPartitions(_) => E::NoPartitions,
        Reason::PartitionCountDiffers(m) => {
            E::PartitionCountDiffers { topic: m.topic, expected: m.expected, actual: m.actual }
        }
        Reason::InvalidAssignment(m) => E::InvalidAssignment { partition: m.partition, reason: m.reason },
        Reason::LimitExceeded(m) => {
            E::LimitExceeded { what: m.what.into(), actual: count(m.actual), limit: count(m.limit) }
        }
        Reason::UnknownBroker(broker) => E::UnknownBroker { broker: BrokerId(broker) },
        Reason::StaleBrokerEpoch(m) => E::StaleBrokerEpoch {
            broker: BrokerId(m.broker),
            given: BrokerEpoch(m.given),
            current: BrokerEpoch(m.current),
        },
        Reason::NotLeader(m) => E::NotLeader { broker: BrokerId(m.broker), leader: m.leader.map(BrokerId) },
        Reason::StaleLeaderEpoch(m) => {
            E::StaleLeaderEpoch { given: LeaderEpoch(m.given), current: LeaderEpoch(m.current) }
        }
        Reason::StalePartitionEpoch(m) => E::StalePartitionEpoch { given: m.given, current: m.current },
        Reason::InvalidIsr(reason) => E::InvalidIsr { reason },
        Reason::IneligibleReplica(m) => {
            E::IneligibleReplica { broker: BrokerId(m.broker), reason: m.reason.into() }
        }
        Reason::ElectionNotNeeded(_) => E::ElectionNotNeeded,
        Reason::PreferredLeaderNotAvailable(broker) => {
            E::PreferredLeaderNotAvailable { broker: BrokerId(broker) }
        }
        Reason::NoEligibleLeader(_) => E::NoEligibleLeader,
        Reason::ConfigChanged(name) => E::ConfigChanged { name },
        Reason::DuplicateConfig(name) => E::DuplicateConfig { name },
        Reason::ProducerIdsExhausted(_) => E::ProducerIdsExhausted,
        Reason::UnsupportedFeatureLevel(m) => E::UnsupportedFeatureLevel {
            level: feature_level(m.level)?,
            broker: BrokerId(m.broker),
            lowest: feature_level(m.lowest)?,
            highest: feature_level(m.highest)?,
        },
        Reason::FeatureLevelMayNotFall(m) => {
            E::FeatureLevelMayNotFall { level: feature_level(m.asked)?, current: feature_level(m.current)? }
        }
        Reason::NeedsFeatureLevel(m) => {
            E::NeedsFeatureLevel { needed: feature_level(m.asked)?, current: feature_level(m.current)? }
        }
        Reason::OtherDirectory(m) => E::OtherDirectory {
            broker: BrokerId(m.broker),
            registered: uuid("a directory's id", &m.registered)?,
            given: uuid("a directory's id", &m.given)?,
        },
        Reason::BrokerNotFenced(broker) => E::BrokerNotFenced { broker: BrokerId(broker) },
        Reason::BrokerHoldsReplicas(m) => {
            E::BrokerHoldsReplicas { broker: BrokerId(m.broker), partitions: count(m.partitions) }
        }
        Reason::LosesInSync(broker) => E::LosesInSync { broker: BrokerId(broker) },
        Reason::NoMove(what) => E::NoMove { what: what.into() },
    })
}

fn count(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
