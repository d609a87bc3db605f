//! Whether this node may decide for the cluster: it leads, a majority still follows it, and its image has everything that was ever
//! acknowledged.

use std::sync::Arc;
use std::time::Duration;

use openraft::{Raft, RaftMetrics, ServerState};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::acks::Acks;
use super::contact::Contact;
use super::silence::Silence;
use super::types::{Node, NodeId, TypeConfig};

/// This node leads the metadata quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leadership {
    /// In this term.
    pub term: u64,
}

/// What is watched.
pub(crate) struct Watched {
    pub(crate) raft: Raft<TypeConfig>,
    pub(crate) acks: Arc<Acks>,
    pub(crate) silence: Arc<Silence>,
    pub(crate) contact: Arc<Contact>,
    /// The last entry that was there when this node started. A leader that comes back in its old term may have answered up to it.
    pub(crate) settled: Option<u64>,
    /// Without a majority for so long, another may lead.
    pub(crate) lease: Duration,
    /// How often it is looked whether a majority has gone.
    pub(crate) period: Duration,
}

/// Tells each change; ends with Raft.
pub(crate) async fn follow(watched: Watched, told: watch::Sender<Option<Leadership>>) {
    let mut metrics = watched.raft.metrics();
    // Since when it is leader, in which term.
    let mut began: Option<(u64, Instant)> = None;
    loop {
        let now = Instant::now();
        let leads = {
            let metrics = metrics.borrow_and_update();
            let term = metrics.current_term;
            began = match (metrics.state, began) {
                (ServerState::Leader, Some((of, at))) if of == term => Some((of, at)),
                (ServerState::Leader, _) => Some((term, now)),
                _ => None,
            };
            if let Some((_, began)) = began {
                let since = watched.since_majority(&metrics, now);
                let was_alone = watched.silence.is_alone();
                // Told once, however often it asks whether a majority is there again.
                if watched.silence.begin_if_alone(now, watched.lease, began, since) && !was_alone {
                    tracing::warn!(
                        term,
                        "no majority answers this leader of the metadata quorum; it lets others lead"
                    );
                }
            } else {
                watched.silence.on_no_lead();
            }
            watched.leads(&metrics, now)
        };
        if leads.is_some() || told.borrow().is_some() {
            // Before anybody is told that this node does not lead any more, and so might help another.
            watched.contact.note(Instant::now());
        }
        let has_changed = told.send_if_modified(|was| std::mem::replace(was, leads) != leads);
        if has_changed {
            match leads {
                Some(Leadership { term }) => tracing::info!(term, "this broker leads the metadata quorum"),
                None => tracing::info!("this broker does not lead the metadata quorum any more"),
            }
        }
        let period = if began.is_some() { watched.period } else { watched.lease };
        tokio::select! {
            changed = metrics.changed() => {
                if changed.is_err() {
                    told.send_replace(None);
                    return;
                }
            }
            () = sleep(period) => {}
        }
    }
}

impl Watched {
    fn since_majority(&self, metrics: &RaftMetrics<NodeId, Node>, now: Instant) -> Option<Duration> {
        let configs = metrics.membership_config.membership().get_joint_config();
        self.acks.since(configs, metrics.id, metrics.current_term, now)
    }

    fn leads(&self, metrics: &RaftMetrics<NodeId, Node>, now: Instant) -> Option<Leadership> {
        let since = self.since_majority(metrics, now).filter(|_| !self.silence.is_on(now))?;
        (since <= self.lease && may_decide(metrics, self.settled))
            .then_some(Leadership { term: metrics.current_term })
    }
}

/// Behind an entry of its own term everything older is committed and applied here; `settled` is what it may have answered in that term before it
/// was started again.
fn may_decide(metrics: &RaftMetrics<NodeId, Node>, settled: Option<u64>) -> bool {
    let own = (metrics.current_term, metrics.id);
    let is_behind_own = metrics.last_applied.is_some_and(|applied| {
        (applied.leader_id.term, applied.leader_id.node_id) == own && Some(applied.index) >= settled
    });
    metrics.state == ServerState::Leader && is_behind_own
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quorum::types::log_id;

    #[test]
    fn r37_only_a_leader_behind_an_entry_of_its_term_and_all_it_found_may_decide() {
        let leader = RaftMetrics {
            state: ServerState::Leader,
            current_term: 5,
            last_applied: Some(log_id(5, 1, 20)),
            ..RaftMetrics::new_initial(1)
        };
        assert!(may_decide(&leader, None) && may_decide(&leader, Some(20)));
        assert!(
            !may_decide(&leader, Some(21)),
            "what it answered before it was started again is not applied"
        );
        for applied in [None, Some(log_id(4, 1, 20)), Some(log_id(5, 2, 20))] {
            assert!(
                !may_decide(&RaftMetrics { last_applied: applied, ..leader.clone() }, None),
                "{applied:?}"
            );
        }
        assert!(!may_decide(&RaftMetrics { state: ServerState::Candidate, ..leader }, None));
    }
}
