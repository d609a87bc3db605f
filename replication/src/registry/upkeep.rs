//! One thread that keeps all partitions in order: flushes what a policy wants flushed, removes what is too old, compacts, forgets
//! producers, closes files that nobody reads. An idle partition costs a look every so often, and no thread, task or timer of its own.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use floodmark_storage::clock::Stopwatch;
use floodmark_storage::log::CompactionControl;

use super::Shared;
use crate::partition::PartitionHandle;

/// Between two looks at what is due. `flush.ms` is kept to this.
const TICK: Duration = Duration::from_millis(200);
/// As Kafka's `log.retention.check.interval.ms`.
const RETENTION_EVERY: Duration = Duration::from_secs(300);
/// As Kafka's `log.cleaner.backoff.ms`.
const COMPACTION_EVERY: Duration = Duration::from_secs(15);
const PRODUCERS_EVERY: Duration = Duration::from_secs(600);
const IDLE_FILES_EVERY: Duration = Duration::from_secs(60);

/// The thread; dropped, it has ended.
#[derive(Debug)]
pub(super) struct Upkeep {
    is_over: Arc<AtomicBool>,
    control: CompactionControl,
    thread: Option<JoinHandle<()>>,
}

impl Upkeep {
    pub(super) fn start(shared: &Arc<Shared>) -> io::Result<Upkeep> {
        let is_over = Arc::new(AtomicBool::new(false));
        let control = CompactionControl::default();
        let rounds = Rounds {
            shared: Arc::downgrade(shared),
            is_over: Arc::clone(&is_over),
            control: control.clone(),
        };
        let thread = thread::Builder::new().name("fm-upkeep".to_owned()).spawn(move || rounds.run())?;
        Ok(Upkeep { is_over, control, thread: Some(thread) })
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        self.control.cancel();
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the thread that keeps partitions in order panicked");
            }
        }
    }
}

struct Rounds {
    /// Whoever holds the registry ends this thread; it must not keep the registry.
    shared: Weak<Shared>,
    is_over: Arc<AtomicBool>,
    control: CompactionControl,
}

/// What is done every so often, and when it was done last.
struct Every {
    period: Duration,
    last: Stopwatch,
}

impl Every {
    fn new(period: Duration) -> Every {
        Every { period, last: Stopwatch::start() }
    }

    fn is_due(&mut self) -> bool {
        let is_due = self.last.elapsed() >= self.period;
        if is_due {
            self.last = Stopwatch::start();
        }
        is_due
    }
}

impl Rounds {
    fn run(&self) {
        let mut retention = Every::new(RETENTION_EVERY);
        let mut compaction = Every::new(COMPACTION_EVERY);
        let mut producers = Every::new(PRODUCERS_EVERY);
        let mut idle_files = Every::new(IDLE_FILES_EVERY);
        while !self.is_over.load(Ordering::Acquire) {
            self.each(|partition| partition.flush_if_due());
            if retention.is_due() {
                self.each(retain);
            }
            if compaction.is_due() {
                self.each(|partition| self.compact(partition));
            }
            if producers.is_due() {
                self.each(|partition| {
                    partition.expire_producers();
                });
            }
            if idle_files.is_due() {
                self.each(PartitionHandle::release_idle);
            }
            thread::park_timeout(TICK);
        }
    }

    fn each(&self, work: impl Fn(&PartitionHandle)) {
        let Some(shared) = self.shared.upgrade() else { return };
        let partitions = shared.partitions.load_full();
        drop(shared);
        for partition in partitions.values() {
            if self.is_over.load(Ordering::Acquire) {
                return;
            }
            // Whoever does not take writes any more is left as it is.
            if partition.stopped().is_none() {
                work(partition);
            }
        }
    }

    fn compact(&self, partition: &PartitionHandle) {
        if partition.settings().log.compaction.is_none() {
            return;
        }
        match partition.compact(self.control.clone()) {
            Ok(Some(report)) => tracing::debug!(partition = %name(partition), ?report, "compacted"),
            Ok(None) => {}
            Err(e) => tracing::error!(partition = %name(partition), error = %e, "compaction failed"),
        }
    }
}

fn retain(partition: &PartitionHandle) {
    match partition.apply_retention() {
        Ok(removed) if !removed.is_empty() => {
            tracing::info!(partition = %name(partition), segments = removed.len(), "removed what was too old or too much");
        }
        Ok(_) => {}
        Err(e) => tracing::error!(partition = %name(partition), error = %e, "retention failed"),
    }
}

fn name(partition: &PartitionHandle) -> String {
    let id = partition.id();
    format!("{}-{}", id.topic, id.index)
}
