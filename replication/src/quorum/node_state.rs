//! The file `node.state`: whose Raft state a directory holds, the vote, and how far the log's head was removed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use floodmark_proto::ids::{BrokerId, ClusterId};
use floodmark_proto::pb::metadata as pb;
use floodmark_storage::data_dir::DirectoryId;
use floodmark_storage::fs::{Disk, ReplaceSyncs, SyncPoint, read_small_file, replace_file};

use super::error::QuorumError;
use super::sealed_file::{self, Kind};
use super::types::{
    LogId, Node, NodeId, Vote, broker_id, directory_id, log_id_from_pb, log_id_to_pb, member_from_pb,
    member_to_pb, vote_from_pb, vote_to_pb,
};
use crate::cluster::wire::{WireError, decode};

const KIND: Kind = *b"fmknode\n";
const FILE: &str = "node.state";
/// A few ids and addresses.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeState {
    pub(crate) cluster_id: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) directory_id: DirectoryId,
    pub(crate) vote: Option<Vote>,
    /// The last entry that was removed from the log's head.
    pub(crate) purged: Option<LogId>,
    /// Those that form the cluster with this node, itself among them. Empty where it was alone, or is a newcomer.
    pub(crate) founders: BTreeMap<NodeId, Node>,
    /// Others have formed the cluster: an empty log waits for their entries.
    pub(crate) is_newcomer: bool,
}

/// The file, and the only right to change it.
#[derive(Debug)]
pub(crate) struct NodeStateFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    pub(crate) state: NodeState,
}

/// Who asks for the directory.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    pub(crate) node: BrokerId,
    pub(crate) cluster_id: Option<ClusterId>,
    pub(crate) directory_id: DirectoryId,
}

impl NodeStateFile {
    /// The file in `dir`, where there is one. Durable as it was read, also where a process was killed before it had seen to that: a vote is
    /// told again without being written again.
    pub(crate) fn read(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Option<NodeStateFile>, QuorumError> {
        let path = dir.join(FILE);
        let content =
            read_small_file(&**disk, &path, FILE_BYTES_MAX).map_err(QuorumError::io("read", &path))?;
        let Some(content) = content else { return Ok(None) };
        disk.sync_dir(dir, SyncPoint::NodeStateFound).map_err(QuorumError::io("sync", dir))?;
        let message = sealed_file::open(KIND, content.into())
            .map_err(|source| QuorumError::BadFile { path: path.clone(), source })?;
        let state =
            parse(message).map_err(|source| QuorumError::BadMessage { path: path.clone(), source })?;
        Ok(Some(NodeStateFile { disk: Arc::clone(disk), path, state }))
    }

    /// Makes the file. Durable when it returns.
    pub(crate) fn create(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        state: NodeState,
    ) -> Result<NodeStateFile, QuorumError> {
        let mut file = NodeStateFile { disk: Arc::clone(disk), path: dir.join(FILE), state: state.clone() };
        file.save(state)?;
        Ok(file)
    }

    /// Replaces the file. Durable when it returns; after an error it holds the old state or the new one.
    pub(crate) fn save(&mut self, state: NodeState) -> Result<(), QuorumError> {
        let syncs = ReplaceSyncs { data: SyncPoint::NodeStateData, rename: SyncPoint::NodeStateRenamed };
        let content = sealed_file::seal(KIND, &to_message(&state));
        replace_file(&*self.disk, &self.path, &content, syncs)
            .map_err(QuorumError::io("replace", &self.path))?;
        self.state = state;
        Ok(())
    }

    /// Fails where the directory is somebody else's.
    pub(crate) fn check(&self, claim: &Claim) -> Result<(), QuorumError> {
        let foreign = |what, found: String, expected: String| {
            let path = self.path.clone();
            Err(QuorumError::Foreign { path, what, found, expected })
        };
        let state = &self.state;
        if broker_id(state.node) != claim.node {
            return foreign("node id", broker_id(state.node).to_string(), claim.node.to_string());
        }
        match claim.cluster_id {
            Some(expected) if expected != state.cluster_id => {
                return foreign("cluster id", state.cluster_id.to_string(), expected.to_string());
            }
            _ => {}
        }
        if claim.directory_id != state.directory_id {
            let (found, expected) = (state.directory_id.0.to_string(), claim.directory_id.0.to_string());
            return foreign("directory id", found, expected);
        }
        Ok(())
    }
}

fn to_message(state: &NodeState) -> pb::NodeState {
    pb::NodeState {
        cluster_id: Bytes::copy_from_slice(&state.cluster_id.to_bytes()),
        node: state.node,
        directory_id: Bytes::copy_from_slice(state.directory_id.0.as_bytes()),
        vote: state.vote.as_ref().map(vote_to_pb),
        purged: state.purged.as_ref().map(log_id_to_pb),
        founders: state.founders.iter().map(|(id, node)| member_to_pb(*id, node)).collect(),
        is_newcomer: state.is_newcomer,
    }
}

fn parse(message: Bytes) -> Result<NodeState, WireError> {
    let message: pb::NodeState = decode("node state", message)?;
    let id = |what, bytes: &[u8]| <[u8; 16]>::try_from(bytes).map_err(|_| WireError::Identifier { what });
    Ok(NodeState {
        cluster_id: ClusterId::from_bytes(id("a cluster id", &message.cluster_id)?),
        node: message.node,
        directory_id: directory_id(&message.directory_id)?,
        vote: message.vote.as_ref().map(vote_from_pb),
        purged: message.purged.as_ref().map(log_id_from_pb),
        founders: message.founders.iter().map(member_from_pb).collect::<Result<_, _>>()?,
        is_newcomer: message.is_newcomer,
    })
}
