//! Whose turn it is on a core: that of a consumer whom an append has woken, or that of the producer who is to hear of the append. Told
//! first, the producer's program takes the processor from the consumer's where the two share one. Must know nothing of either.

use std::cell::Cell;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use floodmark_storage::clock::Stopwatch;

/// Others' turns that took longer: the core has more to do than to tell a few consumers, and its producers would wait for all of it.
const TURNS_MAX: Duration = Duration::from_micros(50);
/// So many such turns in a row show that. One says little: the programs that were told may have taken the processor meanwhile.
const LONG_TURNS_MAX: u32 = 4;
/// From then on one append in so many lets others go first, to see whether it still is so.
const APART: u32 = 65;

thread_local! {
    static TURNS: Cell<Turns> = const { Cell::new(Turns { long_in_a_row: 0, skipped: 0 }) };
}

/// How long others' turns took on a core lately.
#[derive(Debug, Clone, Copy)]
struct Turns {
    long_in_a_row: u32,
    skipped: u32,
}

impl Turns {
    /// Whether the next append lets others go first.
    fn next_lets_others_go(&mut self) -> bool {
        if self.long_in_a_row < LONG_TURNS_MAX {
            return true;
        }
        self.skipped = (self.skipped + 1) % APART;
        self.skipped == 0
    }

    fn note(&mut self, took: Duration) {
        self.long_in_a_row = if took > TURNS_MAX { LONG_TURNS_MAX.min(self.long_in_a_row + 1) } else { 0 };
    }
}

/// Lets tasks of this core go first that have been woken by now, unless it has shown itself busy.
pub(crate) async fn let_the_woken_go_first() {
    let mut turns = TURNS.get();
    let lets_others_go = turns.next_lets_others_go();
    TURNS.set(turns);
    if !lets_others_go {
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
    let mut turns = TURNS.get();
    turns.note(since.elapsed());
    TURNS.set(turns);
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
        TURNS.set(Turns { long_in_a_row: 0, skipped: 0 });
        let all = async {
            let long = TURNS_MAX * 40;
            for _ in 0..LONG_TURNS_MAX {
                assert!(is_consumer_first(long).await);
            }
            for _ in 0..2 {
                for _ in 1..APART {
                    assert!(!is_consumer_first(long).await);
                }
                assert!(is_consumer_first(long).await, "whether it still is so is looked for");
            }
        };
        LocalSet::new().run_until(all).await;
    }

    #[test]
    fn a_core_is_busy_after_long_turns_in_a_row_and_until_a_short_one() {
        let (long, short) = (TURNS_MAX * 2, TURNS_MAX);
        let mut turns = Turns { long_in_a_row: 0, skipped: 0 };
        // What programs of others take now and then.
        for _ in 0..LONG_TURNS_MAX {
            for took in [long, long, long, short] {
                assert!(turns.next_lets_others_go());
                turns.note(took);
            }
        }
        for _ in 0..LONG_TURNS_MAX {
            assert!(turns.next_lets_others_go());
            turns.note(long);
        }
        let busy: Vec<bool> = (0..APART).map(|_| turns.next_lets_others_go()).collect();
        assert_eq!(busy.iter().filter(|&&lets| lets).count(), 1);
        turns.note(short);
        assert!(turns.next_lets_others_go());
    }
}
