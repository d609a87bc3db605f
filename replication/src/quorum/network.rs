//! How nodes reach each other: openraft's calls over gRPC, each with a deadline. Whatever fails is unreachable, as openraft means it: it
//! is asked again a little later.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use floodmark_proto::pb::quorum as pb;
use floodmark_storage::random::Random;
use openraft::OptionalSend;
use openraft::error::{Fatal, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use tokio::time::{Instant, timeout};
use tonic::{Code, Response, Status};

use super::MESSAGE_BYTES_MAX;
use super::acks::Acks;
use super::contact::Contact;
use super::generated::quorum_client::QuorumClient;
use super::messages::{append_to_pb, appended_from_pb, vote_request_to_pb, voted_from_pb};
use super::reach::Reach;
use super::silence::Silence;
use super::types::{
    LogId, Node, NodeId, Snapshot, TypeConfig, Vote, broker_id, log_id_to_pb, vote_from_pb, vote_to_pb,
};
use crate::cluster::wire::WireError;
use crate::rpc::{PeerError, Peers, Purpose, reason};

/// Bytes of a snapshot in one message.
const PIECE_BYTES: usize = 1 << 20;
/// A node that is not there is tried again after this, then after twice as long, and so on up to the longest: it must hear of its leader
/// before it wants to lead.
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_LAST: Duration = Duration::from_millis(200);

pub(crate) type Client = QuorumClient<tonic::transport::Channel>;

/// Makes connections to nodes.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    pub(crate) peers: Peers,
    pub(crate) acks: Arc<Acks>,
    pub(crate) silence: Arc<Silence>,
    pub(crate) contact: Arc<Contact>,
    /// For so long a voter helps nobody to lead after it heard a leader.
    pub(crate) lease: Duration,
    pub(crate) reach: Arc<Reach>,
    pub(crate) random: Random,
}

/// A connection to one node.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    network: Network,
    target: NodeId,
}

/// Why a node did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error("{}", reason(.0))]
    Status(Box<Status>),
    #[error("its answer cannot be read: {0}")]
    Answer(#[from] WireError),
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("this node lets others lead, and does not keep them from it")]
    Silent,
    #[error("a leader was heard a moment ago")]
    Bound,
}

type Error<E = std::convert::Infallible> = RPCError<NodeId, Node, E>;

/// A client of a broker's quorum.
pub(crate) fn client(peers: &Peers, node: NodeId) -> Result<Client, PeerError> {
    let channel = peers.channel(broker_id(node), Purpose::Quorum)?;
    let client = QuorumClient::new(channel);
    Ok(client.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX))
}

/// Whether the other program has no such call. One of another protocol between brokers refuses under the same code, with a reason, and gives no
/// vote either.
fn is_unknown_call(status: &Status) -> bool {
    status.code() == Code::Unimplemented && status.message().is_empty()
}

impl Network {
    pub(crate) fn peer(&self, target: NodeId) -> Peer {
        Peer { network: self.clone(), target }
    }
}

impl Peer {
    /// Whether this node, whose log ends with `last`, would get the voter's vote. A program that does not know the question says so by its
    /// vote.
    pub(crate) async fn canvass(&self, last: Option<LogId>, within: Duration) -> Result<bool, CallError> {
        let mut client = self.client()?;
        let message = pb::CanvassRequest { to_node: self.target, last: last.as_ref().map(log_id_to_pb) };
        match self.call(within, client.canvass(self.request(message))).await {
            Ok(reply) => Ok(reply.would_vote),
            Err(CallError::Status(status)) if is_unknown_call(&status) => Ok(true),
            Err(e) => Err(e),
        }
    }

