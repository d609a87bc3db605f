//! Fetch: sessions are looked up, positions read, and records handed on as the log has them.

use std::sync::Arc;
use std::time::Duration;

use floodmark_proto::ids::{LeaderEpoch, Offset};
use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::kafka::messages::fetch::{
    AbortedTransaction, EpochEndOffset, FetchRequest, FetchResponse, FetchableTopicResponse,
    LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use floodmark_replication::partition::{Isolation, PartitionHandle, Role};

use super::leader_hints::LeaderHints;
use super::named::partitions_once;
use super::{topic_key, topic_key_of_id};
use crate::KAFKA_LISTENER;
use crate::kafka::fetch_sessions::{
    PartitionRef, SessionError, SessionRequest, Told, TopicRef, Wanted as WantedOfPartition,
};
use crate::kafka::request::{Refusal, Reply, RequestContext};
use crate::ops::fetch::{Part, Position, ReadFrom, Wanted, fetch};
use crate::ops::nearest::nearest;
use crate::ops::topics::TopicKey;

/// First version that names topics by id.
const TOPIC_IDS_SINCE: i16 = 13;
/// First version whose consumers know that others than the leader may answer.
const FROM_FOLLOWERS_SINCE: i16 = 11;
/// A long poll that asks for more than this is answered after it.
const MAX_WAIT: Duration = Duration::from_secs(600);

pub(crate) async fn handle(ctx: &RequestContext, mut request: FetchRequest<'_>) -> Result<Reply, Refusal> {
    partitions_once(&mut request.topics, |t| (t.topic, t.topic_id), |t| &mut t.partitions, |p| p.partition);
    let asked = SessionRequest {
        session_id: request.session_id,
        epoch: request.session_epoch,
        uses_topic_ids: ctx.version() >= TOPIC_IDS_SINCE,
    };
    let sessions = &ctx.shared().fetch_sessions;
    let (wanted, forgotten) = partitions_of(ctx, &request);
    let session = match sessions.begin(asked, wanted, &forgotten, ctx.shared().clock.now_ms()) {
        Ok(session) => session,
        Err(error) => return refused(ctx, error),
    };
    let reader = Reader::of(ctx, &request);
    let positions = session
        .partitions
        .iter()
        .map(|(partition, wanted)| position(ctx, &reader, partition, wanted))
        .collect();
    let max_wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(MAX_WAIT);
    let limit = ctx.shared().config.fetch_bytes_max.as_usize();
    let wanted = Wanted {
        min_bytes: usize::try_from(request.min_bytes).unwrap_or(0),
        max_bytes: usize::try_from(request.max_bytes).unwrap_or(0).min(limit),
        isolation: isolation(request.isolation_level),
    };
    let parts = if session.partitions.is_empty() {
        Vec::new()
    } else {
        fetch(positions, wanted, &ctx.deadline(max_wait), &ctx.shared().answer_memory).await
    };
    let told: Vec<Told> = parts.iter().map(told_of).collect();
    // Where to read instead, and from where to read again, is told each time: who does not hear of it asks the same again at once.
    let is_told_always = |part: &Part| part.nearer.is_some() || part.diverges_at.is_some();
    let has_news: Vec<bool> =
        parts.iter().map(|part| !part.batches.is_empty() || is_told_always(part)).collect();
    let goes_out = sessions.finish(&session, &told, &has_news);
    let answers = session.partitions.iter().zip(parts).zip(goes_out).filter(|(_, goes_out)| *goes_out);
    let answers = answers.map(|((partition, part), _)| (&partition.0, part));
    let mut hints = LeaderHints::new(ctx);
    let responses = by_topic(ctx, answers, wanted.isolation, &mut hints);
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
    let response =
        FetchResponse { session_id: session.session_id, responses, node_endpoints, ..Default::default() };
    ctx.reply(&response)
}

pub(super) fn isolation(level: i8) -> Isolation {
    if level == 1 { Isolation::Committed } else { Isolation::Uncommitted }
}

/// An epoch where the client says one.
pub(super) fn known_epoch(epoch: i32) -> Option<LeaderEpoch> {
    (epoch >= 0).then_some(LeaderEpoch(epoch))
}

fn refused(ctx: &RequestContext, error: SessionError) -> Result<Reply, Refusal> {
    let code = match error {
        SessionError::NotFound => ErrorCode::FetchSessionIdNotFound,
        SessionError::WrongEpoch => ErrorCode::InvalidFetchSessionEpoch,
        SessionError::MixedTopicIds => ErrorCode::FetchSessionTopicIdError,
    };
    ctx.count_error(code);
    ctx.reply(&FetchResponse { error_code: code.code(), ..Default::default() })
}

type Named = (Vec<(PartitionRef, WantedOfPartition)>, Vec<PartitionRef>);

fn partitions_of(ctx: &RequestContext, request: &FetchRequest<'_>) -> Named {
    let by_id = ctx.version() >= TOPIC_IDS_SINCE;
    let topic_ref = |name: &str, id| if by_id { TopicRef::Id(id) } else { TopicRef::Name(Arc::from(name)) };
    let mut wanted = Vec::new();
    for topic in &request.topics {
        let name = topic_ref(topic.topic, topic.topic_id);
        wanted.extend(topic.partitions.iter().map(|p| {
            let wanted = WantedOfPartition {
                fetch_offset: p.fetch_offset,
                current_leader_epoch: p.current_leader_epoch,
                last_fetched_epoch: p.last_fetched_epoch,
                max_bytes: p.partition_max_bytes,
            };
            ((name.clone(), p.partition), wanted)
        }));
    }
    let mut forgotten = Vec::new();
    for topic in &request.forgotten_topics_data {
        let name = topic_ref(topic.topic, topic.topic_id);
        forgotten.extend(topic.partitions.iter().map(|partition| (name.clone(), *partition)));
    }
    (wanted, forgotten)
}

/// Who reads.
struct Reader<'a> {
    /// A broker, by what it says. Replicas are copied over the brokers' own listener alone: here such a request would move nothing, and
    /// must not read as one either (CVE-2018-1288).
    claims_to_be_replica: bool,
    /// Where it stands, if it says so.
    rack: Option<&'a str>,
    knows_followers: bool,
}

