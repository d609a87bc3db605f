//! The broker's threads: one for connections on each core, each with a runtime of its own, so that a small request is answered where it
//! was read; and one for everything that is not the data path. Nothing that blocks runs on them.

use std::io;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// How long work on blocking threads is waited for when a runtime ends.
const BLOCKING_WORK_TIMEOUT: Duration = Duration::from_secs(10);

/// As the system says when it is asked first: when the first broker of the process starts.
static USABLE_CORES: LazyLock<usize> =
    LazyLock::new(|| thread::available_parallelism().map_or(1, NonZero::get));

/// How many cores all of the process may use, whatever number of threads was asked for.
pub(crate) fn usable_cores() -> usize {
    *USABLE_CORES
}

/// All threads of one broker. When dropped, tasks are dropped, and the threads have ended.
#[derive(Debug)]
pub(crate) struct Threads {
    control: Worker,
    cores: Arc<[Core]>,
    /// Dropped after their handles have been copied out, in this order: first the doors, then what they stand on.
    workers: Vec<Worker>,
}

/// A runtime for connections.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) handle: Handle,
    connections: AtomicUsize,
}

/// A thread that runs a runtime until this is dropped.
#[derive(Debug)]
struct Worker {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Threads {
    /// Starts one thread for control and `cores` for connections; 0 takes one for each core of the machine.
    pub(crate) fn start(cores: usize) -> io::Result<Threads> {
        let usable = usable_cores();
        let count = if cores == 0 { usable } else { cores };
        let control = Worker::start("fm-control".to_owned())?;
        let workers =
            (0..count).map(|n| Worker::start(format!("fm-core-{n}"))).collect::<io::Result<Vec<_>>>()?;
        let cores = workers
            .iter()
            .map(|w| Core { handle: w.handle.clone(), connections: AtomicUsize::new(0) })
            .collect();
        Ok(Threads { control, cores, workers })
    }

    /// Where listeners, metadata and background work run.
    pub(crate) fn control(&self) -> &Handle {
        &self.control.handle
    }

    /// Runs `future` on the control thread and waits for it, also where the caller is a thread that runs tasks. `None` where that thread
    /// has ended.
    pub(crate) fn wait_for<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = mpsc::sync_channel(1);
        self.control().spawn(async move {
            // Whoever asked waits for it.
            let _ = answer.send(future.await);
        });
        answered.recv().ok()
    }

    /// Where connections run.
    pub(crate) fn cores(&self) -> &Arc<[Core]> {
        &self.cores
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.workers.clear();
    }
}

impl Core {
    /// The one with the fewest connections; `None` where there is none at all.
    pub(crate) fn least_busy(cores: &Arc<[Core]>) -> Option<Assigned> {
        let at = (0..cores.len()).min_by_key(|&n| cores[n].connections.load(Ordering::Relaxed))?;
        cores[at].connections.fetch_add(1, Ordering::Relaxed);
        Some(Assigned { cores: Arc::clone(cores), at })
    }
}

/// A connection's place on a core, counted until dropped.
#[derive(Debug)]
pub(crate) struct Assigned {
    cores: Arc<[Core]>,
    at: usize,
}

impl Assigned {
    /// Which one of the cores.
    pub(crate) fn index(&self) -> usize {
        self.at
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.cores[self.at].handle
    }
}

impl Drop for Assigned {
    fn drop(&mut self) {
        self.cores[self.at].connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Worker {
    fn start(name: String) -> io::Result<Worker> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(16)
            .thread_name(format!("{name}-b"))
            .build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name(name).spawn(move || {
            // Ends with the sender, whatever becomes of it.
            let _ = runtime.block_on(stopped);
            runtime.shutdown_timeout(BLOCKING_WORK_TIMEOUT);
        })?;
        Ok(Worker { handle, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a thread of the broker panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_end_with_their_owner_and_take_their_tasks_along() {
        let held = Arc::new(());
        let threads = Threads::start(3).unwrap();
        let (started, is_started) = std::sync::mpsc::sync_channel(3);
        for core in threads.cores().iter() {
            let (held, started) = (Arc::clone(&held), started.clone());
            core.handle.spawn(async move {
                let _held = held;
                started.send(thread::current().name().map(str::to_owned)).unwrap();
                std::future::pending::<()>().await;
            });
        }
        let mut names: Vec<_> = (0..3)
            .filter_map(|_| is_started.recv_timeout(Duration::from_secs(60)).expect("three cores run"))
            .collect();
        names.sort();
        assert_eq!(names, ["fm-core-0", "fm-core-1", "fm-core-2"]);
        drop(threads);
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[test]
    fn connections_go_where_there_are_fewest() {
        let threads = Threads::start(2).unwrap();
        let mut places: Vec<Assigned> = (0..4).filter_map(|_| Core::least_busy(threads.cores())).collect();
        assert_eq!(places.iter().map(|p| p.at).collect::<Vec<_>>(), [0, 1, 0, 1]);
        places.remove(1);
        assert_eq!(Core::least_busy(threads.cores()).unwrap().at, 1);
    }
}
