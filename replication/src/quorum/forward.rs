//! Commands and questions of a broker that does not lead go to the one that does, and are tried again while nobody does. What may have
//! been carried out is not sent twice, unless twice is the same as once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use floodmark_proto::ids::BrokerId;
use floodmark_proto::pb::quorum as pb;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, ConnectError, Status};

use super::error::ProposeError;
use super::network::{Client, client, jitter};
use super::types::{NodeId, broker_id};
use super::{COMMAND_BYTES_MAX, QuorumHandle, Shared};
use crate::cluster::wire::{command_len, command_to_pb, output_from_pb, refusal_from_pb};
use crate::cluster::{ClusterImage, Command, Output};

/// Between two tries while nobody leads, at least; up to twice as long.
const RETRY_AFTER: Duration = Duration::from_millis(20);
/// One try at one broker. A leader that does not answer for so long may be none any more.
const TRY_TIME_MAX: Duration = Duration::from_secs(5);

/// Why nothing was proposed, or asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// Who does lead, where that is known.
    NotLeader(Option<NodeId>),
    Overloaded,
    DiskFull,
    TooLarge,
    Stopped,
    /// The asker is no member any more.
    Removed,
}

impl fmt::Display for NotTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotTaken::NotLeader(None) => "nobody leads the metadata quorum",
            NotTaken::NotLeader(Some(_)) => "another broker leads the metadata quorum",
            NotTaken::Overloaded => "the leader of the metadata quorum has too much to do",
            NotTaken::DiskFull => "the leader's disk is full",
            NotTaken::TooLarge => "the command is too large",
            NotTaken::Stopped => "the leader stops",
            NotTaken::Removed => "this broker was removed from the cluster",
        })
    }
}

impl NotTaken {
    /// What an error says, where it says that nothing was proposed.
    pub(crate) fn of(e: &ProposeError, leader: Option<NodeId>) -> Option<NotTaken> {
        match e {
            ProposeError::NotLeader { .. } => Some(NotTaken::NotLeader(leader)),
            ProposeError::Overloaded => Some(NotTaken::Overloaded),
            ProposeError::DiskFull => Some(NotTaken::DiskFull),
            ProposeError::TooLarge { .. } => Some(NotTaken::TooLarge),
            _ => None,
        }
    }

    pub(crate) fn to_pb(&self) -> pb::NotTaken {
        use pb::not_taken::Reason;
        let (reason, leader) = match self {
            NotTaken::NotLeader(leader) => (Reason::NotLeader, *leader),
            NotTaken::Overloaded => (Reason::Overloaded, None),
            NotTaken::DiskFull => (Reason::DiskFull, None),
            NotTaken::TooLarge => (Reason::TooLarge, None),
            NotTaken::Stopped => (Reason::Stopped, None),
            NotTaken::Removed => (Reason::Removed, None),
        };
        pb::NotTaken { reason: reason.into(), leader }
    }

    pub(crate) fn from_pb(message: &pb::NotTaken) -> NotTaken {
        use pb::not_taken::Reason;
        match message.reason() {
            Reason::Overloaded => NotTaken::Overloaded,
            Reason::DiskFull => NotTaken::DiskFull,
            Reason::TooLarge => NotTaken::TooLarge,
            Reason::Stopped => NotTaken::Stopped,
            Reason::Removed => NotTaken::Removed,
            // Whatever a newer program calls it: nothing was taken.
            Reason::NotLeader | Reason::Unspecified => NotTaken::NotLeader(message.leader),
        }
    }
}

/// What came of one try.
enum Tried<T> {
    Done(T),
    /// It was not taken, and may be tried again.
    Again(ProposeError),
    /// It may have been taken.
    Unknown,
    Failed(ProposeError),
}

impl QuorumHandle {
    /// Proposes a command, here or at the broker that leads. Returns once it is carried out here: the answer is true of
    /// [`QuorumHandle::image`].
    pub async fn propose(&self, command: Command) -> Result<Output, ProposeError> {
        self.propose_within(command, self.shared.deadline).await
    }

