//! What a shard decides about offsets, and what of it shows once it is written: a commit is seen when it is in the log and
//! not before, a deletion covers what is on its way.

use std::sync::{Arc, OnceLock};

use floodmark_proto::ids::{Offset, ProducerId};
use floodmark_proto::kafka::EncodeError;

use super::error::GroupError;
use super::group::{CommitFrom, Group, GroupState};
use super::offsets::{CommittedOffset, GroupOffsets, Retention, TopicPartition};
use super::records::{self, KeyValue};
use super::shard::{Batch, Deletion, Entry, NewOffset, Now, Reply, ShardState, Then, Write};

/// Names in one batch of tombstones: a small part of what the log takes (`max.message.bytes`), whatever a group has committed.
const TOMBSTONES_BYTES: usize = 64 << 10;
/// What a tombstone takes beside the names of group and topic, and more.
const TOMBSTONE_OVERHEAD_BYTES: usize = 32;

/// An offset as a client sends it.
#[derive(Debug, Clone, Copy)]
pub struct OffsetToCommit<'a> {
    /// The topic's name.
    pub topic: &'a str,
    /// The topic's id, zeros where it is not known.
    pub topic_id: [u8; 16],
    /// The partition.
    pub partition: i32,
    /// The next record to read.
    pub offset: i64,
    /// `-1` where the client does not say.
    pub leader_epoch: i32,
    /// What the client attaches.
    pub metadata: &'a str,
}

/// Offsets to commit together, and by whom.
#[derive(Debug, Clone, Copy)]
pub struct OffsetCommit<'a> {
    /// The committer.
    pub from: CommitFrom<'a>,
    /// How long to keep them, where an old client says so.
    pub retention_ms: Option<i64>,
    /// The offsets.
    pub offsets: &'a [OffsetToCommit<'a>],
    /// The transaction that they belong to.
    pub transaction: Option<(ProducerId, i16)>,
}

/// One answer an offset. Those that were accepted wait for the log.
pub(super) type CommitVerdicts = Vec<Result<(), GroupError>>;

impl ShardState {
    /// Judges the committer and each offset. `reply` is told when those that are fit are written, at once where there are none.
    pub(super) fn commit(
        &mut self,
        group: &str,
        commit: &OffsetCommit<'_>,
        now: Now,
        reply: Reply,
    ) -> Result<CommitVerdicts, GroupError> {
        self.check_active()?;
        if commit.from.generation < 0 {
            // Whoever is no member may commit where there are none.
            self.catch_up(group, now);
        }
        let is_new = !self.groups.contains_key(group);
        if is_new && commit.from.generation >= 0 {
            return Err(GroupError::GroupNotFound);
        }
        let id = self.entry_or_new(group)?;
        let verdicts = self.commit_to(&id, commit, now, reply);
        self.forget_if_idle(&id);
        verdicts
    }

