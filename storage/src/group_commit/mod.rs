//! Many callers, one log, and nobody who waits: whoever finds the log free writes what the others brought meanwhile, a disk
//! thread makes it durable, and each caller is told by a call of its own. No timer. Must know nothing of tasks or sockets.
//!
//! - this file: [`GroupCommit`], who writes, and in which order
//! - `request`: a call and its answer; `receipts`: answers that wait; `syncs`: what becomes durable, and who is told
//! - `disk_threads`: the threads that wait for disks

mod disk_threads;
mod receipts;
mod request;
mod syncs;

use std::collections::VecDeque;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use floodmark_proto::batch::RecordBatch;
use floodmark_proto::ids::Offset;
use parking_lot::{Mutex, MutexGuard};

use crate::error::LogError;
use crate::key_index::BatchKeys;
use crate::log::Log;
use crate::log::append::{AppendAs, ToAppend};
use crate::log::condition::Condition;
use crate::log::reader::LogReader;
pub use disk_threads::DiskThreads;
use receipts::Receipts;
use request::{Answer, Request, for_each_receipt, receipt_of};
pub use request::{Receipt, Then};
use syncs::Syncs;

/// Bytes written in one group. Past this a larger write is no cheaper by the byte, and those who wait for it wait longer.
const GROUP_BYTES: usize = 1 << 20;
/// Bytes that are worth a write of their own beside a sync, so that the disk has less to wait for when that has ended.
const WRITE_BESIDE_BYTES: usize = 16 << 10;
/// Groups that a caller writes for others before a disk thread takes over: it has work of its own.
const GROUPS_FOR_OTHERS: usize = 16;

/// A log shared by threads. Clones share it.
#[derive(Debug, Clone)]
pub struct GroupCommit(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    log: Mutex<Log>,
    reader: LogReader,
    /// Requests that found the log taken, in their order. As many as callers have under way: they bound them by their bytes.
    waiting: Mutex<VecDeque<Request>>,
    /// Bytes of the requests in `waiting`, each counted as one at least, so that the usual look at an empty queue takes no lock.
    queued: AtomicUsize,
    /// The owner wants to look at the log; done by whoever holds it next.
    nudged: AtomicBool,
    receipts: Receipts,
    syncs: Syncs,
    disks: DiskThreads,
    owner: Owner,
}

/// What the owner of a log does as the log moves on. Called by whichever thread moved it; must not block.
pub struct Owner {
    /// With the log, after a group was written or a sync has ended. Says true where what is appended should become durable
    /// soon, though nobody waits for it.
    pub on_moved: Box<dyn Fn(&mut Log) -> bool + Send + Sync>,
    /// After that, without the log.
    pub announce: Box<dyn Fn() + Send + Sync>,
}

impl Default for Owner {
    /// Cares for nothing but the flush policy.
    fn default() -> Owner {
        Owner { on_moved: Box::new(|log| log.is_flush_due()), announce: Box::new(|| {}) }
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Owner")
    }
}

impl GroupCommit {
    /// Takes the log in; `disks` makes it durable.
    #[must_use]
    pub fn new(log: Log, disks: &DiskThreads, owner: Owner) -> GroupCommit {
        let shared = Arc::new(Shared {
            reader: log.reader(),
            log: Mutex::new(log),
            waiting: Mutex::new(VecDeque::new()),
            queued: AtomicUsize::new(0),
            nudged: AtomicBool::new(false),
            receipts: Receipts::default(),
            syncs: Syncs::default(),
            disks: disks.clone(),
            owner,
        });
        GroupCommit(shared)
    }

