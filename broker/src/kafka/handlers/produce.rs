//! Produce: the producer's bytes are cut out of the frame as they came; the reply is written when the records are where `acks` wants them.

use std::ops::Range;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use floodmark_proto::kafka::messages::produce::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, ProduceRequest,
    ProduceResponse, TopicProduceResponse,
};
use floodmark_proto::kafka::{Decoder, ErrorCode, Message as _};
use floodmark_replication::partition::PartitionHandle;

use super::leader_hints::LeaderHints;
use super::{given, topic_key, topic_key_of_id};
use crate::kafka::request::{Answer, Refusal, Reply, RequestContext};
use crate::ops::deadline::HERE_WITHIN;
use crate::ops::intake::SentWith;
use crate::ops::produce::{Acks, NotProduced, Part, Produced, Until, produce};
use crate::ops::topics::is_internal;

/// Version that brought zstd.
const ZSTD_SINCE: i16 = 7;
/// How long a write may take that no other replica is waited for with: as long as most clients wait for an answer.
const WRITTEN_WITHIN: Duration = Duration::from_secs(30);
/// First version that names topics by id.
const TOPIC_IDS_SINCE: i16 = 13;
/// What Kafka's tools call themselves where they write to topics of brokers.
const ADMIN_CLIENT: &str = "__admin_client";

/// One topic of the request, with the partitions that the reply must name in their order.
struct TopicParts {
    name: String,
    id: [u8; 16],
    partitions: Vec<i32>,
}

/// What is left of the request once its records have been cut out.
struct Cut {
    acks: i16,
    timeout: Duration,
    in_transaction: bool,
    topics: Vec<TopicParts>,
    parts: Vec<Part>,
}

pub(crate) fn handle(ctx: RequestContext, frame: BytesMut, body_at: usize) -> Result<Answer, Refusal> {
    let Cut { acks, timeout, in_transaction, topics, mut parts } = cut(&ctx, frame, body_at)?;
    let refused = match acks {
        -1..=1 if in_transaction => Some(ErrorCode::InvalidTxnState),
        -1..=1 => None,
        _ => Some(ErrorCode::InvalidRequiredAcks),
    };
    if let Some(code) = refused {
        parts.iter_mut().for_each(|part| part.partition = Err(code));
    }
    let sent = SentWith { may_use_zstd: ctx.version() >= ZSTD_SINCE, in_transaction, are_copies: false };
    let wanted = if acks == -1 { Acks::All } else { Acks::Leader };
    let until = until(&ctx, wanted, timeout);
    let outcomes = produce(parts, wanted, sent, until, ctx.shared().clock.now_ms());
    Ok(Answer::later(async move {
        let outcomes = outcomes.await;
        if acks == 0 {
            let failed = outcomes.into_iter().find_map(Result::err);
            return failed.map_or(Ok(Reply::Nothing), |e| {
                let reason = e.message.unwrap_or_else(|| e.code.name().to_owned());
                Err(Refusal::UnacknowledgedProduce { reason })
            });
        }
        reply(&ctx, &topics, &outcomes)
    }))
}

/// The client's time is for other replicas; without those it is not asked.
fn until(ctx: &RequestContext, acks: Acks, timeout: Duration) -> Until {
    let least = if acks == Acks::All { HERE_WITHIN } else { WRITTEN_WITHIN };
    Until { here: ctx.deadline(timeout.max(least)), elsewhere: ctx.deadline(timeout) }
}

