//! The threads that wait for disks, so that no other has to: a fixed number, shared by all logs of a process. A log that needs
//! one queues for it once, so the queue is no longer than there are logs.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use parking_lot::{Condvar, Mutex};

use super::Shared;
use crate::error::LogError;

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
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    sleeping: usize,
    is_closed: bool,
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
        let mut queue = self.0.0.queue.lock();
        queue.jobs.push_back(job);
        let wake = queue.sleeping > 0;
        drop(queue);
        if wake {
            self.0.0.come.notify_one();
        }
    }
}

impl Work {
    fn run(&self) {
        while let Some(job) = self.next() {
            // One log's defect must not take the thread from the others; the log itself is stopped by it.
            let _ = catch_unwind(AssertUnwindSafe(|| match job {
                Job::Round(log) => log.round(),
                Job::Tend(log) => log.tend(),
            }));
        }
    }

    fn next(&self) -> Option<Job> {
        let mut queue = self.queue.lock();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.is_closed {
                return None;
            }
            queue.sleeping += 1;
            self.come.wait(&mut queue);
            queue.sleeping -= 1;
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.queue.lock().is_closed = true;
        self.0.come.notify_all();
    }
}
