//! DescribeProducers: whom a partition remembers.

use floodmark_proto::kafka::messages::describe_producers::{
    DescribeProducersRequest, DescribeProducersResponse, PartitionResponse, ProducerState, TopicResponse,
};

use floodmark_storage::producers;

use super::named::partitions_once;
use super::topic_key;
use crate::kafka::request::{Refusal, Reply, RequestContext};
use crate::ops::error::code_of_partition;

pub(crate) async fn handle(
    ctx: &RequestContext,
    mut request: DescribeProducersRequest<'_>,
) -> Result<Reply, Refusal> {
    partitions_once(&mut request.topics, |t| t.name, |t| &mut t.partition_indexes, |index| *index);
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
        for index in &topic.partition_indexes {
            partitions.push(described(ctx, topic.name, *index).await);
        }
        topics.push(TopicResponse { name: topic.name, partitions });
    }
    ctx.reply(&DescribeProducersResponse { topics, ..Default::default() })
}

async fn described(ctx: &RequestContext, topic: &str, index: i32) -> PartitionResponse<'static> {
    let partition = topic_key(topic, [0; 16]).and_then(|key| ctx.shared().cluster.led(key, index));
    let producers = match partition {
        Ok(partition) => partition.describe_producers().await.map_err(|e| code_of_partition(&e)),
        Err(code) => Err(code),
    };
    match producers {
        Ok(producers) => PartitionResponse {
            partition_index: index,
            active_producers: producers.iter().map(state).collect(),
            ..Default::default()
        },
        Err(code) => {
            ctx.count_error(code);
            PartitionResponse { partition_index: index, error_code: code.code(), ..Default::default() }
        }
    }
}

fn state(producer: &producers::ProducerState) -> ProducerState {
    ProducerState {
        producer_id: producer.producer_id.0,
        producer_epoch: i32::from(producer.epoch),
        last_sequence: producer.last_batch().map_or(-1, |batch| batch.last_sequence),
        last_timestamp: producer.last_timestamp,
        coordinator_epoch: producer.coordinator_epoch,
        current_txn_start_offset: producer.open_transaction.map_or(-1, |offset| offset.0),
    }
}
