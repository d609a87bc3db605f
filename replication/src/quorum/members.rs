//! Who is in the quorum: newcomers, voters, those that are removed. The leader makes one change at a time; everybody else asks it to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use floodmark_proto::ids::BrokerId;
use floodmark_proto::pb::quorum as pb;
use openraft::error::{ClientWriteError, RaftError};
use openraft::{ChangeMembers, Raft, RaftMetrics};
use tokio::time::{Instant, sleep, timeout_at};

use super::error::{MembershipError, ProposeError};
use super::forward::NotTaken;
use super::network::Client;
use super::types::{Membership, Node, NodeId, TypeConfig, broker_id, node_id};
use super::{QuorumHandle, Shared};
use crate::rpc::Peers;

/// A learner that is to vote has this long to get what it lacks.
const CATCH_UP_TIME_MAX: Duration = Duration::from_secs(30);
/// One change of the membership is an entry or two.
const CHANGE_TIME_MAX: Duration = Duration::from_secs(15);
/// A call for a change; the leader may first wait for learners.
const CHANGE_CALL_TIME: Duration = Duration::from_secs(45);
/// Brokers that are there answer a leader's next sign of life; busy ones may take their time.
const HEAR_TIME_MAX: Duration = Duration::from_secs(5);
/// How soon a leader looks for a change of voters that nobody ends: until it has ended, two majorities are needed.
const FINISH_AFTER: Duration = Duration::from_secs(2);
/// Between two looks at how far a learner is.
const LOOK_AFTER: Duration = Duration::from_millis(20);

/// A broker that wants to be a member.
#[derive(Debug, Clone)]
pub(crate) struct Newcomer {
    pub(crate) broker: BrokerId,
    pub(crate) node: Node,
}

/// Why the membership was not changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ChangeError {
    /// Nothing was tried, or it may be tried again.
    NotTaken(NotTaken),
    /// Trying again does not help.
    Refused(String),
}

/// A change of the members.
#[derive(Debug)]
enum Change {
    Voters(BTreeSet<BrokerId>),
    Remove(BrokerId),
}

/// The quorum's members: voters, and learners, each with its Raft id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QuorumMembership {
    /// Those that vote.
    pub voters: Vec<(BrokerId, u64)>,
    /// Those that only learn.
    pub learners: Vec<(BrokerId, u64)>,
}

/// How the quorum is, as its leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumStatus {
    /// Who leads.
    pub leader: BrokerId,
    /// In which term.
    pub term: u64,
    /// The last entry of its log.
    pub last_log_index: u64,
    /// The last entry that is in its image.
    pub applied_index: u64,
    /// Every node.
    pub nodes: Vec<QuorumNode>,
}

/// A node of the quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuorumNode {
    /// The broker.
    pub broker: BrokerId,
    /// Whether it votes.
    pub is_voter: bool,
    /// The last entry that it is known to have; `None` where the leader has not heard of it.
    pub matched_index: Option<u64>,
}

impl QuorumHandle {
    /// The members, as they are known here.
    #[must_use]
    pub fn membership(&self) -> QuorumMembership {
        let membership = self.shared.membership();
        let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
        let all = membership.nodes().map(|(node, _)| (broker_id(*node), *node));
        let (voters, learners) = all.partition(|(_, node)| voters.contains(node));
        QuorumMembership { voters, learners }
    }

    /// Makes these brokers the voters; they must be members. Returns once they are. Where the answer is lost the change may take place; it may
    /// be asked for again.
    pub async fn change_voters(&self, voters: BTreeSet<BrokerId>) -> Result<(), MembershipError> {
        self.change(&Change::Voters(voters)).await
    }

    /// Takes a broker out of the quorum. It may come back as another node, with an empty disk. Returns once it is out; may be asked for again.
    pub async fn remove_node(&self, broker: BrokerId) -> Result<(), MembershipError> {
        self.change(&Change::Remove(broker)).await
    }

    async fn change(&self, change: &Change) -> Result<(), MembershipError> {
        let shared = &self.shared;
        let until = Instant::now() + CATCH_UP_TIME_MAX + CHANGE_TIME_MAX;
        loop {
            let asked = match shared.leader_node() {
                None => Err(ChangeError::NotTaken(NotTaken::NotLeader(None))),
                Some(node) if node == shared.node => shared.change_here(change).await,
                Some(node) => shared.change_there(node, change, until).await,
            };
            let last = match asked {
                Ok(index) => match shared.applied(index, until).await {
                    Ok(()) => return Ok(()),
                    Err(e) => e,
                },
                Err(ChangeError::Refused(reason)) => return Err(MembershipError::Refused { reason }),
                Err(ChangeError::NotTaken(not_taken)) => shared.in_vain(&not_taken),
            };
            if !last.is_retryable() || !shared.pause_before(until).await {
                return Err(MembershipError::NotChanged(last));
            }
        }
    }

