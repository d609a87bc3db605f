//! The groups of one partition of `__consumer_offsets`: requests are decided here, and become writes; what the log has taken
//! changes what is known. Does no I/O and waits for nothing: [`shard_task`](super::shard_task) writes.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, OnceLock};

use floodmark_proto::ids::{Offset, ProducerId};
use tokio::sync::oneshot;

use super::budget::Budget;
use super::error::GroupError;
use super::group::{Effect, Group, GroupState, JoinRefused, Joined, Persist, Synced};
use super::join::Join;
use super::leave::Leaving;
use super::member::RequestId;
use super::offsets::{CommittedOffset, GroupOffsets, TopicPartition};
use super::records::{self, KeyValue};
use super::settings::{GroupSettings, PENDING_GROUPS_MAX};
use super::sync::Sync;

/// A moment, by both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// Milliseconds that never go back; of no calendar.
    pub(super) steady_ms: i64,
    /// Milliseconds since the Unix epoch.
    pub(super) wall_ms: i64,
}

/// What is to be written, and what then happens.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) batch: Batch,
    pub(super) then: Then,
}

/// Records in the order of their offsets.
#[derive(Debug)]
pub(super) enum Batch {
    Plain(Vec<KeyValue>),
    Transactional { producer: ProducerId, epoch: i16, records: Vec<KeyValue> },
    EndTransaction { producer: ProducerId, epoch: i16, coordinator_epoch: i32, is_commit: bool },
}

/// What happens once a write is in the log, or cannot be.
#[derive(Debug)]
pub(super) enum Then {
    Persisted { group: Arc<str>, persist: Persist },
    Committed { group: Arc<str>, offsets: Vec<NewOffset>, producer: Option<ProducerId>, reply: Reply },
    Deleted(Deletion),
    TransactionEnded { producer: ProducerId, is_commit: bool, reply: Reply },
}

impl Then {
    /// The group that is written of, where it is one.
    pub(super) fn group(&self) -> Option<&str> {
        match self {
            Then::Persisted { group, .. } | Then::Committed { group, .. } => Some(group),
            Then::Deleted(deletion) => Some(&deletion.group),
            Then::TransactionEnded { .. } => None,
        }
    }
}

/// Offsets that go, and their group with them, in parts of which one is written now.
#[derive(Debug)]
pub(super) struct Deletion {
    pub(super) group: Arc<str>,
    /// Those whose tombstones are on their way.
    pub(super) partitions: Vec<TopicPartition>,
    /// Those whose turn comes then.
    pub(super) rest: Vec<TopicPartition>,
    pub(super) with_group: bool,
    pub(super) reply: Option<Reply>,
    /// Why one of the parts that were queued together could not be written.
    pub(super) failed: Arc<OnceLock<GroupError>>,
}

pub(super) type Reply = oneshot::Sender<Result<(), GroupError>>;
pub(super) type NewOffset = (Arc<str>, i32, CommittedOffset);

/// A group with all that belongs to it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) group: Group,
    pub(super) offsets: GroupOffsets,
    /// The log has, or is about to have, a record of the group, so that it needs a tombstone.
    pub(super) has_record: bool,
    /// It is one of the groups that there may be so many of, and stays so until it is forgotten. Where nothing is there but ids that wait for
    /// their members it is not.
    pub(super) is_counted: bool,
    /// Of its members' bytes, those that are counted.
    pub(super) counted_bytes: usize,
    /// The deadline under which it stands in [`ShardState::deadlines`].
    pub(super) scheduled_at: Option<i64>,
}

impl Entry {
    pub(super) fn new(group: Group) -> Entry {
        Entry {
            group,
            offsets: GroupOffsets::default(),
            has_record: false,
            is_counted: true,
            counted_bytes: 0,
            scheduled_at: None,
        }
    }

    /// Nothing would be lost if nobody knew of it.
    fn is_idle(&self) -> bool {
        !self.has_record
            && self.offsets.is_empty()
            && self.group.is_deserted()
            && self.group.state() == GroupState::Empty
    }
}

/// Whether requests are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// The log is being read.
    Loading,
    /// Yes.
    Active,
    /// No more: another coordinator has taken over, or none.
    Gone,
}

