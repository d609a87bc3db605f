//! Keeps a client that fails over and over from filling the log: so many lines a second, and the number of those that were left out.

use std::time::Duration;

use floodmark_storage::clock::Stopwatch;
use parking_lot::Mutex;

/// A limit on lines, shared by what it is meant for.
#[derive(Debug)]
pub(crate) struct LogRate {
    limit: Limit,
    since: Stopwatch,
    window: Mutex<Window>,
}

/// So many lines in so long.
#[derive(Debug, Clone, Copy)]
struct Limit {
    lines: u32,
    period: Duration,
}

const OFTEN: Limit = Limit { lines: 10, period: Duration::from_secs(1) };
const SELDOM: Limit = Limit { lines: 1, period: Duration::from_secs(60) };

#[derive(Debug, Default)]
struct Window {
    /// With the first line that is said in it.
    began: Option<Duration>,
    lines: u32,
    left_out: u64,
}

impl Default for LogRate {
    fn default() -> LogRate {
        LogRate::of(OFTEN)
    }
}

impl LogRate {
    /// One line a minute, for what may go on for long.
    pub(crate) fn seldom() -> LogRate {
        LogRate::of(SELDOM)
    }

    fn of(limit: Limit) -> LogRate {
        LogRate { limit, since: Stopwatch::start(), window: Mutex::default() }
    }

    /// Calls `line` with the number of lines that were left out before it, unless there were too many lately.
    pub(crate) fn say(&self, line: impl FnOnce(u64)) {
        let allowed = self.window.lock().next(self.limit, self.since.elapsed());
        if let Some(left_out) = allowed {
            line(left_out);
        }
    }
}

impl Window {
    fn next(&mut self, limit: Limit, now: Duration) -> Option<u64> {
        if self.began.is_none_or(|began| now >= began + limit.period) {
            self.began = Some(now);
            self.lines = 0;
        }
        if self.lines >= limit.lines {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_past_the_limit_are_counted_and_told_with_the_next() {
        let (mut window, began) = (Window::default(), Duration::from_millis(300));
        let said: Vec<_> = (0..25).filter_map(|_| window.next(OFTEN, began)).collect();
        assert_eq!(said, [0; 10]);
        let over = began + OFTEN.period;
        assert_eq!(window.next(OFTEN, over - Duration::from_millis(1)), None);
        assert_eq!(window.next(OFTEN, over), Some(16));
        assert_eq!(window.next(OFTEN, over + began), Some(0));
    }

    #[test]
    fn what_goes_on_is_told_once_a_minute_with_the_number_of_times() {
        let mut window = Window::default();
        let told: Vec<_> = (59..184).filter_map(|s| window.next(SELDOM, Duration::from_secs(s))).collect();
        assert_eq!(told, [0, 59, 59]);
    }

    #[test]
    fn what_is_said_first_is_said() {
        let mut said = Vec::new();
        LogRate::default().say(|left_out| said.push(left_out));
        assert_eq!(said, [0]);
    }
}
