//! What other brokers ask of this node, and what they are told.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use floodmark_proto::ids::BrokerId;
use floodmark_proto::pb::quorum as pb;
use openraft::error::RaftError;
use tokio::time::{Instant, timeout};
use tonic::{Request, Response, Status, Streaming};

use super::error::ProposeError;
use super::forward::NotTaken;
use super::generated::forming_server::Forming;
use super::generated::quorum_server::Quorum;
use super::members::{ChangeError, Newcomer};
use super::messages::{
    append_from_pb, appended_to_pb, vote_request_from_pb, vote_request_to_pb, voted_to_pb,
};
use super::seat::Seat;
use super::snapshot_file::{FILE_BYTES_MAX, decode_state};
use super::types::{
    Node, NodeId, Snapshot, broker_id, directory_id, log_id_from_pb, membership_to_pb, port, vote_from_pb,
    vote_to_pb,
};
use super::{QuorumHandle, canvass, forming};
use crate::cluster::wire::{WireError, command_from_pb, command_len, output_to_pb, refusal_to_pb};
use crate::rpc::identity::check_protocol;
use crate::rpc::{Address, caller};

/// The next piece of a snapshot comes within this, or no more of it is waited for.
const PIECE_TIMEOUT: Duration = Duration::from_secs(10);
/// No call that is passed on is worked on for longer; who asked has given up by then.
const CALL_TIME_MAX: Duration = Duration::from_secs(60);

/// For brokers that have no cluster yet.
#[derive(Debug)]
pub(crate) struct FormingService {
    pub(crate) seat: Seat,
}

/// For members.
#[derive(Debug)]
pub(crate) struct QuorumService {
    pub(crate) seat: Seat,
}

#[tonic::async_trait]
impl Forming for FormingService {
    async fn introduce(
        &self,
        request: Request<pb::Introduction>,
    ) -> Result<Response<pb::IntroductionReply>, Status> {
        check_protocol(request.metadata())?;
        let seat = &self.seat;
        let cluster = seat.cluster().map(|(id, membership)| pb::Cluster {
            id: Bytes::copy_from_slice(&id.to_bytes()),
            membership: Some(membership_to_pb(&membership)),
        });
        let (host, port) = seat.address().cloned().map(|a| (a.host, a.port)).unwrap_or_default();
        Ok(Response::new(pb::IntroductionReply {
            broker: seat.broker().0,
            directory_id: Bytes::copy_from_slice(seat.directory_id().0.as_bytes()),
            host,
            port: port.into(),
            cluster,
            wanted_cluster_id: seat.wanted().map(|id| Bytes::copy_from_slice(&id.to_bytes())),
        }))
    }

    async fn join(&self, request: Request<pb::JoinRequest>) -> Result<Response<pb::JoinReply>, Status> {
        check_protocol(request.metadata())?;
        let message = request.into_inner();
        let newcomer = newcomer(&message).map_err(unreadable)?;
        let quorum = self.seat.quorum()?;
        let wanted = message.cluster_id.as_ref();
        let own = quorum.image().cluster_id();
        if wanted.is_some_and(|wanted| wanted[..] != own.to_bytes()) {
            let outcome = pb::join_reply::Outcome::Refused(format!("this is cluster {own}"));
            return Ok(Response::new(pb::JoinReply { outcome: Some(outcome) }));
        }
        let outcome = match quorum.admit(&newcomer).await {
            Ok(node) => pb::join_reply::Outcome::Joined(pb::join_reply::Joined {
                cluster_id: Bytes::copy_from_slice(&own.to_bytes()),
                node,
            }),
            Err(ChangeError::Refused(reason)) => pb::join_reply::Outcome::Refused(reason),
            Err(ChangeError::NotTaken(_)) if !message.passed_on => {
                return forming::pass_on(&quorum, message).await.map(Response::new);
            }
            Err(ChangeError::NotTaken(not_taken)) => pb::join_reply::Outcome::Later(not_taken.to_string()),
        };
        Ok(Response::new(pb::JoinReply { outcome: Some(outcome) }))
    }
}

fn newcomer(message: &pb::JoinRequest) -> Result<Newcomer, WireError> {
    if message.broker < 0 || message.host.is_empty() {
        return Err(WireError::Value { what: "who joins", value: message.broker.into() });
    }
    Ok(Newcomer {
        broker: BrokerId(message.broker),
        node: Node {
            directory_id: Some(directory_id(&message.directory_id)?),
            address: Some(Address { host: message.host.clone(), port: port(message.port)? }),
        },
    })
}

impl QuorumService {
    /// The quorum, where `node` is this broker's node in it.
    fn as_node(&self, node: NodeId) -> Result<QuorumHandle, Status> {
        let quorum = self.seat.quorum()?;
        if quorum.shared.node != node {
            return Err(Status::failed_precondition(format!(
                "this is Raft node {}, not {node}: the broker has come back with another disk",
                quorum.shared.node
            )));
        }
        Ok(quorum)
    }
}