#[derive(Debug)]
pub(super) struct ShardState {
    pub(super) settings: Arc<GroupSettings>,
    pub(super) status: Status,
    pub(super) groups: HashMap<Arc<str>, Entry>,
    /// Shared with all other shards.
    budget: Arc<Budget>,
    /// Groups in which nobody was but ids that wait, in the order in which they came; some are more by now, or gone.
    pending: VecDeque<Arc<str>>,
    pub(super) deadlines: BTreeSet<(i64, Arc<str>)>,
    joins: HashMap<RequestId, oneshot::Sender<Result<Joined, JoinRefused>>>,
    syncs: HashMap<RequestId, oneshot::Sender<Result<Synced, GroupError>>>,
    next_request: u64,
    /// Writes that were decided; whoever holds the state passes them on before letting it go.
    pub(super) outbox: Vec<Write>,
    /// Since the last expiry, of a deletion that nobody waits for.
    pub(super) has_told_of_deletion: bool,
}

impl ShardState {
    pub(super) fn new(settings: Arc<GroupSettings>, budget: Arc<Budget>) -> ShardState {
        ShardState {
            settings,
            status: Status::Loading,
            groups: HashMap::new(),
            budget,
            pending: VecDeque::new(),
            deadlines: BTreeSet::new(),
            joins: HashMap::new(),
            syncs: HashMap::new(),
            next_request: 0,
            outbox: Vec::new(),
            has_told_of_deletion: false,
        }
    }

    pub(super) fn check_active(&self) -> Result<(), GroupError> {
        match self.status {
            Status::Active => Ok(()),
            Status::Loading => Err(GroupError::CoordinatorLoading),
            Status::Gone => Err(GroupError::NotCoordinator),
        }
    }

    pub(super) fn join(
        &mut self,
        group: &str,
        join: Join,
        now: Now,
        reply: oneshot::Sender<Result<Joined, JoinRefused>>,
    ) -> Result<(), GroupError> {
        self.check_active()?;
        let is_new = !self.groups.contains_key(group);
        if is_new && !join.member_id.is_empty() {
            return Err(GroupError::UnknownMemberId);
        }
        let known_bytes = self
            .groups
            .get(group)
            .map_or(0, |entry| entry.group.bytes_of(&join.member_id, join.instance_id.as_deref()));
        self.budget.check_bytes(join.size_bytes().saturating_sub(known_bytes), &self.settings)?;
        // Such a join is told an id, and whoever never comes back with it leaves nothing.
        let only_asks = join.member_id.is_empty() && join.instance_id.is_none() && join.needs_known_member_id;
        let id = if only_asks { self.entry_or_pending(group) } else { self.entry_or_new(group)? };
        let request = self.next_request();
        self.joins.insert(request, reply);
        self.act(&id, now, |group, effects| group.on_join(request, join, now.steady_ms, effects));
        Ok(())
    }

    pub(super) fn sync(
        &mut self,
        group: &str,
        sync: Sync,
        now: Now,
        reply: oneshot::Sender<Result<Synced, GroupError>>,
    ) -> Result<(), GroupError> {
        self.check_active()?;
        let id = self.known(group).ok_or(GroupError::UnknownMemberId)?;
        let assigned_bytes = self.groups.get(group).map_or(0, |entry| entry.group.assigned_bytes());
        let brought_bytes: usize = sync.assignments.iter().map(|(_, assignment)| assignment.len()).sum();
        self.budget.check_bytes(brought_bytes.saturating_sub(assigned_bytes), &self.settings)?;
        let request = self.next_request();
        self.syncs.insert(request, reply);
        self.act(&id, now, |group, effects| group.on_sync(request, sync, now.steady_ms, effects));
        Ok(())
    }

    pub(super) fn heartbeat(
        &mut self,
        group: &str,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        now: Now,
    ) -> Result<(), GroupError> {
        self.check_active()?;
        // Sessions only get longer: nothing has to be rescheduled.
        let entry = self.groups.get_mut(group).ok_or(GroupError::UnknownMemberId)?;
        entry.group.on_heartbeat(member_id, instance_id, generation, now.steady_ms)
    }

