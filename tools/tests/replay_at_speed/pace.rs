//! How fast a copy went, of what was asked for, window by window. Pure.

use std::time::Duration;

/// At this moment the copy had reached this time of the original.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) at: Duration,
    pub(crate) newest_ms: i64,
}

/// Speeds as parts of what was asked for: 1.0 is exactly that.
#[derive(Debug)]
pub(crate) struct Pace {
    pub(crate) windows: Vec<f64>,
    /// From the first arrival to the last; for the longest piece without a kill.
    whole: Option<f64>,
    /// How far behind the schedule of its first arrival each was, in milliseconds, sorted; ahead counts as less than 0.
    late_ms: Vec<f64>,
}

impl Pace {
    /// Of the pieces between kills, each by itself: one that goes on begins its schedule anew.
    pub(crate) fn between(
        arrivals: &[Arrival],
        killed_at: &[Duration],
        times: f64,
        window: Duration,
    ) -> Pace {
        let mut pace = Pace { windows: Vec::new(), whole: None, late_ms: Vec::new() };
        let mut longest = 0;
        // A broker that starts again gives what it had, and then what was held up meanwhile.
        let settling = if killed_at.is_empty() { Duration::ZERO } else { Duration::from_secs(3) };
        let mut from = Duration::ZERO;
        for to in killed_at.iter().copied().chain([Duration::MAX]) {
            let piece: Vec<Arrival> =
                arrivals.iter().filter(|arrival| arrival.at >= from && arrival.at < to).copied().collect();
            pace.windows.extend(windows(&piece, times, window));
            if let Some((first, last)) = piece.first().zip(piece.last()).filter(|_| piece.len() > longest) {
                longest = piece.len();
                pace.whole = speed(first, last, times);
            }
            pace.late_ms.extend(piece.iter().map(|arrival| late_ms(&piece[0], arrival, times)));
            from = to.saturating_add(settling);
        }
        pace.late_ms.sort_by(f64::total_cmp);
        pace
    }

    pub(crate) fn print(&self, what: &str) {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for speed in &self.windows {
            (low, high) = (low.min(*speed), high.max(*speed));
        }
        let late = |part: f64| {
            let at = ((self.late_ms.len() as f64 * part) as usize).min(self.late_ms.len().saturating_sub(1));
            self.late_ms.get(at).copied().unwrap_or(f64::NAN)
        };
        println!(
            "{what}: {} windows at {low:.4} to {high:.4} of the speed asked for, the whole at {:.4}; behind by {:.0} ms in the median, {:.0} at p99, {:.0} at most",
            self.windows.len(),
            self.whole.unwrap_or(f64::NAN),
            late(0.5),
            late(0.99),
            late(1.0),
        );
    }

    /// Every window, and the whole.
    pub(crate) fn assert_within(&self, part: f64) {
        for speed in self.windows.iter().copied().chain([self.whole.unwrap_or(f64::NAN)]) {
            assert!((speed - 1.0).abs() <= part, "{speed} of the speed asked for; {:?}", self.windows);
        }
    }
}

/// Windows that follow each other, each as long as was to be: from the first arrival at or after a window's time to that of the next.
fn windows(arrivals: &[Arrival], times: f64, window: Duration) -> Vec<f64> {
    let Some(first) = arrivals.first() else { return Vec::new() };
    let step_ms = window.as_secs_f64() * 1000.0 * times;
    let mut speeds = Vec::new();
    let mut edge = first;
    for arrival in arrivals {
        if (arrival.newest_ms - edge.newest_ms) as f64 >= step_ms {
            speeds.extend(speed(edge, arrival, times));
            edge = arrival;
        }
    }
    speeds
}

fn speed(from: &Arrival, to: &Arrival, times: f64) -> Option<f64> {
    let asked = (to.newest_ms - from.newest_ms) as f64 / 1000.0 / times;
    let took = (to.at - from.at).as_secs_f64();
    (took > 0.0).then_some(asked / took)
}

fn late_ms(first: &Arrival, arrival: &Arrival, times: f64) -> f64 {
    let due = (arrival.newest_ms - first.newest_ms) as f64 / times;
    (arrival.at - first.at).as_secs_f64() * 1000.0 - due
}

#[test]
fn a_copy_at_another_speed_is_told_from_one_in_time() {
    let arrivals = |times: f64| -> Vec<Arrival> {
        let arrival = |n: u64| Arrival {
            at: Duration::from_millis(500 + 10 * n),
            newest_ms: 1_700_000_000_000 + (10.0 * n as f64 * times) as i64,
        };
        (0..4000).map(arrival).collect()
    };
    let of = |times: f64| Pace::between(&arrivals(times), &[], 10.0, Duration::from_secs(10));
    let in_time = of(10.0);
    assert_eq!(in_time.windows.len(), 3);
    in_time.assert_within(0.001);
    for times in [9.7, 10.3] {
        let wrong = of(times);
        assert!(wrong.windows.iter().all(|speed| (speed - times / 10.0).abs() < 0.005), "{wrong:?}");
        assert!(std::panic::catch_unwind(|| wrong.assert_within(0.02)).is_err(), "{times}");
    }
    // One window of three.
    let mut stumbles = arrivals(10.0);
    for arrival in &mut stumbles[1500..] {
        arrival.at += Duration::from_millis(300);
    }
    let stumbles = Pace::between(&stumbles, &[], 10.0, Duration::from_secs(10));
    assert!(std::panic::catch_unwind(|| stumbles.assert_within(0.02)).is_err());
    // What is killed counts by its pieces.
    let killed = Pace::between(&arrivals(10.0), &[Duration::from_secs(15)], 10.0, Duration::from_secs(10));
    assert_eq!(killed.windows.len(), 3);
}
