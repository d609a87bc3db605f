//! openraft's types as this crate uses them, and the entries of its log as the messages of `metadata.proto`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use floodmark_proto::pb::metadata as pb;
use openraft::{EmptyNode, EntryPayload, LeaderId};

use crate::cluster::wire::{WireError, command_from_pb, command_to_pb};
use crate::cluster::{Command, CommandError, Output};

openraft::declare_raft_types!(
    /// What openraft is told about us.
    pub(crate) TypeConfig:
        D = Proposal,
        R = Answers,
        NodeId = u64,
        Node = EmptyNode,
        SnapshotData = Bytes,
);

pub(crate) type NodeId = u64;
pub(crate) type Entry = openraft::Entry<TypeConfig>;
pub(crate) type LogId = openraft::LogId<NodeId>;
pub(crate) type Vote = openraft::Vote<NodeId>;
pub(crate) type Membership = openraft::Membership<NodeId, EmptyNode>;
pub(crate) type StoredMembership = openraft::StoredMembership<NodeId, EmptyNode>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<NodeId, EmptyNode>;
pub(crate) type Snapshot = openraft::Snapshot<TypeConfig>;
pub(crate) type StorageError = openraft::StorageError<NodeId>;

/// Commands that share an entry, and so a sync.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Proposal(pub(crate) Arc<[Command]>);

/// What came of each command of an entry, in their order.
pub(crate) type Answers = Vec<Result<Output, CommandError>>;

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} commands", self.0.len())
    }
}

pub(crate) fn log_id(term: u64, node: NodeId, index: u64) -> LogId {
    LogId::new(LeaderId::new(term, node), index)
}

pub(crate) fn log_id_to_pb(id: &LogId) -> pb::LogId {
    pb::LogId { term: id.leader_id.term, node: id.leader_id.node_id, index: id.index }
}

pub(crate) fn log_id_from_pb(message: &pb::LogId) -> LogId {
    log_id(message.term, message.node, message.index)
}

pub(crate) fn vote_to_pb(vote: &Vote) -> pb::Vote {
    pb::Vote { term: vote.leader_id.term, node: vote.leader_id.node_id, committed: vote.committed }
}

pub(crate) fn vote_from_pb(message: &pb::Vote) -> Vote {
    Vote { leader_id: LeaderId::new(message.term, message.node), committed: message.committed }
}

/// `committed_count`: how many entries are known to be committed, counted from the first there ever was.
pub(crate) fn entry_to_pb(entry: &Entry, committed_count: u64) -> pb::LogEntry {
    use pb::log_entry::{Blank, Payload};
    let payload = match &entry.payload {
        EntryPayload::Blank => Payload::Blank(Blank {}),
        EntryPayload::Normal(proposal) => {
            Payload::Commands(pb::Commands { commands: proposal.0.iter().map(command_to_pb).collect() })
        }
        EntryPayload::Membership(membership) => Payload::Membership(membership_to_pb(membership)),
    };
    pb::LogEntry { id: Some(log_id_to_pb(&entry.log_id)), committed_count, payload: Some(payload) }
}

pub(crate) fn entry_from_pb(message: pb::LogEntry) -> Result<Entry, WireError> {
    use pb::log_entry::Payload;
    let id = message.id.ok_or(WireError::Missing { what: "an entry's id" })?;
    let payload = match message.payload.ok_or(WireError::Missing { what: "an entry's payload" })? {
        Payload::Blank(_) => EntryPayload::Blank,
        Payload::Commands(commands) => {
            let commands = commands.commands.into_iter().map(command_from_pb);
            EntryPayload::Normal(Proposal(commands.collect::<Result<_, _>>()?))
        }
        Payload::Membership(membership) => EntryPayload::Membership(membership_from_pb(&membership)),
    };
    Ok(Entry { log_id: log_id_from_pb(&id), payload })
}

fn membership_to_pb(membership: &Membership) -> pb::Membership {
    let voters =
        |config: &BTreeSet<NodeId>| pb::membership::Voters { nodes: config.iter().copied().collect() };
    pb::Membership {
        configs: membership.get_joint_config().iter().map(voters).collect(),
        nodes: membership.nodes().map(|(node, _)| *node).collect(),
    }
}

fn membership_from_pb(message: &pb::Membership) -> Membership {
    let configs = message.configs.iter().map(|c| c.nodes.iter().copied().collect()).collect();
    let nodes: BTreeMap<NodeId, EmptyNode> = message.nodes.iter().map(|n| (*n, EmptyNode {})).collect();
    Membership::new(configs, nodes)
}

pub(crate) fn stored_membership_to_pb(stored: &StoredMembership) -> pb::StoredMembership {
    pb::StoredMembership {
        id: stored.log_id().as_ref().map(log_id_to_pb),
        membership: Some(membership_to_pb(stored.membership())),
    }
}

pub(crate) fn stored_membership_from_pb(
    message: &pb::StoredMembership,
) -> Result<StoredMembership, WireError> {
    let membership = message.membership.as_ref();
    let membership = membership.ok_or(WireError::Missing { what: "a stored membership's membership" })?;
    Ok(StoredMembership::new(message.id.as_ref().map(log_id_from_pb), membership_from_pb(membership)))
}