    fn commit_to(
        &mut self,
        id: &Arc<str>,
        commit: &OffsetCommit<'_>,
        now: Now,
        reply: Reply,
    ) -> Result<CommitVerdicts, GroupError> {
        let metadata_max = self.settings.offset_metadata_bytes_max;
        let is_fit = |new: &OffsetToCommit<'_>| match new.metadata.len() {
            len if len > metadata_max => Err(GroupError::OffsetMetadataTooLarge),
            _ => Ok(()),
        };
        let verdicts: CommitVerdicts = commit.offsets.iter().map(is_fit).collect();
        let Some(entry) = self.groups.get_mut(id) else { return Err(GroupError::GroupNotFound) };
        entry.group.on_commit(&commit.from, now.steady_ms)?;
        let fit = commit.offsets.iter().zip(&verdicts).filter(|(_, verdict)| verdict.is_ok());
        let offsets: Vec<NewOffset> = fit.map(|(new, _)| committed(new, commit.retention_ms, now)).collect();
        if offsets.is_empty() {
            let _ = reply.send(Ok(()));
            return Ok(verdicts);
        }
        let record = |(topic, partition, value): &NewOffset| {
            records::offset_record(id, topic, *partition, Some(value))
        };
        let records: Result<Vec<KeyValue>, EncodeError> = offsets.iter().map(record).collect();
        let records = records.map_err(|_| GroupError::RecordTooLarge)?;
        for (topic, partition, _) in &offsets {
            entry.offsets.begin(topic, *partition);
        }
        let batch = match commit.transaction {
            None => Batch::Plain(records),
            Some((producer, epoch)) => Batch::Transactional { producer, epoch, records },
        };
        let producer = commit.transaction.map(|(producer, _)| producer);
        let then = Then::Committed { group: Arc::clone(id), offsets, producer, reply };
        self.outbox.push(Write { batch, then });
        Ok(verdicts)
    }

    pub(super) fn on_commit_written(
        &mut self,
        group: &Arc<str>,
        offsets: Vec<NewOffset>,
        producer: Option<ProducerId>,
        result: Result<Offset, GroupError>,
    ) {
        let Some(entry) = self.groups.get_mut(group) else { return };
        for (n, (topic, partition, value)) in (0..).zip(offsets) {
            if let Ok(base) = result {
                match producer {
                    None => entry.offsets.apply_commit(&topic, partition, value, base + n),
                    Some(producer) => {
                        entry.offsets.apply_transactional(producer, &topic, partition, value, base + n);
                    }
                }
            }
            entry.offsets.end(&topic, partition);
        }
        self.forget_if_idle(group);
    }

    pub(super) fn apply_transaction_end(&mut self, producer: ProducerId, is_commit: bool) {
        for entry in self.groups.values_mut() {
            if entry.offsets.has_transaction_of(producer) {
                entry.offsets.apply_transaction_end(producer, is_commit);
            }
        }
    }

    /// The offsets of a group; `None` where there is no such group, which is as good as one without.
    pub(super) fn offsets_of(&self, group: &str) -> Result<Option<&GroupOffsets>, GroupError> {
        self.check_active()?;
        Ok(self.groups.get(group).map(|entry| &entry.offsets))
    }

    /// Forgets what a group has committed for some partitions. One answer a partition.
    pub(super) fn delete_offsets(
        &mut self,
        group: &str,
        partitions: &[(&str, i32)],
        now: Now,
        reply: Reply,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        self.check_active()?;
        self.catch_up(group, now);
        let id = self.known(group).ok_or(GroupError::GroupNotFound)?;
        let Some(entry) = self.groups.get(&id) else { return Err(GroupError::GroupNotFound) };
        match entry.group.state() {
            GroupState::Empty => {}
            GroupState::Dead => return Err(GroupError::CoordinatorNotAvailable),
            // What other kinds of groups read is not known.
            _ if !entry.group.is_of_consumers() => return Err(GroupError::NonEmptyGroup),
            _ => {}
        }
        let subscription = entry.group.subscription();
        let is_read = |(topic, _): &(&str, i32)| match subscription.covers(topic) {
            true => Err(GroupError::SubscribedToTopic),
            false => Ok(()),
        };
        let verdicts: Vec<Result<(), GroupError>> = partitions.iter().map(is_read).collect();
        let accepted = partitions.iter().zip(&verdicts).filter(|(_, verdict)| verdict.is_ok());
        let there = accepted.filter(|((topic, partition), _)| entry.offsets.has(topic, *partition));
        let there: Vec<TopicPartition> = there.map(|((topic, p), _)| (Arc::from(*topic), *p)).collect();
        self.delete_at_once(&id, there, Some(reply))?;
        Ok(verdicts)
    }

    /// Deletes a group without members, and its offsets.
    pub(super) fn delete_group(&mut self, group: &str, now: Now, reply: Reply) -> Result<(), GroupError> {
        self.check_active()?;
        self.catch_up(group, now);
        let id = self.known(group).ok_or(GroupError::GroupNotFound)?;
        let Some(entry) = self.groups.get_mut(&id) else { return Err(GroupError::GroupNotFound) };
        entry.group.on_delete()?;
        let partitions = entry.offsets.all();
        self.delete(&id, partitions, true, Some(reply), Arc::default())
    }

    /// Forgets offsets that nobody has come back to, and then groups of which nothing is left.
    pub(super) fn expire(&mut self, now: Now) {
        self.has_told_of_deletion = false;
        let retention_ms = self.settings.offsets_retention_ms;
        let ids: Vec<Arc<str>> = self.groups.keys().cloned().collect();
        for id in ids {
            let Some(entry) = self.groups.get_mut(&id) else { continue };
            let retention = retention_of(&entry.group);
            let expired = entry.offsets.expired(&retention, now.wall_ms, retention_ms);
            let is_left = entry.offsets.all().len() > expired.len();
            let is_over = !is_left && entry.group.is_deserted() && entry.group.state() == GroupState::Empty;
            let deleted = if is_over && entry.group.on_delete().is_ok() {
                self.delete(&id, expired, true, None, Arc::default())
            } else {
                self.delete_at_once(&id, expired, None)
            };
            if let Err(error) = deleted {
                self.tell_of_failed_deletion(&id, error);
            }
        }
    }

    /// Forgets offsets of topics that are gone. `is_gone` is asked under the shard's lock, so that it knows of every topic for which
    /// something was committed.
    pub(super) fn delete_orphans(
        &mut self,
        is_gone: &dyn Fn(&str, [u8; 16]) -> bool,
    ) -> Result<(), GroupError> {
        self.check_active()?;
        let orphans = |entry: &Entry| entry.offsets.orphans(is_gone);
        let found: Vec<(Arc<str>, Vec<TopicPartition>)> =
            self.groups.iter().map(|(id, entry)| (Arc::clone(id), orphans(entry))).collect();
        for (id, partitions) in found {
            self.delete_at_once(&id, partitions, None)?;
        }
        Ok(())
    }

    /// All parts are in the log's queue before anything else is committed: an offset was judged as it is now.
    fn delete_at_once(
        &mut self,
        id: &Arc<str>,
        mut partitions: Vec<TopicPartition>,
        mut reply: Option<Reply>,
    ) -> Result<(), GroupError> {
        let failed = Arc::default();
        while !partitions.is_empty() || reply.is_some() {
            let part = last_part(id, &mut partitions);
            // Whoever asked is answered with the last.
            let reply = if partitions.is_empty() { reply.take() } else { None };
            self.delete(id, part, false, reply, Arc::clone(&failed))?;
        }
        Ok(())
    }

    /// Part after part, each once the one before is written, so that the group's own record goes when no offset is left: a
    /// deletion that ends half way leaves a group that can be deleted.
    fn delete(
        &mut self,
        id: &Arc<str>,
        mut rest: Vec<TopicPartition>,
        with_group: bool,
        reply: Option<Reply>,
        failed: Arc<OnceLock<GroupError>>,
    ) -> Result<(), GroupError> {
        let Some(entry) = self.groups.get_mut(id) else { return Err(GroupError::GroupNotFound) };
        let partitions = last_part(id, &mut rest);
        let offset_tombstones =
            partitions.iter().map(|(topic, partition)| records::offset_record(id, topic, *partition, None));
        // Last, so that a group is there as long as an offset is.
        let is_end = with_group && rest.is_empty();
        let group_tombstone = (is_end && entry.has_record).then(|| records::group_tombstone(id));
        let records: Result<Vec<KeyValue>, EncodeError> = offset_tombstones.chain(group_tombstone).collect();
        let Ok(records) = records else {
            if with_group {
                entry.group.on_delete_failed();
            }
            return Err(GroupError::RecordTooLarge);
        };
        for (topic, partition) in &partitions {
            entry.offsets.begin(topic, *partition);
        }
        let deletion = Deletion { group: Arc::clone(id), partitions, rest, with_group, reply, failed };
        if records.is_empty() {
            // There is nothing in the log to be deleted.
            self.on_delete_written(deletion, Ok(()));
        } else {
            self.outbox.push(Write { batch: Batch::Plain(records), then: Then::Deleted(deletion) });
        }
        Ok(())
    }

    pub(super) fn on_delete_written(&mut self, deletion: Deletion, result: Result<(), GroupError>) {
        let Deletion { group, partitions, rest, with_group, reply, failed } = deletion;
        let Some(entry) = self.groups.get_mut(&group) else { return };
        for (topic, partition) in &partitions {
            if result.is_ok() {
                entry.offsets.apply_delete(topic, *partition);
            }
            entry.offsets.end(topic, *partition);
        }
        let result = match result {
            Ok(()) if !rest.is_empty() => {
                // Whoever waits learns of a failure, which dropped its reply, as of a log that is lost.
                let _ = self.delete(&group, rest, with_group, reply, failed);
                return;
            }
            Err(error) => Err(*failed.get_or_init(|| error)),
            Ok(()) => failed.get().map_or(Ok(()), |error| Err(*error)),
        };
        match (with_group, result) {
            (true, Ok(())) => {
                // What is still on its way belongs to a group that begins anew.
                entry.group = Group::new(Arc::clone(&group), Arc::clone(&self.settings));
                entry.has_record = false;
            }
            (true, Err(_)) => entry.group.on_delete_failed(),
            (false, _) => {}
        }
        self.forget_if_idle(&group);
        match (reply, result) {
            // Whoever asked may have gone.
            (Some(reply), result) => drop(reply.send(result)),
            (None, Err(error)) => self.tell_of_failed_deletion(&group, error),
            (None, Ok(())) => {}
        }
    }

    /// Nobody has asked, so nobody else is told. Once an expiry: what fails for one group fails for thousands.
    fn tell_of_failed_deletion(&mut self, group: &str, error: GroupError) {
        if !std::mem::replace(&mut self.has_told_of_deletion, true) {
            tracing::warn!(group, %error, "offsets that are over cannot be deleted now; it is tried again");
        }
    }
}

