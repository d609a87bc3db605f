//! What a consumer reads and how far it is with each partition. Shared by whoever hands out records, the feeds that fetch them, and the
//! group that gives and takes partitions.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::record::TopicPartition;

/// The position of a partition that has none yet.
const NOWHERE: i64 = -1;

/// How far one partition is. Outlives its place in [`Positions`]: whoever holds it learns by the epoch that it is of no use any more.
#[derive(Debug)]
pub(super) struct Progress {
    /// Changes whenever reading begins anew, or ends. What was fetched under another epoch is dropped.
    epoch: AtomicU64,
    /// Offset of the next record to hand out.
    position: AtomicI64,
    /// Everything before it was handed out and is done.
    done: AtomicI64,
    pub(super) high_watermark: AtomicI64,
}

impl Progress {
    pub(super) fn is_current(&self, epoch: u64) -> bool {
        self.epoch.load(Ordering::Acquire) == epoch
    }

    pub(super) fn position(&self) -> i64 {
        self.position.load(Ordering::Acquire)
    }

    /// None where it is not known yet where to begin.
    pub(super) fn place(&self) -> Option<i64> {
        Some(self.position()).filter(|position| *position != NOWHERE)
    }

    /// Everything before `offset` was handed out.
    pub(super) fn hand_out(&self, offset: i64) {
        self.position.store(offset, Ordering::Release);
    }

    /// Everything that was handed out is done.
    pub(super) fn finish(&self) {
        self.done.store(self.position(), Ordering::Release);
    }
}

#[derive(Debug)]
struct Part {
    progress: Arc<Progress>,
    /// Where fetching goes on.
    fetch_at: i64,
    is_paused: bool,
    /// The group's listener has not returned yet.
    is_held: bool,
    /// Its position is gone; it has to be found anew.
    is_lost: bool,
    /// It failed for good, until somebody seeks.
    has_failed: bool,
    not_before: Option<Instant>,
    /// Which try to fetch it this is, of all there were of any partition. Each epoch begins with another.
    attempt: u64,
    stall: Option<Stall>,
    /// What the last commit said.
    committed: Option<i64>,
}

/// Its leader cannot read on.
#[derive(Debug)]
struct Stall {
    since: Instant,
    is_told: bool,
}

impl Part {
    fn is_wanted(&self, now: Instant) -> bool {
        !self.is_paused
            && !self.is_held
            && !self.is_lost
            && !self.has_failed
            && self.not_before.is_none_or(|at| at <= now)
    }
}

/// A partition that shall be fetched.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) partition: TopicPartition,
    pub(super) epoch: u64,
    pub(super) attempt: u64,
    pub(super) progress: Arc<Progress>,
}

impl PartialEq for Wanted {
    fn eq(&self, other: &Wanted) -> bool {
        self.attempt == other.attempt && self.partition == other.partition
    }
}

#[derive(Debug, Default)]
pub(super) struct Positions {
    parts: Mutex<HashMap<TopicPartition, Part>>,
    epochs: AtomicU64,
    /// What shall be fetched is different from now on.
    pub(super) changed: Notify,
    /// The place of some partition has to be found.
    pub(super) has_lost: Notify,
}

