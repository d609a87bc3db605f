//! How far a group has read: committed offsets, those on their way into the log, and those that wait for a transaction to
//! end. Pure: what is in the log is told by `apply_*`, what is to be written is for the caller to write.

use std::collections::BTreeMap;
use std::sync::Arc;

use floodmark_proto::ids::{Offset, ProducerId};

use super::error::GroupError;
use super::subscription::Subscription;

/// An offset as a client committed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next record to read.
    pub offset: i64,
    /// Leader epoch of the record before; `-1` where the client does not say.
    pub leader_epoch: i32,
    /// What the client attached.
    pub metadata: Arc<str>,
    /// By the calendar.
    pub commit_timestamp_ms: i64,
    /// When it goes, where an old client has said so; such an offset knows no other retention.
    pub expire_timestamp_ms: Option<i64>,
    /// The incarnation of the topic, where it was known; zeros where not.
    pub topic_id: [u8; 16],
}

/// What is known of one partition for one group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Slot {
    committed: Option<Stored>,
    /// Records on their way into the log. Whatever deletes the offset has to be written behind them.
    in_flight: u32,
    /// Commits of open transactions, in log order; a transaction's later one replaces its earlier one.
    in_transactions: Vec<(ProducerId, Stored)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Stored {
    offset: CommittedOffset,
    /// Where its record is. A transaction may end long after a plain commit that is newer than its own.
    at: Offset,
}

/// Committed offsets of one group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupOffsets {
    topics: BTreeMap<Arc<str>, BTreeMap<i32, Slot>>,
}

/// A topic and a partition of it.
pub type TopicPartition = (Arc<str>, i32);

/// Since when the retention of offsets runs, for a group as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retention {
    /// It does not run: the group is between two generations, or of a kind that says nothing about topics.
    Stopped,
    /// Since each offset's own commit, but for topics that are read.
    SinceCommit(Subscription),
    /// Since the group became empty.
    Since(i64),
}

impl GroupOffsets {
    /// No offsets, and none to come.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// How many partitions have a committed offset.
    #[must_use]
    pub fn count(&self) -> usize {
        self.committed().count()
    }

    /// The offset of one partition, of the incarnation `topic_id` if both are known.
    pub fn fetch(
        &self,
        topic: &str,
        partition: i32,
        topic_id: [u8; 16],
        needs_stable: bool,
    ) -> Result<Option<&CommittedOffset>, GroupError> {
        let Some(slot) = self.slot(topic, partition) else { return Ok(None) };
        if needs_stable && !slot.in_transactions.is_empty() {
            return Err(GroupError::UnstableOffset);
        }
        let is_other = |kept: &CommittedOffset| {
            kept.topic_id != topic_id && kept.topic_id != [0; 16] && topic_id != [0; 16]
        };
        Ok(slot.committed.as_ref().map(|stored| &stored.offset).filter(|kept| !is_other(kept)))
    }

    /// Every partition that has an offset, committed or in a transaction.
    pub fn partitions(&self) -> impl Iterator<Item = (&Arc<str>, i32)> {
        let is_known = |slot: &Slot| slot.committed.is_some() || !slot.in_transactions.is_empty();
        self.slots().filter(move |(.., slot)| is_known(slot)).map(|(topic, partition, _)| (topic, partition))
    }

    /// Every committed offset.
    pub fn committed(&self) -> impl Iterator<Item = (&Arc<str>, i32, &CommittedOffset)> {
        self.slots()
            .filter_map(|(topic, partition, slot)| Some((topic, partition, &slot.committed.as_ref()?.offset)))
    }

    /// A record for the partition is on its way into the log.
    pub fn begin(&mut self, topic: &Arc<str>, partition: i32) {
        let slots = self.topics.entry(Arc::clone(topic)).or_default();
        slots.entry(partition).or_default().in_flight += 1;
    }

    /// That record has arrived, and been applied, or never will.
    pub fn end(&mut self, topic: &Arc<str>, partition: i32) {
        self.change(topic, partition, |slot| slot.in_flight = slot.in_flight.saturating_sub(1));
    }

    /// The log has a commit at `at`.
    pub fn apply_commit(&mut self, topic: &Arc<str>, partition: i32, offset: CommittedOffset, at: Offset) {
        self.change(topic, partition, |slot| slot.commit(Stored { offset, at }));
    }

    /// The log has a commit at `at` that counts once `producer`'s transaction is committed.
    pub fn apply_transactional(
        &mut self,
        producer: ProducerId,
        topic: &Arc<str>,
        partition: i32,
        offset: CommittedOffset,
        at: Offset,
    ) {
        self.change(topic, partition, |slot| {
            slot.in_transactions.retain(|(other, _)| *other != producer);
            slot.in_transactions.push((producer, Stored { offset, at }));
        });
    }

