//! The newest batches of each log as they arrived, so that a consumer at the tail costs no disk read. All logs of a process
//! share one budget; the oldest batch of all goes first. A log that nobody reads at its end keeps nothing: its buffers are free for
//! what comes next while they are still in the caches. Must know nothing of files.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
    /// Somebody has asked for the newest records since the writer last looked.
    is_asked: AtomicBool,
}

/// The writer's side of one log's tail.
#[derive(Debug)]
pub(crate) struct TailWriter {
    tail: Arc<Tail>,
    /// Batches that could not be added because a reader was looking: the writer never waits for it.
    waiting: Vec<TailBatch>,
    /// Appended since somebody was last seen to ask for the newest records.
    unasked_bytes: u64,
    /// What memory holds does not reach to what comes next.
    has_gap: bool,
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

    /// Turns of a log that lives are not swept.
    fn end_turns(&self, tail: &Arc<Tail>) {
        self.0.order.lock().retain(|turn| turn.as_ptr() != Arc::as_ptr(tail));
    }

    fn give(&self, bytes: u64) {
        self.0.used_bytes.fetch_sub(bytes, Ordering::AcqRel);
    }
}

impl TailWriter {
    pub(crate) fn new(budget: TailBudget) -> TailWriter {
        let tail =
            Arc::new(Tail { batches: Mutex::new(VecDeque::new()), budget, is_asked: AtomicBool::new(false) });
        TailWriter { tail, waiting: Vec::new(), unasked_bytes: 0, has_gap: false }
    }

    pub(crate) fn readers(&self) -> Arc<Tail> {
        Arc::clone(&self.tail)
    }

    /// Takes batches that follow the last ones without a gap. Keeps them unless more has come than the budget holds since somebody last
    /// asked: whoever that was would not find in memory what he wants next.
    pub(crate) fn push(&mut self, batches: &mut Vec<TailBatch>) {
        if self.tail.is_asked.load(Ordering::Relaxed) {
            self.tail.is_asked.store(false, Ordering::Relaxed);
            self.unasked_bytes = 0;
        }
        self.unasked_bytes += batches.iter().map(|b| b.bytes.len() as u64).sum::<u64>();
        if self.unasked_bytes > self.tail.budget.0.limit_bytes {
            batches.clear();
            self.let_go();
            return;
        }
        self.waiting.append(batches);
        let held = match self.tail.batches.try_lock() {
            Some(held) => Some(held),
            None if self.waiting.len() > WAITING_MAX => Some(self.tail.batches.lock()),
            None => None,
        };
        let Some(mut held) = held else { return };
        let had_old = std::mem::take(&mut self.has_gap) && !held.is_empty();
        if had_old {
            self.tail.give(held.drain(..));
        }
        let count = self.waiting.len();
        let bytes = self.waiting.iter().map(|b| b.bytes.len() as u64).sum();
        // Counted before anybody can see, and so give back, a batch.
        self.tail.budget.0.used_bytes.fetch_add(bytes, Ordering::AcqRel);
        held.extend(self.waiting.drain(..));
        drop(held);
        if had_old {
            self.tail.budget.end_turns(&self.tail);
        }
        self.tail.budget.queue(&self.tail, count);
    }

    /// Keeps nothing, from here on or still.
    fn let_go(&mut self) {
        let was_kept = !std::mem::replace(&mut self.has_gap, true);
        // Also of what came behind a gap: what comes now is another one.
        self.waiting.clear();
        // Where a reader is looking, the old ones have their turns, and go when the next batch comes.
        if let Some(mut held) = self.tail.batches.try_lock()
            && (was_kept || !held.is_empty())
        {
            self.tail.give(held.drain(..));
            drop(held);
            self.tail.budget.end_turns(&self.tail);
        }
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
        self.note_asked();
        let mut bytes = 0;
        let fits = |batch: &&TailBatch| {
            let whole_first = bytes == 0;
            bytes += batch.bytes.len();
            batch.next <= limits.below && (whole_first || bytes <= limits.max_bytes)
        };
        Some(held.range(first..).take_while(fits).map(|batch| batch.bytes.clone()).collect())
    }

