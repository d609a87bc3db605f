//! What is done for all partitions beside serving them, by two threads and no timer of any partition: one for what is short, one
//! for compaction, a pass at a time.

use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use floodmark_storage::LogError;
use floodmark_storage::clock::Stopwatch;
use floodmark_storage::log::CompactionControl;
use parking_lot::{Condvar, Mutex};

use super::Shared;
use crate::lasting::{Trouble, Word};
use crate::partition::{PartitionError, PartitionHandle, PartitionId, RetentionDue};

/// How often something is done for each partition that may need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Periods {
    /// A look for logs whose flush policy demands a sync; only at topics that have one.
    pub flush: Duration,
    /// Closing files of partitions that nobody used in between.
    pub release: Duration,
    /// Retention: `log.retention.check.interval.ms`.
    pub retention: Duration,
    /// A look for partitions for which retention cannot wait as long: settings have changed, or a disk is full.
    pub urgent_retention: Duration,
    /// Forgetting silent producers: `producer.id.expiration.check.interval.ms`.
    pub expiry: Duration,
    /// A look for logs to compact: `log.cleaner.backoff.ms`.
    pub compaction: Duration,
}

impl Default for Periods {
    /// Kafka's where it has such.
    fn default() -> Periods {
        Periods {
            flush: Duration::from_millis(200),
            release: Duration::from_secs(60),
            retention: Duration::from_secs(300),
            urgent_retention: Duration::from_secs(2),
            expiry: Duration::from_secs(600),
            compaction: Duration::from_secs(15),
        }
    }
}

/// The two threads, as others see them.
#[derive(Debug)]
pub(super) struct Upkeep {
    periods: Periods,
    stop: Arc<Stop>,
    pass: Arc<Pass>,
}

/// Whether the threads are to end, and how many have not yet.
#[derive(Debug, Default)]
struct Stop {
    state: Mutex<StopState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct StopState {
    is_asked: bool,
    running: usize,
}

/// The compaction pass under way.
#[derive(Debug, Default)]
struct Pass {
    of: Mutex<Option<(PartitionId, CompactionControl)>>,
    ended: Condvar,
}

impl Stop {
    /// True once the threads are to end; waits for that, `period` at most.
    fn wait(&self, period: Duration) -> bool {
        let mut state = self.state.lock();
        if !state.is_asked {
            self.changed.wait_for(&mut state, period);
        }
        state.is_asked
    }

    fn is_asked(&self) -> bool {
        self.state.lock().is_asked
    }

    fn ask(&self) {
        self.state.lock().is_asked = true;
        self.changed.notify_all();
    }
}

impl Upkeep {
    pub(super) fn new(periods: Periods) -> Upkeep {
        Upkeep { periods, stop: Arc::default(), pass: Arc::default() }
    }

    /// Has the threads end, and waits for that, `timeout` at most.
    pub(super) fn stop(&self, timeout: Duration) {
        self.stop.ask();
        if let Some((_, control)) = &*self.pass.of.lock() {
            control.cancel();
        }
        let begun = Stopwatch::start();
        let mut state = self.stop.state.lock();
        while state.running > 0 && begun.elapsed() < timeout {
            self.stop.changed.wait_for(&mut state, timeout.saturating_sub(begun.elapsed()));
        }
    }

    /// A pass that is under way in this partition for all that others see.
    #[cfg(test)]
    pub(super) fn pretend_compaction_of(&self, id: &PartitionId, control: CompactionControl) {
        *self.pass.of.lock() = Some((id.clone(), control));
    }

    /// Ends the pass under way in this partition; says whether there is none any more, which is waited for so long at most.
    pub(super) fn end_compaction_of(&self, id: &PartitionId, patience: Duration) -> bool {
        let begun = Stopwatch::start();
        let mut of = self.pass.of.lock();
        while let Some((_, control)) = of.as_ref().filter(|(held, _)| held == id) {
            control.cancel();
            let left = patience.saturating_sub(begun.elapsed());
            if self.pass.ended.wait_for(&mut of, left).timed_out() && left.is_zero() {
                return false;
            }
        }
        true
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.stop.ask();
        if let Some((_, control)) = &*self.pass.of.lock() {
            control.cancel();
        }
    }
}

/// Starts the two threads. They end when asked to, or when nobody has the registry any more.
pub(super) fn start(shared: &Arc<Shared>) -> Result<(), LogError> {
    let periods = shared.upkeep.periods;
    spawn(shared, "fm-upkeep", move |shared, stop| keep_up(&shared, &stop, periods))?;
    spawn(shared, "fm-compaction", move |shared, stop| compact(&shared, &stop, periods))
}

fn spawn(
    shared: &Arc<Shared>,
    name: &'static str,
    run: impl FnOnce(Weak<Shared>, Arc<Stop>) + Send + 'static,
) -> Result<(), LogError> {
    let (weak, stop) = (Arc::downgrade(shared), Arc::clone(&shared.upkeep.stop));
    stop.state.lock().running += 1;
    let running = Running(Arc::clone(&stop));
    let vital = shared.vitals.hold(name);
    let work = move || {
        let _held = (running, vital);
        run(weak, stop);
    };
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map(drop).map_err(|e| LogError::NoThread { source: Arc::new(e) })
}

/// A thread that has not ended.
struct Running(Arc<Stop>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.state.lock().running -= 1;
        self.0.changed.notify_all();
    }
}

