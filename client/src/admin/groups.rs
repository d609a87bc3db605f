//! Consumer groups from outside: list, describe, lag, committed offsets, delete.

use floodmark_proto::pb::v1 as pb;

use super::{Admin, unanswered};
use crate::error::{Result, outcome};
use crate::record::TopicPartition;

/// A group as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupListing {
    /// Its name.
    pub group: String,
    /// "consumer" for groups that read topics.
    pub protocol_type: String,
    /// Kafka's names, such as "Stable".
    pub state: String,
}

/// A group with members and lag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub group: String,
    /// Kafka's names, such as "Stable".
    pub state: String,
    /// "consumer" for groups that read topics.
    pub protocol_type: String,
    /// The assignor in use.
    pub protocol: String,
    /// Who is in it.
    pub members: Vec<GroupMember>,
    /// How far it has read.
    pub partitions: Vec<PartitionLag>,
}

/// One member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// Given by the coordinator.
    pub member_id: String,
    /// Of a static member.
    pub instance_id: Option<String>,
    /// Its own name for itself.
    pub client_id: String,
    /// Where it connects from.
    pub client_host: String,
    /// What it reads.
    pub partitions: Vec<TopicPartition>,
}

/// How far a group has read one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionLag {
    /// Which.
    pub partition: TopicPartition,
    /// Offset of the next record it will read.
    pub committed: Option<i64>,
    /// Of the partition.
    pub end: Option<i64>,
    /// Records that it has not read.
    pub lag: Option<i64>,
    /// Who reads it now; empty where nobody does.
    pub member_id: String,
    /// What was committed beside the offset.
    pub metadata: String,
}

/// An offset to be kept for a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetCommit {
    /// Of which partition.
    pub partition: TopicPartition,
    /// Of the next record to read.
    pub offset: i64,
    /// Of the last record read, where it is known.
    pub leader_epoch: Option<i32>,
    /// Kept beside it.
    pub metadata: String,
}

impl OffsetCommit {
    /// Without anything beside it.
    #[must_use]
    pub fn new(partition: TopicPartition, offset: i64) -> OffsetCommit {
        OffsetCommit { partition, offset, leader_epoch: None, metadata: String::new() }
    }
}

/// An offset that a group has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// Of which partition.
    pub partition: TopicPartition,
    /// Of the next record to read; none where nothing was committed.
    pub offset: Option<i64>,
    /// Of the last record read, where it was told.
    pub leader_epoch: Option<i32>,
    /// What was committed beside it.
    pub metadata: String,
}

impl Admin {
    /// The groups of all brokers, in whatever state.
    pub async fn groups(&self) -> Result<Vec<GroupListing>> {
        let what = "listing groups";
        // Any broker asks the others for theirs.
        let listed = self.client.ask_anyone(what, |peer| async move {
            let asked = peer.request(pb::ListGroupsRequest::default());
            peer.answer(what, peer.groups().list_groups(asked)).await
        });
        let groups = listed.await?.groups.into_iter().map(|group| GroupListing {
            group: group.group,
            protocol_type: group.protocol_type,
            state: group.state,
        });
        Ok(groups.collect())
    }

    /// Members, offsets and lag of a group.
    pub async fn group(&self, group: &str) -> Result<Group> {
        let what = "describing a group";
        let described = self.client.ask_coordinator(what, group, |peer| async move {
            let asked = peer.request(pb::DescribeGroupRequest { group: group.to_owned() });
            peer.answer(what, peer.groups().describe_group(asked)).await
        });
        described.await.map(Into::into)
    }

    /// Offsets that a group has committed; without partitions, all.
    pub async fn committed(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Vec<CommittedOffset>> {
        self.client.committed(group, partitions, false).await
    }

    /// Commits offsets for a group that has no members. An outcome for each, in their order.
    pub async fn commit_offsets(&self, group: &str, offsets: &[OffsetCommit]) -> Result<Vec<Result<()>>> {
        self.client.commit_offsets(group, None, offsets).await
    }

    /// Forgets offsets of an empty group, or of topics that no member reads. An outcome for each, in their order.
    pub async fn delete_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Result<()>>> {
        let what = "deleting offsets";
        let deleted = self.client.ask_coordinator(what, group, |peer| {
            let asked = pb::DeleteOffsetsRequest {
                group: group.to_owned(),
                partitions: partitions.iter().cloned().map(Into::into).collect(),
            };
            async move {
                let asked = peer.request(asked);
                peer.answer(what, peer.groups().delete_offsets(asked)).await
            }
        });
        let outcomes = deleted.await?.outcomes;
        Ok(outcomes.iter().map(|done| outcome(done.error.as_ref())).collect())
    }

    /// Deletes a group that has no members, with its offsets.
    pub async fn delete_group(&self, group: &str) -> Result<()> {
        let what = "deleting a group";
        let deleted = self.client.ask_coordinator(what, group, |peer| async move {
            let asked = peer.request(pb::DeleteGroupsRequest { groups: vec![group.to_owned()] });
            let deleted = peer.answer(what, peer.groups().delete_groups(asked)).await?;
            let done = deleted.outcomes.first().ok_or_else(|| unanswered(group))?;
            outcome(done.error.as_ref())
        });
        deleted.await
    }
}

impl From<pb::DescribeGroupReply> for Group {
    fn from(reply: pb::DescribeGroupReply) -> Group {
        let member = |member: pb::DescribedMember| GroupMember {
            member_id: member.member_id,
            instance_id: member.instance_id,
            client_id: member.client_id,
            client_host: member.client_host,
            partitions: member.partitions.into_iter().map(Into::into).collect(),
        };
        let lag = |lag: pb::GroupLag| PartitionLag {
            partition: TopicPartition::new(lag.topic, lag.partition),
            committed: lag.committed,
            end: lag.end,
            lag: lag.lag,
            member_id: lag.member_id,
            metadata: lag.metadata,
        };
        Group {
            group: reply.group,
            state: reply.state,
            protocol_type: reply.protocol_type,
            protocol: reply.protocol,
            members: reply.members.into_iter().map(member).collect(),
            partitions: reply.offsets.into_iter().map(lag).collect(),
        }
    }
}
