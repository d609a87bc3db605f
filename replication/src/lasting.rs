//! Trouble that is met over and over while it lasts: said when it begins, at most once a minute with a count while it goes on, and once when
//! it is over. Must not know what the trouble is.

use std::time::Duration;

use floodmark_storage::clock::Stopwatch;
use parking_lot::Mutex;

/// Between two words about the same trouble. A disk that fills and empties by turns gets no more of them than one that stays full.
pub(crate) const APART: Duration = Duration::from_secs(60);

/// What is to be said now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// It is there.
    Begins,
    /// It was met so often since something was said last.
    Lasts { times: u64 },
    /// It is gone, and was met so often since something was said last.
    Over { times: u64 },
}

/// One kind of trouble.
#[derive(Debug, Default)]
pub(crate) struct Lasting {
    /// When it was last said that it is there.
    said: Option<Duration>,
    /// Whoever reads takes it for being there.
    is_known: bool,
    times: u64,
}

impl Lasting {
    /// It was met.
    pub(crate) fn meet(&mut self, now: Duration) -> Option<Word> {
        self.times += 1;
        if self.said.is_some_and(|said| now < said + APART) {
            return None;
        }
        self.said = Some(now);
        let times = std::mem::take(&mut self.times);
        let begins = !std::mem::replace(&mut self.is_known, true);
        Some(if begins { Word::Begins } else { Word::Lasts { times } })
    }

    /// It is not there.
    pub(crate) fn end(&mut self) -> Option<Word> {
        if !std::mem::take(&mut self.is_known) {
            return None;
        }
        Some(Word::Over { times: std::mem::take(&mut self.times) })
    }
}

/// The same with a clock, for several threads.
#[derive(Debug)]
pub(crate) struct Trouble {
    since: Stopwatch,
    lasting: Mutex<Lasting>,
}

impl Default for Trouble {
    fn default() -> Trouble {
        Trouble { since: Stopwatch::start(), lasting: Mutex::default() }
    }
}

impl Trouble {
    /// It was met.
    pub(crate) fn meet(&self) -> Option<Word> {
        self.lasting.lock().meet(self.since.elapsed())
    }

    /// It is not there.
    pub(crate) fn end(&self) -> Option<Word> {
        self.lasting.lock().end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of trouble that is met ten times a second, and gone in between where `gone` says so.
    fn said(seconds: u64, gone: impl Fn(u64) -> bool) -> Vec<(u64, Word)> {
        let mut lasting = Lasting::default();
        let mut said = Vec::new();
        for tenth in 0..seconds * 10 {
            let now = Duration::from_millis(tenth * 100);
            said.extend(lasting.meet(now).map(|word| (tenth, word)));
            if gone(tenth) {
                said.extend(lasting.end().map(|word| (tenth, word)));
            }
        }
        said
    }

    #[test]
    fn it_is_said_at_once_then_every_minute_and_when_it_is_over() {
        let expected = [
            (0, Word::Begins),
            (600, Word::Lasts { times: 600 }),
            (1200, Word::Lasts { times: 600 }),
            (1249, Word::Over { times: 49 }),
        ];
        assert_eq!(said(125, |tenth| tenth == 1249), expected);
    }

    #[test]
    fn what_comes_and_goes_is_said_no_more_often() {
        let expected = [
            (0, Word::Begins),
            (0, Word::Over { times: 0 }),
            (600, Word::Begins),
            (600, Word::Over { times: 0 }),
        ];
        assert_eq!(said(100, |_| true), expected);
        assert_eq!(Lasting::default().end(), None, "what was not there is not over");
    }
}