    /// How the quorum is; asks its leader.
    pub async fn status(&self) -> Result<QuorumStatus, ProposeError> {
        let shared = &self.shared;
        let until = Instant::now() + shared.deadline;
        loop {
            let asked = match shared.leader_node() {
                None => Err(ProposeError::NotLeader { leader: None }),
                Some(node) => shared.ask_status(node, until).await,
            };
            match asked {
                Ok(status) => return Ok(status_from_pb(&status)),
                Err(e) if e.is_retryable() && shared.pause_before(until).await => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Takes a broker in as a learner, where this node leads. Answers with its node; the same for the same disk however often it asks.
    pub(crate) async fn admit(&self, newcomer: &Newcomer) -> Result<NodeId, ChangeError> {
        let shared = &self.shared;
        let _one_at_a_time = shared.changes.lock().await;
        shared.check_leads()?;
        let membership = shared.membership();
        if let Some((node, found)) = member(&membership, newcomer.broker) {
            if found.directory_id == newcomer.node.directory_id {
                return Ok(node);
            }
            return Err(ChangeError::Refused(other_disk(newcomer.broker)));
        }
        // The log has grown since a broker of this id was removed, so no node before had this number.
        let join_index = shared.raft.metrics().borrow().last_log_index.map_or(1, |last| last + 1);
        let node = node_id(newcomer.broker, join_index)
            .ok_or_else(|| ChangeError::Refused("there are no Raft ids left for newcomers".to_owned()))?;
        let add = ChangeMembers::AddNodes(BTreeMap::from([(node, newcomer.node.clone())]));
        shared.change_membership(add).await?;
        tracing::info!(broker = %newcomer.broker, node, "a broker has joined the cluster");
        Ok(node)
    }
}

/// What a broker is told whose id is taken by another disk.
fn other_disk(broker: BrokerId) -> String {
    format!(
        "another disk is in the cluster under id {broker}: if that one is lost, run `floodmark cluster remove {broker}` first; \
         otherwise start this broker with its own directory, or under another id"
    )
}

/// The node of a broker, and what is known of it.
fn member(membership: &Membership, broker: BrokerId) -> Option<(NodeId, Node)> {
    membership
        .nodes()
        .find(|(node, _)| broker_id(**node) == broker)
        .map(|(node, known)| (*node, known.clone()))
}

impl Shared {
    pub(crate) fn membership(&self) -> Membership {
        self.raft.metrics().borrow().membership_config.membership().clone()
    }

    async fn change_here(&self, change: &Change) -> Result<u64, ChangeError> {
        match change {
            Change::Voters(voters) => self.change_voters_here(voters).await,
            Change::Remove(broker) => self.remove_node_here(*broker).await,
        }
    }

    async fn change_there(&self, node: NodeId, change: &Change, until: Instant) -> Result<u64, ChangeError> {
        use pb::change_reply::Outcome;
        let asked = match change {
            Change::Voters(voters) => {
                let request =
                    pb::ChangeVotersRequest { voters: voters.iter().map(|broker| broker.0).collect() };
                let call = |mut client: Client, request| async move { client.change_voters(request).await };
                self.ask_for(CHANGE_CALL_TIME, node, until, request, call).await
            }
            Change::Remove(broker) => {
                let request = pb::RemoveNodeRequest { broker: broker.0 };
                let call = |mut client: Client, request| async move { client.remove_node(request).await };
                self.ask_for(CHANGE_CALL_TIME, node, until, request, call).await
            }
        };
        match asked.ok().and_then(|reply| reply.outcome) {
            Some(Outcome::Index(index)) => Ok(index),
            Some(Outcome::NotTaken(not_taken)) => Err(ChangeError::NotTaken(NotTaken::from_pb(&not_taken))),
            Some(Outcome::Refused(reason)) => Err(ChangeError::Refused(reason)),
            // A change that has been made is made again by doing nothing.
            None => Err(ChangeError::NotTaken(NotTaken::NotLeader(Some(node)))),
        }
    }

    async fn ask_status(
        &self,
        node: NodeId,
        until: Instant,
    ) -> Result<pb::status_reply::Status, ProposeError> {
        use pb::status_reply::Outcome;
        let nobody = ProposeError::NotLeader { leader: Some(broker_id(node)) };
        if node == self.node {
            return self.status_here().ok_or(nobody);
        }
        let call = |mut client: Client, request| async move { client.status(request).await };
        let asked = self.ask(node, until, pb::StatusRequest {}, call).await;
        match asked.ok().and_then(|reply| reply.outcome) {
            Some(Outcome::Status(status)) => Ok(status),
            Some(Outcome::NotTaken(not_taken)) => Err(self.in_vain(&NotTaken::from_pb(&not_taken))),
            None => Err(nobody),
        }
    }

    fn check_leads(&self) -> Result<(), ChangeError> {
        if self.leadership.borrow().is_some() {
            return Ok(());
        }
        let leader = self.leader_node().filter(|leader| *leader != self.node);
        Err(ChangeError::NotTaken(NotTaken::NotLeader(leader)))
    }

    /// Makes these the voters, where this node leads. Answers with the entry after which they are.
    pub(crate) async fn change_voters_here(&self, voters: &BTreeSet<BrokerId>) -> Result<u64, ChangeError> {
        let _one_at_a_time = self.changes.lock().await;
        self.set_voters(voters).await
    }

    async fn set_voters(&self, voters: &BTreeSet<BrokerId>) -> Result<u64, ChangeError> {
        self.check_leads()?;
        if voters.is_empty() {
            return Err(ChangeError::Refused("a quorum has at least one voter".to_owned()));
        }
        let membership = self.membership();
        let node = |broker: &BrokerId| {
            member(&membership, *broker).map(|(node, _)| node).ok_or_else(|| {
                ChangeError::Refused(format!(
                    "broker {broker} is no member; start it with cluster.voters set to addresses of members"
                ))
            })
        };
        let nodes = voters.iter().map(node).collect::<Result<BTreeSet<NodeId>, _>>()?;
        let before: BTreeSet<NodeId> = membership.voter_ids().collect();
        for newcomer in nodes.difference(&before) {
            self.catch_up(*newcomer).await?;
        }
        self.hear_majority(&nodes).await?;
        if !nodes.contains(&self.node) {
            // So that one of those that stay leads next, and not another that has to go.
            let mut candidates = nodes;
            candidates.insert(self.node);
            if candidates != before {
                self.change_membership(ChangeMembers::ReplaceAllVoters(candidates)).await?;
            }
            // Whoever leads next makes the change: a leader outside the voters would keep them from electing another.
            self.step_aside();
            return Err(ChangeError::NotTaken(NotTaken::NotLeader(None)));
        }
        self.change_membership(ChangeMembers::ReplaceAllVoters(nodes)).await
    }

    /// Waits until a majority of these answers: without one nothing could be decided any more, not even that others vote.
    async fn hear_majority(&self, nodes: &BTreeSet<NodeId>) -> Result<(), ChangeError> {
        let asked = Instant::now();
        loop {
            self.check_leads()?;
            let (term, now) = (self.raft.metrics().borrow().current_term, Instant::now());
            let waited = now.saturating_duration_since(asked);
            let heard = self.acks.since(std::slice::from_ref(nodes), self.node, term, now);
            if heard.is_some_and(|ago| ago <= waited) {
                return Ok(());
            }
            if waited > HEAR_TIME_MAX {
                let brokers: Vec<String> = nodes.iter().map(|node| broker_id(*node).to_string()).collect();
                return Err(ChangeError::Refused(format!(
                    "no majority of brokers {} answers; with them as voters nothing could be decided any more",
                    brokers.join(", ")
                )));
            }
            sleep(LOOK_AFTER).await;
        }
    }

    /// Waits until a learner has what there is now: a voter that lacks much would hold the others up.
    async fn catch_up(&self, node: NodeId) -> Result<(), ChangeError> {
        let until = Instant::now() + CATCH_UP_TIME_MAX;
        let goal = self.raft.metrics().borrow().last_log_index;
        loop {
            self.check_leads()?;
            let matched = {
                let metrics = self.raft.metrics();
                let metrics = metrics.borrow();
                metrics.replication.as_ref().and_then(|r| r.get(&node).copied().flatten())
            };
            if matched.map(|matched| matched.index) >= goal {
                return Ok(());
            }
            if Instant::now() >= until {
                let broker = broker_id(node);
                return Err(ChangeError::Refused(format!(
                    "broker {broker} does not have what it needs to vote; see that it runs and is reached, then try again"
                )));
            }
            sleep(LOOK_AFTER).await;
        }
    }

    /// Takes a broker out, where this node leads. Answers with the entry after which it is.
    pub(crate) async fn remove_node_here(&self, broker: BrokerId) -> Result<u64, ChangeError> {
        let _one_at_a_time = self.changes.lock().await;
        self.check_leads()?;
        let membership = self.membership();
        let Some((node, _)) = member(&membership, broker) else {
            // Asked for again after the answer was lost.
            return Ok(self.raft.metrics().borrow().last_log_index.unwrap_or(0));
        };
        let voters: BTreeSet<BrokerId> = membership.voter_ids().map(broker_id).collect();
        if voters.contains(&broker) {
            let others: BTreeSet<BrokerId> = voters.into_iter().filter(|voter| *voter != broker).collect();
            if others.is_empty() {
                return Err(ChangeError::Refused(format!("broker {broker} is the only voter")));
            }
            self.set_voters(&others).await?;
        }
        self.change_membership(ChangeMembers::RemoveNodes(BTreeSet::from([node]))).await
    }

    /// One change, committed and applied here.
    async fn change_membership(&self, change: ChangeMembers<NodeId, Node>) -> Result<u64, ChangeError> {
        let until = Instant::now() + CHANGE_TIME_MAX;
        // Those that stop voting go on learning.
        let changed = timeout_at(until, self.raft.change_membership(change, true)).await;
        match changed {
            Ok(Ok(written)) => Ok(written.log_id.index),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to)))) => {
                Err(ChangeError::NotTaken(NotTaken::NotLeader(to.leader_id)))
            }
            Ok(Err(RaftError::APIError(e))) => Err(ChangeError::Refused(e.to_string())),
            Ok(Err(RaftError::Fatal(_))) => Err(ChangeError::NotTaken(NotTaken::Stopped)),
            Err(_) => Err(ChangeError::NotTaken(NotTaken::NotLeader(None))),
        }
    }

    /// Ends a change of voters that a leader before this one began, or somebody here who has given up.
    pub(crate) async fn finish_change(&self) {
        // Whoever has it is making a change, and may yet end it.
        let Ok(_one_at_a_time) = self.changes.try_lock() else { return };
        let membership = self.membership();
        let [_, .., last] = &membership.get_joint_config()[..] else { return };
        if !last.contains(&self.node) {
            self.step_aside();
        } else if let Err(e) = self.change_membership(ChangeMembers::ReplaceAllVoters(last.clone())).await {
            tracing::warn!(reason = ?e, "a change of voters could not be finished; it is tried again");
        }
    }

    pub(crate) fn status_here(&self) -> Option<pb::status_reply::Status> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        (*self.leadership.borrow()).map(|_| status_of(&metrics, self.node))
    }
}

