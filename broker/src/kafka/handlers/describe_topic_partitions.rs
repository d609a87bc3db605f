//! DescribeTopicPartitions: topics by name in pages of partitions; a cursor says where the next page begins.

use std::collections::BTreeSet;

use floodmark_proto::ids::BrokerId;
use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::kafka::messages::describe_topic_partitions::{
    Cursor, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use floodmark_replication::cluster::{ClusterImage, Partition};

use super::TOPIC_OPERATIONS;
use super::here::{Here, Seen};
use crate::kafka::request::{Refusal, Reply, RequestContext};
use crate::ops::topics::is_internal;

/// `max.request.partition.size.limit`.
const PAGE_MAX: usize = 2000;

pub(crate) fn handle(
    ctx: &RequestContext,
    request: DescribeTopicPartitionsRequest<'_>,
) -> Result<Reply, Refusal> {
    let image = ctx.shared().cluster.image();
    if request.cursor.as_ref().is_some_and(|cursor| cursor.partition_index < 0) {
        return refused(ctx, &request, ErrorCode::InvalidRequest);
    }
    let (first_topic, first_partition) = request
        .cursor
        .as_ref()
        .map_or(("", 0), |cursor| (cursor.topic_name, u32::try_from(cursor.partition_index).unwrap_or(0)));
    let names: BTreeSet<&str> = if request.topics.is_empty() {
        image.topics_from(first_topic).map(|topic| &*topic.name).collect()
    } else {
        request.topics.iter().map(|topic| topic.name).filter(|name| *name >= first_topic).collect()
    };
    let here = Here::look(ctx);
    let mut left = usize::try_from(request.response_partition_limit).unwrap_or(0).clamp(1, PAGE_MAX);
    let (mut topics, mut next_cursor) = (Vec::new(), None);
    for name in names {
        let from = if name == first_topic { first_partition } else { 0 };
        if left == 0 {
            next_cursor = Some(Cursor { topic_name: name, partition_index: from as i32 });
            break;
        }
        let topic = page_of(ctx, &image, &here, name, from, left);
        left -= topic.partitions.len();
        let shown_to = from as usize + topic.partitions.len();
        let has_more = image.topic(name).is_some_and(|t| t.partitions.len() > shown_to);
        topics.push(topic);
        if has_more {
            next_cursor = Some(Cursor { topic_name: name, partition_index: shown_to as i32 });
            break;
        }
    }
    let response = DescribeTopicPartitionsResponse { topics, next_cursor, ..Default::default() };
    ctx.reply(&response)
}

/// There is no room for an error of the whole, so each topic has it.
fn refused(
    ctx: &RequestContext,
    request: &DescribeTopicPartitionsRequest<'_>,
    code: ErrorCode,
) -> Result<Reply, Refusal> {
    ctx.count_error(code);
    let topics = request.topics.iter().map(|topic| DescribeTopicPartitionsResponseTopic {
        error_code: code.code(),
        name: Some(topic.name),
        ..Default::default()
    });
    ctx.reply(&DescribeTopicPartitionsResponse { topics: topics.collect(), ..Default::default() })
}

fn page_of<'a>(
    ctx: &RequestContext,
    image: &ClusterImage,
    here: &Here,
    name: &'a str,
    from: u32,
    count: usize,
) -> DescribeTopicPartitionsResponseTopic<'a> {
    let Some(topic) = image.topic(name) else {
        let code = ErrorCode::UnknownTopicOrPartition;
        ctx.count_error(code);
        let name = Some(name);
        return DescribeTopicPartitionsResponseTopic { error_code: code.code(), name, ..Default::default() };
    };
    let partitions = topic.partitions.iter_from(&from).take(count);
    DescribeTopicPartitionsResponseTopic {
        error_code: 0,
        name: Some(name),
        topic_id: topic.id.to_bytes(),
        is_internal: is_internal(name),
        partitions: partitions
            .map(|(index, p)| described(*index, p, here.seen(image, topic.id, *index, p)))
            .collect(),
        topic_authorized_operations: TOPIC_OPERATIONS,
    }
}

fn described(index: u32, partition: &Partition, seen: Seen) -> DescribeTopicPartitionsResponsePartition {
    let ids = |brokers: &[BrokerId]| brokers.iter().map(|id| id.0).collect();
    DescribeTopicPartitionsResponsePartition {
        error_code: seen.error_code(),
        partition_index: index as i32,
        leader_id: seen.leader_id(),
        leader_epoch: partition.leader_epoch.0,
        replica_nodes: ids(&partition.replicas),
        isr_nodes: ids(&partition.isr),
        // Nobody may lead here who is not in sync, so there are no such replicas.
        eligible_leader_replicas: Some(Vec::new()),
        last_known_elr: Some(Vec::new()),
        offline_replicas: seen.offline_replicas,
    }
}
