//! Many callers, one log: whoever finds it free writes what the others brought meanwhile, and one sync serves all who wait
//! for it. No thread of its own, no timer. Must know nothing of tasks or sockets.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};

use floodmark_proto::batch::RecordBatch;
use floodmark_proto::ids::Offset;
use parking_lot::Mutex;

use crate::error::LogError;
use crate::log::Log;
use crate::log::append::{AppendAs, AppendOutcomes};
use crate::log::reader::LogReader;

/// Bytes written in one group. Past this a larger write is no cheaper by the byte, and those who wait for it wait longer.
const GROUP_BYTES: usize = 1 << 20;

/// A log shared by threads. Clones share it.
#[derive(Debug, Clone)]
pub struct GroupCommit(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    log: Mutex<Log>,
    reader: LogReader,
    waiting: Mutex<VecDeque<Request>>,
    syncs: Mutex<Syncs>,
    tending: AtomicBool,
}

/// Batches whose order is not fixed yet.
#[derive(Debug)]
struct Request {
    batches: Vec<RecordBatch>,
    bytes: usize,
    append_as: AppendAs,
    reply: Option<Arc<Reply>>,
}

/// Where a request finds its answer.
#[derive(Debug)]
struct Reply {
    answer: Mutex<Option<Result<Receipt, LogError>>>,
    thread: Thread,
}

/// The order of a request's batches is fixed and they are written.
#[derive(Debug, Clone, PartialEq)]
pub struct Receipt {
    /// What became of each batch.
    pub outcomes: AppendOutcomes,
    /// The batches are durable once the log is up to here.
    pub end: Offset,
}

#[derive(Debug, Default)]
struct Syncs {
    is_running: bool,
    sleepers: VecDeque<Sleeper>,
}

#[derive(Debug)]
struct Sleeper {
    up_to: Offset,
    thread: Thread,
    wake: Arc<AtomicBool>,
}

impl GroupCommit {
    /// Takes the log in.
    #[must_use]
    pub fn new(log: Log) -> GroupCommit {
        GroupCommit(Arc::new(Shared {
            reader: log.reader(),
            log: Mutex::new(log),
            waiting: Mutex::new(VecDeque::new()),
            syncs: Mutex::new(Syncs::default()),
            tending: AtomicBool::new(false),
        }))
    }

