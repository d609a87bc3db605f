//! Carries commands to Raft: takes one, adds what already waits, and lets them share an entry and its sync. No timer.

use std::sync::Arc;

use floodmark_proto::ids::BrokerId;
use openraft::Raft;
use openraft::error::{ClientWriteError, RaftError};
use tokio::sync::{mpsc, oneshot};

use super::error::ProposeError;
use super::types::{Answers, NodeId, Proposal, TypeConfig};
use crate::cluster::{Command, Output};

/// Commands of an entry at most.
const COMMANDS_MAX: usize = 1000;
/// Bytes of an entry's commands, beyond which no more are added.
const ENTRY_BYTES: usize = 1 << 20;

/// A command that waits for its turn.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) command: Command,
    /// Of the command in the log.
    pub(crate) bytes: usize,
    pub(crate) answer: oneshot::Sender<Result<Output, ProposeError>>,
}

/// Runs until every sender is gone.
pub(crate) async fn run(raft: Raft<TypeConfig>, mut waiting: mpsc::Receiver<Pending>) {
    while let Some(first) = waiting.recv().await {
        let group = gather(first, &mut waiting);
        if !group.is_empty() {
            propose(&raft, group).await;
        }
    }
}

fn gather(first: Pending, waiting: &mut mpsc::Receiver<Pending>) -> Vec<Pending> {
    let mut group = Vec::new();
    let mut bytes = 0;
    let mut next = Some(first);
    while let Some(pending) = next {
        // Where nobody waits any more, nothing is promised, and the cluster is spared a change.
        if !pending.answer.is_closed() {
            bytes += pending.bytes;
            group.push(pending);
        }
        let has_room = bytes < ENTRY_BYTES && group.len() < COMMANDS_MAX;
        next = if has_room { waiting.try_recv().ok() } else { None };
    }
    group
}

async fn propose(raft: &Raft<TypeConfig>, group: Vec<Pending>) {
    let (commands, answers): (Vec<Command>, Vec<_>) =
        group.into_iter().map(|pending| (pending.command, pending.answer)).unzip();
    // A caller that has gone is no failure.
    match write(raft, Proposal(Arc::from(commands))).await {
        Ok(outcomes) => {
            for (answer, outcome) in answers.into_iter().zip(outcomes) {
                let _ = answer.send(outcome.map_err(ProposeError::Refused));
            }
        }
        Err(e) => {
            for answer in answers {
                let _ = answer.send(Err(e.clone()));
            }
        }
    }
}

/// One entry, from proposal to answers.
async fn write(raft: &Raft<TypeConfig>, proposal: Proposal) -> Result<Answers, ProposeError> {
    match raft.client_write(proposal).await {
        Ok(written) => Ok(written.data),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
            Err(ProposeError::NotLeader { leader: to.leader_id.and_then(broker_id) })
        }
        Err(e) => Err(ProposeError::Stopped { reason: e.to_string() }),
    }
}

pub(crate) fn broker_id(node: NodeId) -> Option<BrokerId> {
    i32::try_from(node).ok().map(BrokerId)
}
