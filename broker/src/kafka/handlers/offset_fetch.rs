//! OffsetFetch (9). A missing list of topics means all, from version 2 on; an empty one means none. Version 5 tells the leader epoch, 7
//! can ask for offsets of decided transactions alone, 8 asks for several groups, 10 names topics by id alone.

use std::sync::Arc;

use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::kafka::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchResponse, OffsetFetchResponseGroup,
    OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use floodmark_replication::cluster::ClusterImage;

use super::named::{once, partitions_once};
use super::{code_of, topic_key};
use crate::groups::GroupError;
use crate::groups::coordinator::{FetchedOffset, WhichOffsets};
use crate::groups::offsets::CommittedOffset;
use crate::kafka::request::{Refusal, Reply, RequestContext};
use crate::ops::topics;

const FIRST_WITH_GROUPS: i16 = 8;
const FIRST_WITH_IDS: i16 = 10;
/// Before, an error could be told of partitions alone.
const FIRST_WITH_ERROR: i16 = 2;

/// A topic as it was asked for.
type Asked<'a> = (&'a str, [u8; 16], &'a [i32]);

/// A topic as it is answered: name, id, partitions.
struct Answered {
    name: Arc<str>,
    id: [u8; 16],
    partitions: Vec<(i32, Result<Option<CommittedOffset>, ErrorCode>)>,
}

pub(crate) fn handle(ctx: &RequestContext, mut request: OffsetFetchRequest<'_>) -> Result<Reply, Refusal> {
    if ctx.version() >= FIRST_WITH_GROUPS {
        return handle_groups(ctx, request);
    }
    if let Some(topics) = &mut request.topics {
        partitions_once(topics, |t| t.name, |t| &mut t.partition_indexes, |index| *index);
    }
    let asked: Option<Vec<Asked<'_>>> =
        request.topics.as_ref().map(|t| t.iter().map(|t| (t.name, [0; 16], &*t.partition_indexes)).collect());
    let fetched = fetch(ctx, request.group_id, asked.as_deref(), request.require_stable);
    let (answered, error_code) = match fetched {
        Ok(answered) => (answered, 0),
        Err(error) if ctx.version() < FIRST_WITH_ERROR => (refused(asked.as_deref(), error), 0),
        Err(error) => (Vec::new(), code_of(ctx, Err(error))),
    };
    let topics = answered.iter().map(|topic| OffsetFetchResponseTopic {
        name: &topic.name,
        partitions: topic.partitions.iter().map(|(index, offset)| partition(ctx, *index, offset)).collect(),
    });
    ctx.reply(&OffsetFetchResponse { topics: topics.collect(), error_code, ..Default::default() })
}

fn handle_groups(ctx: &RequestContext, mut request: OffsetFetchRequest<'_>) -> Result<Reply, Refusal> {
    once(&mut request.groups, |group| group.group_id);
    for topics in request.groups.iter_mut().filter_map(|group| group.topics.as_mut()) {
        partitions_once(topics, |t| (t.name, t.topic_id), |t| &mut t.partition_indexes, |index| *index);
    }
    let fetched: Vec<_> = request
        .groups
        .iter()
        .map(|group| (group.group_id, fetch_group(ctx, group, request.require_stable)))
        .collect();
    let groups = fetched.iter().map(|(group_id, fetched)| match fetched {
        Err(error) => {
            OffsetFetchResponseGroup { group_id, error_code: code_of(ctx, Err(*error)), ..Default::default() }
        }
        Ok(answered) => OffsetFetchResponseGroup {
            group_id,
            topics: answered.iter().map(|topic| topic_of_group(ctx, topic)).collect(),
            ..Default::default()
        },
    });
    ctx.reply(&OffsetFetchResponse { groups: groups.collect(), ..Default::default() })
}

fn fetch_group(
    ctx: &RequestContext,
    group: &OffsetFetchRequestGroup<'_>,
    needs_stable: bool,
) -> Result<Vec<Answered>, GroupError> {
    let asked: Option<Vec<Asked<'_>>> = group
        .topics
        .as_ref()
        .map(|t| t.iter().map(|t| (t.name, t.topic_id, &*t.partition_indexes)).collect());
    fetch(ctx, group.group_id, asked.as_deref(), needs_stable)
}