fn status_of(metrics: &RaftMetrics<NodeId, Node>, leader: NodeId) -> pb::status_reply::Status {
    let voters: BTreeSet<NodeId> = metrics.membership_config.voter_ids().collect();
    let replicated = |node: &NodeId| metrics.replication.as_ref()?.get(node).copied().flatten();
    let node = |node: &NodeId| pb::status_reply::Node {
        node: *node,
        is_voter: voters.contains(node),
        matched_index: match *node == metrics.id {
            true => metrics.last_log_index,
            false => replicated(node).map(|matched| matched.index),
        },
    };
    pb::status_reply::Status {
        leader,
        term: metrics.current_term,
        last_log_index: metrics.last_log_index.unwrap_or(0),
        applied_index: metrics.last_applied.map_or(0, |last| last.index),
        nodes: metrics.membership_config.nodes().map(|(id, _)| node(id)).collect(),
    }
}

fn status_from_pb(status: &pb::status_reply::Status) -> QuorumStatus {
    let node = |node: &pb::status_reply::Node| QuorumNode {
        broker: broker_id(node.node),
        is_voter: node.is_voter,
        matched_index: node.matched_index,
    };
    QuorumStatus {
        leader: broker_id(status.leader),
        term: status.term,
        last_log_index: status.last_log_index,
        applied_index: status.applied_index,
        nodes: status.nodes.iter().map(node).collect(),
    }
}

/// Keeps in mind where the members say that they are.
pub(crate) async fn note_addresses(raft: Raft<TypeConfig>, peers: Peers) {
    let mut metrics = raft.metrics();
    let mut noted = None;
    loop {
        let membership = Arc::clone(&metrics.borrow_and_update().membership_config);
        if noted != *membership.log_id() {
            noted = *membership.log_id();
            for (node, known) in membership.nodes() {
                if let Some(address) = &known.address {
                    peers.note(broker_id(*node), address.clone());
                }
            }
        }
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

/// Ends what others began, when this node comes to lead and as long as it does.
pub(crate) async fn finish_changes(shared: std::sync::Weak<Shared>, mut leadership: Watch) {
    loop {
        let leads = leadership.borrow_and_update().is_some();
        let Some(shared) = shared.upgrade() else { return };
        if leads {
            shared.finish_change().await;
        }
        drop(shared);
        match timeout_at(Instant::now() + FINISH_AFTER, leadership.changed()).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(_)) => return,
        }
    }
}

type Watch = tokio::sync::watch::Receiver<Option<super::Leadership>>;