    /// A reader of the log.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        self.0.reader.clone()
    }

    /// Runs `f` on the log, alone. Waits for whoever has it, who may be waiting for the disk.
    pub fn with_log<R>(&self, f: impl FnOnce(&mut Log) -> R) -> R {
        self.0.run_on(self.0.hold(), f)
    }

    /// Fixes the order of `batches` and has them written, or made to wait for a sync ([`Log::begin_staging`]): at once, by this thread, where the log is free, else by whoever has
    /// it. Calls of one thread are written in their order. Waits neither for another's write nor for a sync.
    ///
    /// `then` is called once, on whichever thread knows the outcome, perhaps before this returns; it must not block.
    pub fn submit(
        &self,
        batches: Vec<RecordBatch>,
        append_as: AppendAs,
        then: impl FnOnce(Result<Receipt, LogError>) + Send + 'static,
    ) {
        if self.0.reader.key_seed().is_none() {
            return self.submit_each(batches.into_iter().map(ToAppend::from), append_as, then);
        }
        self.submit_each(self.0.hashed(batches).into_iter(), append_as, then);
    }

    /// [`GroupCommit::submit`] of one batch that is appended only where `condition` holds.
    pub fn submit_if(
        &self,
        batch: RecordBatch,
        condition: Condition,
        append_as: AppendAs,
        then: impl FnOnce(Result<Receipt, LogError>) + Send + 'static,
    ) {
        let seed = self.0.reader.key_seed();
        let keys = seed.and_then(|seed| BatchKeys::of(batch.as_bytes(), batch.header(), seed).ok());
        let one = ToAppend { batch, keys, condition: Some(Box::new(condition)) };
        self.submit_each(std::iter::once(one), append_as, then);
    }

    fn submit_each(
        &self,
        batches: impl Iterator<Item = ToAppend>,
        append_as: AppendAs,
        then: impl FnOnce(Result<Receipt, LogError>) + Send + 'static,
    ) {
        let shared = &self.0;
        if shared.queued.load(Ordering::Acquire) == 0
            && !shared.syncs.gather()
            && let Some(mut log) = shared.try_hold()
            && !log.is_staging()
        {
            let then = Answer::new(then);
            let outcome = log.append(batches, append_as).map(receipt_of);
            shared.let_go(log);
            then.give(outcome);
        } else {
            shared.queue(batches.collect(), append_as, then);
        }
        shared.serve();
    }

    /// [`GroupCommit::with_log`] where nobody has the log at this moment and nobody waits for it; gives `f` back otherwise.
    pub fn try_with_log<R, F: FnOnce(&mut Log) -> R>(&self, f: F) -> Result<R, F> {
        let Some(log) = self.0.try_hold() else { return Err(f) };
        Ok(self.0.run_on(log, f))
    }

    /// Has the owner's `on_moved` called at once, also beside a sync, where nobody has the log at this moment; else as
    /// [`GroupCommit::nudge`].
    pub fn look(&self) {
        if self.try_with_log(|_| ()).is_err() {
            self.nudge();
        }
    }

    /// [`GroupCommit::look`] by a thread that may wait, for so long at most. Says whether it was done by this one; else whoever has the log does
    /// it before letting go, or behind that.
    pub fn look_within(&self, patience: Duration) -> bool {
        let log = self.0.log.try_lock_for(patience).map(Held);
        let has_it = log.is_some();
        match log {
            Some(log) => self.0.run_on(log, |_| ()),
            None => self.nudge(),
        }
        has_it
    }

    /// Has the owner's `on_moved` called soon, by whoever has the log or comes to have it. Does not wait.
    pub fn nudge(&self) {
        self.0.nudged.store(true, Ordering::Release);
        self.0.serve();
    }

    /// [`GroupCommit::submit`] for a thread that may sleep.
    pub fn append(&self, batches: Vec<RecordBatch>, append_as: AppendAs) -> Result<Receipt, LogError> {
        let (give, take) = sync_channel(1);
        self.submit(batches, append_as, move |outcome| {
            // The other end waits below.
            let _ = give.send(outcome);
        });
        take.recv().unwrap_or(Err(LogError::Abandoned))
    }

    /// Appends and returns once the batches are durable. Waking a disk thread and being woken by it can cost as much as the sync, so
    /// the calling thread sees to the disk itself where no other does.
    pub fn append_synced(&self, batches: Vec<RecordBatch>, append_as: AppendAs) -> Result<Receipt, LogError> {
        let (give, take) = sync_channel(1);
        self.0.queue(self.0.hashed(batches), append_as, move |outcome| drop(give.send(outcome)));
        self.0.round_here();
        self.0.serve();
        let receipt = take.recv().unwrap_or(Err(LogError::Abandoned))?;
        self.wait_synced(receipt.end)?;
        Ok(receipt)
    }

    /// [`GroupCommit::when_synced`] for a thread that may sleep.
    pub fn wait_synced(&self, up_to: Offset) -> Result<(), LogError> {
        let (give, take) = sync_channel(1);
        self.when_synced(up_to, move |outcome| {
            let _ = give.send(outcome);
        });
        take.recv().unwrap_or(Err(LogError::Abandoned))
    }

    /// Ends the log cleanly. Whoever waits is answered, later calls are refused with [`LogError::Closed`]; reading goes on.
    /// Blocks on the disk.
    pub fn close(&self) -> Result<(), LogError> {
        self.with_log(Log::end_cleanly)
    }

    /// Ends the log without saving anything, because its files are to be removed.
    pub fn abandon(&self) {
        self.with_log(Log::end_abruptly);
    }
}

