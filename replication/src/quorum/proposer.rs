//! Carries commands to Raft: takes one, adds what already waits, and lets them share an entry and its sync. No timer.

use std::sync::Arc;

use openraft::error::{ClientWriteError, RaftError};
use openraft::{Raft, ServerState};
use tokio::sync::{mpsc, oneshot};

use super::error::ProposeError;
use super::types::{Proposal, TypeConfig, broker_id};
use crate::cluster::{Command, CommandError, Output};

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
    pub(crate) answer: oneshot::Sender<Result<Answer, ProposeError>>,
}

/// What came of a command.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The entry that holds it.
    pub(crate) index: u64,
    pub(crate) outcome: Result<Output, CommandError>,
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

/// Returns once the entry is applied, or this node has stopped leading: then its answers, if they come, need not be waited for here.
async fn propose(raft: &Raft<TypeConfig>, group: Vec<Pending>) {
    let mut metrics = raft.metrics();
    let term = metrics.borrow().current_term;
    let mut written = tokio::spawn(write(raft.clone(), group));
    loop {
        tokio::select! {
            // A panic in there drops the answers, which tells those who wait.
            _ = &mut written => return,
            changed = metrics.changed() => {
                let now = metrics.borrow_and_update();
                if changed.is_err() || now.current_term != term || now.state != ServerState::Leader {
                    return;
                }
            }
        }
    }
}

/// One entry, from proposal to answers.
async fn write(raft: Raft<TypeConfig>, group: Vec<Pending>) {
    let (commands, answers): (Vec<Command>, Vec<_>) =
        group.into_iter().map(|pending| (pending.command, pending.answer)).unzip();
    let failure = match raft.client_write(Proposal(Arc::from(commands))).await {
        Ok(written) => {
            let index = written.log_id.index;
            for (answer, outcome) in answers.into_iter().zip(written.data) {
                // A caller that has gone is no failure.
                let _ = answer.send(Ok(Answer { index, outcome }));
            }
            return;
        }
        // Also where the entry was replaced by another leader's: then it can never be committed.
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
            ProposeError::NotLeader { leader: to.leader_id.map(broker_id) }
        }
        Err(e) => ProposeError::Stopped { reason: e.to_string() },
    };
    for answer in answers {
        let _ = answer.send(Err(failure.clone()));
    }
}
