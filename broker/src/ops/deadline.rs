//! Until when something is waited for, and who sees to it that the wait ends then. Must know nothing of what is waited for.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

/// Least time for what this broker and its metadata do by themselves. The time that a Kafka client gives is for replicas elsewhere, and may
/// be 0: Kafka finishes the rest whatever it is, and to tell that it was not done would have it done twice.
pub(crate) const HERE_WITHIN: Duration = Duration::from_secs(5);

/// Nobody asked.
const NEVER: u64 = u64::MAX;

/// Until when something is waited for.
#[derive(Debug, Clone)]
pub(crate) struct Deadline {
    at: Instant,
    /// Who looks again then; a timer of the wait's own where there is none.
    alarm: Option<Arc<Alarm>>,
}

/// The one alarm of a task that waits for one thing after the other, each with a deadline. A timer that is set for a wait and taken back
/// when that has ended costs its thread a system call and a turn of its event loop, each time. This one rings at the earliest deadline that
/// it has heard of, and mostly nobody waits for that one any more.
///
/// Its task must poll what waits whenever it rings.
#[derive(Debug)]
pub(crate) struct Alarm {
    since: Instant,
    /// Nanoseconds after `since`.
    asked_for: AtomicU64,
}

impl Deadline {
    /// So long from now, by a timer of its own.
    pub(crate) fn after(within: Duration) -> Deadline {
        Deadline { at: Instant::now() + within, alarm: None }
    }

    /// So long from now, for waits in the task of `alarm`.
    pub(crate) fn kept_by(alarm: &Arc<Alarm>, within: Duration) -> Deadline {
        Deadline { alarm: Some(Arc::clone(alarm)), ..Deadline::after(within) }
    }

    pub(crate) fn has_come(&self) -> bool {
        self.at <= Instant::now()
    }

    /// What comes of `future`; `None` where it is not ready in time. One that is ready at once is in time.
    pub(crate) async fn bound<F: Future>(&self, future: F) -> Option<F::Output> {
        let Some(alarm) = &self.alarm else { return timeout_at(self.at, future).await.ok() };
        let mut future = pin!(future);
        let bounded = poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if self.has_come() => Poll::Ready(None),
            Poll::Pending => {
                alarm.ask_for(self.at);
                Poll::Pending
            }
        });
        bounded.await
    }
}

impl Alarm {
    pub(crate) fn new() -> Alarm {
        Alarm { since: Instant::now(), asked_for: AtomicU64::new(NEVER) }
    }

    fn ask_for(&self, at: Instant) {
        let nanos = at.saturating_duration_since(self.since).as_nanos();
        self.asked_for.fetch_min(u64::try_from(nanos).unwrap_or(NEVER), Ordering::Relaxed);
    }

    /// How long from now to the earliest deadline that was heard of since this was asked last.
    pub(crate) fn take(&self) -> Option<Duration> {
        let nanos = self.asked_for.swap(NEVER, Ordering::Relaxed);
        (nanos != NEVER)
            .then(|| (self.since + Duration::from_nanos(nanos)).saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn a_wait_asks_each_time_it_is_polled_and_ends_at_its_deadline() {
        let alarm = Arc::new(Alarm::new());
        let (long, over) = (Duration::from_secs(3600), Deadline::kept_by(&alarm, Duration::ZERO));
        let deadline = Deadline::kept_by(&alarm, long);
        let mut cx = Context::from_waker(Waker::noop());
        let mut wait = pin!(deadline.bound(pending::<()>()));
        for _ in 0..2 {
            assert!(wait.as_mut().poll(&mut cx).is_pending());
            assert!(alarm.take().is_some_and(|left| left <= long && left > long / 2));
            assert_eq!(alarm.take(), None);
        }
        assert_eq!(pin!(over.bound(pending::<()>())).poll(&mut cx), Poll::Ready(None));
        assert_eq!(pin!(over.bound(ready(7))).poll(&mut cx), Poll::Ready(Some(7)));
        assert_eq!(alarm.take(), None, "nobody waits");
    }

    #[test]
    fn the_earliest_of_several_counts() {
        let alarm = Arc::new(Alarm::new());
        let mut cx = Context::from_waker(Waker::noop());
        for minutes in [5, 1, 9] {
            let deadline = Deadline::kept_by(&alarm, Duration::from_secs(minutes * 60));
            assert!(pin!(deadline.bound(pending::<()>())).poll(&mut cx).is_pending());
        }
        assert!(alarm.take().is_some_and(|left| left <= Duration::from_secs(60)));
    }
}