    /// To be told of whoever reads the newest records or waits for the next: what comes is worth keeping.
    pub(crate) fn note_asked(&self) {
        // A look costs readers and the writer less than to write each time.
        if !self.is_asked.load(Ordering::Relaxed) {
            self.is_asked.store(true, Ordering::Relaxed);
        }
    }

    fn clear(&self) {
        self.forget(VecDeque::len);
    }

    fn forget(&self, count: impl FnOnce(&VecDeque<TailBatch>) -> usize) {
        let mut held = self.batches.lock();
        let count = count(&held);
        self.give(held.drain(..count));
    }

    /// Lets go of batches.
    fn give(&self, batches: impl Iterator<Item = TailBatch>) {
        self.budget.give(batches.map(|batch| batch.bytes.len() as u64).sum());
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: ReadLimits = ReadLimits { below: Offset(i64::MAX), max_bytes: usize::MAX };

    /// A log whose batches have one offset and ten bytes each.
    struct Written {
        writer: TailWriter,
        next: i64,
    }

    impl Written {
        fn new(budget: &TailBudget) -> Written {
            Written { writer: TailWriter::new(budget.clone()), next: 0 }
        }

        fn push(&mut self, batches: usize) {
            for _ in 0..batches {
                let batch = TailBatch {
                    base: Offset(self.next),
                    next: Offset(self.next + 1),
                    bytes: Bytes::from(vec![self.next as u8; 10]),
                };
                self.writer.push(&mut vec![batch]);
                self.next += 1;
            }
        }

        /// How many of the newest batches are read from memory; they must be the newest, each once.
        fn held(&self) -> usize {
            let held = self.writer.tail.batches.lock().len() as i64;
            let Some(read) = self.writer.tail.read(Offset(self.next - held), ALL) else { return 0 };
            let expected: Vec<_> =
                (self.next - held..self.next).map(|n| Bytes::from(vec![n as u8; 10])).collect();
            assert_eq!(read, expected);
            read.len()
        }
    }

    #[test]
    fn what_nobody_asks_for_is_not_kept_once_the_budget_has_come_in_its_place() {
        let budget = TailBudget::new(100);
        let mut log = Written::new(&budget);
        log.push(10);
        assert_eq!((log.writer.tail.batches.lock().len(), budget.used_bytes()), (10, 100));
        log.push(1);
        assert_eq!((log.writer.tail.batches.lock().len(), budget.used_bytes()), (0, 0));
        log.push(50);
        assert_eq!(budget.used_bytes(), 0);
        // Who waits at the end finds what comes next, and nothing of before.
        log.writer.tail.note_asked();
        log.push(3);
        assert_eq!((log.held(), budget.used_bytes()), (3, 30));
        assert!(log.writer.tail.read(Offset(log.next - 4), ALL).is_none());
        // As long as somebody reads, the budget is what bounds it.
        for _ in 0..50 {
            log.push(1);
            assert!(log.held() > 3);
        }
        assert_eq!((log.held(), budget.used_bytes()), (10, 100));
    }

    #[test]
    fn a_log_that_nobody_reads_leaves_the_memory_to_one_that_is_read() {
        let budget = TailBudget::new(100);
        let (mut read, mut unread) = (Written::new(&budget), Written::new(&budget));
        for _ in 0..20 {
            unread.push(10);
            read.push(1);
            read.held();
        }
        assert_eq!((read.held(), unread.held()), (10, 0));
    }

    #[test]
    fn batches_that_a_reader_held_on_to_never_meet_those_behind_a_gap() {
        let budget = TailBudget::new(100);
        let mut log = Written::new(&budget);
        log.push(10);
        let tail = log.writer.readers();
        let looking = tail.batches.lock();
        log.push(5);
        drop(looking);
        assert_eq!(budget.used_bytes(), 100);
        // They are old now, and good as far as they go.
        assert_eq!(tail.read(Offset(8), ALL).unwrap().len(), 2);
        assert!(tail.read(Offset(10), ALL).is_none());
        log.push(2);
        assert!(tail.read(Offset(14), ALL).is_none());
        assert_eq!((log.held(), budget.used_bytes()), (2, 20));
        assert!(tail.read(Offset(9), ALL).is_none());
    }

    #[test]
    fn what_a_reader_held_on_to_goes_with_the_next_that_comes() {
        let budget = TailBudget::new(100);
        let mut log = Written::new(&budget);
        log.push(10);
        let tail = log.writer.readers();
        let looking = tail.batches.lock();
        log.push(2);
        drop(looking);
        log.push(1);
        assert_eq!((tail.batches.lock().len(), budget.used_bytes()), (0, 0));
    }

    #[test]
    fn turns_of_what_was_let_go_do_not_pile_up() {
        let budget = TailBudget::new(100);
        let mut log = Written::new(&budget);
        for _ in 0..1_000 {
            log.push(11);
            log.writer.tail.note_asked();
        }
        assert!(budget.0.order.lock().len() <= 10);
    }

    #[test]
    fn what_waited_for_a_reader_never_meets_what_comes_behind_a_second_gap() {
        let budget = TailBudget::new(100);
        let mut log = Written::new(&budget);
        log.push(11);
        log.writer.tail.note_asked();
        let tail = log.writer.readers();
        let looking = tail.batches.lock();
        log.push(11);
        drop(looking);
        log.writer.tail.note_asked();
        log.push(1);
        assert!(tail.read(Offset(12), ALL).is_none(), "batches were passed over");
        assert_eq!((log.held(), budget.used_bytes()), (1, 10));
    }

    #[test]
    fn what_a_reader_held_on_to_still_has_its_turn() {
        let budget = TailBudget::new(100);
        let (mut quiet, mut other) = (Written::new(&budget), Written::new(&budget));
        quiet.push(10);
        let tail = quiet.writer.readers();
        let looking = tail.batches.lock();
        quiet.push(1);
        drop(looking);
        for _ in 0..20 {
            other.push(1);
            other.held();
        }
        assert_eq!((other.held(), tail.batches.lock().len(), budget.used_bytes()), (10, 0, 100));
    }

    #[test]
    fn turns_of_what_a_reader_held_on_to_do_not_pile_up() {
        for goes_with_the_next_kept in [true, false] {
            let budget = TailBudget::new(100);
            let mut log = Written::new(&budget);
            let tail = log.writer.readers();
            for _ in 0..1_000 {
                log.push(5);
                let looking = tail.batches.lock();
                log.push(6);
                drop(looking);
                if !goes_with_the_next_kept {
                    log.push(1);
                }
                tail.note_asked();
            }
            assert!(budget.0.order.lock().len() <= 10);
        }
    }

    proptest::proptest! {
        /// Whatever comes in between: memory passes over no batch, is counted, and each batch has its turn to go.
        #[test]
        fn what_is_held_is_in_one_piece_and_counted(
            steps in proptest::collection::vec((0..6_u8, proptest::bool::ANY, 1..12_usize), 1..40)
        ) {
            let budget = TailBudget::new(100);
            let mut logs = [Written::new(&budget), Written::new(&budget)];
            let tails = [0, 1].map(|n| logs[n].writer.readers());
            let mut looking = [None, None];
            for (step, which, batches) in steps {
                let which = usize::from(which);
                let (log, tail) = (&mut logs[which], &tails[which]);
                // Two of three steps append.
                match step {
                    0 if looking[which].is_none() => looking[which] = Some(tail.batches.lock()),
                    0 => looking[which] = None,
                    1 => tail.note_asked(),
                    // Who forgets waits for who is looking, and so does who has much that waits.
                    2 if looking[which].is_none() => log.writer.forget_before(Offset(log.next - 3)),
                    _ if log.writer.waiting.len() + batches <= WAITING_MAX => log.push(batches),
                    _ => {}
                }
                let mut used = 0;
                for n in [0, 1] {
                    let own = looking[n].is_none().then(|| tails[n].batches.lock());
                    let Some(held) = looking[n].as_ref().or(own.as_ref()) else { continue };
                    let gap = held.iter().zip(held.iter().skip(1)).find(|(one, next)| one.next != next.base);
                    proptest::prop_assert!(gap.is_none(), "{gap:?}");
                    used += held.iter().map(|batch| batch.bytes.len() as u64).sum::<u64>();
                    let turns = budget.0.order.lock();
                    let turns = turns.iter().filter(|turn| turn.as_ptr() == Arc::as_ptr(&tails[n])).count();
                    proptest::prop_assert!(turns >= held.len(), "{turns} turns of {} batches", held.len());
                }
                proptest::prop_assert_eq!(used, budget.used_bytes());
            }
        }
    }
}
