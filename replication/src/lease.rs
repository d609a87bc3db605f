//! How long this broker may take its word for the newest: until then nobody else has been given what it leads.
//!
//! The controller grants a lease with each heartbeat, counted from when the heartbeat was sent. It fences a broker only after the last
//! lease that it, or a controller before it, granted to it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// A lease of this broker; clones share it. Nothing is held at first.
#[derive(Debug, Clone)]
pub struct Lease(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    end: Mutex<End>,
    /// Tells those who wait for its end that the end has moved.
    moved: watch::Sender<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    NotHeld,
    At(Instant),
    /// The only voter: nobody could be elected, and so nobody could take anything away.
    Never,
}

impl Default for Lease {
    fn default() -> Lease {
        Lease(Arc::new(Shared { end: Mutex::new(End::NotHeld), moved: watch::Sender::new(()) }))
    }
}

impl Lease {
    /// True while nobody else can have been given what this broker leads. What must not be old is answered only then.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.0.end.lock().is_held()
    }

    /// The answer to a heartbeat that was sent at `sent`. A shorter lease takes nothing from a longer one.
    pub fn extend(&self, sent: Instant, lease: Duration) {
        let granted = sent + lease;
        self.set(|end| match end {
            End::At(until) if until >= granted => end,
            _ => End::At(granted),
        });
    }

    /// Holds it as long as nobody says otherwise: there is no other voter.
    pub fn hold(&self) {
        self.set(|_| End::Never);
    }

    /// Gives it up: this broker is fenced, or says itself that it stops.
    pub fn give_up(&self) {
        self.set(|_| End::NotHeld);
    }

    /// Returns once it is held.
    pub async fn held(&self) {
        let mut moved = self.0.moved.subscribe();
        while !self.is_held() {
            // The sender lives as long as `self`.
            let _ = moved.changed().await;
        }
    }

    /// Returns once it is not held.
    pub async fn lost(&self) {
        let mut moved = self.0.moved.subscribe();
        loop {
            moved.mark_unchanged();
            let end = *self.0.end.lock();
            let has_moved = async {
                // The sender lives as long as `self`.
                let _ = moved.changed().await;
            };
            match end {
                _ if !end.is_held() => return,
                End::At(until) => tokio::select! {
                    () = sleep_until(until) => {}
                    () = has_moved => {}
                },
                End::Never | End::NotHeld => has_moved.await,
            }
        }
    }

    fn set(&self, change: impl FnOnce(End) -> End) {
        let mut end = self.0.end.lock();
        let changed = change(*end);
        let has_moved = changed != *end;
        *end = changed;
        drop(end);
        if has_moved {
            self.0.moved.send_replace(());
        }
    }
}

impl End {
    fn is_held(self) -> bool {
        match self {
            End::NotHeld => false,
            End::At(until) => Instant::now() < until,
            End::Never => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn block_on(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(test);
    }

    #[test]
    fn it_ends_as_long_after_the_heartbeat_was_sent_as_was_granted() {
        block_on(async {
            let lease = Lease::default();
            assert!(!lease.is_held());
            lease.lost().await;
            let sent = Instant::now();
            tokio::time::advance(SECOND).await;
            lease.extend(sent, 2 * SECOND);
            assert!(lease.is_held());
            lease.extend(sent, SECOND / 2);
            assert!(lease.is_held(), "what was granted once is not taken back by less");
            tokio::time::advance(SECOND).await;
            assert!(!lease.is_held());
            // An answer that came so late grants nothing.
            lease.extend(sent, 2 * SECOND);
            assert!(!lease.is_held());
        });
    }

    #[test]
    fn the_only_voter_holds_it_until_there_are_others_or_it_stops() {
        block_on(async {
            let lease = Lease::default();
            lease.hold();
            tokio::time::advance(1000 * SECOND).await;
            assert!(lease.is_held());
            lease.extend(Instant::now(), SECOND);
            tokio::time::advance(SECOND).await;
            assert!(!lease.is_held());
            lease.hold();
            lease.give_up();
            assert!(!lease.is_held());
        });
    }

    #[test]
    fn who_waits_for_its_end_sleeps_through_extensions() {
        block_on(async {
            let lease = Lease::default();
            let start = Instant::now();
            lease.extend(start, SECOND);
            let waiting = tokio::spawn({
                let lease = lease.clone();
                async move { lease.lost().await }
            });
            for _ in 0..3 {
                tokio::time::sleep(SECOND / 2).await;
                lease.extend(Instant::now(), SECOND);
            }
            assert!(!waiting.is_finished());
            waiting.await.unwrap();
            assert_eq!(start.elapsed().as_millis() / 100, 25);
            let holding = tokio::spawn({
                let lease = lease.clone();
                async move { lease.held().await }
            });
            tokio::time::sleep(SECOND).await;
            assert!(!holding.is_finished());
            lease.hold();
            holding.await.unwrap();
            let waiting = tokio::spawn({
                let lease = lease.clone();
                async move { lease.lost().await }
            });
            tokio::time::sleep(SECOND).await;
            assert!(!waiting.is_finished());
            lease.give_up();
            waiting.await.unwrap();
        });
    }
}
