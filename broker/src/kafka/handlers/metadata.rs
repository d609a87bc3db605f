//! Metadata: brokers, and topics with the leaders of their partitions. A topic that is missing may be made here, where both the client
//! and the broker permit it.

use std::collections::BTreeSet;
use std::time::Duration;

use floodmark_proto::ids::BrokerId;
use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::kafka::messages::metadata::{
    MetadataRequest, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition,
    MetadataResponseTopic,
};
use floodmark_replication::cluster::{ClusterImage, Partition, Topic};

use super::here::{Here, Seen};
use super::named::once;
use super::{CLUSTER_OPERATIONS, TOPIC_OPERATIONS, addresses, topic_key};
use crate::kafka::request::{Refusal, Reply, RequestContext};
use crate::ops::topics::{self, NewTopic, find, is_internal};

/// A topic that is made in passing is waited for no longer; the client asks again anyway.
const CREATED_WITHIN: Duration = Duration::from_secs(5);

pub(crate) async fn handle(ctx: &RequestContext, mut request: MetadataRequest<'_>) -> Result<Reply, Refusal> {
    // By id where there is one: under another name it is the same topic.
    if let Some(topics) = &mut request.topics {
        once(topics, |t| (t.name.filter(|_| t.topic_id == [0; 16]), t.topic_id));
    }
    // Version 0 had no null, and asked for all topics with an empty list.
    let asked = request.topics.as_ref().filter(|topics| ctx.version() > 0 || !topics.is_empty());
    if let Some(asked) = asked
        && request.allow_auto_topic_creation
        && ctx.shared().config.auto_create_topics
    {
        let names: Vec<&str> =
            asked.iter().filter_map(|t| t.name.filter(|_| t.topic_id == [0; 16])).collect();
        create_missing(ctx, &names).await;
    }
    let image = ctx.shared().cluster.image();
    let here = Here::look(ctx);
    let mut topics: Vec<MetadataResponseTopic<'_>> = match asked {
        None => image.topics().map(|topic| described(&image, topic, &here)).collect(),
        Some(asked) => asked.iter().map(|t| one(ctx, &image, &here, t.name, t.topic_id)).collect(),
    };
    if request.include_topic_authorized_operations {
        topics.iter_mut().for_each(|topic| topic.topic_authorized_operations = TOPIC_OPERATIONS);
    }
    let cluster_id = image.cluster_id().to_string();
    let endpoints = addresses(ctx, &image);
    let brokers = endpoints
        .iter()
        .map(|broker| MetadataResponseBroker {
            node_id: broker.id,
            host: &broker.host,
            port: broker.port,
            rack: broker.rack.as_deref(),
        })
        .collect();
    let mut response = MetadataResponse {
        brokers,
        cluster_id: Some(&cluster_id),
        controller_id: ctx.shared().cluster.controller_id().map_or(-1, |id| id.0),
        topics,
        ..Default::default()
    };
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    ctx.reply(&response)
}

async fn create_missing(ctx: &RequestContext, names: &[&str]) {
    let image = ctx.shared().cluster.image();
    let missing: BTreeSet<&str> = names.iter().copied().filter(|name| image.topic(name).is_none()).collect();
    if missing.is_empty() {
        return;
    }
    let new: Vec<NewTopic<'_>> = missing
        .into_iter()
        .filter(|name| !is_internal(name))
        .map(|name| NewTopic { name, ..Default::default() })
        .collect();
    for (topic, outcome) in new.iter().zip(topics::create(ctx.shared(), &new, false, CREATED_WITHIN).await) {
        if let Err(e) = outcome
            && e.code != ErrorCode::TopicAlreadyExists
        {
            tracing::debug!(topic = topic.name, error = %e, "a topic was asked for and not made");
        }
    }
}

fn one<'a>(
    ctx: &RequestContext,
    image: &'a ClusterImage,
    here: &Here,
    name: Option<&'a str>,
    id: [u8; 16],
) -> MetadataResponseTopic<'a> {
    let key = topic_key(name.unwrap_or_default(), id);
    let found = key.and_then(|key| find(image, key).map_err(|e| e.code));
    // A name that can be no topic's is worth telling apart from one that is none's yet.
    let is_bad_name = id == [0; 16]
        && name.is_none_or(|name| floodmark_storage::data_dir::PartitionName::new(name, 0).is_err());
    match found {
        Ok(topic) => described(image, topic, here),
        Err(code) => {
            let code = if is_bad_name { ErrorCode::InvalidTopicException } else { code };
            ctx.count_error(code);
            let name =
                if ctx.version() >= 12 && id != [0; 16] { None } else { Some(name.unwrap_or_default()) };
            MetadataResponseTopic { error_code: code.code(), name, topic_id: id, ..Default::default() }
        }
    }
}

fn described<'a>(image: &ClusterImage, topic: &'a Topic, here: &Here) -> MetadataResponseTopic<'a> {
    MetadataResponseTopic {
        error_code: 0,
        name: Some(&topic.name),
        topic_id: topic.id.to_bytes(),
        is_internal: is_internal(&topic.name),
        partitions: topic
            .partitions
            .iter()
            .map(|(index, p)| partition(*index, p, here.seen(image, topic.id, *index, p)))
            .collect(),
        ..Default::default()
    }
}

fn partition(index: u32, partition: &Partition, seen: Seen) -> MetadataResponsePartition {
    let ids = |brokers: &[BrokerId]| brokers.iter().map(|id| id.0).collect();
    MetadataResponsePartition {
        error_code: seen.error_code(),
        partition_index: index as i32,
        leader_id: seen.leader_id(),
        leader_epoch: partition.leader_epoch.0,
        replica_nodes: ids(&partition.replicas),
        isr_nodes: ids(&partition.isr),
        offline_replicas: seen.offline_replicas,
    }
}
