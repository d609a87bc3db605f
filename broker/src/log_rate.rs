//! Keeps a client that fails over and over from filling the log: so many lines a second, and the number of those that were left out.

use std::time::Duration;

use floodmark_storage::clock::Stopwatch;
use parking_lot::Mutex;

const LINES_A_WINDOW: u32 = 10;
const WINDOW: Duration = Duration::from_secs(1);

/// A limit on lines, shared by what it is meant for.
#[derive(Debug, Default)]
pub(crate) struct LogRate(Mutex<Option<Window>>);

#[derive(Debug)]
struct Window {
    since: Stopwatch,
    lines: u32,
    left_out: u64,
}

impl LogRate {
    /// Calls `line` with the number of lines that were left out before it, unless there were too many lately.
    pub(crate) fn say(&self, line: impl FnOnce(u64)) {
        let allowed = {
            let mut window = self.0.lock();
            next(&mut window)
        };
        if let Some(left_out) = allowed {
            line(left_out);
        }
    }
}

fn next(slot: &mut Option<Window>) -> Option<u64> {
    let window = slot.get_or_insert_with(|| Window { since: Stopwatch::start(), lines: 0, left_out: 0 });
    if window.since.elapsed() >= WINDOW {
        window.since = Stopwatch::start();
        window.lines = 0;
    }
    if window.lines >= LINES_A_WINDOW {
        window.left_out += 1;
        return None;
    }
    window.lines += 1;
    Some(std::mem::take(&mut window.left_out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_past_the_limit_are_counted_and_told_with_the_next() {
        let rate = LogRate::default();
        let mut said = Vec::new();
        for _ in 0..25 {
            rate.say(|left_out| said.push(left_out));
        }
        assert_eq!(said, [0; 10]);
        if let Some(window) = rate.0.lock().as_mut() {
            window.lines = 0;
        }
        rate.say(|left_out| said.push(left_out));
        assert_eq!(said.last(), Some(&15));
    }
}
