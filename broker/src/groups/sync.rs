//! SyncGroup: the leader says who does what, everybody else waits for it; and what becomes of what was to be written.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::error::GroupError;
use super::group::{Effect, Group, Persist, Phase, Synced, answer_sync};
use super::member::{Member, MemberId, RequestId};

/// What a member says when it asks for its assignment.
#[derive(Debug, Clone)]
pub struct Sync {
    /// The member.
    pub member_id: MemberId,
    /// Set for static members.
    pub instance_id: Option<Arc<str>>,
    /// The generation it was told of.
    pub generation: i32,
    /// The kind of group it takes this for, where it says so.
    pub protocol_type: Option<Arc<str>>,
    /// The protocol it was told of, where it says so.
    pub protocol: Option<Arc<str>>,
    /// Who does what; only the leader's counts.
    pub assignments: Vec<(MemberId, Bytes)>,
}

impl Group {
    /// A member asks for its assignment. It is answered now, or when the leader's is written.
    pub fn on_sync(&mut self, request: RequestId, sync: Sync, now_ms: i64, effects: &mut Vec<Effect>) {
        if let Err(error) = self.try_sync(request, sync, now_ms, effects) {
            effects.push(Effect::Sync(request, Err(error)));
        }
    }

    fn try_sync(
        &mut self,
        request: RequestId,
        sync: Sync,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), GroupError> {
        self.check_sync(&sync)?;
        match self.phase {
            Phase::Empty => Err(GroupError::UnknownMemberId),
            Phase::Dead => Err(GroupError::CoordinatorNotAvailable),
            Phase::PreparingRebalance(_) => Err(GroupError::RebalanceInProgress),
            Phase::Stable => {
                self.note_sync(&sync.member_id);
                self.refresh_session(&sync.member_id, now_ms);
                let member = self.members.get(&sync.member_id).ok_or(GroupError::UnknownMemberId)?;
                effects.push(Effect::Sync(request, Ok(self.synced(member))));
                Ok(())
            }
            Phase::CompletingRebalance { is_persisting } => {
                self.note_sync(&sync.member_id);
                let is_leader = self.is_leader(&sync.member_id);
                let member = self.members.get_mut(&sync.member_id).ok_or(GroupError::UnknownMemberId)?;
                // An older request of the same member; its process has given it up.
                answer_sync(member, effects, |_| Err(GroupError::RebalanceInProgress));
                if is_leader && !is_persisting {
                    self.persist_assignment(sync.assignments, effects)?;
                }
                if let Some(member) = self.members.get_mut(&sync.member_id) {
                    member.sync = Some(request);
                }
                Ok(())
            }
        }
    }

    fn check_sync(&self, sync: &Sync) -> Result<(), GroupError> {
        if self.phase == Phase::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        self.check_member(&sync.member_id, sync.instance_id.as_deref())?;
        if sync.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        let differs =
            |said: &Option<Arc<str>>, is: &Option<Arc<str>>| said.is_some() && is.is_some() && said != is;
        if differs(&sync.protocol_type, &self.protocol_type) || differs(&sync.protocol, &self.protocol) {
            return Err(GroupError::InconsistentProtocol);
        }
        Ok(())
    }

    fn note_sync(&mut self, member_id: &str) {
        self.pending_syncs.remove(member_id);
        if self.pending_syncs.is_empty() {
            self.sync_until = None;
        }
    }

    /// Only members are assigned to; a member that the leader leaves out gets nothing to do.
    fn persist_assignment(
        &mut self,
        assigned: Vec<(MemberId, Bytes)>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), GroupError> {
        let mut said: HashMap<MemberId, Bytes> = assigned.into_iter().collect();
        let assignments: BTreeMap<MemberId, Bytes> =
            self.members.keys().map(|id| (Arc::clone(id), said.remove(id).unwrap_or_default())).collect();
        let assignments_bytes: usize = assignments.values().map(Bytes::len).sum();
        let brought_bytes =
            self.members_bytes - self.members.values().map(|m| m.assignment.len()).sum::<usize>();
        if brought_bytes + assignments_bytes > self.settings.group_bytes_max {
            return Err(GroupError::RecordTooLarge);
        }
        let snapshot = self.snapshot_with(&assignments);
        self.phase = Phase::CompletingRebalance { is_persisting: true };
        let generation = self.generation;
        effects.push(Effect::Persist(Persist::Assignment { generation, assignments }, snapshot));
        Ok(())
    }

    fn synced(&self, member: &Member) -> Synced {
        Synced {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: member.assignment.clone(),
        }
    }

    /// What the group wanted written is in the log, or is not.
    pub fn on_persisted(
        &mut self,
        persist: &Persist,
        result: Result<(), GroupError>,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) {
        match persist {
            // A generation without members is no loss: the one before it has nobody left either.
            Persist::Emptied => {}
            Persist::StaticMember(rejoin) => self.on_static_persisted(rejoin, result, now_ms, effects),
            Persist::Assignment { generation, assignments } => {
                let awaits = self.phase == Phase::CompletingRebalance { is_persisting: true };
                if !awaits || self.generation != *generation {
                    return;
                }
                match result {
                    Ok(()) => self.become_stable(assignments, now_ms, effects),
                    Err(error) => {
                        self.give_up_assignment(error, now_ms, effects);
                        self.prepare_rebalance(now_ms, effects);
                    }
                }
            }
        }
    }

    fn become_stable(
        &mut self,
        assignments: &BTreeMap<MemberId, Bytes>,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) {
        self.phase = Phase::Stable;
        let ids: Vec<MemberId> = self.members.keys().cloned().collect();
        for id in &ids {
            let assignment = assignments.get(id).cloned().unwrap_or_default();
            let Some(member) = self.members.get_mut(id) else { continue };
            self.members_bytes = self.members_bytes - member.assignment.len() + assignment.len();
            member.assignment = assignment;
            let synced = Synced {
                protocol_type: self.protocol_type.clone(),
                protocol: self.protocol.clone(),
                assignment: member.assignment.clone(),
            };
            if answer_sync(member, effects, |_| Ok(synced)) {
                self.refresh_session(id, now_ms);
            }
        }
    }
}
