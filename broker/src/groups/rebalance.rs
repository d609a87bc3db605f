//! How a group comes from one generation to the next: joins are collected, the generation is formed, and what is overdue is
//! given up.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::GroupError;
use super::group::{
    Effect, Group, JoinPhase, JoinRefused, Joined, JoinedMember, Persist, Phase, answer_join, answer_sync,
};
use super::member::{Member, MemberId};

impl Group {
    /// Time has passed. May be called at any time; does nothing before [`Group::deadline`].
    pub fn on_timer(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        if now_ms < self.wake_at {
            return;
        }
        self.expire_pending_joins(now_ms, effects);
        self.expire_sessions(now_ms, effects);
        self.expire_syncs(now_ms, effects);
        self.expire_join_phase(now_ms, effects);
        self.wake_at = self.earliest_deadline();
    }

    fn earliest_deadline(&self) -> i64 {
        let phase = match self.phase {
            Phase::PreparingRebalance(JoinPhase::Initial { until, .. } | JoinPhase::Rejoin { until }) => {
                Some(until)
            }
            Phase::Empty | Phase::CompletingRebalance { .. } | Phase::Stable | Phase::Dead => None,
        };
        let sessions = self.members.values().filter_map(|m| m.session_until);
        let pending = self.pending_joins.values().copied();
        sessions.chain(pending).chain(phase).chain(self.sync_until).min().unwrap_or(i64::MAX)
    }

    fn expire_pending_joins(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        let before = self.pending_joins.len();
        self.pending_joins.retain(|_, until| *until > now_ms);
        if self.pending_joins.len() < before {
            self.complete_join_if_all_are_back(now_ms, effects);
        }
    }

    fn expire_sessions(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        let mut gone = Vec::new();
        for member in self.members.values_mut() {
            if member.session_until.is_none_or(|until| until > now_ms) {
                continue;
            }
            if member.is_excused() {
                // The answer that it waits for begins its session again.
                member.session_until = None;
            } else {
                gone.push(Arc::clone(&member.id));
            }
        }
        self.remove_members(&gone, now_ms, effects);
    }

    /// Members that never ask for their assignment would hold back the others for ever (KAFKA-12890).
    fn expire_syncs(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        if self.sync_until.is_none_or(|until| until > now_ms) {
            return;
        }
        self.sync_until = None;
        let silent: Vec<MemberId> = std::mem::take(&mut self.pending_syncs).into_iter().collect();
        self.remove_members(&silent, now_ms, effects);
    }

    fn expire_join_phase(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        let Phase::PreparingRebalance(phase) = self.phase else { return };
        match phase {
            JoinPhase::Initial { until, .. } | JoinPhase::Rejoin { until } if until > now_ms => {}
            JoinPhase::Initial { delay_ms, remaining_ms, has_newcomers: true, .. } if remaining_ms > 0 => {
                let next_ms = remaining_ms.min(i64::from(self.settings.initial_rebalance_delay_ms));
                self.phase = Phase::PreparingRebalance(JoinPhase::Initial {
                    until: now_ms.saturating_add(next_ms),
                    delay_ms: next_ms,
                    remaining_ms: (remaining_ms - delay_ms).max(0),
                    has_newcomers: false,
                });
            }
            JoinPhase::Initial { .. } | JoinPhase::Rejoin { .. } => self.complete_join(now_ms, effects),
        }
    }

    /// Takes members out for good, answers what they waited for, and lets the others go on without them.
    pub(super) fn remove_members(&mut self, ids: &[MemberId], now_ms: i64, effects: &mut Vec<Effect>) {
        let mut has_removed = false;
        for id in ids {
            let Some(mut member) = self.take_member(id) else { continue };
            has_removed = true;
            self.pending_syncs.remove(id);
            let error = GroupError::UnknownMemberId;
            answer_join(&mut member, effects, |id| Err(JoinRefused { error, member_id: Arc::clone(id) }));
            answer_sync(&mut member, effects, |_| Err(error));
            if self.is_leader(id) {
                self.leader = self.members.keys().next().cloned();
            }
        }
        if has_removed {
            self.rebalance_or_complete_join(now_ms, effects);
        }
    }

    /// Something about the members has changed.
    pub(super) fn rebalance_or_complete_join(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        match self.phase {
            Phase::Stable | Phase::CompletingRebalance { .. } => self.prepare_rebalance(now_ms, effects),
            Phase::Empty if self.members.is_empty() => {}
            Phase::Empty => self.prepare_rebalance(now_ms, effects),
            Phase::PreparingRebalance(_) => self.complete_join_if_all_are_back(now_ms, effects),
            Phase::Dead => {}
        }
    }

