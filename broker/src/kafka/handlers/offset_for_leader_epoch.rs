//! OffsetForLeaderEpoch: where an epoch ends, so that a client finds out whether what it has read is still there.

use floodmark_proto::ids::LeaderEpoch;
use floodmark_proto::kafka::messages::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, OffsetForLeaderPartition,
    OffsetForLeaderTopicResult,
};

use super::fetch::known_epoch;
use super::named::partitions_once;
use super::topic_key;
use crate::kafka::request::{Refusal, Reply, RequestContext};
use crate::ops::offsets::end_of_epoch;

pub(crate) fn handle(
    ctx: &RequestContext,
    mut request: OffsetForLeaderEpochRequest<'_>,
) -> Result<Reply, Refusal> {
    partitions_once(&mut request.topics, |t| t.topic, |t| &mut t.partitions, |p| p.partition);
    let topics = request
        .topics
        .iter()
        .map(|topic| OffsetForLeaderTopicResult {
            topic: topic.topic,
            partitions: topic.partitions.iter().map(|asked| answer(ctx, topic.topic, asked)).collect(),
        })
        .collect();
    let response = OffsetForLeaderEpochResponse { topics, ..Default::default() };
    ctx.reply(&response)
}

fn answer(ctx: &RequestContext, topic: &str, asked: &OffsetForLeaderPartition) -> EpochEndOffset {
    let partition = asked.partition;
    let cluster = &ctx.shared().cluster;
    let (epoch, believed) = (LeaderEpoch(asked.leader_epoch), known_epoch(asked.current_leader_epoch));
    let found = topic_key(topic, [0; 16])
        .and_then(|key| cluster.partition(key, partition))
        .and_then(|p| end_of_epoch(cluster, &p, epoch, believed));
    match found {
        Ok(Some((epoch, end))) => {
            EpochEndOffset { error_code: 0, partition, leader_epoch: epoch.0, end_offset: end.0 }
        }
        Ok(None) => EpochEndOffset { partition, ..Default::default() },
        Err(code) => {
            ctx.count_error(code);
            EpochEndOffset { error_code: code.code(), partition, ..Default::default() }
        }
    }
}
