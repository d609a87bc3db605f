//! What is kept of a group across restarts: a generation with its members and what each of them does.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::group::{Effect, Group, Phase};
use super::member::{Member, MemberId, Protocol};
use super::settings::GroupSettings;

/// A generation of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSnapshot {
    /// The group's id.
    pub group_id: Arc<str>,
    /// What kind of group it is.
    pub protocol_type: Option<Arc<str>>,
    /// The generation.
    pub generation: i32,
    /// The protocol of the generation; none without members.
    pub protocol: Option<Arc<str>>,
    /// The member that assigned.
    pub leader: Option<MemberId>,
    /// By the calendar, when the group came into its state; unknown in old records.
    pub state_since_ms: Option<i64>,
    /// The members.
    pub members: Vec<MemberSnapshot>,
}

/// A member of a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberSnapshot {
    /// Its id.
    pub id: MemberId,
    /// Its instance id, where it is static.
    pub instance_id: Option<Arc<str>>,
    /// What its process calls itself.
    pub client_id: Arc<str>,
    /// Where its process is.
    pub client_host: Arc<str>,
    /// How long it may take to come back to a rebalance.
    pub rebalance_timeout_ms: i32,
    /// How long it may be silent.
    pub session_timeout_ms: i32,
    /// What it says about itself under the protocol of the generation.
    pub metadata: Bytes,
    /// What it does.
    pub assignment: Bytes,
}

impl Group {
    /// The group as it is to be kept, with these assignments in place of those that members have now.
    pub(super) fn snapshot_with(&self, assignments: &BTreeMap<MemberId, Bytes>) -> GroupSnapshot {
        self.snapshot_by(|member| assignments.get(&member.id).cloned().unwrap_or_default())
    }

    /// The group as it is.
    #[must_use]
    pub fn snapshot(&self) -> GroupSnapshot {
        self.snapshot_by(|member| member.assignment.clone())
    }

    fn snapshot_by(&self, assignment: impl Fn(&Member) -> Bytes) -> GroupSnapshot {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let snapshot_member = |member: &Member| MemberSnapshot {
            id: Arc::clone(&member.id),
            instance_id: member.instance_id.clone(),
            client_id: Arc::clone(&member.client_id),
            client_host: Arc::clone(&member.client_host),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            metadata: member.metadata(protocol),
            assignment: assignment(member),
        };
        GroupSnapshot {
            group_id: Arc::clone(&self.id),
            protocol_type: self.protocol_type.clone(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_since_ms: self.state_since_ms,
            members: self.members.values().map(snapshot_member).collect(),
        }
    }

    /// The group as it was kept. Its members' sessions begin with [`Group::on_loaded`].
    #[must_use]
    pub fn from_snapshot(snapshot: GroupSnapshot, settings: Arc<GroupSettings>) -> Group {
        let mut group = Group::new(snapshot.group_id, settings);
        group.generation = snapshot.generation;
        group.protocol_type = snapshot.protocol_type;
        group.protocol = snapshot.protocol;
        group.leader = snapshot.leader;
        group.state_since_ms = snapshot.state_since_ms;
        for kept in snapshot.members {
            let name = group.protocol.clone().unwrap_or_default();
            group.insert_member(Member {
                id: kept.id,
                instance_id: kept.instance_id,
                client_id: kept.client_id,
                client_host: kept.client_host,
                rebalance_timeout_ms: kept.rebalance_timeout_ms,
                session_timeout_ms: kept.session_timeout_ms,
                protocols: vec![Protocol { name, metadata: kept.metadata }],
                assignment: kept.assignment,
                join: None,
                sync: None,
                is_new: false,
                session_until: None,
            });
        }
        if !group.members.is_empty() {
            group.phase = Phase::Stable;
            // A record may name a leader that has left since.
            if group.leader.as_ref().is_none_or(|id| !group.members.contains_key(id)) {
                group.leader = group.members.keys().next().cloned();
            }
        }
        group
    }

    /// The group is loaded and its members may be heard of again. One that is larger than it may be now begins with a rebalance.
    pub fn on_loaded(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        let ids: Vec<MemberId> = self.members.keys().cloned().collect();
        for id in &ids {
            self.refresh_session(id, now_ms);
        }
        if self.phase == Phase::Stable && self.members.len() > self.settings.members_max {
            self.prepare_rebalance(now_ms, effects);
        }
    }
}
