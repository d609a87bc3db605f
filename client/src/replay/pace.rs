//! When each record of a replay is due. Pure: the clock is the caller's.

use std::time::Duration;

/// How fast records are given out.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Rate {
    /// As fast as they can be had.
    #[default]
    Maximum,
    /// So many a second.
    PerSecond(f64),
    /// This many times as fast as they were written, by their timestamps: 1.0 takes as long as it took then.
    TimesOriginal(f64),
}

/// What lies between a rate that is late and one that never was: who could not keep up, or was suspended, makes up for this much and no
/// more, so that a replay does not flood whoever it feeds once it goes on.
const LATE_MAX: Duration = Duration::from_secs(1);

/// Why a rate is none.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("a replay's rate must be a number above zero, up to a thousand million; {0} is not")]
pub struct NoRate(pub f64);

/// The schedule of one replay. Times are counted from any fixed moment.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    rate: Rate,
    /// The moment and the record that everything is counted from.
    origin: Option<Origin>,
}

#[derive(Debug, Clone, Copy)]
struct Origin {
    at: Duration,
    timestamp_ms: i64,
    /// Records given out before.
    count: u64,
}

impl Pace {
    /// Begins with the first record.
    pub(crate) fn new(rate: Rate) -> Result<Pace, NoRate> {
        match rate {
            Rate::PerSecond(number) | Rate::TimesOriginal(number) if !(number > 0.0 && number <= 1e9) => {
                Err(NoRate(number))
            }
            _ => Ok(Pace { rate, origin: None }),
        }
    }

    /// How long after `now` the next record, written at `timestamp_ms`, is to be given out; `count` were before it. Zero: at once.
    pub(crate) fn wait(&mut self, now: Duration, count: u64, timestamp_ms: i64) -> Duration {
        let origin = *self.origin.get_or_insert(Origin { at: now, timestamp_ms, count });
        let Some(after) = self.after(&origin, count, timestamp_ms) else { return Duration::ZERO };
        let due = origin.at.saturating_add(after);
        let late = now.saturating_sub(due);
        if late > LATE_MAX {
            // From here on as if everything before had been in time, but for what may be made up.
            self.origin = Some(Origin { at: origin.at.saturating_add(late - LATE_MAX), ..origin });
        }
        due.saturating_sub(now)
    }

    /// From the origin to this record; `None` where there is nothing to wait for.
    fn after(&self, origin: &Origin, count: u64, timestamp_ms: i64) -> Option<Duration> {
        let seconds = match self.rate {
            Rate::Maximum => return None,
            Rate::PerSecond(rate) => (count - origin.count) as f64 / rate,
            // A record older than the first one is due with it.
            Rate::TimesOriginal(times) => {
                timestamp_ms.saturating_sub(origin.timestamp_ms).max(0) as f64 / 1000.0 / times
            }
        };
        Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn records_are_due_by_their_number_or_by_their_time() {
        // Rate; then for each record: now, how many before it, its timestamp, how long it waits.
        type Asked = (u64, u64, i64, u64);
        let cases: [(Rate, &[Asked]); 5] = [
            (Rate::Maximum, &[(0, 0, 0, 0), (0, 1, 90_000, 0)]),
            (Rate::PerSecond(10.0), &[(500, 0, 7, 0), (500, 1, 7, 100), (620, 2, 7, 80), (1499, 10, 7, 1)]),
            // In time again, after a record that was late.
            (Rate::PerSecond(10.0), &[(0, 0, 7, 0), (900, 1, 7, 0), (900, 9, 7, 0), (900, 10, 7, 100)]),
            (Rate::TimesOriginal(10.0), &[(0, 0, 5_000, 0), (0, 1, 6_000, 100), (30, 2, 6_000, 70)]),
            // Timestamps that go back.
            (Rate::TimesOriginal(0.5), &[(0, 0, 5_000, 0), (0, 1, 4_000, 0), (0, 2, 5_010, 20)]),
        ];
        for (rate, records) in cases {
            let mut pace = Pace::new(rate).unwrap();
            for &(now, count, timestamp, wait) in records {
                assert_eq!(
                    pace.wait(ms(now), count, timestamp),
                    ms(wait),
                    "{rate:?} {now} {count} {timestamp}"
                );
            }
        }
    }

    #[test]
    fn who_was_suspended_makes_up_for_a_second_and_no_more() {
        let mut pace = Pace::new(Rate::PerSecond(100.0)).unwrap();
        assert_eq!(pace.wait(ms(0), 0, 0), ms(0));
        let now = 60_000;
        let at_once = (1..10_000).take_while(|&count| pace.wait(ms(now), count, 0).is_zero()).count();
        assert!((100..=101).contains(&at_once), "{at_once}");
    }

    #[test]
    fn a_replay_that_is_resumed_counts_from_its_first_record() {
        let mut pace = Pace::new(Rate::PerSecond(10.0)).unwrap();
        assert_eq!(pace.wait(ms(0), 1_000, 0), ms(0));
        assert_eq!(pace.wait(ms(0), 1_001, 0), ms(100));
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for number in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e10] {
            assert!(Pace::new(Rate::PerSecond(number)).is_err(), "{number}");
            assert!(Pace::new(Rate::TimesOriginal(number)).is_err(), "{number}");
        }
    }
}
