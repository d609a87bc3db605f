//! A byte rate as pauses. Must not know how time passes or how to wait.

use std::time::Duration;

/// Pauses are taken for at least this much, so that a slow rate does not end in thousands of tiny sleeps a second.
const PAUSE_MIN: Duration = Duration::from_millis(20);

/// Turns bytes moved and time taken into pauses.
#[derive(Debug, Clone)]
pub struct Rate {
    bytes_per_second: Option<u64>,
    moved: u64,
}

impl Rate {
    /// At most so many bytes a second; `None` never pauses.
    #[must_use]
    pub fn new(bytes_per_second: Option<u64>) -> Rate {
        Rate { bytes_per_second, moved: 0 }
    }

    /// Counts bytes read or written. `elapsed` is the time since the last pause ended; a pause that is due is returned, and
    /// the count then begins anew.
    pub fn after(&mut self, bytes: u64, elapsed: Duration) -> Option<Duration> {
        let rate = self.bytes_per_second?.max(1);
        self.moved = self.moved.saturating_add(bytes);
        let nanos = u128::from(self.moved) * 1_000_000_000 / u128::from(rate);
        let owed = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let pause = owed.saturating_sub(elapsed);
        if pause < PAUSE_MIN {
            return None;
        }
        self.moved = 0;
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_make_up_for_what_went_too_fast() {
        let mut rate = Rate::new(Some(1_000_000));
        assert_eq!(rate.after(10_000, Duration::ZERO), None);
        assert_eq!(rate.after(40_000, Duration::from_millis(10)), Some(Duration::from_millis(40)));
        assert_eq!(rate.after(40_000, Duration::from_millis(60)), None);
        assert_eq!(rate.after(40_000, Duration::from_millis(60)), Some(Duration::from_millis(20)));
    }

    #[test]
    fn without_a_rate_nothing_waits_and_zero_does_not_divide() {
        assert_eq!(Rate::new(None).after(u64::MAX, Duration::ZERO), None);
        assert_eq!(Rate::new(Some(0)).after(2, Duration::ZERO), Some(Duration::from_secs(2)));
    }
}
