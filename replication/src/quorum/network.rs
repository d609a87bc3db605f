//! How voters reach each other. There is one voter, so there is nobody to reach: whoever is named is unreachable, as openraft
//! means it, and is asked again later.

use std::future::Future;

use openraft::error::{Fatal, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{EmptyNode, OptionalSend};

use super::types::{NodeId, Snapshot, TypeConfig, Vote};

/// Makes connections to voters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Network;

/// A connection to one voter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    target: NodeId,
}

#[derive(Debug, thiserror::Error)]
#[error("no connection to voter {0}: this program connects to no other voters")]
struct NoConnection(NodeId);

type Error<E = std::convert::Infallible> = RPCError<NodeId, EmptyNode, E>;

impl Peer {
    fn unreachable(self) -> Unreachable {
        Unreachable::new(&NoConnection(self.target))
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, _node: &EmptyNode) -> Peer {
        Peer { target }
    }
}

impl RaftNetwork<TypeConfig> for Peer {
    async fn append_entries(
        &mut self,
        _rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, Error<RaftError<NodeId>>> {
        Err(self.unreachable().into())
    }

    async fn vote(
        &mut self,
        _rpc: VoteRequest<NodeId>,
        _option: RPCOption,
    ) -> Result<VoteResponse<NodeId>, Error<RaftError<NodeId>>> {
        Err(self.unreachable().into())
    }

    async fn full_snapshot(
        &mut self,
        _vote: Vote,
        _snapshot: Snapshot,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<NodeId>, StreamingError<TypeConfig, Fatal<NodeId>>> {
        Err(self.unreachable().into())
    }
}