    pub(super) fn prepare_rebalance(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        if matches!(self.phase, Phase::CompletingRebalance { .. }) {
            self.give_up_assignment(GroupError::RebalanceInProgress, now_ms, effects);
        }
        self.pending_syncs.clear();
        self.sync_until = None;
        let timeout_ms = self.rebalance_timeout_ms();
        if self.phase != Phase::Empty {
            let until = now_ms.saturating_add(timeout_ms);
            self.phase = Phase::PreparingRebalance(JoinPhase::Rejoin { until });
            self.wake_by(until);
            self.complete_join_if_all_are_back(now_ms, effects);
            return;
        }
        // The others start at about the same time as the first; each rebalance saved is a stop of all of them saved.
        let delay_ms = i64::from(self.settings.initial_rebalance_delay_ms);
        let until = now_ms.saturating_add(delay_ms);
        self.phase = Phase::PreparingRebalance(JoinPhase::Initial {
            until,
            delay_ms,
            remaining_ms: (timeout_ms - delay_ms).max(0),
            has_newcomers: false,
        });
        self.wake_by(until);
        if delay_ms <= 0 {
            self.complete_join(now_ms, effects);
        }
    }

    /// All who wait for an assignment of this generation get `error` in its place.
    pub(super) fn give_up_assignment(&mut self, error: GroupError, now_ms: i64, effects: &mut Vec<Effect>) {
        let mut answered = Vec::new();
        for member in self.members.values_mut() {
            self.members_bytes -= std::mem::take(&mut member.assignment).len();
            if answer_sync(member, effects, |_| Err(error)) {
                answered.push(Arc::clone(&member.id));
            }
        }
        for id in answered {
            self.refresh_session(&id, now_ms);
        }
    }

    pub(super) fn complete_join_if_all_are_back(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        let Phase::PreparingRebalance(JoinPhase::Rejoin { .. }) = self.phase else { return };
        if self.pending_joins.is_empty() && self.members.values().all(|m| m.join.is_some()) {
            self.complete_join(now_ms, effects);
        }
    }

    /// Forms the next generation of those who have joined. Static members may be away for as long as their session lasts.
    fn complete_join(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        let is_away = |m: &&Member| m.join.is_none() && !m.is_static();
        let away: Vec<MemberId> = self.members.values().filter(is_away).map(|m| Arc::clone(&m.id)).collect();
        for id in &away {
            self.take_member(id);
        }
        self.elect_joined_leader();
        if self.members.is_empty() {
            self.become_empty(effects);
        } else if self.members.values().all(|m| m.join.is_none()) {
            // Static members alone, all of them away: their sessions decide.
            let until = now_ms.saturating_add(self.rebalance_timeout_ms().max(1));
            self.phase = Phase::PreparingRebalance(JoinPhase::Rejoin { until });
            self.wake_by(until);
        } else {
            self.begin_generation(now_ms, effects);
        }
    }

    fn elect_joined_leader(&mut self) {
        let has_joined = |id: &MemberId| self.members.get(id).is_some_and(|m| m.join.is_some());
        if !self.leader.as_ref().is_some_and(has_joined) {
            let joined = self.members.values().find(|m| m.join.is_some());
            let any = joined.or_else(|| self.members.values().next());
            self.leader = any.map(|m| Arc::clone(&m.id));
        }
    }

    fn next_generation(&mut self) {
        self.generation = self.generation.checked_add(1).unwrap_or(0);
        self.pending_syncs.clear();
        self.sync_until = None;
    }

    fn become_empty(&mut self, effects: &mut Vec<Effect>) {
        self.next_generation();
        self.protocol = None;
        self.leader = None;
        self.phase = Phase::Empty;
        effects.push(Effect::Persist(Persist::Emptied, self.snapshot_with(&BTreeMap::new())));
    }

    fn begin_generation(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        self.next_generation();
        self.protocol = self.vote();
        self.phase = Phase::CompletingRebalance { is_persisting: false };
        let ids: Vec<MemberId> = self.members.keys().cloned().collect();
        for id in &ids {
            let joined = self.joined(id, false);
            let Some(member) = self.members.get_mut(id) else { continue };
            member.is_new = false;
            // A static member that is away is not heard of by this.
            if answer_join(member, effects, |_| Ok(joined)) {
                self.refresh_session(id, now_ms);
            }
        }
        self.pending_syncs.extend(ids);
        let until = now_ms.saturating_add(self.rebalance_timeout_ms());
        self.sync_until = Some(until);
        self.wake_by(until);
    }

    /// What a member is told about the current generation.
    pub(super) fn joined(&self, member_id: &MemberId, skip_assignment: bool) -> Joined {
        let is_leader = self.is_leader(member_id);
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member_id: Arc::clone(member_id),
            members: if is_leader { self.joined_members() } else { Vec::new() },
            skip_assignment: skip_assignment && is_leader,
        }
    }

    fn joined_members(&self) -> Vec<JoinedMember> {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let joined = |m: &Member| JoinedMember {
            id: Arc::clone(&m.id),
            instance_id: m.instance_id.clone(),
            metadata: m.metadata(protocol),
        };
        self.members.values().map(joined).collect()
    }
}
