//! The threads that wait for disks, so that no other has to: a fixed number, shared by all logs of a process. A log that needs
//! one queues for it once, so the queue is no longer than there are logs.

use std::collections::VecDeque;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::Shared;
use crate::clock::Stopwatch;
use crate::error::LogError;

/// How long a thread that ran out of work looks out for more before it sleeps. Waking one on a core that has gone to sleep takes
/// some 40 us on a virtual machine, half as long as a sync.
const LOOKOUT: Duration = Duration::from_micros(60);
/// Looks in vain after which a thread looks out only now and then: its logs are not that busy.
const VAIN_LOOKS_MAX: u32 = 4;
/// Then it does so once in this many times.
const LOOKS_APART: u32 = 32;

/// Clones share the threads, which end when the last clone is gone and the queue is empty.
#[derive(Debug, Clone)]
pub struct DiskThreads(Arc<Handle>);

#[derive(Debug)]
struct Handle(Arc<Work>);

/// What a log can want of a disk thread.
#[derive(Debug)]
pub(super) enum Job {
    /// Its callers wait for this.
    Round(Arc<Shared>),
    /// Nobody does.
    Tend(Arc<Shared>),
}

#[derive(Debug, Default)]
struct Work {
    queue: Mutex<Queue>,
    come: Condvar,
    /// Jobs ever pushed: what a thread on the lookout watches.
    pushed: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    sleeping: usize,
    /// A thread is awake and looks out for the next job. One is enough.
    is_watched: bool,
    is_closed: bool,
}

/// A thread's luck with looking out.
#[derive(Debug, Default)]
struct Lookout {
    in_vain: u32,
    skipped: u32,
}

impl DiskThreads {
    /// Starts `count` threads, one at least.
    pub fn start(count: usize) -> Result<DiskThreads, LogError> {
        let work = Arc::new(Work::default());
        let threads = DiskThreads(Arc::new(Handle(Arc::clone(&work))));
        for n in 0..count.max(1) {
            let work = Arc::clone(&work);
            thread::Builder::new()
                .name(format!("fm-disk-{n}"))
                .spawn(move || work.run())
                .map_err(|e| LogError::NoThread { source: Arc::new(e) })?;
        }
        Ok(threads)
    }

    /// Has a thread do `job`, after those that wait already.
    pub(super) fn push(&self, job: Job) {
        let work = &self.0.0;
        let mut queue = work.queue.lock();
        queue.jobs.push_back(job);
        work.pushed.fetch_add(1, Ordering::Release);
        let is_seen = queue.is_watched && queue.jobs.len() == 1;
        let wake = queue.sleeping > 0 && !is_seen;
        drop(queue);
        if wake {
            work.come.notify_one();
        }
    }

    /// True where nobody waits for a thread.
    pub(super) fn is_queue_empty(&self) -> bool {
        self.0.0.queue.lock().jobs.is_empty()
    }
}

impl Work {
    fn run(&self) {
        let mut lookout = Lookout::default();
        while let Some(job) = self.next(&mut lookout) {
            // One log's defect must not take the thread from the others; the log itself is stopped by it.
            let _ = catch_unwind(AssertUnwindSafe(|| match job {
                Job::Round(log) => log.rounds(),
                Job::Tend(log) => log.tend(),
            }));
        }
    }

    fn next(&self, lookout: &mut Lookout) -> Option<Job> {
        let mut queue = self.queue.lock();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.is_closed {
                return None;
            }
            if !queue.is_watched && lookout.is_worth_it() {
                queue.is_watched = true;
                let pushed = self.pushed.load(Ordering::Acquire);
                drop(queue);
                let has_come = self.watch(pushed);
                lookout.note(has_come);
                queue = self.queue.lock();
                queue.is_watched = false;
                if has_come || !queue.jobs.is_empty() || queue.is_closed {
                    continue;
                }
            }
            queue.sleeping += 1;
            self.come.wait(&mut queue);
            queue.sleeping -= 1;
        }
    }

    /// Waits awake, and lets others run, until something is pushed after `pushed`; false where nothing was in time.
    fn watch(&self, pushed: u64) -> bool {
        let since = Stopwatch::start();
        while since.elapsed() < LOOKOUT {
            for _ in 0..32 {
                if self.pushed.load(Ordering::Acquire) != pushed {
                    return true;
                }
                spin_loop();
            }
            thread::yield_now();
        }
        false
    }
}

impl Lookout {
    fn is_worth_it(&mut self) -> bool {
        if self.in_vain < VAIN_LOOKS_MAX {
            return true;
        }
        self.skipped = (self.skipped + 1) % LOOKS_APART;
        self.skipped == 0
    }

    fn note(&mut self, has_come: bool) {
        self.in_vain = if has_come { 0 } else { (self.in_vain + 1).min(VAIN_LOOKS_MAX) };
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.queue.lock().is_closed = true;
        self.0.come.notify_all();
    }
}
