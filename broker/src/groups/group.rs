//! A group of members that divide work among themselves: Kafka's classic protocol as a machine without clock, I/O or
//! waiting. Inputs take the time in milliseconds, of a clock that never goes back; what is to be done comes out as effects.
//!
//! [`join`](super::join), [`sync`](super::sync), [`leave`](super::leave) and `rebalance` hold the inputs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::error::GroupError;
use super::member::{Member, MemberId, Protocol, RequestId};
use super::settings::GroupSettings;
use super::snapshot::GroupSnapshot;

/// Where a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GroupState {
    /// No members; perhaps offsets.
    Empty,
    /// Members are to join again, so that a new generation can be formed.
    PreparingRebalance,
    /// The generation is formed; its leader is to say who does what.
    CompletingRebalance,
    /// Everybody knows what to do.
    Stable,
    /// Deleted; stays until that is written.
    Dead,
}

impl GroupState {
    /// The name that tools show and filter by.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            GroupState::Empty => "Empty",
            GroupState::PreparingRebalance => "PreparingRebalance",
            GroupState::CompletingRebalance => "CompletingRebalance",
            GroupState::Stable => "Stable",
            GroupState::Dead => "Dead",
        }
    }
}

/// A join that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The generation that was formed.
    pub generation: i32,
    /// What kind of group it is.
    pub protocol_type: Option<Arc<str>>,
    /// The protocol that most members prefer among those that all know.
    pub protocol: Option<Arc<str>>,
    /// The member that assigns.
    pub leader: MemberId,
    /// The member that is answered.
    pub member_id: MemberId,
    /// Everybody's metadata, for the leader alone.
    pub members: Vec<JoinedMember>,
    /// The leader is to leave the assignment as it is.
    pub skip_assignment: bool,
}

/// A member as the leader is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedMember {
    /// Its id.
    pub id: MemberId,
    /// Its instance id, where it is static.
    pub instance_id: Option<Arc<str>>,
    /// What it says about itself under the chosen protocol.
    pub metadata: Bytes,
}

/// A join that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRefused {
    /// Why.
    pub error: GroupError,
    /// The id the member came with; with [`GroupError::MemberIdRequired`] the one it is to come with.
    pub member_id: MemberId,
}

/// What a member is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synced {
    /// What kind of group it is.
    pub protocol_type: Option<Arc<str>>,
    /// The protocol of this generation.
    pub protocol: Option<Arc<str>>,
    /// The leader's words to this member.
    pub assignment: Bytes,
}

/// What a group wants done.
#[derive(Debug)]
pub enum Effect {
    /// The answer to a join.
    Join(RequestId, Result<Joined, JoinRefused>),
    /// The answer to a sync.
    Sync(RequestId, Result<Synced, GroupError>),
    /// The snapshot is to be written; the outcome is told by [`Group::on_persisted`].
    Persist(Persist, GroupSnapshot),
}

/// What a snapshot was written for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Persist {
    /// The assignment of a generation.
    Assignment {
        /// That generation.
        generation: i32,
        /// Who does what.
        assignments: BTreeMap<MemberId, Bytes>,
    },
    /// A static member that came back in place of its older self.
    StaticMember(Box<StaticRejoin>),
    /// A generation without members.
    Emptied,
}

/// A static member that came back, and what is needed to take that back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticRejoin {
    pub(super) request: RequestId,
    pub(super) generation: i32,
    pub(super) instance_id: Arc<str>,
    pub(super) old_id: MemberId,
    pub(super) new_id: MemberId,
    pub(super) old_leader: Option<MemberId>,
    pub(super) old_protocols: Vec<Protocol>,
    pub(super) old_rebalance_timeout_ms: i32,
    pub(super) old_session_timeout_ms: i32,
    pub(super) may_skip_assignment: bool,
}

/// How long joins are collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JoinPhase {
    /// The group was empty: a fixed delay, begun again while new members keep coming and time remains.
    Initial { until: i64, delay_ms: i64, remaining_ms: i64, has_newcomers: bool },
    /// Until all known members are back, or time is up.
    Rejoin { until: i64 },
}

/// The state, with what is only there in that state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Empty,
    PreparingRebalance(JoinPhase),
    /// `is_persisting`: the leader's assignment is on its way into the log.
    CompletingRebalance {
        is_persisting: bool,
    },
    Stable,
    Dead,
}

