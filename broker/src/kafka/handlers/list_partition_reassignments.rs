//! ListPartitionReassignments (46): which partitions are on their way, and from where to where.

use std::sync::Arc;

use floodmark_proto::ids::BrokerId;
use floodmark_proto::kafka::messages::list_partition_reassignments::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, OngoingPartitionReassignment,
    OngoingTopicReassignment,
};

use super::named::by_topic;
use crate::kafka::request::{Refusal, Reply, RequestContext};
use crate::ops::cluster::moves;

pub(crate) fn handle(
    ctx: &RequestContext,
    request: ListPartitionReassignmentsRequest<'_>,
) -> Result<Reply, Refusal> {
    let image = ctx.shared().cluster.image();
    let wanted = request
        .topics
        .as_ref()
        .map(|topics| by_topic(topics.iter().map(|t| (t.name, &*t.partition_indexes))));
    let is_wanted = |topic: &str, partition: i32| {
        wanted.as_ref().is_none_or(|wanted| wanted.get(topic).is_some_and(|of| of.contains(&partition)))
    };
    let ids = |brokers: &[BrokerId]| brokers.iter().map(|id| id.0).collect();
    let under_way: Vec<(Arc<str>, OngoingPartitionReassignment)> = moves::under_way(&image)
        .filter(|(moved, _)| is_wanted(&moved.topic, moved.partition))
        .map(|(moved, partition)| {
            let told = OngoingPartitionReassignment {
                partition_index: moved.partition,
                replicas: ids(&partition.replicas),
                adding_replicas: ids(&partition.adding),
                removing_replicas: ids(&partition.removing),
            };
            (moved.topic, told)
        })
        .collect();
    let mut topics: Vec<OngoingTopicReassignment<'_>> = Vec::new();
    for (topic, told) in &under_way {
        match topics.last_mut().filter(|last| *last.name == **topic) {
            Some(last) => last.partitions.push(told.clone()),
            None => topics.push(OngoingTopicReassignment { name: topic, partitions: vec![told.clone()] }),
        }
    }
    ctx.reply(&ListPartitionReassignmentsResponse { topics, ..Default::default() })
}
