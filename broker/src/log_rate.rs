//! Keeps a client that fails over and over from filling the log: so many lines a second, and the number of those that were left out.

use std::time::Duration;

use floodmark_storage::clock::Stopwatch;
use parking_lot::Mutex;

const LINES_A_WINDOW: u32 = 10;
const WINDOW: Duration = Duration::from_secs(1);

/// A limit on lines, shared by what it is meant for.
#[derive(Debug)]
pub(crate) struct LogRate {
    since: Stopwatch,
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    began: Duration,
    lines: u32,
    left_out: u64,
}

impl Default for LogRate {
    fn default() -> LogRate {
        LogRate { since: Stopwatch::start(), window: Mutex::default() }
    }
}

impl LogRate {
    /// Calls `line` with the number of lines that were left out before it, unless there were too many lately.
    pub(crate) fn say(&self, line: impl FnOnce(u64)) {
        let allowed = self.window.lock().next(self.since.elapsed());
        if let Some(left_out) = allowed {
            line(left_out);
        }
    }
}

impl Window {
    fn next(&mut self, now: Duration) -> Option<u64> {
        if now >= self.began + WINDOW {
            self.began = now;
            self.lines = 0;
        }
        if self.lines >= LINES_A_WINDOW {
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
        let mut window = Window::default();
        let begins = Duration::from_millis(300);
        let said: Vec<_> = (0..25).filter_map(|_| window.next(begins)).collect();
        assert_eq!(said, [0; 10]);
        assert_eq!(window.next(WINDOW - Duration::from_millis(1)), None);
        assert_eq!(window.next(WINDOW), Some(16));
        assert_eq!(window.next(WINDOW + begins), Some(0));
    }

    #[test]
    fn what_is_said_first_is_said() {
        let mut said = Vec::new();
        LogRate::default().say(|left_out| said.push(left_out));
        assert_eq!(said, [0]);
    }
}
