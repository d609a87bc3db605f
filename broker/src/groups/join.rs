//! JoinGroup: who may come in, under which id, and whether the group rebalances because of it.

use std::sync::Arc;

use super::error::GroupError;
use super::group::{
    Effect, Group, JoinPhase, JoinRefused, Persist, Phase, StaticRejoin, answer_join, answer_sync,
};
use super::member::{Member, MemberId, Protocol, RequestId, new_member_id, protocols_size_bytes};
use super::settings::{NEW_MEMBER_JOIN_TIMEOUT_MS, PENDING_JOIN_MS_MAX, PENDING_JOINS_MAX};

/// What a process says when it joins.
#[derive(Debug, Clone)]
pub struct Join {
    /// Empty at the first time.
    pub member_id: MemberId,
    /// Set for static members.
    pub instance_id: Option<Arc<str>>,
    /// What the process calls itself.
    pub client_id: Arc<str>,
    /// Where the process is.
    pub client_host: Arc<str>,
    /// What kind of group it takes this for.
    pub protocol_type: Arc<str>,
    /// The protocols it knows, the preferred one first.
    pub protocols: Vec<Protocol>,
    /// How long it may be silent.
    pub session_timeout_ms: i32,
    /// How long it may take to come back to a rebalance; negative where it does not say (version 0).
    pub rebalance_timeout_ms: i32,
    /// A first join is answered with an id alone, under which to join again (version 4 and later).
    pub needs_known_member_id: bool,
    /// A leader can be told to leave the assignment as it is (version 9 and later).
    pub may_skip_assignment: bool,
    /// Makes the id of a first join unique.
    pub fresh: uuid::Uuid,
}

impl Join {
    /// Bytes that the process brings, but its id, which is the coordinator's.
    pub(super) fn size_bytes(&self) -> usize {
        let instance = self.instance_id.as_ref().map_or(0, |id| id.len());
        self.client_id.len() + self.client_host.len() + instance + protocols_size_bytes(&self.protocols)
    }

    fn rebalance_timeout_ms(&self) -> i32 {
        if self.rebalance_timeout_ms < 0 { self.session_timeout_ms } else { self.rebalance_timeout_ms }
    }
}

impl Group {
    /// A process joins. It is answered now, or when the rebalance ends.
    pub fn on_join(&mut self, request: RequestId, mut join: Join, now_ms: i64, effects: &mut Vec<Effect>) {
        drop_repeated_names(&mut join.protocols);
        let member_id = Arc::clone(&join.member_id);
        let outcome = self.admit(&join, now_ms, effects).and_then(|()| {
            if member_id.is_empty() {
                self.join_first(request, join, now_ms, effects)
            } else if self.pending_joins.contains_key(&member_id) && join.instance_id.is_none() {
                self.add_member(request, Arc::clone(&member_id), join, now_ms, effects);
                Ok(())
            } else {
                self.join_again(request, join, now_ms, effects)
            }
        });
        if let Err(error) = outcome {
            effects.push(Effect::Join(request, Err(JoinRefused { error, member_id })));
        }
    }

    fn admit(&mut self, join: &Join, now_ms: i64, effects: &mut Vec<Effect>) -> Result<(), GroupError> {
        let bounds = self.settings.session_timeout_ms_min..=self.settings.session_timeout_ms_max;
        if !bounds.contains(&join.session_timeout_ms) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        if self.phase == Phase::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        if !self.has_room(join) {
            // Where the limit was lowered, those who come back last have to go.
            let ids = [Arc::clone(&join.member_id)];
            self.pending_joins.remove(&join.member_id);
            self.remove_members(&ids, now_ms, effects);
            return Err(GroupError::GroupFull);
        }
        if !self.supports(&join.protocol_type, &join.protocols) {
            return Err(GroupError::InconsistentProtocol);
        }
        Ok(())
    }

    fn has_room(&self, join: &Join) -> bool {
        let replaces = join.instance_id.as_ref().and_then(|id| self.static_members.get(id));
        let member = self.members.get(replaces.unwrap_or(&join.member_id));
        let others_bytes = self.members_bytes - member.map_or(0, Member::size_bytes);
        if others_bytes + join.size_bytes() > self.settings.group_bytes_max {
            return false;
        }
        match self.phase {
            Phase::Empty | Phase::Dead => true,
            Phase::PreparingRebalance(_) => {
                let waiting = || self.members.values().filter(|m| m.join.is_some()).count();
                member.is_some_and(|m| m.join.is_some()) || waiting() < self.settings.members_max
            }
            Phase::CompletingRebalance { .. } | Phase::Stable => {
                member.is_some() || self.members.len() < self.settings.members_max
            }
        }
    }

