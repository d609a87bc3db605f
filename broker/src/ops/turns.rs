//! Whose turn it is on a core: that of a consumer whom an append has woken, or that of the producer who is to hear of the append. Told
//! first, the producer's program takes the processor from the consumer's where the two share one. Must know nothing of either.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use floodmark_storage::clock::Stopwatch;

use super::luck::Luck;

/// Others' turns that took longer: the core has more to do than to tell a few consumers, and its producers would wait for all of it.
const TURNS_MAX: Duration = Duration::from_micros(50);
/// On a core that has shown itself so busy, one append in so many lets others go first.
const APART: u32 = 65;

thread_local! {
    static LUCK: Luck = const { Luck::new() };
}

/// Lets tasks of this core go first that have been woken by now, unless it has shown itself busy.
pub(crate) async fn let_the_woken_go_first() {
    if !LUCK.with(|luck| luck.is_worth_a_try(APART)) {
        return;
    }
    let since = Stopwatch::start();
    let mut has_waited = false;
    // Behind them in the queue. The runtime's own yield would look for events of sockets first.
    let once = poll_fn(|cx| {
        if std::mem::replace(&mut has_waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    });
    once.await;
    LUCK.with(|luck| luck.note(since.elapsed() <= TURNS_MAX));
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;
    use std::thread;

    use tokio::sync::Notify;
    use tokio::task::{LocalSet, spawn_local};

    use super::super::luck::VAIN_MAX;
    use super::*;

    /// Who came first after an append: the consumer, whose turn takes so long, or the producer.
    async fn is_consumer_first(turn: Duration) -> bool {
        let (woken, has_gone) = (Rc::new(Notify::new()), Rc::new(Cell::new(false)));
        let consumer = spawn_local({
            let (woken, has_gone) = (Rc::clone(&woken), Rc::clone(&has_gone));
            async move {
                woken.notified().await;
                thread::sleep(turn);
                has_gone.set(true);
            }
        });
        // It waits.
        tokio::task::yield_now().await;
        let producer = spawn_local(async move {
            woken.notify_one();
            let_the_woken_go_first().await;
            has_gone.get()
        });
        let is_first = producer.await.unwrap();
        consumer.await.unwrap();
        is_first
    }

    async fn consumers_go_first_until_their_turns_take_long() {
        let long = TURNS_MAX * 40;
        for _ in 0..VAIN_MAX {
            assert!(is_consumer_first(long).await);
        }
        for _ in 0..2 {
            for _ in 1..APART {
                assert!(!is_consumer_first(long).await);
            }
            assert!(is_consumer_first(long).await, "whether it still is so is looked for");
        }
    }

    #[test]
    fn who_was_woken_goes_first_unless_that_takes_long() {
        // On a thread that no other test has had, whose luck is its own.
        let run = || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            LocalSet::new().block_on(&runtime, consumers_go_first_until_their_turns_take_long());
        };
        thread::spawn(run).join().unwrap();
    }
}
