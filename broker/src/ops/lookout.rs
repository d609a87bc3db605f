//! A wait that is mostly shorter than what sleeping and being woken take: its task stays awake for a while, and lets everything else of its
//! core go first, tasks and other threads. Must know nothing of what is waited for.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use floodmark_storage::clock::Stopwatch;
use tokio::task::yield_now;

use super::luck::Luck;
use crate::runtime::usable_cores;

/// How long a wait is sat out awake. A fast disk has synced by then; a core that slept meanwhile takes 20 to 40 us more to be woken, on a
/// virtual machine.
const LOOKOUT: Duration = Duration::from_micros(150);
/// A core whose disk has shown itself slower looks out once in so many waits.
const LOOKS_APART: u32 = 32;

thread_local! {
    /// Waits of this core that have not ended.
    static WAITS: Arc<AtomicUsize> = Arc::default();
    static LUCK: Luck = const { Luck::new() };
}

/// A wait, counted until dropped.
struct Wait(Arc<AtomicUsize>);

/// A wait that has begun, and whether it is still sat out awake.
struct Look {
    wait: Wait,
    since: Stopwatch,
    has_looked: bool,
    is_awake: bool,
}

/// What comes of `future`. Where it is the only one of its core that waits so, its task stays awake for it: with several callers there is
/// always something to do meanwhile, and they share what they wait for.
pub(super) async fn look_out_for<F: Future>(future: F) -> F::Output {
    look_out_within(LOOKOUT, usable_cores(), future).await
}

async fn look_out_within<F: Future>(lookout: Duration, cores: usize, future: F) -> F::Output {
    let mut future = pin!(future);
    // None for what is there when it is first asked for.
    let mut look: Option<Look> = None;
    let output = poll_fn(|cx| {
        let output = future.as_mut().poll(cx);
        if output.is_pending() && look.get_or_insert_with(Look::begin).goes_on(lookout) {
            if is_shared_with_the_disk(cores) {
                thread::yield_now();
            }
            // Behind all that is ready, and behind a look at what has come for others.
            let _ = pin!(yield_now()).poll(cx);
        }
        output
    });
    let output = output.await;
    if let Some(look) = look
        && look.has_looked
    {
        LUCK.with(|luck| luck.note(look.is_awake));
    }
    output
}

/// Where there is one core, whoever looks out has it when the disk is done, and a sync needs it several times: to begin, to have the disk's
/// memory flushed, to end. Where there are more, the disk thread mostly has another, and to give one away gains nothing.
fn is_shared_with_the_disk(cores: usize) -> bool {
    cores == 1
}

impl Look {
    fn begin() -> Look {
        let wait = Wait::begin();
        let is_awake = wait.is_alone() && LUCK.with(|luck| luck.is_worth_a_try(LOOKS_APART));
        Look { wait, since: Stopwatch::start(), has_looked: is_awake, is_awake }
    }

    fn goes_on(&mut self, lookout: Duration) -> bool {
        if !self.wait.is_alone() {
            // Says nothing about how long it would have taken.
            (self.is_awake, self.has_looked) = (false, false);
        }
        self.is_awake = self.is_awake && self.since.elapsed() < lookout;
        self.is_awake
    }
}

impl Wait {
    fn begin() -> Wait {
        let waits = WAITS.with(Arc::clone);
        waits.fetch_add(1, Ordering::Relaxed);
        Wait(waits)
    }

    fn is_alone(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 1
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::Future;
    use std::pin::Pin;
    use std::rc::Rc;
    use std::sync::atomic::AtomicBool;
    use std::task::{Context, Poll};

    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    use tokio::task::{LocalSet, spawn_local};

    use super::super::luck::VAIN_MAX;
    use super::*;

    const FOR_EVER: Duration = Duration::MAX;

    /// Ready when it is polled for the last time; nobody is told when that should be.
    struct AfterPolls(Rc<Cell<u32>>);

    impl Future for AfterPolls {
        type Output = ();

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            let left = self.0.get().saturating_sub(1);
            self.0.set(left);
            if left == 0 { Poll::Ready(()) } else { Poll::Pending }
        }
    }

