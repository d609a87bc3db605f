//! DeleteRecords: a partition begins later.

use floodmark_proto::ids::Offset;
use floodmark_proto::kafka::messages::delete_records::{
    DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopicResult,
};

use super::named::partitions_once;
use super::{given_here, topic_key};
use crate::kafka::request::{Refusal, Reply, RequestContext};
use crate::ops::records::delete_before;

pub(crate) async fn handle(
    ctx: &RequestContext,
    mut request: DeleteRecordsRequest<'_>,
) -> Result<Reply, Refusal> {
    partitions_once(&mut request.topics, |t| t.name, |t| &mut t.partitions, |p| p.partition_index);
    // librdkafka asks with 0.
    let deadline = tokio::time::Instant::now() + given_here(request.timeout_ms);
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let partition = topic_key(topic.name, [0; 16])
                .and_then(|key| ctx.shared().cluster.led(key, asked.partition_index));
            let outcome = match partition {
                Ok(partition) => delete_before(&partition, requested(asked.offset), deadline).await,
                Err(code) => Err(code),
            };
            if let Err(code) = outcome {
                ctx.count_error(code);
            }
            partitions.push(DeleteRecordsPartitionResult {
                partition_index: asked.partition_index,
                low_watermark: outcome.map_or(-1, |start| start.0),
                error_code: outcome.err().map_or(0, |code| code.code()),
            });
        }
        topics.push(DeleteRecordsTopicResult { name: topic.name, partitions });
    }
    ctx.reply(&DeleteRecordsResponse { topics, ..Default::default() })
}

/// -1 asks for everything that is committed.
fn requested(offset: i64) -> Option<Offset> {
    (offset != -1).then_some(Offset(offset))
}