    pub(super) fn leave(
        &mut self,
        group: &str,
        leaving: &[Leaving<'_>],
        now: Now,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        self.check_active()?;
        let id = self.known(group).ok_or(GroupError::UnknownMemberId)?;
        self.act(&id, now, |group, effects| group.on_leave(leaving, now.steady_ms, effects))
            .unwrap_or(Err(GroupError::UnknownMemberId))
    }

    /// The earliest time at which [`ShardState::on_timer`] has something to do.
    pub(super) fn deadline(&self) -> Option<i64> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    pub(super) fn on_timer(&mut self, now: Now) {
        while let Some((at, id)) = self.deadlines.pop_first() {
            if at > now.steady_ms {
                self.deadlines.insert((at, id));
                return;
            }
            if let Some(entry) = self.groups.get_mut(&id) {
                entry.scheduled_at = None;
            }
            self.act(&id, now, |group, effects| group.on_timer(now.steady_ms, effects));
        }
    }

    /// Whatever is overdue in a group happens now. The task that tells the time comes when its thread has its turn; who asks whether
    /// somebody is still there has often slept for just as long as a session lasts, and is answered by the clock.
    pub(super) fn catch_up(&mut self, group: &str, now: Now) {
        if let Some(id) = self.known(group) {
            self.act(&id, now, |group, effects| group.on_timer(now.steady_ms, effects));
        }
    }

    /// The log has taken a write, its first record at the offset given, or has not.
    pub(super) fn on_written(&mut self, then: Then, result: Result<Offset, GroupError>, now: Now) {
        match then {
            Then::Persisted { group, persist } => {
                let result = result.map(drop);
                self.act(&group, now, |group, effects| {
                    group.on_persisted(&persist, result, now.steady_ms, effects);
                });
            }
            Then::Committed { group, offsets, producer, reply } => {
                self.on_commit_written(&group, offsets, producer, result);
                // Whoever asked may have gone.
                let _ = reply.send(result.map(drop));
            }
            Then::Deleted(deletion) => self.on_delete_written(deletion, result.map(drop)),
            Then::TransactionEnded { producer, is_commit, reply } => {
                if result.is_ok() {
                    self.apply_transaction_end(producer, is_commit);
                }
                let _ = reply.send(result.map(drop));
            }
        }
    }

    /// Another coordinator takes over, or the log is to be read again: everybody who waits is answered.
    pub(super) fn unload(&mut self, status: Status, error: GroupError, now: Now) {
        self.status = status;
        let ids: Vec<Arc<str>> = self.groups.keys().cloned().collect();
        for id in &ids {
            self.act(id, now, |group, effects| group.on_unload(error, effects));
        }
        for entry in self.groups.values() {
            self.budget.remove_groups(usize::from(entry.is_counted));
            self.budget.change_bytes(entry.counted_bytes, 0);
        }
        self.groups.clear();
        self.pending.clear();
        self.deadlines.clear();
        self.outbox.clear();
    }

    /// What the log holds, in place of nothing; then requests are answered.
    pub(super) fn loaded(&mut self, groups: HashMap<Arc<str>, Entry>, now: Now) {
        self.budget.add_groups(groups.len());
        self.groups = groups;
        self.status = Status::Active;
        let ids: Vec<Arc<str>> = self.groups.keys().cloned().collect();
        for id in &ids {
            self.act(id, now, |group, effects| group.on_loaded(now.steady_ms, effects));
        }
    }

    /// The group's id in the map's own memory, where there is such a group.
    pub(super) fn known(&self, group: &str) -> Option<Arc<str>> {
        self.groups.get_key_value(group).map(|(id, _)| Arc::clone(id))
    }

    /// The id of a group that is there now, and counts.
    pub(super) fn entry_or_new(&mut self, group: &str) -> Result<Arc<str>, GroupError> {
        let known = self.known(group);
        if let Some(id) = &known
            && self.groups.get(id).is_some_and(|entry| entry.is_counted)
        {
            return Ok(Arc::clone(id));
        }
        self.budget.take_group(&self.settings)?;
        let id = known.unwrap_or_else(|| self.insert(group));
        if let Some(entry) = self.groups.get_mut(&id) {
            entry.is_counted = true;
        }
        Ok(id)
    }

    /// The same of one that does not count, as long as nobody has joined it. There are so many of these, whoever asks for more.
    fn entry_or_pending(&mut self, group: &str) -> Arc<str> {
        if let Some(id) = self.known(group) {
            return id;
        }
        if self.pending.len() >= PENDING_GROUPS_MAX
            && let Some(oldest) = self.pending.pop_front()
            && self.groups.get(&oldest).is_some_and(|entry| !entry.is_counted)
        {
            self.forget(&oldest);
        }
        let id = self.insert(group);
        self.pending.push_back(Arc::clone(&id));
        id
    }

    fn insert(&mut self, group: &str) -> Arc<str> {
        let id: Arc<str> = Arc::from(group);
        let new = Entry::new(Group::new(Arc::clone(&id), Arc::clone(&self.settings)));
        self.groups.insert(Arc::clone(&id), Entry { is_counted: false, ..new });
        id
    }

    fn next_request(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }

    /// Lets something happen to a group, does what it wants done, and forgets it where nothing is left of it.
    pub(super) fn act<R>(
        &mut self,
        id: &Arc<str>,
        now: Now,
        happen: impl FnOnce(&mut Group, &mut Vec<Effect>) -> R,
    ) -> Option<R> {
        let entry = self.groups.get_mut(id)?;
        let mut effects = Vec::new();
        let before = entry.group.state();
        let result = happen(&mut entry.group, &mut effects);
        if entry.group.state() != before {
            entry.group.state_since_ms = Some(now.wall_ms);
        }
        let (counted, bytes) = (entry.counted_bytes, entry.group.members_bytes());
        entry.counted_bytes = bytes;
        self.budget.change_bytes(counted, bytes);
        for effect in effects {
            self.run(id, effect, now);
        }
        self.reschedule(id);
        self.forget_if_idle(id);
        Some(result)
    }

    fn run(&mut self, id: &Arc<str>, effect: Effect, now: Now) {
        match effect {
            Effect::Join(request, answer) => {
                if let Some(reply) = self.joins.remove(&request) {
                    let _ = reply.send(answer);
                }
            }
            Effect::Sync(request, answer) => {
                if let Some(reply) = self.syncs.remove(&request) {
                    let _ = reply.send(answer);
                }
            }
            Effect::Persist(persist, mut snapshot) => {
                let Some(entry) = self.groups.get_mut(id) else { return };
                entry.has_record = true;
                snapshot.state_since_ms = entry.group.state_since_ms;
                let group = Arc::clone(id);
                match records::group_record(&snapshot) {
                    Ok(record) => {
                        let then = Then::Persisted { group, persist };
                        self.outbox.push(Write { batch: Batch::Plain(vec![record]), then });
                    }
                    Err(error) => {
                        tracing::warn!(%group, %error, "a group cannot be written");
                        let refused = Err(GroupError::RecordTooLarge);
                        self.on_written(Then::Persisted { group, persist }, refused, now);
                    }
                }
            }
        }
    }

    fn reschedule(&mut self, id: &Arc<str>) {
        let Some(entry) = self.groups.get_mut(id) else { return };
        let deadline = entry.group.deadline();
        // One that has moved to later is found out when the earlier one is over.
        let is_covered = entry.scheduled_at.is_some_and(|at| deadline.is_none_or(|deadline| at <= deadline));
        if let Some(deadline) = deadline.filter(|_| !is_covered) {
            if let Some(at) = entry.scheduled_at.replace(deadline) {
                self.deadlines.remove(&(at, Arc::clone(id)));
            }
            self.deadlines.insert((deadline, Arc::clone(id)));
        }
    }

    pub(super) fn forget_if_idle(&mut self, id: &Arc<str>) {
        if self.groups.get(id).is_some_and(Entry::is_idle) {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: &Arc<str>) {
        if let Some(entry) = self.groups.remove(id) {
            self.budget.remove_groups(usize::from(entry.is_counted));
            self.budget.change_bytes(entry.counted_bytes, 0);
            if let Some(at) = entry.scheduled_at {
                self.deadlines.remove(&(at, Arc::clone(id)));
            }
        }
    }
}

#[cfg(test)]
mod tests;
