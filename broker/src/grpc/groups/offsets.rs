//! How far groups have read: committed, fetched, forgotten.

use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::pb::v1 as pb;
use floodmark_replication::cluster::ClusterImage;

use crate::groups::GroupError;
use crate::groups::coordinator::{FetchedOffset, WhichOffsets};
use crate::groups::group::CommitFrom;
use crate::groups::shard_offsets::{OffsetCommit, OffsetToCommit};
use crate::grpc::call::Call;
use crate::grpc::refused::Refused;
use crate::ops::groups::locate;
use crate::ops::topics::TopicKey;

/// Topic ids that are not known.
const NO_ID: [u8; 16] = [0; 16];

pub(super) async fn commit(
    call: &Call,
    request: pb::CommitOffsetsRequest,
) -> Result<pb::CommitOffsetsReply, Refused> {
    let image = call.shared.cluster.image();
    let located: Vec<_> = request
        .offsets
        .iter()
        .map(|asked| {
            // Kafka's door takes what its clients send, as Kafka does; nothing is ever read from there.
            if asked.offset < 0 {
                let message = format!("a group cannot go on at offset {}; the first is 0", asked.offset);
                return Err(Refused::invalid(message));
            }
            let found = locate(&image, Ok(TopicKey::Name(&asked.topic)), asked.partition);
            found.map(|found| (found, asked)).map_err(Refused::from)
        })
        .collect();
    let known = located.iter().filter_map(|found| found.as_ref().ok());
    let offsets: Vec<OffsetToCommit<'_>> = known
        .map(|((topic, topic_id), asked)| OffsetToCommit {
            topic,
            topic_id: *topic_id,
            partition: asked.partition,
            offset: asked.offset,
            leader_epoch: asked.leader_epoch.unwrap_or(-1),
            metadata: &asked.metadata,
        })
        .collect();
    let commit = OffsetCommit {
        from: CommitFrom {
            member_id: &request.member_id,
            instance_id: request.instance_id.as_deref(),
            generation: request.generation,
            is_transactional: false,
        },
        retention_ms: None,
        offsets: &offsets,
        transaction: None,
    };
    let mut verdicts = call.shared.groups.commit_offsets(&request.group, &commit).await?.into_iter();
    let outcome = |found: &Result<_, Refused>| {
        let error = match found {
            Ok(_) => verdicts.next().unwrap_or(Ok(())).err().map(not_committed),
            Err(refused) => Some(refused.clone()),
        };
        pb::CommitOutcome { error: error.map(|refused| call.refuse_part(refused)) }
    };
    Ok(pb::CommitOffsetsReply { outcomes: located.iter().map(outcome).collect() })
}

fn not_committed(error: GroupError) -> Refused {
    match error {
        GroupError::RecordTooLarge => Refused::new(ErrorCode::InvalidCommitOffsetSize, error.to_string()),
        other => other.into(),
    }
}

pub(super) async fn fetch(
    call: &Call,
    request: pb::FetchOffsetsRequest,
) -> Result<pb::FetchOffsetsReply, Refused> {
    let image = call.shared.cluster.image();
    let fetched = if request.partitions.is_empty() {
        committed(call, &image, &request.group, request.require_stable)?
    } else {
        let id_of = |topic: &str| image.topic(topic).map_or(NO_ID, |topic| topic.id.to_bytes());
        let which: Vec<_> =
            request.partitions.iter().map(|p| (&*p.topic, id_of(&p.topic), p.partition)).collect();
        call.shared.groups.fetch_offsets(&request.group, WhichOffsets::Of(&which), request.require_stable)?
    };
    Ok(pb::FetchOffsetsReply { offsets: fetched.into_iter().map(|f| fetched_pb(call, f)).collect() })
}

/// All offsets of a group, but for those of topics that have been deleted since.
pub(super) fn committed(
    call: &Call,
    image: &ClusterImage,
    group: &str,
    needs_stable: bool,
) -> Result<Vec<FetchedOffset>, GroupError> {
    let mut all = call.shared.groups.fetch_offsets(group, WhichOffsets::All, needs_stable)?;
    all.retain(|fetched| match &fetched.offset {
        Ok(Some(kept)) => {
            let is_this = |id: [u8; 16]| kept.topic_id == NO_ID || kept.topic_id == id;
            image.topic(&fetched.topic).is_some_and(|topic| is_this(topic.id.to_bytes()))
        }
        Ok(None) => false,
        Err(_) => true,
    });
    Ok(all)
}

fn fetched_pb(call: &Call, fetched: FetchedOffset) -> pb::FetchedOffset {
    let told = match fetched.offset {
        Ok(Some(kept)) => pb::FetchedOffset {
            offset: Some(kept.offset),
            leader_epoch: (kept.leader_epoch >= 0).then_some(kept.leader_epoch),
            metadata: kept.metadata.to_string(),
            ..Default::default()
        },
        Ok(None) => pb::FetchedOffset::default(),
        Err(error) => pb::FetchedOffset { error: Some(call.refuse_part(error)), ..Default::default() },
    };
    pb::FetchedOffset { topic: fetched.topic.to_string(), partition: fetched.partition, ..told }
}

pub(super) async fn delete(
    call: &Call,
    request: pb::DeleteOffsetsRequest,
) -> Result<pb::DeleteOffsetsReply, Refused> {
    let image = call.shared.cluster.image();
    let known: Vec<Result<(&str, i32), ErrorCode>> = request
        .partitions
        .iter()
        .map(|p| locate(&image, Ok(TopicKey::Name(&p.topic)), p.partition).map(|_| (&*p.topic, p.partition)))
        .collect();
    let to_delete: Vec<(&str, i32)> = known.iter().filter_map(|found| found.as_ref().ok().copied()).collect();
    let mut deleted = call.shared.groups.delete_offsets(&request.group, &to_delete).await?.into_iter();
    let outcome = |found: &Result<_, ErrorCode>| {
        let error = match found {
            Ok(_) => deleted.next().unwrap_or(Ok(())).err().map(Refused::from),
            Err(code) => Some((*code).into()),
        };
        pb::CommitOutcome { error: error.map(|refused| call.refuse_part(refused)) }
    };
    Ok(pb::DeleteOffsetsReply { outcomes: known.iter().map(outcome).collect() })
}
