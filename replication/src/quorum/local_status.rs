//! The quorum as one node sees it, without asking anybody: for metrics, and for whoever asks while nobody leads.

use std::collections::BTreeSet;

use floodmark_proto::ids::BrokerId;

use super::types::{NodeId, broker_id};
use super::{QuorumHandle, QuorumNode};

/// What this node knows of the quorum. Where it leads, that is all there is to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalStatus {
    /// Who leads, where that is known.
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
    /// The quorum as this node sees it.
    #[must_use]
    pub fn local_status(&self) -> LocalStatus {
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
            leader: metrics.current_leader.map(broker_id),
            term: metrics.current_term,
            last_log_index: metrics.last_log_index,
            applied_index: metrics.last_applied.map(|log| log.index),
            nodes: membership.nodes().map(|(id, _)| node(id)).collect(),
        }
    }
}