impl<'a> Reader<'a> {
    fn of(ctx: &RequestContext, request: &FetchRequest<'a>) -> Reader<'a> {
        Reader {
            claims_to_be_replica: request.replica_id.max(request.replica_state.replica_id) >= 0,
            rack: Some(request.rack_id).filter(|rack| !rack.is_empty()),
            knows_followers: ctx.version() >= FROM_FOLLOWERS_SINCE,
        }
    }

    fn source(&self, ctx: &RequestContext, partition: &PartitionHandle, from: Offset) -> ReadFrom {
        if !self.knows_followers {
            return ReadFrom::Leader;
        }
        let image = ctx.shared().cluster.image();
        let nearer = self.rack.and_then(|rack| nearest(&image, partition, KAFKA_LISTENER, rack, from));
        nearer.map_or(ReadFrom::AnyReplica, ReadFrom::Nearer)
    }
}

/// The key of a topic as a session names it.
fn key_of(topic: &TopicRef) -> Result<TopicKey<'_>, ErrorCode> {
    match topic {
        TopicRef::Name(name) => topic_key(name, [0; 16]),
        TopicRef::Id(id) => topic_key_of_id(*id),
    }
}

fn position(
    ctx: &RequestContext,
    reader: &Reader<'_>,
    (topic, partition): &PartitionRef,
    wanted: &WantedOfPartition,
) -> Position {
    let found = if reader.claims_to_be_replica {
        Err(ErrorCode::TopicAuthorizationFailed)
    } else {
        let cluster = &ctx.shared().cluster;
        key_of(topic).and_then(|key| cluster.partition(key, *partition)).and_then(|found| {
            // A leader that others may have replaced would give nothing new, and its readers would wait for it.
            let leads = matches!(found.role(), Role::Leader { .. });
            if leads { cluster.check_leads(&found).map(|()| found) } else { Ok(found) }
        })
    };
    let from = Offset(wanted.fetch_offset);
    Position {
        source: found.as_ref().map_or(ReadFrom::Leader, |partition| reader.source(ctx, partition, from)),
        partition: found,
        from,
        max_bytes: usize::try_from(wanted.max_bytes).unwrap_or(0),
        leader_epoch: known_epoch(wanted.current_leader_epoch),
        last_fetched_epoch: known_epoch(wanted.last_fetched_epoch),
    }
}

fn told_of(part: &Part) -> Told {
    let number = |offset: Option<Offset>| offset.map_or(-1, |offset| offset.0);
    Told {
        error_code: part.error.map_or(0, ErrorCode::code),
        high_watermark: number(part.high_watermark),
        last_stable_offset: number(part.last_stable_offset),
        log_start_offset: number(part.log_start),
    }
}

/// Neighbours of one topic go under one name.
fn by_topic<'a>(
    ctx: &RequestContext,
    answers: impl Iterator<Item = (&'a PartitionRef, Part)>,
    isolation: Isolation,
    hints: &mut LeaderHints<'_>,
) -> Vec<FetchableTopicResponse<'a>> {
    let mut responses: Vec<(&TopicRef, FetchableTopicResponse<'a>)> = Vec::new();
    for ((topic, partition), part) in answers {
        let mut leader = LeaderIdAndEpoch::default();
        if let Some(code) = part.error {
            ctx.count_error(code);
            if let Some((leader_id, leader_epoch)) = hints.of(code, key_of(topic), *partition) {
                leader = LeaderIdAndEpoch { leader_id, leader_epoch };
            }
        }
        let data = PartitionData { current_leader: leader, ..partition_data(*partition, part, isolation) };
        match responses.last_mut().filter(|(last, _)| *last == topic) {
            Some((_, response)) => response.partitions.push(data),
            None => {
                let (name, topic_id) = match topic {
                    TopicRef::Name(name) => (&**name, [0; 16]),
                    TopicRef::Id(id) => ("", *id),
                };
                responses
                    .push((topic, FetchableTopicResponse { topic: name, topic_id, partitions: vec![data] }));
            }
        }
    }
    responses.into_iter().map(|(_, response)| response).collect()
}

fn partition_data(partition_index: i32, part: Part, isolation: Isolation) -> PartitionData {
    let told = told_of(&part);
    let aborted = |t: &floodmark_storage::index::AbortedTransaction| AbortedTransaction {
        producer_id: t.producer_id.0,
        first_offset: t.first_offset.0,
    };
    PartitionData {
        partition_index,
        error_code: told.error_code,
        high_watermark: told.high_watermark,
        last_stable_offset: told.last_stable_offset,
        log_start_offset: told.log_start_offset,
        diverging_epoch: part.diverges_at.map_or_else(EpochEndOffset::default, |(epoch, end)| {
            EpochEndOffset { epoch: epoch.0, end_offset: end.0 }
        }),
        aborted_transactions: (isolation == Isolation::Committed)
            .then(|| part.aborted.iter().map(aborted).collect()),
        preferred_read_replica: part.nearer.map_or(-1, |broker| broker.0),
        records: Some(part.batches),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_below_zero_is_none() {
        assert_eq!((known_epoch(-1), known_epoch(0)), (None, Some(LeaderEpoch(0))));
    }
}
