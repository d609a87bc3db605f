//! One file an API: its request becomes a question to `ops`, the answer becomes its response. No decisions.

pub(crate) mod alter_configs;
pub(crate) mod alter_partition_reassignments;
pub(crate) mod api_versions;
mod configs;
pub(crate) mod create_partitions;
pub(crate) mod create_topics;
pub(crate) mod delete_groups;
pub(crate) mod delete_records;
pub(crate) mod delete_topics;
pub(crate) mod describe_cluster;
pub(crate) mod describe_configs;
pub(crate) mod describe_groups;
pub(crate) mod describe_log_dirs;
pub(crate) mod describe_producers;
pub(crate) mod describe_topic_partitions;
pub(crate) mod elect_leaders;
pub(crate) mod fetch;
pub(crate) mod find_coordinator;
pub(crate) mod heartbeat;
mod here;
pub(crate) mod incremental_alter_configs;
pub(crate) mod init_producer_id;
pub(crate) mod join_group;
mod leader_hints;
pub(crate) mod leave_group;
pub(crate) mod list_config_resources;
pub(crate) mod list_groups;
pub(crate) mod list_offsets;
pub(crate) mod list_partition_reassignments;
pub(crate) mod metadata;
mod named;
pub(crate) mod offset_commit;
pub(crate) mod offset_delete;
pub(crate) mod offset_fetch;
pub(crate) mod offset_for_leader_epoch;
pub(crate) mod produce;
pub(crate) mod sync_group;
pub(crate) mod unregister_broker;

use std::time::Duration;

use floodmark_proto::ids::TopicId;
use floodmark_proto::kafka::ErrorCode;
use floodmark_replication::cluster::ClusterImage;
use floodmark_replication::cluster::image::Broker;

use super::request::RequestContext;
use crate::KAFKA_LISTENER;
use crate::groups::GroupError;
use crate::ops::deadline::HERE_WITHIN;
use crate::ops::leaders::endpoint;
use crate::ops::topics::TopicKey;

/// Everything that may be done to a topic, as bits: without access control everybody may.
pub(crate) const TOPIC_OPERATIONS: i32 = bits(&[3, 4, 5, 6, 7, 8, 10, 11]);
/// Everything that may be done to the cluster.
pub(crate) const CLUSTER_OPERATIONS: i32 = bits(&[5, 7, 8, 9, 10, 11, 12]);

/// Everything that may be done to a group.
pub(crate) const GROUP_OPERATIONS: i32 = bits(&[3, 6, 8, 10, 11]);

/// Kafka's numbers of operations as one field.
const fn bits(operations: &[u8]) -> i32 {
    let (mut field, mut n) = (0, 0);
    while n < operations.len() {
        field |= 1 << operations[n];
        n += 1;
    }
    field
}

/// The time that a client gives; below 0 is none.
pub(crate) fn given(timeout_ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0))
}

/// The same, for what needs no replica elsewhere.
pub(crate) fn given_here(timeout_ms: i32) -> Duration {
    given(timeout_ms).max(HERE_WITHIN)
}

/// The topic that a request means: by id where it gives one, otherwise by name.
pub(crate) fn topic_key(name: &str, id: [u8; 16]) -> Result<TopicKey<'_>, ErrorCode> {
    if id == [0; 16] {
        return Ok(TopicKey::Name(name));
    }
    topic_key_of_id(id)
}

/// The same of a version that names topics by their id alone.
pub(crate) fn topic_key_of_id(id: [u8; 16]) -> Result<TopicKey<'static>, ErrorCode> {
    TopicId::from_bytes(id).map(TopicKey::Id).map_err(|_| ErrorCode::UnknownTopicId)
}

/// The code of an outcome about a group, counted where it is an error.
pub(crate) fn code_of(ctx: &RequestContext, outcome: Result<(), GroupError>) -> i16 {
    match outcome {
        Ok(()) => 0,
        Err(error) => {
            ctx.count_error(error.code());
            error.code().code()
        }
    }
}

/// A broker as Kafka's clients are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) id: i32,
    pub(crate) host: String,
    pub(crate) port: i32,
    pub(crate) rack: Option<String>,
    pub(crate) is_fenced: bool,
}

/// Every live broker that clients of this door can reach.
pub(crate) fn addresses(ctx: &RequestContext, image: &ClusterImage) -> Vec<Address> {
    let live = image.brokers().filter(|broker| !broker.fenced);
    live.filter_map(|broker| address_of(ctx, broker)).collect()
}

/// Where a broker is for clients of this door: this one by the listener that the client dialled, others by their listener of the same
/// name. `None` where it has none.
pub(crate) fn address_of(ctx: &RequestContext, broker: &Broker) -> Option<Address> {
    let (host, port) = if broker.id == ctx.shared().cluster.node_id() {
        (ctx.advertised().host.clone(), ctx.advertised().port)
    } else {
        endpoint(broker, KAFKA_LISTENER).map(|e| (e.host.clone(), e.port))?
    };
    let (id, rack, is_fenced) = (broker.id.0, broker.rack.clone(), broker.fenced);
    Some(Address { id, host, port: i32::from(port), rack, is_fenced })
}
