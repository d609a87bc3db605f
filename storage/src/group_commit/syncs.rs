//! What is to become durable, who waits for it, and the round of a disk thread that sees to both.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering, fence};

use floodmark_proto::ids::Offset;
use parking_lot::Mutex;

use super::disk_threads::Job;
use super::request::{Answer, Then};
use super::{GroupCommit, Shared};
use crate::error::LogError;
use crate::log::{Log, SyncJob};

/// What is wanted of the disk threads.
#[derive(Debug, Default)]
pub(super) struct Syncs {
    /// The log is in the disk threads' queue, or with one of them: one sync of a log at a time, and one place in the queue.
    is_scheduled: AtomicBool,
    is_tending: AtomicBool,
    /// What was appended last is wanted durable at once.
    is_eager: AtomicBool,
    /// Everything before this is to become durable.
    wanted: AtomicI64,
    waiters: Mutex<Vec<Waiter>>,
}

#[derive(Debug)]
struct Waiter {
    up_to: Offset,
    then: Answer<(), Then<()>>,
}

impl GroupCommit {
    /// Has everything before `up_to` made durable, and calls `then` once it is, or is known never to be: the log stopped, or was
    /// cut below it. Does not wait; `then` must not block, and may be called before this returns.
    pub fn when_synced(&self, up_to: Offset, then: impl FnOnce(Result<(), LogError>) + Send + 'static) {
        if let Some(outcome) = self.0.fate_of(up_to) {
            return then(outcome);
        }
        let then: Then<()> = Box::new(then);
        self.0.syncs.waiters.lock().push(Waiter { up_to, then: Answer::new(then) });
        self.0.want_sync(up_to);
        // Whoever moved the log meanwhile either found the waiter, or is seen here.
        fence(Ordering::SeqCst);
        if self.0.fate_of(up_to).is_some() {
            self.0.answer_waiters();
        }
    }

    /// Has everything before `up_to` made durable soon. Does not wait.
    pub fn sync_soon(&self, up_to: Offset) {
        self.0.want_sync(up_to);
    }

    /// Moves the recovery point to the end of the log where `is_due` says so. Appends go on meanwhile; the caller waits for the
    /// disk.
    pub fn checkpoint_if(&self, is_due: impl FnOnce(&Log) -> bool) -> Result<(), LogError> {
        self.0.checkpoint_if(is_due)
    }
}

impl Syncs {
    /// True where appends gather until the round that is on its way: they would have to wait for its sync anyhow, and are then
    /// written in one piece.
    pub(super) fn gather(&self) -> bool {
        self.is_eager.load(Ordering::Acquire) && self.is_scheduled.load(Ordering::Acquire)
    }

    pub(super) fn set_eager(&self, is_eager: bool) {
        self.is_eager.store(is_eager, Ordering::Release);
    }
}

impl Shared {
    /// What to tell those who wait for `up_to`, where it is known.
    fn fate_of(&self, up_to: Offset) -> Option<Result<(), LogError>> {
        // Asked before: what became durable before the log stopped is durable.
        let stopped = self.reader.stopped();
        if self.reader.durable() >= up_to {
            return Some(Ok(()));
        }
        if let Some(reason) = stopped {
            return Some(Err(reason));
        }
        let (start, end) = (self.reader.start(), self.reader.end());
        // The log was cut below what the caller waits for; it is not in the log any more.
        (end < up_to).then_some(Err(LogError::OutOfRange { asked: up_to, start, end }))
    }

    pub(super) fn want_sync(self: &Arc<Self>, up_to: Offset) {
        self.syncs.wanted.fetch_max(up_to.0, Ordering::AcqRel);
        self.schedule();
    }

    /// Has a disk thread make a round.
    pub(super) fn schedule(self: &Arc<Self>) {
        if !self.syncs.is_scheduled.swap(true, Ordering::AcqRel) {
            self.disks.push(Job::Round(Arc::clone(self)));
        }
    }

    /// Tells those whose fate is known.
    pub(super) fn answer_waiters(&self) {
        fence(Ordering::SeqCst);
        let told: Vec<_> = {
            let mut waiters = self.syncs.waiters.lock();
            let mut told = Vec::with_capacity(waiters.len());
            for waiter in std::mem::take(&mut *waiters) {
                match self.fate_of(waiter.up_to) {
                    Some(outcome) => told.push((waiter.then, outcome)),
                    None => waiters.push(waiter),
                }
            }
            told
        };
        for (then, outcome) in told {
            then.give(outcome);
        }
    }

    /// What a disk has to do for this log, until it is done or another log wants the thread. On a disk thread; `schedule` has been
    /// called.
    pub(super) fn rounds(self: &Arc<Self>) {
        self.round_while(|| self.is_round_due() && self.disks.is_queue_empty());
    }