    fn join_first(
        &mut self,
        request: RequestId,
        join: Join,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), GroupError> {
        let new_id = new_member_id(&join.client_id, join.instance_id.as_deref(), join.fresh);
        if let Some(instance_id) = join.instance_id.clone() {
            match self.static_members.get(&instance_id).cloned() {
                Some(old_id) => {
                    self.rejoin_static(request, &instance_id, old_id, new_id, join, now_ms, effects)
                }
                None => self.add_member(request, new_id, join, now_ms, effects),
            }
        } else if join.needs_known_member_id {
            if self.pending_joins.len() >= self.settings.members_max {
                return Err(GroupError::GroupFull);
            }
            if self.pending_joins.len() >= PENDING_JOINS_MAX {
                let oldest = self.pending_joins.iter().min_by_key(|(_, until)| **until);
                if let Some(oldest) = oldest.map(|(id, _)| Arc::clone(id)) {
                    self.pending_joins.remove(&oldest);
                }
            }
            let wait_ms = i64::from(join.session_timeout_ms).min(PENDING_JOIN_MS_MAX);
            let until = now_ms.saturating_add(wait_ms);
            self.pending_joins.insert(Arc::clone(&new_id), until);
            self.wake_by(until);
            let refused = JoinRefused { error: GroupError::MemberIdRequired, member_id: new_id };
            effects.push(Effect::Join(request, Err(refused)));
        } else {
            self.add_member(request, new_id, join, now_ms, effects);
        }
        Ok(())
    }

    fn join_again(
        &mut self,
        request: RequestId,
        join: Join,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), GroupError> {
        self.check_member(&join.member_id, join.instance_id.as_deref())?;
        let id = Arc::clone(&join.member_id);
        let is_unchanged = self.members.get(&id).is_some_and(|m| m.matches(&join.protocols));
        let wants_rebalance = match self.phase {
            Phase::PreparingRebalance(_) => true,
            // Perhaps the answer to its join was lost.
            Phase::CompletingRebalance { .. } => !is_unchanged,
            // A leader that joins again has seen something that changes the assignment, as new partitions of a topic.
            Phase::Stable => !is_unchanged || self.is_leader(&id),
            Phase::Empty => return Err(GroupError::UnknownMemberId),
            Phase::Dead => return Err(GroupError::CoordinatorNotAvailable),
        };
        if wants_rebalance {
            self.update_member(request, &id, &join, effects);
            self.rebalance_or_complete_join(now_ms, effects);
        } else {
            self.refresh_session(&id, now_ms);
            effects.push(Effect::Join(request, Ok(self.joined(&id, false))));
        }
        Ok(())
    }

    fn add_member(
        &mut self,
        request: RequestId,
        id: MemberId,
        join: Join,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) {
        if let Phase::PreparingRebalance(JoinPhase::Initial { has_newcomers, .. }) = &mut self.phase {
            *has_newcomers = true;
        }
        if self.members.is_empty() {
            self.protocol_type = Some(Arc::clone(&join.protocol_type));
        }
        self.pending_joins.remove(&id);
        self.leader.get_or_insert_with(|| Arc::clone(&id));
        let session_until = now_ms.saturating_add(NEW_MEMBER_JOIN_TIMEOUT_MS);
        self.wake_by(session_until);
        self.insert_member(Member {
            id,
            rebalance_timeout_ms: join.rebalance_timeout_ms(),
            instance_id: join.instance_id,
            client_id: join.client_id,
            client_host: join.client_host,
            session_timeout_ms: join.session_timeout_ms,
            protocols: join.protocols,
            assignment: bytes::Bytes::new(),
            join: Some(request),
            sync: None,
            is_new: true,
            session_until: Some(session_until),
        });
        self.rebalance_or_complete_join(now_ms, effects);
    }

    /// Takes over what a member says now, and lets it wait for the end of the rebalance.
    fn update_member(&mut self, request: RequestId, id: &MemberId, join: &Join, effects: &mut Vec<Effect>) {
        let Some(mut member) = self.take_member(id) else { return };
        let refuse_older = |id: &MemberId| {
            Err(JoinRefused { error: GroupError::RebalanceInProgress, member_id: Arc::clone(id) })
        };
        answer_join(&mut member, effects, refuse_older);
        member.protocols.clone_from(&join.protocols);
        member.session_timeout_ms = join.session_timeout_ms;
        member.rebalance_timeout_ms = join.rebalance_timeout_ms();
        member.client_id = Arc::clone(&join.client_id);
        member.client_host = Arc::clone(&join.client_host);
        member.join = Some(request);
        self.insert_member(member);
    }