    /// As [`QuorumHandle::propose`], with another deadline.
    pub async fn propose_within(&self, command: Command, deadline: Duration) -> Result<Output, ProposeError> {
        let bytes = command_len(&command);
        if bytes > COMMAND_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes, limit: COMMAND_BYTES_MAX });
        }
        let until = Instant::now() + deadline;
        loop {
            let tried = match self.shared.leader_node() {
                None => Tried::Again(ProposeError::NotLeader { leader: None }),
                Some(node) if node == self.shared.node => {
                    self.shared.try_here(command.clone(), bytes, until).await
                }
                Some(node) => self.shared.try_there(node, &command, until).await,
            };
            let last = match tried {
                Tried::Done(output) => return Ok(output),
                Tried::Failed(ProposeError::TimedOut(_)) => return Err(ProposeError::TimedOut(deadline)),
                Tried::Failed(e) => return Err(e),
                Tried::Again(e) => e,
                Tried::Unknown if is_same_twice(&command) => ProposeError::TimedOut(deadline),
                Tried::Unknown => return Err(ProposeError::TimedOut(deadline)),
            };
            if !self.shared.pause_before(until).await {
                return Err(last);
            }
        }
    }

    /// As [`QuorumHandle::propose_within`], but only while this broker leads: what a leader has decided is not for another to carry out, who
    /// has granted what this one knows nothing of.
    pub async fn propose_as_leader(
        &self,
        command: Command,
        deadline: Duration,
    ) -> Result<Output, ProposeError> {
        let bytes = command_len(&command);
        if bytes > COMMAND_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes, limit: COMMAND_BYTES_MAX });
        }
        match self.shared.try_here(command, bytes, Instant::now() + deadline).await {
            Tried::Done(output) => Ok(output),
            Tried::Failed(ProposeError::TimedOut(_)) | Tried::Unknown => {
                Err(ProposeError::TimedOut(deadline))
            }
            Tried::Again(e) | Tried::Failed(e) => Err(e),
        }
    }

    /// An image with everything that was acknowledged to anybody before this was called.
    pub async fn read_barrier(&self) -> Result<Arc<ClusterImage>, ProposeError> {
        self.read_barrier_within(self.shared.deadline).await
    }

    /// As [`QuorumHandle::read_barrier`], with another deadline.
    pub async fn read_barrier_within(&self, deadline: Duration) -> Result<Arc<ClusterImage>, ProposeError> {
        let until = Instant::now() + deadline;
        loop {
            let asked = match self.shared.leader_node() {
                None => Err(ProposeError::NotLeader { leader: None }),
                Some(node) => self.shared.try_read(node, until).await,
            };
            match asked {
                Ok(()) => return Ok(self.image()),
                Err(e) if e.is_retryable() && self.shared.pause_before(until).await => {}
                Err(ProposeError::TimedOut(_)) => return Err(ProposeError::TimedOut(deadline)),
                Err(e) => return Err(e),
            }
        }
    }
}

impl Shared {
    /// Waits a little, or until another leads. False where there is no time for another try.
    pub(crate) async fn pause_before(&self, until: Instant) -> bool {
        let pause = RETRY_AFTER + RETRY_AFTER.mul_f64(jitter(&self.random));
        if Instant::now() + pause >= until {
            return false;
        }
        sleep(pause).await;
        true
    }

    async fn try_here(&self, command: Command, bytes: usize, until: Instant) -> Tried<Output> {
        match self.propose_here(command, bytes, until).await {
            Ok(answer) => match answer.outcome {
                Ok(output) => Tried::Done(output),
                Err(refusal) => Tried::Failed(refusal.into()),
            },
            Err(e @ ProposeError::NotLeader { .. }) => Tried::Again(e),
            Err(e) => Tried::Failed(e),
        }
    }

    async fn try_there(&self, node: NodeId, command: &Command, until: Instant) -> Tried<Output> {
        use pb::propose_reply::Outcome;
        let request = pb::ProposeRequest { from_node: self.node, command: Some(command_to_pb(command)) };
        let asked = self
            .ask(node, until, request, |mut client, request| async move { client.propose(request).await });
        let reply = match asked.await {
            Ok(reply) => reply,
            Err(CallFailed::NotSent) => {
                return Tried::Again(ProposeError::NotLeader { leader: Some(broker_id(node)) });
            }
            Err(CallFailed::Unknown) => return Tried::Unknown,
        };
        match reply.outcome {
            Some(Outcome::Done(done)) => {
                let output = done.output.and_then(|output| output_from_pb(output).ok());
                match (output, self.applied(done.index, until).await) {
                    (Some(output), Ok(())) => Tried::Done(output),
                    // It was carried out, but that is not seen here, or not understood.
                    (_, Err(e @ ProposeError::Stopped { .. })) => Tried::Failed(e),
                    _ => Tried::Failed(ProposeError::TimedOut(Duration::ZERO)),
                }
            }
            // Nothing has changed, so there is nothing to wait for. A reason that only a newer program knows is no answer.
            Some(Outcome::Refused(refused)) => match refusal_from_pb(refused) {
                Ok(refusal) => Tried::Failed(refusal.into()),
                Err(_) => Tried::Unknown,
            },
            Some(Outcome::NotTaken(not_taken)) => self.tried_in_vain(&NotTaken::from_pb(&not_taken)),
            Some(Outcome::Unknown(_)) | None => Tried::Unknown,
        }
    }

    fn tried_in_vain(&self, not_taken: &NotTaken) -> Tried<Output> {
        match self.in_vain(not_taken) {
            e @ ProposeError::NotLeader { .. } => Tried::Again(e),
            e => Tried::Failed(e),
        }
    }

