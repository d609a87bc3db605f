//! How many bytes a second partitions that are far behind may take, of all leaders together. Pure but for its lock.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Rate that all links share; clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct Throttle(Option<Arc<Bucket>>);

#[derive(Debug)]
struct Bucket {
    bytes_per_second: u64,
    filled: Mutex<(Instant, u64)>,
}

/// What was not used is kept for as long, so that a rate is kept to over any longer time.
const KEPT: Duration = Duration::from_millis(200);

impl Throttle {
    /// 0 is no limit.
    pub(super) fn new(bytes_per_second: u64, now: Instant) -> Throttle {
        let bucket = || Arc::new(Bucket { bytes_per_second, filled: Mutex::new((now, 0)) });
        Throttle((bytes_per_second > 0).then(bucket))
    }

    pub(super) fn is_limited(&self) -> bool {
        self.0.is_some()
    }

    /// Takes what has become free by `now`, up to `wanted`. `None` without a limit.
    pub(super) fn take(&self, wanted: u64, now: Instant) -> Option<u64> {
        let bucket = self.0.as_ref()?;
        let mut filled = bucket.filled.lock();
        let (since, left) = *filled;
        let free = bucket.bytes_in(now.saturating_duration_since(since));
        // Less than a byte is not lost by looking often.
        let since = if free > 0 { now } else { since };
        let free = (left + free).min(bucket.bytes_in(KEPT).max(1));
        let taken = free.min(wanted);
        *filled = (since, free - taken);
        Some(taken)
    }

    /// As much as a link holds that waits for nothing.
    pub(super) fn ahead(&self) -> u64 {
        self.0.as_ref().map_or(u64::MAX, |bucket| bucket.bytes_in(KEPT).max(1))
    }
}

impl Bucket {
    fn bytes_in(&self, time: Duration) -> u64 {
        let bytes = u128::from(self.bytes_per_second) * time.as_nanos() / 1_000_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_any_time_no_more_is_taken_than_the_rate_and_what_is_kept() {
        let begun = Instant::now();
        let throttle = Throttle::new(1_000, begun);
        let at = |ms: u64| begun + Duration::from_millis(ms);
        let mut taken = 0;
        for (ms, wanted, expected) in [
            (0, 100, 0),
            (50, 100, 50),
            (60, 4, 4),
            (60, 100, 6),
            // What nobody took does not pile up.
            (5_000, 1_000, 200),
            (5_001, 1_000, 1),
            // Shorter than a byte takes: it counts all the same.
            (5_001, 1_000, 0),
        ] {
            let found = throttle.take(wanted, at(ms)).unwrap();
            assert_eq!(found, expected, "{ms}");
            taken += found;
        }
        assert!(taken <= 5_000 + 200);
        let mut taken = 0;
        for tenth_ms in 0..10_000 {
            taken += throttle.take(7, at(10_000) + Duration::from_micros(tenth_ms * 100)).unwrap();
        }
        assert!((999..=1_200).contains(&taken), "{taken}");
        assert_eq!(Throttle::new(0, begun).take(5, begun), None);
    }
}
