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
    /// What the last commit said.
    committed: Option<i64>,
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
    pub(super) progress: Arc<Progress>,
}

impl PartialEq for Wanted {
    fn eq(&self, other: &Wanted) -> bool {
        self.epoch == other.epoch && self.partition == other.partition
    }
}

#[derive(Debug, Default)]
pub(super) struct Positions {
    parts: Mutex<HashMap<TopicPartition, Part>>,
    epochs: AtomicU64,
    /// What shall be fetched is different from now on.
    pub(super) changed: Notify,
}

impl Positions {
    fn next_epoch(&self) -> u64 {
        self.epochs.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Reads these too, from these offsets; a partition that is read already begins anew.
    pub(super) fn add(&self, begin: &[(TopicPartition, i64)]) {
        self.begin(begin, false);
    }

    /// The same, but nothing is fetched before [`Positions::release`].
    pub(super) fn add_held(&self, begin: &[(TopicPartition, i64)]) {
        self.begin(begin, true);
    }

    fn begin(&self, begin: &[(TopicPartition, i64)], hold: bool) {
        let mut parts = self.parts.lock();
        for (partition, offset) in begin {
            let before = parts.get(partition);
            if let Some(part) = before {
                part.progress.epoch.store(0, Ordering::Release);
            }
            let progress = Progress {
                epoch: AtomicU64::new(self.next_epoch()),
                position: AtomicI64::new(*offset),
                done: AtomicI64::new(*offset),
                high_watermark: AtomicI64::new(-1),
            };
            let part = Part {
                progress: Arc::new(progress),
                fetch_at: *offset,
                is_paused: before.is_some_and(|part| part.is_paused),
                is_held: hold || before.is_some_and(|part| part.is_held),
                is_lost: false,
                has_failed: false,
                not_before: None,
                committed: None,
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
        part.progress.epoch.store(self.next_epoch(), Ordering::Release);
        part.fetch_at = part.progress.position();
    }

    /// Fetching failed under this epoch; it begins again after a wait.
    pub(super) fn retry(&self, partition: &TopicPartition, epoch: u64, wait: Duration) {
        self.change(partition, epoch, |part| part.not_before = Some(Instant::now() + wait));
    }

    /// Another broker is asked for it from now on: what the one before still sends is dropped.
    pub(super) fn move_on(&self, partition: &TopicPartition, epoch: u64) -> bool {
        self.change(partition, epoch, |_| {})
    }

    /// Its offset is gone.
    pub(super) fn lose(&self, partition: &TopicPartition, epoch: u64) {
        self.change(partition, epoch, |part| part.is_lost = true);
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
            progress: Arc::clone(&part.progress),
        });
        let again = parts.values().filter_map(|part| part.not_before.filter(|at| *at > now)).min();
        (wanted.collect(), again)
    }

    /// Partitions whose place is gone, each with the epoch under which that was found.
    pub(super) fn lost(&self) -> Vec<(TopicPartition, u64)> {
        let parts = self.parts.lock();
        let lost = parts.iter().filter(|(_, part)| part.is_lost);
        lost.map(|(partition, part)| (partition.clone(), part.progress.epoch.load(Ordering::Acquire)))
            .collect()
    }

    /// The place of one that was lost.
    pub(super) fn find(&self, partition: &TopicPartition, epoch: u64, offset: i64) {
        self.change(partition, epoch, |part| {
            part.is_lost = false;
            part.progress.hand_out(offset);
            part.progress.finish();
        });
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