fn fetch(
    ctx: &RequestContext,
    group: &str,
    asked: Option<&[Asked<'_>]>,
    needs_stable: bool,
) -> Result<Vec<Answered>, GroupError> {
    let image = ctx.shared().cluster.image();
    match asked {
        Some(asked) => {
            asked.iter().map(|topic| fetch_topic(ctx, &image, group, topic, needs_stable)).collect()
        }
        None => {
            let all = ctx.shared().groups.fetch_offsets(group, WhichOffsets::All, needs_stable)?;
            Ok(by_topic(ctx, &image, all))
        }
    }
}

fn fetch_topic(
    ctx: &RequestContext,
    image: &ClusterImage,
    group: &str,
    &(name, id, indexes): &Asked<'_>,
    needs_stable: bool,
) -> Result<Answered, GroupError> {
    let found = topic_key(name, id).and_then(|key| topics::find(image, key).map_err(|e| e.code));
    let (name, topic_id) = match &found {
        Ok(topic) => (Arc::clone(&topic.name), topic.id.to_bytes()),
        // Its name is enough to look for its offsets.
        Err(_) if ctx.version() < FIRST_WITH_IDS => (Arc::from(name), [0; 16]),
        Err(code) => {
            let partitions = indexes.iter().map(|index| (*index, Err(*code))).collect();
            return Ok(Answered { name: Arc::from(name), id, partitions });
        }
    };
    let which: Vec<(&str, [u8; 16], i32)> = indexes.iter().map(|index| (&*name, topic_id, *index)).collect();
    let fetched = ctx.shared().groups.fetch_offsets(group, WhichOffsets::Of(&which), needs_stable)?;
    let told = fetched.into_iter().map(|f| (f.partition, f.offset.map_err(GroupError::code)));
    Ok(Answered { partitions: told.collect(), name, id })
}

/// All offsets of a group, but for those of topics that have been deleted since. Comes in the order of topics.
fn by_topic(ctx: &RequestContext, image: &ClusterImage, all: Vec<FetchedOffset>) -> Vec<Answered> {
    let mut answered: Vec<Answered> = Vec::new();
    for FetchedOffset { topic, partition, offset } in all {
        let id = image.topic(&topic).map_or([0; 16], |topic| topic.id.to_bytes());
        let is_older = |kept: &CommittedOffset| kept.topic_id != [0; 16] && kept.topic_id != id;
        let is_gone = matches!(&offset, Ok(Some(kept)) if is_older(kept) && id != [0; 16]);
        if is_gone || matches!(offset, Ok(None)) || (ctx.version() >= FIRST_WITH_IDS && id == [0; 16]) {
            continue;
        }
        let told = (partition, offset.map_err(GroupError::code));
        match answered.last_mut().filter(|last| last.name == topic) {
            Some(last) => last.partitions.push(told),
            None => answered.push(Answered { name: topic, id, partitions: vec![told] }),
        }
    }
    answered
}

fn refused(asked: Option<&[Asked<'_>]>, error: GroupError) -> Vec<Answered> {
    let topic = |(name, id, indexes): &Asked<'_>| Answered {
        name: Arc::from(*name),
        id: *id,
        partitions: indexes.iter().map(|index| (*index, Err(error.code()))).collect(),
    };
    asked.unwrap_or_default().iter().map(topic).collect()
}

fn partition<'a>(
    ctx: &RequestContext,
    index: i32,
    offset: &'a Result<Option<CommittedOffset>, ErrorCode>,
) -> OffsetFetchResponsePartition<'a> {
    let (committed_offset, committed_leader_epoch, metadata, error_code) = told(ctx, offset);
    OffsetFetchResponsePartition {
        partition_index: index,
        committed_offset,
        committed_leader_epoch,
        metadata: Some(metadata),
        error_code,
    }
}

fn topic_of_group<'a>(ctx: &RequestContext, topic: &'a Answered) -> OffsetFetchResponseTopics<'a> {
    let partition = |(index, offset): &'a (i32, Result<Option<CommittedOffset>, ErrorCode>)| {
        let (committed_offset, committed_leader_epoch, metadata, error_code) = told(ctx, offset);
        OffsetFetchResponsePartitions {
            partition_index: *index,
            committed_offset,
            committed_leader_epoch,
            metadata: Some(metadata),
            error_code,
        }
    };
    OffsetFetchResponseTopics {
        name: &topic.name,
        topic_id: topic.id,
        partitions: topic.partitions.iter().map(partition).collect(),
    }
}

/// Offset, leader epoch, metadata and error code. No offset is -1 with empty metadata, and no error.
fn told<'a>(
    ctx: &RequestContext,
    offset: &'a Result<Option<CommittedOffset>, ErrorCode>,
) -> (i64, i32, &'a str, i16) {
    match offset {
        Ok(Some(kept)) => (kept.offset, kept.leader_epoch, &kept.metadata, 0),
        Ok(None) => (-1, -1, "", 0),
        Err(code) => {
            ctx.count_error(*code);
            (-1, -1, "", code.code())
        }
    }
}