    /// The log has the end of `producer`'s transaction.
    pub fn apply_transaction_end(&mut self, producer: ProducerId, is_commit: bool) {
        self.change_all(|slot| {
            while let Some(n) = slot.in_transactions.iter().position(|(other, _)| *other == producer) {
                let (_, stored) = slot.in_transactions.remove(n);
                if is_commit {
                    slot.commit(stored);
                }
            }
        });
    }

    /// The log has a tombstone: nothing is known of the partition.
    pub fn apply_delete(&mut self, topic: &Arc<str>, partition: i32) {
        self.change(topic, partition, |slot| {
            slot.committed = None;
            slot.in_transactions.clear();
        });
    }

    /// Whether the producer has an open transaction with offsets of this group.
    #[must_use]
    pub fn has_transaction_of(&self, producer: ProducerId) -> bool {
        self.slots().any(|(.., slot)| slot.in_transactions.iter().any(|(other, _)| *other == producer))
    }

    /// All there is to delete, what is on its way into the log among it.
    #[must_use]
    pub fn all(&self) -> Vec<TopicPartition> {
        self.slots().map(|(topic, partition, _)| (Arc::clone(topic), partition)).collect()
    }

    /// Partitions with nothing on its way whose topic, by name and by the id that was committed, is gone.
    #[must_use]
    pub fn orphans(&self, is_gone: impl Fn(&str, [u8; 16]) -> bool) -> Vec<TopicPartition> {
        let is_orphan = |topic: &str, slot: &Slot| {
            let id = slot.committed.as_ref().map_or([0; 16], |stored| stored.offset.topic_id);
            slot.in_flight == 0 && is_gone(topic, id)
        };
        let orphans = self.slots().filter(|(topic, _, slot)| is_orphan(topic, slot));
        orphans.map(|(topic, partition, _)| (Arc::clone(topic), partition)).collect()
    }

    /// Whether there is anything to delete for the partition.
    #[must_use]
    pub fn has(&self, topic: &str, partition: i32) -> bool {
        self.slot(topic, partition).is_some()
    }

    /// Partitions whose offset nobody has come back to for too long.
    #[must_use]
    pub fn expired(&self, retention: &Retention, now_ms: i64, retention_ms: i64) -> Vec<TopicPartition> {
        let is_over = |topic: &str, kept: &CommittedOffset| {
            let since = match retention {
                Retention::Stopped => return false,
                Retention::SinceCommit(subscription) if subscription.covers(topic) => return false,
                Retention::SinceCommit(_) => kept.commit_timestamp_ms,
                Retention::Since(empty_since) => *empty_since,
            };
            match kept.expire_timestamp_ms {
                Some(at) => now_ms >= at,
                None => now_ms.saturating_sub(since) >= retention_ms,
            }
        };
        let idle = self.slots().filter(|(.., slot)| slot.in_flight == 0 && slot.in_transactions.is_empty());
        idle.filter_map(|(topic, partition, slot)| {
            let kept = &slot.committed.as_ref()?.offset;
            is_over(topic, kept).then(|| (Arc::clone(topic), partition))
        })
        .collect()
    }

    fn slot(&self, topic: &str, partition: i32) -> Option<&Slot> {
        self.topics.get(topic)?.get(&partition)
    }

    fn slots(&self) -> impl Iterator<Item = (&Arc<str>, i32, &Slot)> {
        self.topics.iter().flat_map(|(topic, slots)| slots.iter().map(move |(p, slot)| (topic, *p, slot)))
    }

    /// Changes a slot, and drops it where nothing is left in it.
    fn change(&mut self, topic: &Arc<str>, partition: i32, change: impl FnOnce(&mut Slot)) {
        let slots = self.topics.entry(Arc::clone(topic)).or_default();
        let slot = slots.entry(partition).or_default();
        change(slot);
        if slot.is_vacant() {
            slots.remove(&partition);
            if slots.is_empty() {
                self.topics.remove(topic);
            }
        }
    }

    fn change_all(&mut self, mut change: impl FnMut(&mut Slot)) {
        self.topics.retain(|_, slots| {
            slots.retain(|_, slot| {
                change(slot);
                !slot.is_vacant()
            });
            !slots.is_empty()
        });
    }
}

impl Slot {
    /// The commit whose record is later counts, whichever of them becomes visible first: so it stays when the log is compacted.
    fn commit(&mut self, new: Stored) {
        if self.committed.as_ref().is_none_or(|old| old.at < new.at) {
            self.committed = Some(new);
        }
    }

    fn is_vacant(&self) -> bool {
        self.committed.is_none() && self.in_flight == 0 && self.in_transactions.is_empty()
    }
}

#[cfg(test)]
mod tests;
