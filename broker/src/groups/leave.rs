//! Heartbeat and LeaveGroup: members say that they are there, or that they go.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::error::GroupError;
use super::group::{Effect, Group, Phase};
use super::member::MemberId;

/// Who is to leave.
#[derive(Debug, Clone, Copy)]
pub struct Leaving<'a> {
    /// Empty where an operator names a static member by its instance id alone.
    pub member_id: &'a str,
    /// Set for static members.
    pub instance_id: Option<&'a str>,
}

impl Group {
    /// A member says that it is there.
    pub fn on_heartbeat(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        now_ms: i64,
    ) -> Result<(), GroupError> {
        if self.phase == Phase::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        self.check_member(member_id, instance_id)?;
        if generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        match self.phase {
            Phase::Empty | Phase::Dead => Err(GroupError::UnknownMemberId),
            Phase::PreparingRebalance(_) => {
                // It is told to join again, and needs its session until it has done so.
                self.refresh_session(member_id, now_ms);
                Err(GroupError::RebalanceInProgress)
            }
            Phase::CompletingRebalance { .. } | Phase::Stable => {
                self.refresh_session(member_id, now_ms);
                Ok(())
            }
        }
    }

    /// Members leave; the answer has one entry for each of `leaving`.
    pub fn on_leave(
        &mut self,
        leaving: &[Leaving<'_>],
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        if self.phase == Phase::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        let mut gone: BTreeSet<MemberId> = BTreeSet::new();
        let mut pending_has_left = false;
        let mut answers = Vec::with_capacity(leaving.len());
        for one in leaving {
            if one.instance_id.is_none() && self.pending_joins.remove(one.member_id).is_some() {
                pending_has_left = true;
                answers.push(Ok(()));
                continue;
            }
            // Named twice in one request: the second one is not there any more.
            let leave_once = |id| if gone.insert(id) { Ok(()) } else { Err(GroupError::UnknownMemberId) };
            answers.push(self.leaving_member(one).and_then(leave_once));
        }
        let gone: Vec<MemberId> = gone.into_iter().collect();
        self.remove_members(&gone, now_ms, effects);
        if pending_has_left {
            self.complete_join_if_all_are_back(now_ms, effects);
        }
        Ok(answers)
    }

    fn leaving_member(&self, one: &Leaving<'_>) -> Result<MemberId, GroupError> {
        if let (true, Some(instance_id)) = (one.member_id.is_empty(), one.instance_id) {
            return self.static_members.get(instance_id).cloned().ok_or(GroupError::UnknownMemberId);
        }
        self.check_member(one.member_id, one.instance_id)?;
        Ok(Arc::from(one.member_id))
    }
}