fn keep_up(shared: &Weak<Shared>, stop: &Stop, periods: Periods) {
    let start = Stopwatch::start;
    let (mut released, mut retained, mut expired, mut looked) = (start(), start(), start(), start());
    let failing = Trouble::default();
    let is_due = |last: &mut Stopwatch, period: Duration| {
        let is_due = last.elapsed() >= period;
        if is_due {
            *last = start();
        }
        is_due
    };
    while !stop.wait(periods.flush) {
        let Some(shared) = shared.upgrade() else { return };
        let flushes = shared.all_with(|s| s.log.flush.records.is_some() || s.log.flush.interval.is_some());
        flushes.iter().for_each(PartitionHandle::flush_if_due);
        if is_due(&mut released, periods.release) {
            each(shared.all_with(|_| true), stop, |partition| {
                partition.catch_up_recovery_point();
                partition.release_idle();
            });
        }
        if is_due(&mut looked, periods.urgent_retention) {
            each(short_of_room(shared.all_with(|_| true)), stop, |one| apply_retention(one, &failing));
        }
        if is_due(&mut retained, periods.retention) {
            each(shared.all_with(|_| true), stop, |one| apply_retention(one, &failing));
        }
        if is_due(&mut expired, periods.expiry) {
            each(shared.all_with(|_| true), stop, PartitionHandle::expire_producers);
        }
    }
}

/// Calls `act` on the partitions that are not out of order, until the threads are to end.
fn each(partitions: Vec<PartitionHandle>, stop: &Stop, act: impl Fn(&PartitionHandle)) {
    let in_order = partitions.iter().filter(|partition| partition.stopped().is_none());
    in_order.take_while(|_| !stop.is_asked()).for_each(act);
}

/// Of these, those that retention should look at now.
fn short_of_room(all: Vec<PartitionHandle>) -> Vec<PartitionHandle> {
    let due: Vec<RetentionDue> = all.iter().map(PartitionHandle::take_retention_due).collect();
    if due.contains(&RetentionDue::Everywhere) {
        return all;
    }
    all.into_iter().zip(due).filter(|(_, due)| *due == RetentionDue::Here).map(|(one, _)| one).collect()
}

/// `failing` is for all partitions: on a full disk it may be all of them that fail, time and again.
fn apply_retention(partition: &PartitionHandle, failing: &Trouble) {
    match partition.apply_retention() {
        Ok(reasons) if reasons.is_empty() => {}
        Ok(reasons) => {
            failing.end();
            tracing::info!(partition = %partition.id(), segments = reasons.len(), start = %partition.log_start(), "retention removed segments");
        }
        // It may have been closed since.
        Err(PartitionError::Closed) => {}
        Err(reason) => match failing.meet() {
            Some(Word::Begins) => {
                tracing::error!(partition = %partition.id(), error = %reason, "retention failed");
            }
            Some(Word::Lasts { times } | Word::Over { times }) => {
                tracing::error!(partition = %partition.id(), error = %reason, times, "retention failed again");
            }
            None => {}
        },
    }
}

fn compact(shared: &Weak<Shared>, stop: &Arc<Stop>, periods: Periods) {
    while !stop.wait(periods.compaction) {
        let Some(shared) = shared.upgrade() else { return };
        let pass = Arc::clone(&shared.upkeep.pass);
        let compacted = shared.all_with(|settings| settings.cleanup.compact);
        drop(shared);
        each(compacted, stop, |partition| compact_one(partition, &pass, stop));
    }
}

fn compact_one(partition: &PartitionHandle, pass: &Arc<Pass>, stop: &Arc<Stop>) {
    let pauses = Arc::clone(stop);
    let control = CompactionControl::new(move |pause| {
        // Whoever ends the threads cancels the pass as well.
        pauses.wait(pause);
    });
    *pass.of.lock() = Some((partition.id().clone(), control.clone()));
    let _under_way = UnderWay(pass);
    if stop.is_asked() {
        return;
    }
    match partition.compact(control) {
        Ok(None) | Err(PartitionError::Closed) => {}
        Ok(Some(report)) => {
            tracing::info!(partition = %partition.id(), end = ?report.end, saved_bytes = report.bytes_saved, "compacted");
        }
        Err(reason) => {
            tracing::error!(partition = %partition.id(), error = %reason, "compaction failed");
        }
    }
}

/// A pass that has not ended, whether it will end well or not.
struct UnderWay<'a>(&'a Pass);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        *self.0.of.lock() = None;
        self.0.ended.notify_all();
    }
}