impl Shared {
    fn hold(&self) -> Held<'_> {
        Held(self.log.lock())
    }

    fn try_hold(&self) -> Option<Held<'_>> {
        self.log.try_lock().map(Held)
    }

    fn run_on<R>(self: &Arc<Self>, mut log: Held<'_>, f: impl FnOnce(&mut Log) -> R) -> R {
        let result = f(&mut log);
        self.let_go(log);
        self.answer_waiters();
        // Requests that came meanwhile found the log taken and rely on its holder.
        self.serve();
        result
    }

    /// Batches with their keys, where the log has an index of them: hashed before anybody has to wait for it.
    fn hashed(&self, batches: Vec<RecordBatch>) -> Vec<ToAppend> {
        let seed = self.reader.key_seed();
        let hashed = batches.into_iter().map(|batch| {
            let keys = seed.and_then(|seed| BatchKeys::of(batch.as_bytes(), batch.header(), seed).ok());
            // Where that failed, the log says so of this batch alone.
            ToAppend { keys, batch, condition: None }
        });
        hashed.collect()
    }

    fn queue(
        &self,
        batches: Vec<ToAppend>,
        append_as: AppendAs,
        then: impl FnOnce(Result<Receipt, LogError>) + Send + 'static,
    ) {
        let request = Request::new(batches, append_as, Box::new(then));
        let bytes = request.bytes;
        self.waiting.lock().push_back(request);
        self.queued.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Writes groups until nobody waits, unless somebody else is at it.
    fn serve(self: &Arc<Self>) {
        for _ in 0..GROUPS_FOR_OTHERS {
            if !self.has_work() || self.is_left_to_a_round() {
                return;
            }
            // Who has it looks again after letting go, so a request that finds it taken is not forgotten.
            let Some(log) = self.try_hold() else { return };
            if !self.write_next(log, false) {
                break;
            }
        }
        self.schedule();
    }

    /// True where a round will do what there is to do. Asked after [`Shared::has_work`], as a round asks that when it has ended.
    fn is_left_to_a_round(&self) -> bool {
        self.syncs.gather() && self.queued.load(Ordering::Acquire) < WRITE_BESIDE_BYTES
    }

    /// Writes all that waits now.
    fn write_waiting(self: &Arc<Self>) {
        for _ in 0..GROUPS_FOR_OTHERS {
            if !self.has_work() || !self.write_next(self.hold(), true) {
                return;
            }
        }
    }

    /// Says false where what waits can only be written once the disk has done something, and nothing was.
    fn write_next(self: &Arc<Self>, log: Held<'_>, may_wait: bool) -> bool {
        self.nudged.store(false, Ordering::Release);
        let group = self.next_group(log.room(may_wait));
        let has_found_any = !group.is_empty();
        self.write_group(log, group);
        has_found_any || self.queued.load(Ordering::Acquire) == 0
    }

    /// The other half of letting go of the log, or of having queued: one of the two sides sees what the other did.
    fn has_work(&self) -> bool {
        fence(Ordering::SeqCst);
        self.queued.load(Ordering::Acquire) > 0 || self.nudged.load(Ordering::Acquire)
    }

    /// Requests from the front that go together: in the same name, up to the group's bytes, and no more than there is room for.
    fn next_group(&self, room: usize) -> Vec<Request> {
        let mut waiting = self.waiting.lock();
        let Some(first) = waiting.front().map(|r| r.append_as) else { return Vec::new() };
        let mut bytes = 0;
        let fits = |r: &Request| {
            bytes += r.bytes;
            r.append_as == first && bytes <= room && (bytes == r.bytes || bytes <= GROUP_BYTES)
        };
        let count = waiting.iter().map(fits).take_while(|fits| *fits).count();
        let group: Vec<Request> = waiting.drain(..count).collect();
        self.queued.fetch_sub(group.iter().map(|r| r.bytes).sum(), Ordering::AcqRel);
        group
    }

    fn write_group(self: &Arc<Self>, mut log: Held<'_>, mut group: Vec<Request>) {
        let written = group
            .first()
            .map(|r| r.append_as)
            .map(|append_as| log.append(group.iter_mut().flat_map(|r| r.batches.drain(..)), append_as));
        match written {
            None => self.let_go(log),
            Some(Err(e)) => {
                self.let_go(log);
                group.into_iter().for_each(|request| request.then.give(Err(e.clone())));
            }
            Some(Ok(outcomes)) if log.has_staged() => {
                for_each_receipt(group, outcomes, |then, receipt| self.receipts.keep(&log, receipt, then));
                self.let_go(log);
            }
            Some(Ok(outcomes)) => {
                self.let_go(log);
                for_each_receipt(group, outcomes, |then, receipt| then.give(Ok(receipt)));
            }
        }
    }

    /// Lets go of the log, which may have moved.
    fn let_go(self: &Arc<Self>, mut log: Held<'_>) {
        let wants_sync = self.look_at(&mut log);
        drop(log);
        self.note_wish(wants_sync);
        (self.owner.announce)();
        self.receipts.tell();
    }

    /// The last look before others have the log. Says whether it should become durable.
    fn look_at(&self, log: &mut Held<'_>) -> bool {
        let is_wanted = (self.owner.on_moved)(log);
        self.receipts.look_through(log);
        is_wanted || log.has_staged()
    }

    /// The owner wants what is appended durable, or does not.
    fn note_wish(self: &Arc<Self>, wants_sync: bool) {
        self.syncs.set_eager(wants_sync);
        if wants_sync {
            self.want_sync(self.reader.end());
        }
    }
}

/// The log, in one thread's hands.
struct Held<'a>(MutexGuard<'a, Log>);

impl Deref for Held<'_> {
    type Target = Log;

    fn deref(&self) -> &Log {
        &self.0
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Log {
        &mut self.0
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // Nobody knows what a call that panicked has left half done.
        if std::thread::panicking() {
            self.0.poison_by_panic();
        }
    }
}

#[cfg(test)]
mod tests;
