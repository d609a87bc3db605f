//! DeleteRecords: a partition begins later.

use std::time::Duration;

use floodmark_proto::ids::Offset;
use floodmark_proto::kafka::messages::delete_records::{
    DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopicResult,
};

use super::topic_key;
use crate::kafka::request::{Refusal, Reply, RequestContext};
use crate::ops::records::delete_before;

/// Longest wait for this broker's own disk.
const HERE_WITHIN: Duration = Duration::from_secs(5);

pub(crate) async fn handle(
    ctx: &RequestContext,
    request: DeleteRecordsRequest<'_>,
) -> Result<Reply, Refusal> {
    // The client's time is for replicas elsewhere. What this broker does by itself it finishes, as Kafka does: librdkafka asks with 0.
    let within = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0)).max(HERE_WITHIN);
    let deadline = tokio::time::Instant::now() + within;
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
