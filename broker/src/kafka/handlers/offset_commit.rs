//! OffsetCommit (8). Versions 2 to 4 carry a retention, 6 the leader epoch, 7 brings static members, 10 names topics by id alone.

use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::kafka::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic, OffsetCommitResponse,
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};

use super::named::partitions_once;
use super::{topic_key, topic_key_of_id};
use crate::groups::GroupError;
use crate::groups::group::CommitFrom;
use crate::groups::shard_offsets::{OffsetCommit, OffsetToCommit};
use crate::kafka::request::{Refusal, Reply, RequestContext};
use crate::ops::groups::locate;
use crate::ops::topics::TopicKey;

/// Later clients know that a group may not be there.
const FIRST_WITH_UNKNOWN_GROUP: i16 = 9;
const FIRST_WITH_IDS: i16 = 10;

pub(crate) async fn handle(
    ctx: &RequestContext,
    mut request: OffsetCommitRequest<'_>,
) -> Result<Reply, Refusal> {
    last_of_each(&mut request.topics);
    let image = ctx.shared().cluster.image();
    let asked =
        request.topics.iter().flat_map(|topic| topic.partitions.iter().map(move |p| (key(ctx, topic), p)));
    let located: Vec<_> =
        asked.map(|(key, p)| locate(&image, key, p.partition_index).map(|topic| (topic, p))).collect();
    let known = located.iter().filter_map(|found| found.as_ref().ok());
    let offsets: Vec<OffsetToCommit<'_>> = known.map(|((name, id), p)| to_commit(name, *id, p)).collect();
    let commit = OffsetCommit {
        from: CommitFrom {
            member_id: request.member_id,
            instance_id: request.group_instance_id,
            generation: request.generation_id_or_member_epoch,
            is_transactional: false,
        },
        retention_ms: (request.retention_time_ms >= 0).then_some(request.retention_time_ms),
        offsets: &offsets,
        transaction: None,
    };
    let committed = ctx.shared().groups.commit_offsets(request.group_id, &commit).await;
    let mut verdicts = committed.as_ref().map(|verdicts| verdicts.iter()).map_err(|error| *error);
    let mut codes = located.iter().map(|found| match (found, &mut verdicts) {
        (Err(code), _) => *code,
        (Ok(_), Err(error)) => code(ctx, *error),
        (Ok(_), Ok(verdicts)) => match verdicts.next() {
            Some(Err(error)) => code(ctx, *error),
            Some(Ok(())) | None => ErrorCode::None,
        },
    });
    let topics = request.topics.iter().map(|topic| OffsetCommitResponseTopic {
        name: topic.name,
        topic_id: topic.topic_id,
        partitions: topic
            .partitions
            .iter()
            .zip(&mut codes)
            .map(|(p, code)| {
                if code != ErrorCode::None {
                    ctx.count_error(code);
                }
                OffsetCommitResponsePartition { partition_index: p.partition_index, error_code: code.code() }
            })
            .collect(),
    });
    ctx.reply(&OffsetCommitResponse { topics: topics.collect(), ..Default::default() })
}

fn key<'a>(ctx: &RequestContext, topic: &OffsetCommitRequestTopic<'a>) -> Result<TopicKey<'a>, ErrorCode> {
    if ctx.version() >= FIRST_WITH_IDS {
        topic_key_of_id(topic.topic_id)
    } else {
        topic_key(topic.name, topic.topic_id)
    }
}

/// Of several offsets of a partition the last counts, as in Kafka; a record is written of that one.
fn last_of_each(topics: &mut Vec<OffsetCommitRequestTopic<'_>>) {
    let turn = |topics: &mut Vec<OffsetCommitRequestTopic<'_>>| {
        topics.reverse();
        topics.iter_mut().for_each(|topic| topic.partitions.reverse());
    };
    turn(topics);
    partitions_once(topics, |t| (t.name, t.topic_id), |t| &mut t.partitions, |p| p.partition_index);
    turn(topics);
}

fn to_commit<'a>(
    topic: &'a str,
    topic_id: [u8; 16],
    partition: &OffsetCommitRequestPartition<'a>,
) -> OffsetToCommit<'a> {
    OffsetToCommit {
        topic,
        topic_id,
        partition: partition.partition_index,
        offset: partition.committed_offset,
        leader_epoch: partition.committed_leader_epoch,
        metadata: partition.committed_metadata.unwrap_or_default(),
    }
}

/// What a commit's refusal is told as.
fn code(ctx: &RequestContext, error: GroupError) -> ErrorCode {
    match error {
        GroupError::GroupNotFound if ctx.version() < FIRST_WITH_UNKNOWN_GROUP => ErrorCode::IllegalGeneration,
        GroupError::RecordTooLarge => ErrorCode::InvalidCommitOffsetSize,
        other => other.code(),
    }
}