    /// A reader of the log.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        self.0.reader.clone()
    }

    /// Runs `f` on the log, alone.
    pub fn with_log<R>(&self, f: impl FnOnce(&mut Log) -> R) -> R {
        let result = f(&mut self.0.log.lock());
        // Requests that came meanwhile found the log taken and rely on its holder.
        self.serve();
        result
    }

    /// The log back, where this is the last clone.
    #[must_use]
    pub fn into_log(self) -> Option<Log> {
        Arc::into_inner(self.0).map(|shared| shared.log.into_inner())
    }

    /// Fixes the order of `batches` and writes them. Blocks while the group before is written, not for any sync.
    pub fn append(&self, batches: Vec<RecordBatch>, append_as: AppendAs) -> Result<Receipt, LogError> {
        if let Some(mut log) = self.0.log.try_lock()
            && self.0.waiting.lock().is_empty()
        {
            let outcomes = log.append(batches, append_as);
            let end = log.end();
            drop(log);
            self.serve();
            return outcomes.map(|outcomes| Receipt { outcomes, end });
        }
        let reply = Arc::new(Reply { answer: Mutex::new(None), thread: thread::current() });
        let bytes = batches.iter().map(RecordBatch::size_bytes).sum();
        let request = Request { batches, bytes, append_as, reply: Some(Arc::clone(&reply)) };
        self.0.waiting.lock().push_back(request);
        self.serve();
        loop {
            if let Some(answer) = reply.answer.lock().take() {
                return answer;
            }
            thread::park();
        }
    }

    /// Appends and returns once the batches are durable.
    pub fn append_synced(&self, batches: Vec<RecordBatch>, append_as: AppendAs) -> Result<Receipt, LogError> {
        let receipt = self.append(batches, append_as)?;
        self.wait_synced(receipt.end)?;
        Ok(receipt)
    }

    /// Writes groups until nobody waits, unless somebody else is at it.
    fn serve(&self) {
        // Looking again after letting go closes the gap in which a request finds the log taken by one who looks no more.
        while !self.0.waiting.lock().is_empty() {
            let Some(mut log) = self.0.log.try_lock() else { return };
            let group = self.next_group();
            if !group.is_empty() {
                write_group(&mut log, group);
            }
        }
    }

    /// Requests from the front that go together: in the same name, up to the group's bytes.
    fn next_group(&self) -> Vec<Request> {
        let mut waiting = self.0.waiting.lock();
        let Some(first) = waiting.front().map(|r| r.append_as) else { return Vec::new() };
        let mut bytes = 0;
        let fits = |r: &Request| {
            bytes += r.bytes;
            r.append_as == first && (bytes == r.bytes || bytes <= GROUP_BYTES)
        };
        let count = waiting.iter().map(fits).take_while(|fits| *fits).count();
        waiting.drain(..count).collect()
    }

    /// Returns once everything before `up_to` is durable. One of those who wait runs the sync for all.
    pub fn wait_synced(&self, up_to: Offset) -> Result<(), LogError> {
        loop {
            let wake = {
                let mut syncs = self.0.syncs.lock();
                if self.0.reader.durable() >= up_to {
                    return Ok(());
                }
                if let Some(poison) = self.0.reader.poison() {
                    return Err(LogError::Poisoned(poison.clone()));
                }
                if self.0.reader.end() < up_to {
                    // The log was cut below what the caller waits for; it is not in the log any more.
                    return Err(LogError::OutOfRange {
                        asked: up_to,
                        start: self.0.reader.start(),
                        end: self.0.reader.end(),
                    });
                }
                if syncs.is_running {
                    let wake = Arc::new(AtomicBool::new(false));
                    let sleeper = Sleeper { up_to, thread: thread::current(), wake: Arc::clone(&wake) };
                    syncs.sleepers.push_back(sleeper);
                    Some(wake)
                } else {
                    syncs.is_running = true;
                    None
                }
            };
            match wake {
                Some(wake) => {
                    while !wake.load(Ordering::Acquire) {
                        thread::park();
                    }
                }
                None => self.sync_for_all()?,
            }
        }
    }

    /// The caller has set `is_running`.
    fn sync_for_all(&self) -> Result<(), LogError> {
        let outcome = self.run_sync();
        let mut syncs = self.0.syncs.lock();
        syncs.is_running = false;
        let durable = self.0.reader.durable();
        let failed = outcome.is_err();
        let mut done = VecDeque::new();
        // The one who syncs next goes first, so that the disk does not wait for the others to be woken.
        let mut next = None;
        for sleeper in std::mem::take(&mut syncs.sleepers) {
            if failed || sleeper.up_to <= durable {
                done.push_back(sleeper);
            } else if next.is_none() {
                next = Some(sleeper);
            } else {
                syncs.sleepers.push_back(sleeper);
            }
        }
        drop(syncs);
        next.into_iter().chain(done).for_each(Sleeper::wake);
        outcome?;
        self.tend()
    }

    fn run_sync(&self) -> Result<(), LogError> {
        let job = self.with_log(Log::begin_sync)?;
        let outcome = job.run();
        self.with_log(|log| log.finish_sync(job, outcome))
    }

    /// Moves the recovery point and writes zeros ahead, where either is due. One thread at a time; appends go on meanwhile.
    fn tend(&self) -> Result<(), LogError> {
        if self.0.tending.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let outcome = self.tend_alone();
        self.0.tending.store(false, Ordering::Release);
        outcome
    }

    fn tend_alone(&self) -> Result<(), LogError> {
        if let Some(job) = self.with_log(Log::prewrite_job) {
            // Zeros that could not be written cost speed, nothing else; the next append meets the disk's error itself.
            let _ = job.run();
        }
        let due = self.with_log(|log| log.is_checkpoint_due().then(|| log.begin_checkpoint()));
        let Some(job) = due.transpose()? else { return Ok(()) };
        let outcome = job.run();
        self.with_log(|log| log.finish_sync(job, outcome))
    }
}

fn write_group(log: &mut Log, mut group: Vec<Request>) {
    let Some(append_as) = group.first().map(|r| r.append_as) else { return };
    let counts: Vec<usize> = group.iter().map(|r| r.batches.len()).collect();
    let batches: Vec<RecordBatch> = group.iter_mut().flat_map(|r| r.batches.drain(..)).collect();
    let result = log.append(batches, append_as);
    let end = log.end();
    match result {
        Err(e) => group.into_iter().for_each(|r| r.answer(Err(e.clone()))),
        Ok(outcomes) => {
            let mut outcomes = outcomes.into_iter();
            for (request, count) in group.into_iter().zip(counts) {
                request.answer(Ok(Receipt { outcomes: outcomes.by_ref().take(count).collect(), end }));
            }
        }
    }
}

impl Request {
    fn answer(mut self, answer: Result<Receipt, LogError>) {
        if let Some(reply) = self.reply.take() {
            reply.give(answer);
        }
    }
}

impl Drop for Request {
    /// Whoever dropped it unanswered must not leave its caller waiting.
    fn drop(&mut self) {
        if let Some(reply) = self.reply.take() {
            reply.give(Err(LogError::Abandoned));
        }
    }
}

impl Reply {
    fn give(&self, answer: Result<Receipt, LogError>) {
        *self.answer.lock() = Some(answer);
        self.thread.unpark();
    }
}

impl Sleeper {
    fn wake(self) {
        self.wake.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

#[cfg(test)]
mod tests;