/// One group.
#[derive(Debug, Clone)]
pub struct Group {
    pub(super) settings: Arc<GroupSettings>,
    pub(super) id: Arc<str>,
    pub(super) phase: Phase,
    pub(super) generation: i32,
    pub(super) protocol_type: Option<Arc<str>>,
    pub(super) protocol: Option<Arc<str>>,
    pub(super) leader: Option<MemberId>,
    pub(super) members: BTreeMap<MemberId, Member>,
    /// Instance id to member id.
    pub(super) static_members: HashMap<Arc<str>, MemberId>,
    /// Static members that came back, whose new ids did not get into the log, and in whose place others had come by then.
    pub(super) unwritten_rejoins: Vec<StaticRejoin>,
    /// Ids that were given out and not joined with yet, and until when they may be.
    pub(super) pending_joins: BTreeMap<MemberId, i64>,
    /// Members that have not asked for the assignment of this generation yet.
    pub(super) pending_syncs: BTreeSet<MemberId>,
    /// When members that have not asked are taken for gone.
    pub(super) sync_until: Option<i64>,
    /// How many members know each protocol.
    pub(super) supported: HashMap<Arc<str>, usize>,
    pub(super) members_bytes: usize,
    /// No deadline of the group is earlier; some may be later.
    pub(super) wake_at: i64,
    /// By the calendar, when the group came into its state; kept by whoever has a calendar.
    pub(super) state_since_ms: Option<i64>,
}

impl Group {
    /// A group without members.
    #[must_use]
    pub fn new(id: Arc<str>, settings: Arc<GroupSettings>) -> Group {
        Group {
            settings,
            id,
            phase: Phase::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            static_members: HashMap::new(),
            unwritten_rejoins: Vec::new(),
            pending_joins: BTreeMap::new(),
            pending_syncs: BTreeSet::new(),
            sync_until: None,
            supported: HashMap::new(),
            members_bytes: 0,
            wake_at: i64::MAX,
            state_since_ms: None,
        }
    }

    /// The group's id.
    #[must_use]
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Where the group stands.
    #[must_use]
    pub fn state(&self) -> GroupState {
        match self.phase {
            Phase::Empty => GroupState::Empty,
            Phase::PreparingRebalance(_) => GroupState::PreparingRebalance,
            Phase::CompletingRebalance { .. } => GroupState::CompletingRebalance,
            Phase::Stable => GroupState::Stable,
            Phase::Dead => GroupState::Dead,
        }
    }

    /// Rises with each rebalance.
    #[must_use]
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// What kind of group it is, once a member has said so.
    #[must_use]
    pub fn protocol_type(&self) -> Option<&Arc<str>> {
        self.protocol_type.as_ref()
    }

