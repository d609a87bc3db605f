//! Whose turn it is on a core: that of a consumer whom an append has woken, or that of the producer who is to hear of the append. Told
//! first, the producer's program takes the processor from the consumer's where the two share one. Must know nothing of either.

use std::cell::Cell;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use floodmark_storage::clock::Stopwatch;

/// Others' turns that took longer: the core has more to do than to tell a few consumers, and its producers would wait for all of it.
const TURNS_MAX: Duration = Duration::from_micros(50);
/// So many then do not let others go first before one does again.
const APART: u32 = 64;

thread_local! {
    static LEFT: Cell<u32> = const { Cell::new(0) };
}

/// Lets tasks of this core go first that have been woken by now, unless it has shown itself busy.
pub(crate) async fn let_the_woken_go_first() {
    let left = LEFT.get();
    if left > 0 {
        LEFT.set(left - 1);
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
    if since.elapsed() > TURNS_MAX {
        LEFT.set(APART);
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::thread;

    use tokio::sync::Notify;
    use tokio::task::{LocalSet, spawn_local};

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

    #[tokio::test]
    async fn who_was_woken_goes_first_unless_that_takes_long() {
        LEFT.set(0);
        let all = async {
            let long = TURNS_MAX * 40;
            assert!(is_consumer_first(long).await);
            for _ in 0..APART {
                assert!(!is_consumer_first(long).await);
            }
            assert!(is_consumer_first(long).await);
        };
        LocalSet::new().run_until(all).await;
    }
}
