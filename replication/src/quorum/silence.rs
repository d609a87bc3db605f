//! Keeps a leader quiet that must make room for another: one that hears from no majority, though it may be heard, and one that is to leave
//! the voters. Raft alone lets such a leader hold the others from an election for ever.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Whether this node keeps quiet as a leader.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    until: Mutex<Option<Instant>>,
    /// It leads, and has been without a majority for a lease. Goes on behind its silence, while it asks whether one answers again.
    is_alone: AtomicBool,
}

impl Silence {
    /// Long enough for the others to elect: they wait for a lease and up to another one.
    pub(crate) fn begin(&self, now: Instant, lease: Duration) {
        *self.until.lock() = Some(now + lease * 3);
    }

    pub(crate) fn is_on(&self, now: Instant) -> bool {
        self.until.lock().is_some_and(|until| now < until)
    }

    /// True of a leader that has had no majority for a lease, until one answers.
    pub(crate) fn is_alone(&self) -> bool {
        self.is_alone.load(Ordering::Relaxed)
    }

    /// This node leads no more: what was of its last leadership is over.
    pub(crate) fn on_no_lead(&self) {
        self.is_alone.store(false, Ordering::Relaxed);
    }

    /// When the last one ended or will end.
    fn end(&self) -> Option<Instant> {
        *self.until.lock()
    }

    /// Begins where a leader since `began` was last followed by a majority, or could last have been, more than a lease ago. Says whether it
    /// did.
    pub(crate) fn begin_if_alone(
        &self,
        now: Instant,
        lease: Duration,
        began: Instant,
        since_majority: Option<Duration>,
    ) -> bool {
        let heard = since_majority.and_then(|since| now.checked_sub(since));
        let last = heard.max(self.end()).unwrap_or(began).max(began);
        let is_alone = now.saturating_duration_since(last) > lease && now > last;
        if is_alone {
            self.begin(now, lease);
            self.is_alone.store(true, Ordering::Relaxed);
        } else if since_majority.is_some_and(|since| since <= lease) {
            self.is_alone.store(false, Ordering::Relaxed);
        }
        is_alone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_hears_no_majority_is_quiet_then_tries_again() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let ms = Duration::from_millis;
        let (silence, lease) = (Silence::default(), ms(100));
        let alone = |now, since| silence.begin_if_alone(at(now), lease, at(1000), since);
        assert!(!alone(1000, None), "it has just begun to lead");
        assert!(!alone(1100, None));
        assert!(!alone(2000, Some(ms(100))));
        assert!(!silence.is_on(at(2000)));
        assert!(alone(2001, Some(ms(101))));
        assert!(silence.is_on(at(2001)) && silence.is_on(at(2300)) && !silence.is_on(at(2301)));
        // It may be heard again, and has as long for an answer as a new leader. Whoever hears it is told what it lacks.
        assert!(!alone(2301, Some(ms(401))));
        assert!(!alone(2401, Some(ms(501))));
        assert!(silence.is_alone());
        assert!(!alone(2402, Some(ms(1))));
        assert!(!silence.is_alone());
        assert!(alone(2503, Some(ms(102))));
        assert!(silence.is_alone());
        silence.on_no_lead();
        assert!(!silence.is_alone());
        // One that leads anew has nothing to do with what was before.
        assert!(!silence.begin_if_alone(at(5000), lease, at(4950), None));
        assert!(silence.begin_if_alone(at(5051), lease, at(4950), None));
    }
}