    /// When [`Group::on_timer`] is to be called, at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<i64> {
        (self.wake_at != i64::MAX).then_some(self.wake_at)
    }

    /// Bytes that its members have brought.
    #[must_use]
    pub fn members_bytes(&self) -> usize {
        self.members_bytes
    }

    /// Bytes of the member that a joining process will be, where it is one already.
    pub(super) fn bytes_of(&self, member_id: &str, instance_id: Option<&str>) -> usize {
        let id = instance_id.and_then(|id| self.static_members.get(id)).map_or(member_id, |id| id);
        self.members.get(id).map_or(0, Member::size_bytes)
    }

    /// Bytes of what members were assigned.
    pub(super) fn assigned_bytes(&self) -> usize {
        self.members.values().map(|member| member.assignment.len()).sum()
    }

    /// No members, and no ids given out.
    #[must_use]
    pub fn is_deserted(&self) -> bool {
        self.members.is_empty() && self.pending_joins.is_empty()
    }

    /// Marks the group as deleted while that is written; fails where it has members.
    pub fn on_delete(&mut self) -> Result<(), GroupError> {
        match self.phase {
            Phase::Empty => {
                self.phase = Phase::Dead;
                self.pending_joins.clear();
                Ok(())
            }
            // Its deletion is on its way, and may fail yet.
            Phase::Dead => Err(GroupError::CoordinatorNotAvailable),
            Phase::PreparingRebalance(_) | Phase::CompletingRebalance { .. } | Phase::Stable => {
                Err(GroupError::NonEmptyGroup)
            }
        }
    }

    /// The deletion could not be written.
    pub fn on_delete_failed(&mut self) {
        if self.phase == Phase::Dead {
            self.phase = Phase::Empty;
        }
    }

    /// The coordinator goes away: every waiting request is answered with `error`.
    pub fn on_unload(&mut self, error: GroupError, effects: &mut Vec<Effect>) {
        for member in self.members.values_mut() {
            answer_join(member, effects, |id| Err(JoinRefused { error, member_id: Arc::clone(id) }));
            answer_sync(member, effects, |_| Err(error));
        }
        self.phase = Phase::Dead;
    }

    /// Whether the one who says to be `member_id` is that member, still.
    pub(super) fn check_member(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance_id) = instance_id {
            match self.static_members.get(instance_id) {
                None => return Err(GroupError::UnknownMemberId),
                Some(current) if **current != *member_id => return Err(GroupError::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) { Ok(()) } else { Err(GroupError::UnknownMemberId) }
    }

    /// Whether the one who says to be `member_id` may commit offsets, and its session with it.
    pub fn on_commit(&mut self, commit: &CommitFrom<'_>, now_ms: i64) -> Result<(), GroupError> {
        if self.phase == Phase::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        let is_anonymous = commit.member_id.is_empty() && commit.instance_id.is_none();
        if commit.generation < 0 && self.phase == Phase::Empty {
            return Ok(());
        }
        if commit.generation >= 0 || !is_anonymous {
            self.check_member(commit.member_id, commit.instance_id)?;
            if commit.generation != self.generation {
                return Err(GroupError::IllegalGeneration);
            }
        } else if !commit.is_transactional {
            return Err(GroupError::UnknownMemberId);
        }
        if commit.is_transactional {
            return Ok(());
        }
        if matches!(self.phase, Phase::CompletingRebalance { .. }) {
            // The member knows the generation and not yet what is its own to commit for.
            return Err(GroupError::RebalanceInProgress);
        }
        self.refresh_session(commit.member_id, now_ms);
        Ok(())
    }

    /// Begins the member's session again.
    pub(super) fn refresh_session(&mut self, member_id: &str, now_ms: i64) {
        if let Some(member) = self.members.get_mut(member_id) {
            let until = now_ms.saturating_add(i64::from(member.session_timeout_ms));
            member.session_until = Some(until);
            self.wake_by(until);
        }
    }

    pub(super) fn wake_by(&mut self, at: i64) {
        self.wake_at = self.wake_at.min(at);
    }

    /// The longest that any member needs to come back.
    pub(super) fn rebalance_timeout_ms(&self) -> i64 {
        self.members.values().map(|m| i64::from(m.rebalance_timeout_ms)).max().unwrap_or(0)
    }

    pub(super) fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    /// Whether a process with these protocols can be a member beside those there are.
    pub(super) fn supports(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if self.phase == Phase::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let knows_one = |p: &Protocol| self.known_by(&p.name) == self.members.len();
        self.protocol_type.as_deref() == Some(protocol_type) && protocols.iter().any(knows_one)
    }

    fn known_by(&self, protocol: &str) -> usize {
        self.supported.get(protocol).copied().unwrap_or(0)
    }

    /// The protocol that most members prefer among those that all know; of equals the one that the leader names first.
    pub(super) fn vote(&self) -> Option<Arc<str>> {
        let is_candidate = |p: &&Protocol| self.known_by(&p.name) == self.members.len();
        let mut votes: HashMap<&str, usize> = HashMap::new();
        for member in self.members.values() {
            if let Some(choice) = member.protocols.iter().find(is_candidate) {
                *votes.entry(&choice.name).or_default() += 1;
            }
        }
        let leader = self.leader.as_ref().and_then(|id| self.members.get(id));
        let judge = leader.or_else(|| self.members.values().next())?;
        // `max_by_key` gives the last of equals.
        let candidates = judge.protocols.iter().filter(is_candidate).rev();
        candidates.max_by_key(|p| votes.get(&*p.name)).map(|p| Arc::clone(&p.name))
    }

    pub(super) fn insert_member(&mut self, member: Member) {
        self.count_protocols(&member.protocols);
        self.members_bytes += member.size_bytes();
        if let Some(instance_id) = &member.instance_id {
            self.static_members.insert(Arc::clone(instance_id), Arc::clone(&member.id));
        }
        self.members.insert(Arc::clone(&member.id), member);
    }

    /// Takes the member out; whoever calls answers what it waited for.
    pub(super) fn take_member(&mut self, member_id: &str) -> Option<Member> {
        let member = self.members.remove(member_id)?;
        self.discount_protocols(&member.protocols);
        self.members_bytes -= member.size_bytes();
        if let Some(instance_id) = &member.instance_id {
            self.static_members.remove(instance_id);
        }
        Some(member)
    }

    pub(super) fn count_protocols(&mut self, protocols: &[Protocol]) {
        for protocol in protocols {
            *self.supported.entry(Arc::clone(&protocol.name)).or_default() += 1;
        }
    }

    pub(super) fn discount_protocols(&mut self, protocols: &[Protocol]) {
        for protocol in protocols {
            if let Some(count) = self.supported.get_mut(&protocol.name) {
                *count -= 1;
                if *count == 0 {
                    self.supported.remove(&protocol.name);
                }
            }
        }
    }
}

/// Who commits offsets.
#[derive(Debug, Clone, Copy)]
pub struct CommitFrom<'a> {
    /// Empty where the committer is no member.
    pub member_id: &'a str,
    /// The instance id of a static member.
    pub instance_id: Option<&'a str>,
    /// Negative where the committer is no member.
    pub generation: i32,
    /// Part of a transaction, whose producer is fenced by its epoch.
    pub is_transactional: bool,
}

/// Answers the join that the member waits for, if it does, and says whether it did.
pub(super) fn answer_join(
    member: &mut Member,
    effects: &mut Vec<Effect>,
    answer: impl FnOnce(&MemberId) -> Result<Joined, JoinRefused>,
) -> bool {
    let Some(request) = member.join.take() else { return false };
    effects.push(Effect::Join(request, answer(&member.id)));
    true
}

/// Answers the sync that the member waits for, if it does, and says whether it did.
pub(super) fn answer_sync(
    member: &mut Member,
    effects: &mut Vec<Effect>,
    answer: impl FnOnce(&Member) -> Result<Synced, GroupError>,
) -> bool {
    let Some(request) = member.sync.take() else { return false };
    effects.push(Effect::Sync(request, answer(member)));
    true
}