    /// A wait of three polls in a task of its own, given time enough for many: how many are left.
    async fn polls_left(lookout: Duration) -> u32 {
        let left = Rc::new(Cell::new(3));
        let wait = look_out_within(lookout, 2, AfterPolls(Rc::clone(&left)));
        let task = spawn_local(wait);
        for _ in 0..20 {
            yield_now().await;
        }
        task.abort();
        let _ = task.await;
        left.get()
    }

    #[tokio::test]
    async fn a_wait_alone_is_sat_out_awake_and_no_longer_than_its_time() {
        let all = async {
            assert_eq!(polls_left(FOR_EVER).await, 0);
            assert_eq!(polls_left(Duration::ZERO).await, 2);
        };
        LocalSet::new().run_until(all).await;
    }

    /// How often another thread of the same core had its turn while a task looked out so many times.
    async fn turns_of_another_thread(cores: usize, looks: u32) -> u32 {
        let (is_over, turns) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let other = thread::spawn({
            let (is_over, turns) = (Arc::clone(&is_over), Arc::clone(&turns));
            move || {
                while !is_over.load(Ordering::Relaxed) {
                    turns.fetch_add(1, Ordering::Relaxed);
                    thread::yield_now();
                }
            }
        });
        while turns.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        let before = turns.load(Ordering::Relaxed);
        look_out_within(FOR_EVER, cores, AfterPolls(Rc::new(Cell::new(looks)))).await;
        let after = turns.load(Ordering::Relaxed);
        is_over.store(true, Ordering::Relaxed);
        other.join().unwrap();
        u32::try_from(after - before).unwrap()
    }

    #[test]
    fn on_a_core_that_is_all_there_is_other_threads_go_first() {
        let allowed = sched_getaffinity(None).unwrap();
        let first = (0..CpuSet::MAX_CPU).find(|&core| allowed.is_set(core)).unwrap();
        let mut one = CpuSet::new();
        one.set(first);
        // Of this thread and those that it starts.
        sched_setaffinity(None, &one).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let looks = 2_000;
        let turns = runtime.block_on(turns_of_another_thread(1, looks));
        assert!(turns > looks / 4, "{turns}");
    }

    #[test]
    fn a_process_with_one_core_alone_shares_it_with_its_disk_threads() {
        let shared: Vec<usize> = (1..=64).filter(|&cores| is_shared_with_the_disk(cores)).collect();
        assert_eq!(shared, [1]);
    }

    #[tokio::test]
    async fn where_several_wait_nobody_does() {
        let all = async {
            let other = Rc::new(Cell::new(u32::MAX));
            let first = spawn_local(look_out_within(Duration::ZERO, 2, AfterPolls(other)));
            yield_now().await;
            assert_eq!(polls_left(FOR_EVER).await, 2);
            first.abort();
            let _ = first.await;
            assert_eq!(polls_left(FOR_EVER).await, 0);
        };
        LocalSet::new().run_until(all).await;
    }

    #[tokio::test]
    async fn after_some_that_took_longer_only_one_in_so_many_does() {
        let all = async {
            for _ in 0..VAIN_MAX {
                assert_eq!(polls_left(FOR_EVER).await, 0);
                look_out_within(Duration::ZERO, 2, yield_now()).await;
            }
            assert_eq!(polls_left(FOR_EVER).await, 0, "not in a row");
            for _ in 0..VAIN_MAX {
                look_out_within(Duration::ZERO, 2, yield_now()).await;
            }
            for _ in 1..LOOKS_APART {
                assert_eq!(polls_left(FOR_EVER).await, 2);
            }
            assert_eq!(polls_left(FOR_EVER).await, 0);
            assert_eq!(polls_left(FOR_EVER).await, 0, "one that was in time is enough");
        };
        LocalSet::new().run_until(all).await;
    }
}