impl Positions {
    fn next_epoch(&self) -> u64 {
        self.epochs.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Reads these too, from these offsets; a partition that is read already begins anew.
    pub(super) fn add(&self, begin: &[(TopicPartition, i64)]) {
        let begin = begin.iter().map(|(partition, offset)| (partition, Some(*offset)));
        self.begin(begin, false);
    }

    /// The same, but nothing is fetched before [`Positions::release`]. One without an offset is as one whose place is lost.
    pub(super) fn add_held(&self, begin: &[(TopicPartition, Option<i64>)]) {
        self.begin(begin.iter().map(|(partition, offset)| (partition, *offset)), true);
    }

    fn begin<'p>(&self, begin: impl Iterator<Item = (&'p TopicPartition, Option<i64>)>, hold: bool) {
        let mut parts = self.parts.lock();
        for (partition, offset) in begin {
            let is_lost = offset.is_none();
            let offset = offset.unwrap_or(NOWHERE);
            let before = parts.get(partition);
            if let Some(part) = before {
                part.progress.epoch.store(0, Ordering::Release);
            }
            let progress = Progress {
                epoch: AtomicU64::new(self.next_epoch()),
                position: AtomicI64::new(offset),
                done: AtomicI64::new(offset),
                high_watermark: AtomicI64::new(-1),
            };
            let part = Part {
                progress: Arc::new(progress),
                fetch_at: offset,
                is_paused: before.is_some_and(|part| part.is_paused),
                is_held: hold || before.is_some_and(|part| part.is_held),
                is_lost,
                has_failed: false,
                not_before: None,
                attempt: self.next_epoch(),
                stall: None,
                // Nobody commits that it is nowhere.
                committed: is_lost.then_some(NOWHERE),
            };
            parts.insert(partition.clone(), part);
        }
        drop(parts);
        self.changed.notify_one();
    }

    /// Reads these no longer.
    pub(super) fn remove(&self, gone: &[TopicPartition]) {
        let mut parts = self.parts.lock();
        for partition in gone {
            if let Some(part) = parts.remove(partition) {
                part.progress.epoch.store(0, Ordering::Release);
            }
        }
        drop(parts);
        self.changed.notify_one();
    }

    /// Fetches what was held back.
    pub(super) fn release(&self, partitions: &[TopicPartition]) {
        let mut parts = self.parts.lock();
        for partition in partitions {
            if let Some(part) = parts.get_mut(partition) {
                part.is_held = false;
            }
        }
        drop(parts);
        self.changed.notify_one();
    }

    pub(super) fn pause(&self, partitions: &[TopicPartition], is_paused: bool) {
        let mut parts = self.parts.lock();
        for partition in partitions {
            if let Some(part) = parts.get_mut(partition).filter(|part| part.is_paused != is_paused) {
                part.is_paused = is_paused;
                self.restart(part);
            }
        }
        drop(parts);
        self.changed.notify_one();
    }

    /// Fetching goes on at what was handed out; what was fetched and not handed out is dropped.
    fn restart(&self, part: &mut Part) {
        part.attempt = self.next_epoch();
        part.progress.epoch.store(part.attempt, Ordering::Release);
        part.fetch_at = part.progress.position();
    }

    /// Fetching failed under this epoch; it begins again after a wait.
    pub(super) fn retry(&self, partition: &TopicPartition, epoch: u64, wait: Duration) {
        self.change(partition, epoch, |part| part.not_before = Some(Instant::now() + wait));
    }

    /// Its leader has failed to read on under this epoch; it is asked again after a wait. What was fetched before is handed out all the same:
    /// who dropped it would fetch it again and again, and perhaps never hand it out. Where that has been so for `limit`, the offset at which
    /// it stands, once.
    pub(super) fn stall(&self, wanted: &Wanted, wait: Duration, limit: Duration) -> Option<i64> {
        let mut parts = self.parts.lock();
        let is_current = |part: &&mut Part| part.progress.is_current(wanted.epoch);
        let part = parts.get_mut(&wanted.partition).filter(is_current)?;
        let now = Instant::now();
        part.attempt = self.next_epoch();
        part.not_before = Some(now + wait);
        let stall = part.stall.get_or_insert(Stall { since: now, is_told: false });
        let is_over_due = !stall.is_told && now.duration_since(stall.since) >= limit;
        stall.is_told |= is_over_due;
        let at = part.fetch_at;
        drop(parts);
        self.changed.notify_one();
        is_over_due.then_some(at)
    }

    /// Another broker is asked for it from now on: what the one before still sends is dropped.
    pub(super) fn move_on(&self, partition: &TopicPartition, epoch: u64) -> bool {
        self.change(partition, epoch, |_| {})
    }

    /// Its offset is gone.
    pub(super) fn lose(&self, partition: &TopicPartition, epoch: u64) {
        self.change(partition, epoch, |part| part.is_lost = true);
        self.has_lost.notify_one();
    }

    /// It is not fetched until somebody seeks. False where it was not current.
    pub(super) fn fail(&self, partition: &TopicPartition, epoch: u64) -> bool {
        self.change(partition, epoch, |part| {
            part.has_failed = true;
            part.is_lost = false;
        })
    }

    fn change(&self, partition: &TopicPartition, epoch: u64, how: impl FnOnce(&mut Part)) -> bool {
        let mut parts = self.parts.lock();
        let Some(part) = parts.get_mut(partition).filter(|part| part.progress.is_current(epoch)) else {
            return false;
        };
        how(part);
        self.restart(part);
        drop(parts);
        self.changed.notify_one();
        true
    }

    /// A message was fetched; false where it is of no use any more.
    pub(super) fn fetched(&self, wanted: &Wanted, next_offset: i64) -> bool {
        let mut parts = self.parts.lock();
        let part = parts.get_mut(&wanted.partition).filter(|part| part.progress.is_current(wanted.epoch));
        part.is_some_and(|part| {
            part.fetch_at = next_offset;
            part.stall = None;
            true
        })
    }

    /// Where a feed begins.
    pub(super) fn fetch_at(&self, wanted: &Wanted) -> Option<i64> {
        let parts = self.parts.lock();
        let part = parts.get(&wanted.partition).filter(|part| part.progress.is_current(wanted.epoch));
        part.map(|part| part.fetch_at)
    }

    /// All that shall be fetched, and when to look again because a wait is over.
    pub(super) fn wanted(&self, now: Instant) -> (Vec<Wanted>, Option<Instant>) {
        let parts = self.parts.lock();
        let wanted = parts.iter().filter(|(_, part)| part.is_wanted(now)).map(|(partition, part)| Wanted {
            partition: partition.clone(),
            epoch: part.progress.epoch.load(Ordering::Acquire),
            attempt: part.attempt,
            progress: Arc::clone(&part.progress),
        });
        let again = parts.values().filter_map(|part| part.not_before.filter(|at| *at > now)).min();
        (wanted.collect(), again)
    }

    /// Partitions whose place is gone or not known yet, each with the epoch under which that was found.
    pub(super) fn lost(&self) -> Vec<(TopicPartition, u64)> {
        let parts = self.parts.lock();
        let lost = parts.iter().filter(|(_, part)| part.is_lost);
        lost.map(|(partition, part)| (partition.clone(), part.progress.epoch.load(Ordering::Acquire)))
            .collect()
    }

    /// The place of one that was lost. False where it was not current: it may be lost still, as one that was paused meanwhile.
    pub(super) fn find(&self, partition: &TopicPartition, epoch: u64, offset: i64) -> bool {
        self.change(partition, epoch, |part| {
            part.is_lost = false;
            part.progress.hand_out(offset);
            part.progress.finish();
        })
    }

    pub(super) fn assignment(&self) -> Vec<TopicPartition> {
        let mut all: Vec<TopicPartition> = self.parts.lock().keys().cloned().collect();
        all.sort();
        all
    }

    pub(super) fn progress(&self, partition: &TopicPartition) -> Option<Arc<Progress>> {
        self.parts.lock().get(partition).map(|part| Arc::clone(&part.progress))
    }

    /// What is to be committed: everything handed out, which is done with that, or only what is done; without what was committed already.
    pub(super) fn uncommitted(&self, only_done: bool) -> Vec<(TopicPartition, i64)> {
        let parts = self.parts.lock();
        let offset = |part: &Part| {
            if !only_done {
                // Or the next commit, which comes by itself, would go back behind this one.
                part.progress.finish();
            }
            part.progress.done.load(Ordering::Acquire)
        };
        let news = parts.iter().filter(|(_, part)| part.committed != Some(offset(part)));
        news.map(|(partition, part)| (partition.clone(), offset(part))).collect()
    }

    /// The coordinator has these.
    pub(super) fn committed(&self, offsets: &[(TopicPartition, i64)]) {
        let mut parts = self.parts.lock();
        for (partition, offset) in offsets {
            if let Some(part) = parts.get_mut(partition) {
                part.committed = Some(*offset);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_that_is_nowhere_is_not_fetched_and_not_committed_until_it_is_somewhere() {
        let positions = Positions::default();
        let [known, unknown] = [0, 1].map(|number| TopicPartition::new("t", number));
        positions.add_held(&[(known.clone(), Some(7)), (unknown.clone(), None)]);
        positions.release(&[known.clone(), unknown.clone()]);
        let wanted = || positions.wanted(Instant::now()).0;
        assert_eq!(wanted().iter().map(|wanted| &wanted.partition).collect::<Vec<_>>(), [&known]);
        assert_eq!(positions.assignment().len(), 2);
        assert_eq!(positions.uncommitted(false), [(known, 7)]);
        assert_eq!(positions.progress(&unknown).unwrap().place(), None);
        let (lost, before) = positions.lost().pop().unwrap();
        positions.pause(std::slice::from_ref(&lost), true);
        positions.pause(std::slice::from_ref(&lost), false);
        assert!(!positions.find(&lost, before, 0), "it is to be looked for again");
        let (lost, epoch) = positions.lost().pop().unwrap();
        assert!(positions.find(&lost, epoch, 0) && positions.lost().is_empty());
        assert_eq!(wanted().len(), 2);
        assert_eq!(positions.progress(&unknown).unwrap().place(), Some(0));
        assert!(positions.uncommitted(true).contains(&(unknown, 0)));
    }
}