    async fn call<T>(
        &self,
        within: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, CallError> {
        #[cfg(test)]
        let deaths = self.network.peers.deaths(broker_id(self.target));
        let outcome = match timeout(within, call).await {
            #[cfg(test)]
            Ok(_)
                if !self.network.peers.hears(broker_id(self.target))
                    || self.network.peers.deaths(broker_id(self.target)) != deaths =>
            {
                Err(PeerError::Cut(broker_id(self.target)).into())
            }
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(CallError::Status(Box::new(status))),
            Err(_) => Err(CallError::TimedOut(within)),
        };
        self.tell(outcome.as_ref().err());
        outcome
    }

    fn tell(&self, failed: Option<&CallError>) {
        let (broker, now) = (broker_id(self.target), Instant::now());
        match failed {
            Some(reason) if self.network.reach.failed(self.target, now) => {
                tracing::warn!(%broker, %reason, "a broker of the metadata quorum does not answer; it is tried on");
            }
            Some(_) => {}
            None => {
                if let Some(silent) = self.network.reach.answered(self.target, now) {
                    let seconds = format_args!("{:.1}", silent.as_secs_f32());
                    tracing::info!(%broker, %seconds, "a broker of the metadata quorum answers again");
                }
            }
        }
    }

    /// Fails where followers are to hear of no leader.
    fn speak(&self) -> Result<(), CallError> {
        if self.network.silence.is_on(Instant::now()) { Err(CallError::Silent) } else { Ok(()) }
    }

    fn client(&self) -> Result<Client, CallError> {
        Ok(client(&self.network.peers, self.target)?)
    }

    fn request<T>(&self, message: T) -> tonic::Request<T> {
        self.network.peers.request(broker_id(self.target), message)
    }

    async fn append(
        &self,
        rpc: &AppendEntriesRequest<TypeConfig>,
        within: Duration,
    ) -> Result<AppendEntriesResponse<NodeId>, CallError> {
        self.speak()?;
        let mut client = self.client()?;
        let message =
            pb::AppendRequest { is_alone: self.network.silence.is_alone(), ..append_to_pb(self.target, rpc) };
        let request = self.request(message);
        let reply = self.call(within, client.append_entries(request)).await?;
        Ok(appended_from_pb(&reply)?)
    }

    async fn ask_for_vote(
        &self,
        rpc: &VoteRequest<NodeId>,
        within: Duration,
    ) -> Result<VoteResponse<NodeId>, CallError> {
        let (contact, term) = (&self.network.contact, rpc.vote.leader_id.term);
        if !contact.stands(term, Instant::now()) {
            return Err(CallError::Bound);
        }
        let mut client = self.client()?;
        let request = self.request(vote_request_to_pb(self.target, rpc));
        let reply = self.call(within, client.request_vote(request)).await?;
        let (response, silent) = voted_from_pb(&reply)?;
        let now = Instant::now();
        if response.vote_granted {
            contact.granted(term, now.checked_sub(silent).unwrap_or(now));
        } else if response.last_log_id > rpc.last_log_id {
            // The one who knows more is to lead.
            contact.rest_until(now + self.network.lease * 2);
        }
        Ok(response)
    }

    async fn send_snapshot(&self, vote: Vote, file: Bytes, within: Duration) -> Result<Vote, CallError> {
        self.speak()?;
        let mut client = self.client()?;
        let parts = parts(self.target, &vote, file);
        let request = self.request(tokio_stream::iter(parts));
        let reply = self.call(within, client.install_snapshot(request)).await?;
        let vote = reply.vote.ok_or(WireError::Missing { what: "a vote" })?;
        Ok(vote_from_pb(&vote))
    }
}

/// A snapshot as messages; the pieces share its memory.
fn parts(
    to_node: NodeId,
    vote: &Vote,
    mut file: Bytes,
) -> impl Iterator<Item = pb::SnapshotPart> + Send + use<> {
    let first = pb::SnapshotPart {
        to_node,
        vote: Some(vote_to_pb(vote)),
        total_bytes: file.len() as u64,
        piece: Bytes::new(),
    };
    let rest = std::iter::from_fn(move || {
        let piece = file.split_to(file.len().min(PIECE_BYTES));
        (!piece.is_empty()).then(|| pb::SnapshotPart { piece, ..pb::SnapshotPart::default() })
    });
    std::iter::once(first).chain(rest)
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, _: &Node) -> Peer {
        self.peer(target)
    }
}

impl RaftNetwork<TypeConfig> for Peer {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, Error<RaftError<NodeId>>> {
        let sent = Instant::now();
        let response = self.append(&rpc, option.hard_ttl()).await.map_err(|e| Unreachable::new(&e))?;
        if !matches!(response, AppendEntriesResponse::HigherVote(_)) {
            self.network.acks.note(self.target, rpc.vote.leader_id.term, sent);
        }
        Ok(response)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<NodeId>,
        option: RPCOption,
    ) -> Result<VoteResponse<NodeId>, Error<RaftError<NodeId>>> {
        let asked = self.ask_for_vote(&rpc, option.hard_ttl()).await;
        Ok(asked.map_err(|e| Unreachable::new(&e))?)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<NodeId>, StreamingError<TypeConfig, Fatal<NodeId>>> {
        tokio::select! {
            sent = self.send_snapshot(vote, *snapshot.snapshot, option.hard_ttl()) => {
                Ok(SnapshotResponse::new(sent.map_err(|e| Unreachable::new(&e))?))
            }
            closed = cancel => Err(closed.into()),
        }
    }

    fn backoff(&self) -> Backoff {
        let random = self.network.random.clone();
        let mut next = BACKOFF_FIRST;
        Backoff::new(std::iter::repeat_with(move || {
            let wait = next;
            next = BACKOFF_LAST.min(next * 2);
            // Up to a quarter more: those that lost one leader do not all come to the next one at once.
            wait + wait.mul_f64(jitter(&random) / 4.0)
        }))
    }
}

/// From 0 to below 1.
pub(crate) fn jitter(random: &Random) -> f64 {
    f64::from(u32::try_from(random.next_u64() >> 32).unwrap_or(0)) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_goes_in_pieces_that_make_the_whole() {
        for len in [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES] {
            let file: Bytes = (0..len).map(|n| n.to_le_bytes()[0]).collect();
            let sent: Vec<_> = parts(7, &Vote::new_committed(2, 1), file.clone()).collect();
            assert_eq!((sent[0].to_node, sent[0].total_bytes), (7, len as u64));
            assert!(sent.iter().all(|part| part.piece.len() <= PIECE_BYTES));
            assert_eq!(sent.len(), 1 + len.div_ceil(PIECE_BYTES));
            let whole: Vec<u8> = sent.iter().flat_map(|part| part.piece.to_vec()).collect();
            assert_eq!(whole, file);
        }
    }

    #[test]
    fn waits_grow_to_a_limit() {
        let random = Random::seeded(1);
        let waits = std::iter::repeat_with(|| jitter(&random)).take(1000);
        assert!(waits.into_iter().all(|jitter| (0.0..1.0).contains(&jitter)));
    }
}
