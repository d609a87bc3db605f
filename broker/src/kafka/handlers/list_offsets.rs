//! ListOffsets: Kafka's special timestamps are given their names.

use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::kafka::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse,
    ListOffsetsTopicResponse,
};
use floodmark_replication::partition::Isolation;

use super::fetch::{isolation, known_epoch};
use super::named::doubled;
use super::topic_key;
use crate::kafka::request::{Refusal, Reply, RequestContext};
use crate::ops::offsets::{Found, Sought, find};

/// First version that tells clients of a leader that does not know yet what is committed (KIP-207).
const OFFSET_NOT_AVAILABLE_SINCE: i16 = 5;

pub(crate) async fn handle(ctx: &RequestContext, request: ListOffsetsRequest<'_>) -> Result<Reply, Refusal> {
    let isolation = isolation(request.isolation_level);
    let mut topics = Vec::with_capacity(request.topics.len());
    let named = request.topics.iter().map(|t| (t.name, t.partitions.iter().map(|p| p.partition_index)));
    let doubled = doubled(named);
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        let doubled = doubled.get(topic.name);
        for asked in &topic.partitions {
            let found = if doubled.is_some_and(|doubled| doubled.contains(&asked.partition_index)) {
                Err(ErrorCode::InvalidRequest)
            } else {
                look_up(ctx, topic.name, asked, isolation).await
            };
            partitions.push(response(ctx, asked.partition_index, found));
        }
        topics.push(ListOffsetsTopicResponse { name: topic.name, partitions });
    }
    ctx.reply(&ListOffsetsResponse { topics, ..Default::default() })
}

async fn look_up(
    ctx: &RequestContext,
    topic: &str,
    asked: &ListOffsetsPartition,
    isolation: Isolation,
) -> Result<Found, ErrorCode> {
    let sought = sought(asked.timestamp, ctx.version()).ok_or(ErrorCode::UnsupportedVersion)?;
    let partition = ctx.shared().cluster.partition(topic_key(topic, [0; 16])?, asked.partition_index)?;
    let believed = known_epoch(asked.current_leader_epoch);
    let found = find(&ctx.shared().cluster, &partition, sought, isolation, believed).await;
    found.map_err(|code| match code {
        ErrorCode::OffsetNotAvailable if ctx.version() < OFFSET_NOT_AVAILABLE_SINCE => {
            ErrorCode::LeaderNotAvailable
        }
        code => code,
    })
}

/// What a timestamp asks for; `None` for one below zero that the version does not know.
fn sought(timestamp: i64, version: i16) -> Option<Sought> {
    match (timestamp, version) {
        (-1, _) => Some(Sought::Latest),
        (-2, _) => Some(Sought::Earliest),
        (-3, 7..) => Some(Sought::MaxTimestamp),
        // Everything is kept here: the earliest record here is the earliest of all, and nothing waits to be moved away.
        (-4, 8..) => Some(Sought::Earliest),
        (-5, 9..) | (-6, 11..) => Some(Sought::Tiered),
        (0.., _) => Some(Sought::At(timestamp)),
        _ => None,
    }
}

fn response(
    ctx: &RequestContext,
    partition_index: i32,
    found: Result<Found, ErrorCode>,
) -> ListOffsetsPartitionResponse {
    match found {
        Ok(found) => ListOffsetsPartitionResponse {
            partition_index,
            error_code: 0,
            timestamp: found.timestamp.unwrap_or(-1),
            offset: found.offset.map_or(-1, |offset| offset.0),
            leader_epoch: found.leader_epoch.map_or(-1, |epoch| epoch.0),
        },
        Err(code) => {
            ctx.count_error(code);
            ListOffsetsPartitionResponse { partition_index, error_code: code.code(), ..Default::default() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_timestamps_came_with_versions() {
        for (timestamp, since, meaning) in [
            (-1, 1, Sought::Latest),
            (-2, 1, Sought::Earliest),
            (-3, 7, Sought::MaxTimestamp),
            (-4, 8, Sought::Earliest),
            (-5, 9, Sought::Tiered),
            (-6, 11, Sought::Tiered),
            (0, 1, Sought::At(0)),
            (i64::MAX, 1, Sought::At(i64::MAX)),
        ] {
            assert_eq!(sought(timestamp, since), Some(meaning), "{timestamp}");
            if since > 1 {
                assert_eq!(sought(timestamp, since - 1), None, "{timestamp}");
            }
        }
        assert_eq!((sought(-7, 11), sought(i64::MIN, 11)), (None, None));
    }
}
