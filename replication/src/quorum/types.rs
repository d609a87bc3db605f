//! openraft's types as this crate uses them, and the entries of its log as the messages of `metadata.proto`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use floodmark_proto::ids::BrokerId;
use floodmark_proto::pb::metadata as pb;
use floodmark_storage::data_dir::DirectoryId;
use openraft::{EntryPayload, LeaderId};

use crate::cluster::wire::{WireError, command_from_pb, command_to_pb};
use crate::cluster::{Command, CommandError, Output};
use crate::rpc::Address;

openraft::declare_raft_types!(
    /// What openraft is told about us.
    pub(crate) TypeConfig:
        D = Proposal,
        R = Answers,
        NodeId = u64,
        Node = Node,
        SnapshotData = Bytes,
);

/// A broker under the disk it joined with: a broker id that comes back with another disk is another node.
pub(crate) type NodeId = u64;
pub(crate) type Entry = openraft::Entry<TypeConfig>;
pub(crate) type LogId = openraft::LogId<NodeId>;
pub(crate) type Vote = openraft::Vote<NodeId>;
pub(crate) type Membership = openraft::Membership<NodeId, Node>;
pub(crate) type StoredMembership = openraft::StoredMembership<NodeId, Node>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<NodeId, Node>;
pub(crate) type Snapshot = openraft::Snapshot<TypeConfig>;
pub(crate) type StorageError = openraft::StorageError<NodeId>;

/// What is known of a node beside its number. Those that were alone when they began have neither.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) directory_id: Option<DirectoryId>,
    pub(crate) address: Option<Address>,
}

/// The broker that a node is.
pub(crate) fn broker_id(node: NodeId) -> BrokerId {
    let [.., a, b, c, d] = node.to_be_bytes();
    BrokerId(i32::from_be_bytes([a, b, c, d]))
}

/// The node of a broker that joined behind an entry; 0 for those that formed the cluster. `None` where the numbers are not such.
pub(crate) fn node_id(broker: BrokerId, join_index: u64) -> Option<NodeId> {
    let (broker, join) = (u32::try_from(broker.0).ok()?, u32::try_from(join_index).ok()?);
    Some(u64::from(join) << 32 | u64::from(broker))
}

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

/// What else a log notes with an entry. Both count from the first entry there ever was; a message has neither.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Known {
    /// How many entries are known to be committed.
    pub(crate) committed_count: u64,
    /// How many are on the disk for certain.
    pub(crate) durable_count: u64,
}

pub(crate) fn entry_to_pb(entry: &Entry, known: Known) -> pb::LogEntry {
    use pb::log_entry::{Blank, Payload};
    let payload = match &entry.payload {
        EntryPayload::Blank => Payload::Blank(Blank {}),
        EntryPayload::Normal(proposal) => {
            Payload::Commands(pb::Commands { commands: proposal.0.iter().map(command_to_pb).collect() })
        }
        EntryPayload::Membership(membership) => Payload::Membership(membership_to_pb(membership)),
    };
    pb::LogEntry {
        id: Some(log_id_to_pb(&entry.log_id)),
        committed_count: known.committed_count,
        durable_count: known.durable_count,
        payload: Some(payload),
    }
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
        Payload::Membership(membership) => EntryPayload::Membership(membership_from_pb(&membership)?),
    };
    Ok(Entry { log_id: log_id_from_pb(&id), payload })
}

pub(crate) fn membership_to_pb(membership: &Membership) -> pb::Membership {
    let voters =
        |config: &BTreeSet<NodeId>| pb::membership::Voters { nodes: config.iter().copied().collect() };
    let known = |(_, node): &(&NodeId, &Node)| **node != Node::default();
    pb::Membership {
        configs: membership.get_joint_config().iter().map(voters).collect(),
        nodes: membership.nodes().map(|(node, _)| *node).collect(),
        members: membership.nodes().filter(known).map(|(id, node)| member_to_pb(*id, node)).collect(),
    }
}

pub(crate) fn membership_from_pb(message: &pb::Membership) -> Result<Membership, WireError> {
    let configs = message.configs.iter().map(|c| c.nodes.iter().copied().collect()).collect();
    let mut nodes: BTreeMap<NodeId, Node> = message.nodes.iter().map(|n| (*n, Node::default())).collect();
    for member in &message.members {
        let (id, node) = member_from_pb(member)?;
        nodes.insert(id, node);
    }
    Ok(Membership::new(configs, nodes))
}

pub(crate) fn member_to_pb(id: NodeId, node: &Node) -> pb::Member {
    let directory_id = node.directory_id.map(|id| Bytes::copy_from_slice(id.0.as_bytes()));
    let (host, port) = node.address.clone().map(|a| (a.host, a.port)).unwrap_or_default();
    pb::Member { node: id, directory_id: directory_id.unwrap_or_default(), host, port: port.into() }
}

pub(crate) fn member_from_pb(message: &pb::Member) -> Result<(NodeId, Node), WireError> {
    let directory_id = match &message.directory_id {
        none if none.is_empty() => None,
        bytes => Some(directory_id(bytes)?),
    };
    let port = port(message.port)?;
    let address = (!message.host.is_empty()).then(|| Address { host: message.host.clone(), port });
    Ok((message.node, Node { directory_id, address }))
}

pub(crate) fn directory_id(bytes: &[u8]) -> Result<DirectoryId, WireError> {
    let bytes = <[u8; 16]>::try_from(bytes);
    let bytes = bytes.map_err(|_| WireError::Identifier { what: "a directory id" })?;
    Ok(DirectoryId(uuid::Uuid::from_bytes(bytes)))
}

pub(crate) fn port(port: u32) -> Result<u16, WireError> {
    u16::try_from(port).map_err(|_| WireError::Value { what: "a port", value: port.into() })
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
    Ok(StoredMembership::new(message.id.as_ref().map(log_id_from_pb), membership_from_pb(membership)?))
}