    /// A process with the instance id of a member joins for the first time: it takes that member's place, and the older
    /// process is fenced. Where the protocol stays as it is, nobody else notices.
    #[expect(clippy::too_many_arguments, reason = "the ids are not the request's")]
    fn rejoin_static(
        &mut self,
        request: RequestId,
        instance_id: &Arc<str>,
        old_id: MemberId,
        new_id: MemberId,
        join: Join,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) {
        let old_leader = self.leader.clone();
        let Some(old) = self.replace_member(&old_id, &new_id, effects) else { return };
        self.update_member(request, &new_id, &join, effects);
        self.refresh_session(&new_id, now_ms);
        match self.phase {
            Phase::Stable if self.vote() == self.protocol => {
                let rejoin = StaticRejoin {
                    request,
                    generation: self.generation,
                    instance_id: Arc::clone(instance_id),
                    old_id,
                    new_id,
                    old_leader,
                    old_protocols: old.protocols,
                    old_rebalance_timeout_ms: old.rebalance_timeout_ms,
                    old_session_timeout_ms: old.session_timeout_ms,
                    may_skip_assignment: join.may_skip_assignment,
                };
                effects.push(Effect::Persist(Persist::StaticMember(Box::new(rejoin)), self.snapshot()));
            }
            // The leader may assign to the old id meanwhile, so the new one would come away empty.
            Phase::Stable | Phase::CompletingRebalance { .. } => self.prepare_rebalance(now_ms, effects),
            Phase::PreparingRebalance(_) => self.complete_join_if_all_are_back(now_ms, effects),
            Phase::Empty | Phase::Dead => {}
        }
    }

    /// Gives a static member another id, fences whoever waits under the old one, and returns the member as it was.
    pub(super) fn replace_member(
        &mut self,
        old_id: &MemberId,
        new_id: &MemberId,
        effects: &mut Vec<Effect>,
    ) -> Option<Member> {
        let owes_sync = self.pending_syncs.remove(old_id);
        let mut old = self.take_member(old_id)?;
        let error = GroupError::FencedInstanceId;
        answer_join(&mut old, effects, |id| Err(JoinRefused { error, member_id: Arc::clone(id) }));
        answer_sync(&mut old, effects, |_| Err(error));
        if self.is_leader(old_id) {
            self.leader = Some(Arc::clone(new_id));
        }
        if owes_sync {
            self.pending_syncs.insert(Arc::clone(new_id));
        }
        self.insert_member(Member { id: Arc::clone(new_id), is_new: false, ..old.clone() });
        Some(old)
    }

    /// The static member's new id is in the log, or is not.
    pub(super) fn on_static_persisted(
        &mut self,
        rejoin: &StaticRejoin,
        result: Result<(), GroupError>,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) {
        if result.is_ok() {
            self.unwritten_rejoins.retain(|other| other.instance_id != rejoin.instance_id);
        }
        if self.phase != Phase::Stable || self.generation != rejoin.generation {
            // Answered by the rebalance that has begun since.
            return;
        }
        if self.members.get(&rejoin.new_id).is_none_or(|m| m.join != Some(rejoin.request)) {
            // Fenced by a newer process, or gone. Whoever came in its place may have to give way to what the log has.
            if result.is_err() {
                self.unwritten_rejoins.retain(|other| other.generation == rejoin.generation);
                self.unwritten_rejoins.push(rejoin.clone());
            }
            return;
        }
        let Err(error) = result else {
            let mut joined = self.joined(&rejoin.new_id, rejoin.may_skip_assignment);
            if !rejoin.may_skip_assignment && self.is_leader(&rejoin.new_id) {
                // A leader that is not told to skip would assign, and a stable group would not hear of it. So it is not
                // told that it leads.
                joined.leader = rejoin.old_leader.clone().unwrap_or_default();
                joined.members.clear();
            }
            if let Some(member) = self.members.get_mut(&rejoin.new_id) {
                answer_join(member, effects, |_| Ok(joined));
            }
            self.refresh_session(&rejoin.new_id, now_ms);
            return;
        };
        if let Some(member) = self.members.get_mut(&rejoin.new_id) {
            let refused = JoinRefused { error, member_id: MemberId::default() };
            answer_join(member, effects, |_| Err(refused));
        }
        let written = self.before_unwritten(rejoin.clone());
        self.replace_member(&rejoin.new_id, &written.old_id, effects);
        if let Some(mut member) = self.take_member(&written.old_id) {
            member.protocols = written.old_protocols;
            member.rebalance_timeout_ms = written.old_rebalance_timeout_ms;
            member.session_timeout_ms = written.old_session_timeout_ms;
            self.insert_member(member);
        }
        self.refresh_session(&written.old_id, now_ms);
    }

    /// Of several that came one after the other, none of them written, the first: it replaced the one that the log has.
    fn before_unwritten(&mut self, mut rejoin: StaticRejoin) -> StaticRejoin {
        while let Some(at) = self.unwritten_rejoins.iter().position(|r| r.new_id == rejoin.old_id) {
            rejoin = self.unwritten_rejoins.swap_remove(at);
        }
        rejoin
    }
}

/// A name that a process lists twice would be counted as known by two.
fn drop_repeated_names(protocols: &mut Vec<Protocol>) {
    let mut seen = std::collections::HashSet::new();
    protocols.retain(|p| seen.insert(Arc::clone(&p.name)));
}
