//! The quorum as one node sees it, without asking anybody: for metrics, and for whoever asks while nobody leads.

use std::collections::BTreeSet;

use floodmark_proto::ids::BrokerId;
use tokio::time::Instant;

use super::types::{NodeId, broker_id};
use super::{QuorumHandle, QuorumNode, Shared};

/// What this node knows of the quorum. Where it leads, that is all there is to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalStatus {
    /// Who leads with a majority behind it, where one does ([`QuorumHandle::heard_leader`]).
    pub leader: Option<BrokerId>,
    /// In which term.
    pub term: u64,
    /// The last entry of this node's log.
    pub last_log_index: Option<u64>,
    /// The last entry that is in its image.
    pub applied_index: Option<u64>,
    /// Every node; how far each is, where this one leads.
    pub nodes: Vec<QuorumNode>,
}

impl QuorumHandle {
    /// Who leads the quorum with a majority behind it, as far as this broker can tell: of itself, that a majority answered within its lease; of
    /// another, that it was heard within two, by which an election is over. `None` where nothing can be decided, and also while one goes on.
    #[must_use]
    pub fn heard_leader(&self) -> Option<BrokerId> {
        self.shared.heard_leader().map(broker_id)
    }

    /// The quorum as this node sees it.
    #[must_use]
    pub fn local_status(&self) -> LocalStatus {
        let leader = self.heard_leader();
        let metrics = self.shared.raft.metrics();
        let metrics = metrics.borrow();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
        let matched = |node: &NodeId| {
            let known = metrics.replication.as_ref().and_then(|known| known.get(node).copied().flatten());
            // A leader does not replicate to itself.
            let own = (*node == self.shared.node && metrics.current_leader == Some(*node))
                .then_some(metrics.last_log_index);
            known.map(|log| log.index).or(own.flatten())
        };
        let node = |node: &NodeId| QuorumNode {
            broker: broker_id(*node),
            is_voter: voters.contains(node),
            matched_index: matched(node),
        };
        LocalStatus {
            leader,
            term: metrics.current_term,
            last_log_index: metrics.last_log_index,
            applied_index: metrics.last_applied.map(|log| log.index),
            nodes: membership.nodes().map(|(id, _)| node(id)).collect(),
        }
    }
}

impl Shared {
    fn heard_leader(&self) -> Option<NodeId> {
        let (leader, now) = (self.leader_node()?, Instant::now());
        let is_followed = if leader == self.node {
            let since = self.since_quorum_ack().filter(|_| !self.silence.is_on(now));
            since.is_some_and(|since| since <= self.lease())
        } else {
            self.contact.is_led(now)
        };
        is_followed.then_some(leader)
    }
}
