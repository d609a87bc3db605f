//! Offsets of groups: committed ones to and from the coordinator, and offsets for positions that are not offsets yet.

use std::collections::BTreeMap;

use floodmark_proto::pb::v1 as pb;

use super::config::{Begin, Isolation, Reset};
use crate::admin::{CommittedOffset, OffsetCommit};
use crate::client::{Client, is_unknown_topic};
use crate::error::{Error, Result, outcome};
use crate::record::TopicPartition;

/// Who commits: a member in its generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Membership {
    pub(crate) member_id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) generation: i32,
}

/// Brokers take so many times two in one request.
pub(super) const PARTITIONS_A_REQUEST: usize = 5_000;

impl Client {
    /// Offsets that a group has committed; without partitions, all.
    pub(crate) async fn committed(
        &self,
        group: &str,
        partitions: &[TopicPartition],
        require_stable: bool,
    ) -> Result<Vec<CommittedOffset>> {
        let what = "fetching a group's offsets";
        let fetched = self.ask_coordinator(what, group, |peer| {
            let asked = pb::FetchOffsetsRequest {
                group: group.to_owned(),
                partitions: partitions.iter().cloned().map(Into::into).collect(),
                require_stable,
            };
            async move {
                let asked = peer.request(asked);
                let fetched = peer.answer(what, peer.groups().fetch_offsets(asked)).await?;
                // One that passes fails the attempt, so that it is made again.
                let failed = fetched.offsets.iter().filter_map(|offset| offset.error.as_ref());
                let passing = failed.map(Error::from).find(Error::is_retryable);
                passing.map_or(Ok(fetched), Err)
            }
        });
        let committed = |offset: pb::FetchedOffset| {
            outcome(offset.error.as_ref())?;
            Ok(CommittedOffset {
                partition: TopicPartition::new(offset.topic, offset.partition),
                offset: offset.offset.filter(|offset| *offset >= 0),
                leader_epoch: offset.leader_epoch,
                metadata: offset.metadata,
            })
        };
        fetched.await?.offsets.into_iter().map(committed).collect()
    }

    /// Commits offsets, as a member or for a group without members. An outcome for each, in their order.
    pub(crate) async fn commit_offsets(
        &self,
        group: &str,
        member: Option<&Membership>,
        offsets: &[OffsetCommit],
    ) -> Result<Vec<Result<()>>> {
        if offsets.is_empty() {
            return Ok(Vec::new());
        }
        let what = "committing offsets";
        let to_commit = |offset: &OffsetCommit| pb::OffsetToCommit {
            topic: offset.partition.topic.to_string(),
            partition: offset.partition.partition,
            offset: offset.offset,
            leader_epoch: offset.leader_epoch,
            metadata: offset.metadata.clone(),
        };
        let committed = self.ask_coordinator(what, group, |peer| {
            let asked = pb::CommitOffsetsRequest {
                group: group.to_owned(),
                member_id: member.map_or_else(String::new, |member| member.member_id.clone()),
                instance_id: member.and_then(|member| member.instance_id.clone()),
                generation: member.map_or(-1, |member| member.generation),
                offsets: offsets.iter().map(to_commit).collect(),
            };
            async move {
                let asked = peer.request(asked);
                let committed = peer.answer(what, peer.groups().commit_offsets(asked)).await?;
                let failed = committed.outcomes.iter().zip(offsets);
                let failed = failed.filter_map(|(done, of)| Some((Error::from(done.error.as_ref()?), of)));
                for (error, of) in failed.filter(|(error, _)| error.is_retryable()) {
                    if !(is_unknown_topic(&error) && Box::pin(self.is_gone(&of.partition)).await) {
                        return Err(error);
                    }
                }
                Ok(committed)
            }
        });
        let outcomes = committed.await?.outcomes;
        if outcomes.len() != offsets.len() {
            return Err(Error::Protocol("not every offset of a commit was answered".to_owned()));
        }
        Ok(outcomes.iter().map(|done| outcome(done.error.as_ref())).collect())
    }

    /// A coordinator may not have heard of a new topic yet, and says of it what it says of one that was deleted; who is asked what a topic is
    /// asks the cluster first.
    async fn is_gone(&self, partition: &TopicPartition) -> bool {
        self.forget_topic(&partition.topic);
        match self.partition_count(&partition.topic).await {
            Ok(count) => partition.partition >= count,
            Err(error) => is_unknown_topic(&error),
        }
    }

    /// The offset of a position that is none yet.
    pub(crate) async fn resolve(
        &self,
        partition: &TopicPartition,
        from: Begin,
        isolation: Isolation,
    ) -> Result<i64> {
        let at_ms = match from {
            Begin::Offset(offset) => return Ok(offset),
            Begin::Time(at_ms) => Some(at_ms),
            Begin::Start | Begin::End | Begin::Committed => None,
        };
        let offsets = self.admin().offsets(partition, at_ms).await?;
        let end = match isolation {
            Isolation::Uncommitted => offsets.high_watermark,
            Isolation::Committed => offsets.last_stable,
        };
        Ok(match (from, offsets.at) {
            (Begin::Start, _) => offsets.start,
            (Begin::Time(_), Some((offset, _))) => offset,
            _ => end,
        })
    }

    /// What a group has committed for each of these partitions. Fails where that is nothing and `reset` does not say what then.
    pub(super) async fn committed_or_reset(
        &self,
        group: &str,
        partitions: &[TopicPartition],
        reset: Reset,
    ) -> Result<Vec<(TopicPartition, Option<i64>)>> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let mut committed = BTreeMap::new();
        for some in partitions.chunks(PARTITIONS_A_REQUEST) {
            let told = self.committed(group, some, true).await?;
            committed.extend(told.into_iter().map(|told| (told.partition, told.offset)));
        }
        let place = |partition: &TopicPartition| {
            let offset = committed.get(partition).copied().flatten();
            if offset.is_none() {
                reset.from(partition, || format!("group {group} has committed nothing"))?;
            }
            Ok((partition.clone(), offset))
        };
        partitions.iter().map(place).collect()
    }

    /// Where a group begins with each of these partitions.
    pub(super) async fn resolve_committed(
        &self,
        group: &str,
        partitions: &[TopicPartition],
        reset: Reset,
        isolation: Isolation,
    ) -> Result<Vec<(TopicPartition, i64)>> {
        let mut begin = Vec::with_capacity(partitions.len());
        for (partition, committed) in self.committed_or_reset(group, partitions, reset).await? {
            let offset = match committed {
                Some(offset) => offset,
                None => {
                    let from = reset.from(&partition, || format!("group {group} has committed nothing"))?;
                    self.resolve(&partition, from, isolation).await?
                }
            };
            begin.push((partition, offset));
        }
        Ok(begin)
    }
}

impl Reset {
    /// Where to begin by it; fails where it is nowhere.
    pub(super) fn from(self, partition: &TopicPartition, reason: impl FnOnce() -> String) -> Result<Begin> {
        match self {
            Reset::Start => Ok(Begin::Start),
            Reset::End => Ok(Begin::End),
            Reset::Fail => Err(Error::NoPosition {
                topic: partition.topic.to_string(),
                partition: partition.partition,
                reason: reason(),
            }),
        }
    }
}
