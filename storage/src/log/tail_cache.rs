//! The newest batches of each log as they arrived, so that a consumer at the tail costs no disk read. All logs of a process
//! share one budget; the oldest batch of all goes first. Must know nothing of files.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use floodmark_proto::ids::Offset;
use parking_lot::Mutex;

use crate::segment::ReadLimits;

/// Bytes that all tails of a process may hold together; clones share it.
#[derive(Debug, Clone)]
pub struct TailBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit_bytes: u64,
    used_bytes: AtomicU64,
    /// Every batch held, oldest first. Turns that came to nothing (their log is gone or was cut) are swept now and then.
    order: Mutex<VecDeque<Weak<Tail>>>,
}

/// Turns that may wait in `order` beyond what memory holds, before dead ones are swept.
const DEAD_TURNS_MAX: usize = 65_536;
/// Batches that wait for a reader to let go of the tail; past this the writer waits for the reader.
const WAITING_MAX: usize = 256;

#[derive(Debug, Clone)]
pub(crate) struct TailBatch {
    pub(crate) base: Offset,
    pub(crate) next: Offset,
    pub(crate) bytes: Bytes,
}

/// The readers' side of one log's tail.
#[derive(Debug)]
pub(crate) struct Tail {
    batches: Mutex<VecDeque<TailBatch>>,
    budget: TailBudget,
}

/// The writer's side of one log's tail.
#[derive(Debug)]
pub(crate) struct TailWriter {
    tail: Arc<Tail>,
    /// Batches that could not be added because a reader was looking: the writer never waits for it.
    waiting: Vec<TailBatch>,
}

impl TailBudget {
    /// A budget of its own; 0 keeps nothing in memory.
    #[must_use]
    pub fn new(limit_bytes: u64) -> TailBudget {
        TailBudget(Arc::new(Shared {
            limit_bytes,
            used_bytes: AtomicU64::new(0),
            order: Mutex::new(VecDeque::new()),
        }))
    }

    /// Bytes held now.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.0.used_bytes.load(Ordering::Acquire)
    }

    fn queue(&self, tail: &Arc<Tail>, batches: usize) {
        let mut order = self.0.order.lock();
        order.extend(std::iter::repeat_with(|| Arc::downgrade(tail)).take(batches));
        let mut busy = 0;
        while self.used_bytes() > self.0.limit_bytes && busy < order.len() {
            let Some(turn) = order.pop_front() else { break };
            let Some(victim) = turn.upgrade() else { continue };
            match victim.batches.try_lock() {
                Some(mut held) => {
                    if let Some(oldest) = held.pop_front() {
                        self.give(oldest.bytes.len() as u64);
                    }
                }
                None => {
                    busy += 1;
                    order.push_back(turn);
                }
            }
        }
        if order.len() > DEAD_TURNS_MAX && order.len() as u64 > self.used_bytes() / 64 {
            order.retain(|turn| turn.strong_count() > 0);
        }
    }

    fn give(&self, bytes: u64) {
        self.0.used_bytes.fetch_sub(bytes, Ordering::AcqRel);
    }
}

impl TailWriter {
    pub(crate) fn new(budget: TailBudget) -> TailWriter {
        let tail = Arc::new(Tail { batches: Mutex::new(VecDeque::new()), budget });
        TailWriter { tail, waiting: Vec::new() }
    }

    pub(crate) fn readers(&self) -> Arc<Tail> {
        Arc::clone(&self.tail)
    }

    /// Adds batches that follow the last ones without a gap.
    pub(crate) fn push(&mut self, batches: &mut Vec<TailBatch>) {
        if self.tail.budget.0.limit_bytes == 0 {
            batches.clear();
            return;
        }
        self.waiting.append(batches);
        let held = match self.tail.batches.try_lock() {
            Some(held) => Some(held),
            None if self.waiting.len() > WAITING_MAX => Some(self.tail.batches.lock()),
            None => None,
        };
        let Some(mut held) = held else { return };
        let count = self.waiting.len();
        let bytes = self.waiting.iter().map(|b| b.bytes.len() as u64).sum();
        // Counted before anybody can see, and so give back, a batch.
        self.tail.budget.0.used_bytes.fetch_add(bytes, Ordering::AcqRel);
        held.extend(self.waiting.drain(..));
        drop(held);
        self.tail.budget.queue(&self.tail, count);
    }

    /// Forgets batches that end at or before `offset`: their files are gone, or hold less than they did.
    pub(crate) fn forget_before(&mut self, offset: Offset) {
        self.waiting.retain(|batch| batch.next > offset);
        self.tail.forget(|held| held.partition_point(|batch| batch.next <= offset));
    }

    /// Forgets everything, because the log was cut.
    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
        self.tail.clear();
    }
}

impl Tail {
    /// Whole batches from the one that holds `from`, or `None` where memory does not reach back to it.
    pub(crate) fn read(&self, from: Offset, limits: ReadLimits) -> Option<Vec<Bytes>> {
        let held = self.batches.lock();
        let first = held.partition_point(|batch| batch.next <= from);
        if held.front().is_none_or(|oldest| oldest.base > from) || first == held.len() {
            return None;
        }
        let mut bytes = 0;
        let fits = |batch: &&TailBatch| {
            let whole_first = bytes == 0;
            bytes += batch.bytes.len();
            batch.next <= limits.below && (whole_first || bytes <= limits.max_bytes)
        };
        Some(held.range(first..).take_while(fits).map(|batch| batch.bytes.clone()).collect())
    }

    fn clear(&self) {
        self.forget(VecDeque::len);
    }

    fn forget(&self, count: impl FnOnce(&VecDeque<TailBatch>) -> usize) {
        let mut held = self.batches.lock();
        let count = count(&held);
        let bytes = held.drain(..count).map(|batch| batch.bytes.len() as u64).sum();
        self.budget.give(bytes);
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.clear();
    }
}