    /// What is told to whoever asked here.
    pub(crate) fn in_vain(&self, not_taken: &NotTaken) -> ProposeError {
        match not_taken {
            NotTaken::NotLeader(leader) => ProposeError::NotLeader { leader: leader.map(broker_id) },
            NotTaken::Overloaded => ProposeError::Overloaded,
            NotTaken::DiskFull => ProposeError::DiskFull,
            NotTaken::TooLarge => {
                ProposeError::TooLarge { bytes: COMMAND_BYTES_MAX, limit: COMMAND_BYTES_MAX }
            }
            NotTaken::Stopped => ProposeError::NotLeader { leader: None },
            NotTaken::Removed => ProposeError::Removed,
        }
    }

    async fn try_read(&self, node: NodeId, until: Instant) -> Result<(), ProposeError> {
        use pb::read_index_reply::Outcome;
        if node == self.node {
            let index = self.read_index(until).await?;
            return self.applied(index, until).await;
        }
        let request = pb::ReadIndexRequest { from_node: self.node };
        let asked = self
            .ask(node, until, request, |mut client, request| async move { client.read_index(request).await });
        let nobody = ProposeError::NotLeader { leader: Some(broker_id(node)) };
        match asked.await.map_err(|_| nobody.clone())?.outcome {
            Some(Outcome::Index(index)) => self.applied(index, until).await,
            Some(Outcome::NotTaken(not_taken)) => Err(self.in_vain(&NotTaken::from_pb(&not_taken))),
            None => Err(nobody),
        }
    }

    /// One call to another node.
    pub(crate) async fn ask<M, T, F>(
        &self,
        node: NodeId,
        until: Instant,
        message: M,
        call: impl FnOnce(Client, tonic::Request<M>) -> F,
    ) -> Result<T, CallFailed>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        self.ask_for(TRY_TIME_MAX, node, until, message, call).await
    }

    /// One call to another node that takes as long as this.
    pub(crate) async fn ask_for<M, T, F>(
        &self,
        longest: Duration,
        node: NodeId,
        until: Instant,
        message: M,
        call: impl FnOnce(Client, tonic::Request<M>) -> F,
    ) -> Result<T, CallFailed>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let client = client(&self.peers, node).map_err(|_| CallFailed::NotSent)?;
        let request = self.peers.request(broker_id(node), message);
        let until = until.min(Instant::now() + longest);
        let answered = timeout_at(until, call(client, request)).await;
        #[cfg(test)]
        if !self.peers.hears(broker_id(node)) {
            return Err(CallFailed::Unknown);
        }
        match answered {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) if is_not_sent(&status) => Err(CallFailed::NotSent),
            Ok(Err(_)) | Err(_) => Err(CallFailed::Unknown),
        }
    }

    /// Returns once the image here has everything up to the entry at `index`.
    pub(crate) async fn applied(&self, index: u64, until: Instant) -> Result<(), ProposeError> {
        let mut metrics = self.raft.metrics();
        let waited = timeout_at(until, async {
            loop {
                let has_stopped = {
                    let now = metrics.borrow_and_update();
                    if now.last_applied.map(|last| last.index) >= Some(index) {
                        return Ok(());
                    }
                    now.running_state.clone().err()
                };
                if let Some(e) = has_stopped {
                    return Err(ProposeError::Stopped { reason: e.to_string() });
                }
                if metrics.changed().await.is_err() {
                    return Err(ProposeError::Stopped { reason: "it was shut down".to_owned() });
                }
            }
        });
        waited.await.unwrap_or(Err(ProposeError::TimedOut(Duration::ZERO)))
    }

    /// The node that leads, as far as is known here.
    pub(crate) fn leader_node(&self) -> Option<NodeId> {
        self.raft.metrics().borrow().current_leader
    }

    /// True of a node that is in no configuration of the cluster, as its leader knows. Others do not say so: one that has just started
    /// knows of no configuration at all yet, and one that is behind does not know a newcomer.
    pub(crate) fn is_removed(&self, node: NodeId) -> bool {
        self.leader_node() == Some(self.node) && self.membership().get_node(&node).is_none()
    }

    /// Who leads, where that is known.
    pub(crate) fn leader_broker(&self) -> Option<BrokerId> {
        self.leader_node().map(broker_id)
    }
}

/// Why a call brought no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallFailed {
    /// It did not get to the other broker, or was turned away at its door.
    NotSent,
    /// It may have been worked on.
    Unknown,
}

/// True where the call was never looked at: no connection, or refused by the check of identities.
fn is_not_sent(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(e) = source {
        if e.is::<ConnectError>() {
            return true;
        }
        source = e.source();
    }
    matches!(status.code(), Code::FailedPrecondition | Code::Unimplemented | Code::InvalidArgument)
}

/// True where carrying a command out twice comes to the same as once, or the second is refused by an epoch.
fn is_same_twice(command: &Command) -> bool {
    matches!(
        command,
        Command::RegisterBroker { .. }
            | Command::FenceBroker { .. }
            | Command::UnfenceBroker { .. }
            | Command::ChangeIsr { .. }
            | Command::ElectLeader { .. }
            | Command::SetFeatureLevel { .. }
    )
}