    /// One round on the calling thread, which may wait for the disk, unless a disk thread is at it or about to be.
    pub(super) fn round_here(self: &Arc<Self>) {
        if !self.syncs.is_scheduled.swap(true, Ordering::AcqRel) {
            self.round_while(|| false);
        }
    }

    fn round_while(self: &Arc<Self>, goes_on: impl Fn() -> bool) {
        {
            let _ended = Round(self);
            self.write_waiting();
            let mut job = self.hold().begin_sync();
            // A failure is kept in the log, where all who wait find it.
            while let Ok(begun) = job {
                let Some(next) = self.sync(begun, &goes_on) else { break };
                job = next;
            }
            if !self.receipts.is_empty() {
                // A log that has stopped meanwhile begins no sync whose end would be told.
                self.receipts.look_through(&mut self.hold());
            }
        }
        self.tell();
    }

    /// Sees a sync through, and begins the next one where there is one to make. Those whom this one has made durable are told once the next
    /// is begun: told before what waited was written, all would be in one group again, and the disk idle while they make the next one.
    fn sync(self: &Arc<Self>, job: SyncJob, goes_on: impl Fn() -> bool) -> Option<Result<SyncJob, LogError>> {
        let outcome = job.run();
        let (next, wants_sync, is_tending_due) = {
            let mut log = self.hold();
            let has_ended = log.finish_sync(job, outcome).and_then(|()| log.look_after_staging());
            let wants_sync = self.look_at(&mut log);
            let is_tending_due = log.is_tending_due();
            // What others wrote beside this sync: whoever lets go of the log now may wait for the next write of theirs before it has it again.
            let is_next_here = has_ended.is_ok() && !self.has_work() && goes_on();
            (is_next_here.then(|| log.begin_sync()), wants_sync, is_tending_due)
        };
        self.note_wish(wants_sync);
        let next = match next {
            None if goes_on() => {
                self.write_waiting();
                Some(self.hold().begin_sync())
            }
            next => next,
        };
        // Not before: a job that waits ends the round.
        if is_tending_due && !self.syncs.is_tending.swap(true, Ordering::AcqRel) {
            self.disks.push(Job::Tend(Arc::clone(self)));
        }
        if next.is_some() {
            self.tell();
        }
        next
    }

    fn tell(&self) {
        (self.owner.announce)();
        self.receipts.tell();
        self.answer_waiters();
    }

    /// Moves the recovery point, writes zeros ahead and key indexes, and lets go of memory, where any of it is due. Appends and syncs go on meanwhile.
    pub(super) fn tend(self: &Arc<Self>) {
        // A failure is kept in the log, and a full disk is met by the next append too.
        let _ = self.try_tend();
        self.syncs.is_tending.store(false, Ordering::Release);
    }

    fn try_tend(self: &Arc<Self>) -> Result<(), LogError> {
        let (let_go, zeros) = self.with(|log| (log.let_go_job(), log.prewrite_job()));
        if let Some(job) = let_go {
            job.run();
        }
        if let Some(job) = zeros {
            // Zeros that could not be written cost speed, nothing else; the next append meets the disk's error itself.
            let _ = job.run();
        }
        while let Some(job) = self.with(|log| log.key_index_job()) {
            // Whoever looks for a key of that segment meets the error, or finds it gone.
            let _ = job.run();
        }
        self.checkpoint_if(|log| log.is_checkpoint_due())
    }

    fn checkpoint_if(self: &Arc<Self>, is_due: impl FnOnce(&Log) -> bool) -> Result<(), LogError> {
        let due = self.with(|log| is_due(log).then(|| log.begin_checkpoint()));
        let Some(job) = due.transpose()? else { return Ok(()) };
        let outcome = job.run();
        self.with(|log| log.finish_sync(job, outcome))
    }

    fn with<R>(self: &Arc<Self>, f: impl FnOnce(&mut Log) -> R) -> R {
        GroupCommit(Arc::clone(self)).with_log(f)
    }

    fn is_round_due(&self) -> bool {
        let wanted = Offset(self.syncs.wanted.load(Ordering::Acquire)).min(self.reader.end());
        let is_behind = wanted > self.reader.durable() && self.reader.stopped().is_none();
        is_behind || self.has_work()
    }
}

/// Ends a round, also one that panics.
struct Round<'a>(&'a Arc<Shared>);

impl Drop for Round<'_> {
    fn drop(&mut self) {
        self.0.syncs.is_scheduled.store(false, Ordering::Release);
        // What was asked for while the round ran found the log scheduled.
        fence(Ordering::SeqCst);
        // A round that panics has stopped the log and told nobody; the next one does.
        let is_untold = || !self.0.syncs.waiters.lock().is_empty() || !self.0.receipts.is_empty();
        let is_cut_short = std::thread::panicking() && is_untold();
        if is_cut_short || self.0.is_round_due() {
            self.0.schedule();
        }
    }
}