/// Takes the request apart without copying a record.
fn cut(ctx: &RequestContext, mut body: BytesMut, body_at: usize) -> Result<Cut, Refusal> {
    body.advance(body_at);
    let (mut topics, mut ranges): (Vec<TopicParts>, Vec<Option<Range<usize>>>) = (Vec::new(), Vec::new());
    let mut partitions = Vec::new();
    let mut decoder = Decoder::new(&body);
    let request = ProduceRequest::decode(&mut decoder, ctx.version())?;
    for topic in &request.topic_data {
        let key = if ctx.version() >= TOPIC_IDS_SINCE {
            topic_key_of_id(topic.topic_id)
        } else {
            topic_key(topic.name, topic.topic_id)
        };
        for part in &topic.partition_data {
            ranges.push(part.records.and_then(|records| decoder.range_of(records)));
            let found = key.and_then(|key| ctx.shared().cluster.led(key, part.index));
            partitions.push(found.and_then(|partition| may_write(ctx, partition)));
        }
        topics.push(TopicParts {
            name: topic.name.to_owned(),
            id: topic.topic_id,
            partitions: topic.partition_data.iter().map(|p| p.index).collect(),
        });
    }
    let timeout = given(request.timeout_ms);
    let (acks, in_transaction) = (request.acks, request.transactional_id.is_some());
    // Fields come one behind the other, so their ranges only rise.
    let mut at = 0;
    let mut take = |range: Range<usize>| {
        body.advance(range.start - at);
        at = range.end;
        body.split_to(range.len())
    };
    let records = ranges.into_iter().map(|range| range.map(&mut take));
    let parts =
        partitions.into_iter().zip(records).map(|(partition, records)| Part { partition, records }).collect();
    Ok(Cut { acks, timeout, in_transaction, topics, parts })
}

/// What brokers keep in topics of their own is not for clients to write; Kafka lets its tools do it, by the name they go by.
fn may_write(ctx: &RequestContext, partition: PartitionHandle) -> Result<PartitionHandle, ErrorCode> {
    let is_foreign = is_internal(&partition.id().topic) && ctx.client_id() != ADMIN_CLIENT;
    if is_foreign { Err(ErrorCode::InvalidTopicException) } else { Ok(partition) }
}

fn reply(
    ctx: &RequestContext,
    topics: &[TopicParts],
    outcomes: &[Result<Produced, NotProduced>],
) -> Result<Reply, Refusal> {
    let mut outcomes = outcomes.iter();
    let mut hints = LeaderHints::new(ctx);
    let responses = topics
        .iter()
        .map(|topic| TopicProduceResponse {
            name: &topic.name,
            topic_id: topic.id,
            partition_responses: topic
                .partitions
                .iter()
                .zip(outcomes.by_ref())
                .map(|(index, outcome)| partition_response(ctx, topic, *index, outcome, &mut hints))
                .collect(),
        })
        .collect();
    let leaders = hints.into_addresses();
    let node_endpoints = leaders
        .iter()
        .map(|leader| NodeEndpoint {
            node_id: leader.id,
            host: &leader.host,
            port: leader.port,
            rack: leader.rack.as_deref(),
        })
        .collect();
    ctx.reply(&ProduceResponse { responses, node_endpoints, ..Default::default() })
}

fn partition_response<'a>(
    ctx: &RequestContext,
    topic: &TopicParts,
    index: i32,
    outcome: &'a Result<Produced, NotProduced>,
    hints: &mut LeaderHints<'_>,
) -> PartitionProduceResponse<'a> {
    match outcome {
        Ok(produced) => PartitionProduceResponse {
            index,
            base_offset: produced.base_offset.0,
            log_append_time_ms: produced.log_append_time.unwrap_or(-1),
            log_start_offset: produced.log_start.0,
            ..Default::default()
        },
        Err(refused) => {
            ctx.count_error(refused.code);
            let named = |r: &'a crate::ops::intake::NamedRecord| BatchIndexAndErrorMessage {
                batch_index: r.index,
                batch_index_error_message: Some(&r.reason),
            };
            let leader = hints.of(refused.code, topic_key(&topic.name, topic.id), index);
            let hint = |(leader_id, leader_epoch)| LeaderIdAndEpoch { leader_id, leader_epoch };
            PartitionProduceResponse {
                index,
                current_leader: leader.map_or_else(LeaderIdAndEpoch::default, hint),
                error_code: refused.code.code(),
                base_offset: -1,
                log_start_offset: refused.log_start.map_or(-1, |offset| offset.0),
                record_errors: refused.records.iter().map(named).collect(),
                error_message: refused.message.as_deref(),
                ..Default::default()
            }
        }
    }
}