/// Takes as many from the end as one batch of tombstones has room for, one at least.
fn last_part(group: &str, partitions: &mut Vec<TopicPartition>) -> Vec<TopicPartition> {
    let mut room = TOMBSTONES_BYTES;
    let fits = |(topic, _): &&TopicPartition| {
        let left = room.checked_sub(group.len() + topic.len() + TOMBSTONE_OVERHEAD_BYTES);
        room = left.unwrap_or(0);
        left.is_some()
    };
    let count = partitions.iter().rev().take_while(fits).count().max(1);
    partitions.split_off(partitions.len().saturating_sub(count))
}

fn committed(new: &OffsetToCommit<'_>, retention_ms: Option<i64>, now: Now) -> NewOffset {
    let value = CommittedOffset {
        offset: new.offset,
        leader_epoch: new.leader_epoch.max(-1),
        metadata: Arc::from(new.metadata),
        commit_timestamp_ms: now.wall_ms,
        expire_timestamp_ms: retention_ms.map(|retention_ms| now.wall_ms.saturating_add(retention_ms)),
        topic_id: new.topic_id,
    };
    (Arc::from(new.topic), new.partition, value)
}

/// Since when the offsets of a group age.
fn retention_of(group: &Group) -> Retention {
    if group.protocol_type().is_none() {
        // Never had members: its offsets are all there is to it.
        return Retention::SinceCommit(group.subscription());
    }
    match (group.state(), group.state_since_ms) {
        (GroupState::Empty, Some(since)) => Retention::Since(since),
        (GroupState::Empty, None) => Retention::SinceCommit(group.subscription()),
        (GroupState::Stable, _) if group.is_of_consumers() => Retention::SinceCommit(group.subscription()),
        _ => Retention::Stopped,
    }
}
