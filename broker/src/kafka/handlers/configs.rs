//! What the four APIs of settings share: Kafka's numbers for resources, sources and types.

use floodmark_proto::ids::BrokerId;
use floodmark_proto::kafka::ErrorCode;
use floodmark_replication::cluster::settings::ConfigType;

use crate::ops::configs::{EntrySource, Resource};
use crate::ops::error::OpError;

pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;
pub(super) const BROKER_LOGGER: i8 = 8;
pub(super) const CLIENT_METRICS: i8 = 16;
pub(super) const GROUP: i8 = 32;

/// The resource of these two fields. A broker's empty name stands for all brokers.
pub(super) fn resource(kind: i8, name: &str) -> Result<Resource<'_>, OpError> {
    let invalid = |message: String| Err(OpError::new(ErrorCode::InvalidRequest, message));
    match kind {
        TOPIC => match floodmark_storage::data_dir::PartitionName::new(name, 0) {
            Ok(_) => Ok(Resource::Topic(name)),
            Err(reason) => Err(OpError::new(ErrorCode::InvalidTopicException, reason)),
        },
        BROKER if name.is_empty() => Ok(Resource::Cluster),
        // In one way only: under each of its names all would be told again.
        BROKER => match name.parse::<i32>() {
            Ok(id) if id.to_string() == name => Ok(Resource::Broker(BrokerId(id))),
            _ => invalid(format!("broker id must be an integer, but it is: {name}")),
        },
        BROKER_LOGGER => invalid("log levels are set with the broker's log filter, not here".to_owned()),
        CLIENT_METRICS => invalid("client metrics are not collected, so they have no settings".to_owned()),
        GROUP => invalid("groups have no settings of their own".to_owned()),
        other => invalid(format!("unknown resource type {other}")),
    }
}

/// Kafka's number for where a value comes from.
pub(super) fn source_code(source: EntrySource) -> i8 {
    match source {
        EntrySource::Topic => 1,
        EntrySource::DynamicBroker => 2,
        EntrySource::DynamicCluster => 3,
        EntrySource::StaticBroker => 4,
        EntrySource::Default => 5,
    }
}

/// Kafka's number for a type of value.
pub(super) fn type_code(config_type: ConfigType) -> i8 {
    match config_type {
        ConfigType::Boolean => 1,
        ConfigType::String => 2,
        ConfigType::Int => 3,
        ConfigType::Long => 5,
        ConfigType::Double => 6,
        ConfigType::List => 7,
    }
}