#[tonic::async_trait]
impl Quorum for QuorumService {
    async fn append_entries(
        &self,
        request: Request<pb::AppendRequest>,
    ) -> Result<Response<pb::AppendReply>, Status> {
        let from = caller(&request)?;
        let message = request.into_inner();
        let quorum = self.as_node(message.to_node)?;
        let is_alone = message.is_alone;
        let append = append_from_pb(message).map_err(unreadable)?;
        if broker_id(append.vote.leader_id.node_id) != from {
            return Err(Status::failed_precondition("one broker leads in the name of another"));
        }
        // First, so that whatever Raft has taken in is noted. Of a leader of the past it takes nothing in, since votes only rise, and such a one
        // counts on nobody.
        let is_past = append.vote < quorum.shared.raft.metrics().borrow().vote;
        if !is_past {
            let now = Instant::now();
            quorum.shared.contact.note(now);
            if !is_alone {
                quorum.shared.contact.note_led(now);
            }
        }
        let response = quorum.shared.raft.append_entries(append).await.map_err(ended)?;
        Ok(Response::new(appended_to_pb(&response)))
    }

    async fn request_vote(
        &self,
        request: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteReply>, Status> {
        let message = request.into_inner();
        let quorum = self.as_node(message.to_node)?;
        if quorum.shared.holds_still() {
            return Err(Status::unavailable("a leader may still count on this voter"));
        }
        let vote = vote_request_from_pb(&message).map_err(unreadable)?;
        debug_assert_eq!(vote_request_to_pb(message.to_node, &vote), message);
        let shared = &quorum.shared;
        let (raft, rest) = (shared.raft.clone(), shared.election_timeout);
        let weighing = shared.contact.weigh();
        // By itself: what Raft has been asked for it does, also for one that does not wait for the answer any more.
        let voted = tokio::spawn(async move {
            let response = raft.vote(vote).await?;
            if response.vote_granted {
                weighing.rest_until(Instant::now() + rest);
            }
            Ok(response)
        });
        let response = voted.await.map_err(|e| Status::unavailable(e.to_string()))?.map_err(ended)?;
        Ok(Response::new(voted_to_pb(&response, shared.silent())))
    }

    async fn canvass(
        &self,
        request: Request<pb::CanvassRequest>,
    ) -> Result<Response<pb::CanvassReply>, Status> {
        let message = request.into_inner();
        let shared = self.as_node(message.to_node)?.shared;
        let own = shared.raft.data_metrics().borrow().last_log;
        let candidate = message.last.as_ref().map(log_id_from_pb);
        let is_held = shared.holds_still() || shared.contact.is_weighing();
        let would_vote = canvass::would_vote(is_held, own, candidate);
        Ok(Response::new(pb::CanvassReply { would_vote }))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotPart>>,
    ) -> Result<Response<pb::SnapshotReply>, Status> {
        let mut parts = request.into_inner();
        let first = next_part(&mut parts).await?;
        let quorum = self.as_node(first.to_node)?;
        // One at a time bounds the memory that leaders can make this node take.
        let Ok(_receiving) = quorum.shared.receiving.try_lock() else {
            return Err(Status::unavailable("another snapshot is being received"));
        };
        let vote = first.vote.as_ref().ok_or(WireError::Missing { what: "a vote" }).map_err(unreadable)?;
        let vote = vote_from_pb(vote);
        let total = usize::try_from(first.total_bytes).ok().filter(|n| *n as u64 <= FILE_BYTES_MAX);
        let total = total.ok_or_else(|| Status::invalid_argument("the snapshot is too large"))?;
        let mut file = BytesMut::new();
        while file.len() < total {
            let part = next_part(&mut parts).await?;
            if part.piece.is_empty() || part.piece.len() > total - file.len() {
                return Err(Status::invalid_argument("a piece of the snapshot does not fit"));
            }
            file.extend_from_slice(&part.piece);
        }
        let file = file.freeze();
        let checked = tokio::task::spawn_blocking(move || {
            decode_state(file.clone()).map(|state| Snapshot { meta: state.meta(), snapshot: Box::new(file) })
        });
        let snapshot = checked.await.map_err(|e| Status::internal(e.to_string()))?;
        let snapshot = snapshot.map_err(|e| Status::data_loss(format!("the snapshot is damaged: {e}")))?;
        let installed = quorum.shared.raft.install_full_snapshot(vote, snapshot).await;
        let response = installed.map_err(|e| Status::unavailable(e.to_string()))?;
        Ok(Response::new(pb::SnapshotReply { vote: Some(vote_to_pb(&response.vote)) }))
    }

    async fn propose(
        &self,
        request: Request<pb::ProposeRequest>,
    ) -> Result<Response<pb::ProposeReply>, Status> {
        use pb::propose_reply::{Done, Outcome};
        let message = request.into_inner();
        let quorum = self.seat.quorum()?;
        let command = message.command.ok_or(WireError::Missing { what: "a command" }).map_err(unreadable)?;
        let command = command_from_pb(command).map_err(unreadable)?;
        let outcome = if quorum.shared.is_removed(message.from_node) {
            Outcome::NotTaken(NotTaken::Removed.to_pb())
        } else {
            let bytes = command_len(&command);
            match quorum.shared.propose_here(command, bytes, Instant::now() + CALL_TIME_MAX).await {
                Ok(answer) => match answer.outcome {
                    Ok(output) => {
                        Outcome::Done(Done { index: answer.index, output: Some(output_to_pb(&output)) })
                    }
                    Err(refusal) => Outcome::Refused(refusal_to_pb(&refusal)),
                },
                Err(ProposeError::Refused(refusal)) => Outcome::Refused(refusal_to_pb(&refusal)),
                Err(e) => match NotTaken::of(&e, quorum.shared.leader_node()) {
                    Some(not_taken) => Outcome::NotTaken(not_taken.to_pb()),
                    None => Outcome::Unknown(e.to_string()),
                },
            }
        };
        Ok(Response::new(pb::ProposeReply { outcome: Some(outcome) }))
    }

    async fn read_index(
        &self,
        request: Request<pb::ReadIndexRequest>,
    ) -> Result<Response<pb::ReadIndexReply>, Status> {
        use pb::read_index_reply::Outcome;
        let quorum = self.seat.quorum()?;
        let outcome = if quorum.shared.is_removed(request.into_inner().from_node) {
            Outcome::NotTaken(NotTaken::Removed.to_pb())
        } else {
            match quorum.shared.read_index(Instant::now() + CALL_TIME_MAX).await {
                Ok(index) => Outcome::Index(index),
                Err(e) => Outcome::NotTaken(not_taken_or_later(&quorum, &e).to_pb()),
            }
        };
        Ok(Response::new(pb::ReadIndexReply { outcome: Some(outcome) }))
    }

    async fn change_voters(
        &self,
        request: Request<pb::ChangeVotersRequest>,
    ) -> Result<Response<pb::ChangeReply>, Status> {
        let voters = request.into_inner().voters.into_iter().map(BrokerId).collect();
        let quorum = self.seat.quorum()?;
        Ok(Response::new(change_reply(quorum.shared.change_voters_here(&voters).await)))
    }

    async fn remove_node(
        &self,
        request: Request<pb::RemoveNodeRequest>,
    ) -> Result<Response<pb::ChangeReply>, Status> {
        let broker = BrokerId(request.into_inner().broker);
        let quorum = self.seat.quorum()?;
        Ok(Response::new(change_reply(quorum.shared.remove_node_here(broker).await)))
    }

    async fn status(&self, _: Request<pb::StatusRequest>) -> Result<Response<pb::StatusReply>, Status> {
        use pb::status_reply::Outcome;
        let quorum = self.seat.quorum()?;
        let outcome = match quorum.shared.status_here() {
            Some(status) => Outcome::Status(status),
            None => Outcome::NotTaken(NotTaken::NotLeader(quorum.shared.leader_node()).to_pb()),
        };
        Ok(Response::new(pb::StatusReply { outcome: Some(outcome) }))
    }
}

async fn next_part(parts: &mut Streaming<pb::SnapshotPart>) -> Result<pb::SnapshotPart, Status> {
    let next = timeout(PIECE_TIMEOUT, parts.message()).await;
    let next = next.map_err(|_| Status::deadline_exceeded("the next piece of the snapshot did not come"))?;
    next?.ok_or_else(|| Status::invalid_argument("the snapshot ends before its end"))
}

fn change_reply(outcome: Result<u64, ChangeError>) -> pb::ChangeReply {
    use pb::change_reply::Outcome;
    let outcome = match outcome {
        Ok(index) => Outcome::Index(index),
        Err(ChangeError::NotTaken(not_taken)) => Outcome::NotTaken(not_taken.to_pb()),
        Err(ChangeError::Refused(reason)) => Outcome::Refused(reason),
    };
    pb::ChangeReply { outcome: Some(outcome) }
}

/// Nothing was changed by asking, so who asked may ask again whatever went wrong.
fn not_taken_or_later(quorum: &QuorumHandle, e: &ProposeError) -> NotTaken {
    let leader = quorum.shared.leader_node();
    NotTaken::of(e, leader).unwrap_or(NotTaken::NotLeader(leader))
}

fn unreadable(e: WireError) -> Status {
    Status::invalid_argument(e.to_string())
}

fn ended(e: RaftError<NodeId>) -> Status {
    Status::unavailable(e.to_string())
}
