//! Aggregates by key and window of event time, each given out once. Pure: time is what the records say.

use std::collections::BTreeMap;
use std::ops::Range;

/// Windows side by side, each of one length, and what has been gathered in them.
///
/// A window is given out when a record comes whose time is past its end by more than the lateness allowed; a record that comes later still is
/// not counted, and the caller is told.
///
/// ```
/// use floodmark_client::patterns::Windows;
///
/// let mut sums = Windows::new(1000, 0, 10_000);
/// sums.add("a", 100, |sum: &mut u64| *sum += 5)?;
/// sums.add("a", 900, |sum| *sum += 1)?;
/// let closed = sums.add("b", 1000, |sum| *sum += 1)?;
/// assert_eq!((closed[0].key, closed[0].value), ("a", 6));
/// # Ok::<(), floodmark_client::patterns::NotCounted>(())
/// ```
#[derive(Debug, Clone)]
pub struct Windows<K, A> {
    length_ms: i64,
    lateness_ms: i64,
    open_max: usize,
    /// By the window's start, so that the oldest are given out first.
    open: BTreeMap<(i64, K), A>,
    newest_ms: i64,
}

/// A window that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed<K, A> {
    /// Of the records.
    pub key: K,
    /// Milliseconds since 1970.
    pub window_ms: Range<i64>,
    /// What was gathered.
    pub value: A,
}

/// Why a record is in no window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotCounted {
    /// Its window was given out.
    #[error("a record of {timestamp_ms} came too late: its window ended at {end_ms} and was given out")]
    Late {
        /// The record's time.
        timestamp_ms: i64,
        /// The window's end.
        end_ms: i64,
    },
    /// There are as many keys and windows as may be.
    #[error("{0} windows are open, which is as many as may: raise the bound, or use shorter windows")]
    Full(usize),
}

impl<K: Ord + Clone, A: Default> Windows<K, A> {
    /// Windows of `length_ms`, one millisecond at least, that wait for records as late as `lateness_ms`; `open_max` at most are open at once,
    /// over all keys.
    #[must_use]
    pub fn new(length_ms: i64, lateness_ms: i64, open_max: usize) -> Windows<K, A> {
        Windows {
            length_ms: length_ms.max(1),
            lateness_ms: lateness_ms.max(0),
            open_max,
            open: BTreeMap::new(),
            newest_ms: i64::MIN,
        }
    }

    /// Counts a record in; gives out the windows that are over by its time, the oldest first.
    pub fn add(
        &mut self,
        key: K,
        timestamp_ms: i64,
        gather: impl FnOnce(&mut A),
    ) -> Result<Vec<Closed<K, A>>, NotCounted> {
        let start = timestamp_ms.div_euclid(self.length_ms).saturating_mul(self.length_ms);
        let end_ms = start.saturating_add(self.length_ms);
        if end_ms <= self.closed_until() {
            return Err(NotCounted::Late { timestamp_ms, end_ms });
        }
        let place = (start, key);
        let newest_ms = self.newest_ms.max(timestamp_ms);
        if self.open.len() >= self.open_max && !self.open.contains_key(&place) && !self.makes_room(newest_ms)
        {
            return Err(NotCounted::Full(self.open.len()));
        }
        gather(self.open.entry(place).or_default());
        self.newest_ms = newest_ms;
        Ok(self.take_closed())
    }

    /// Gives out what is open, at the end of a stream.
    pub fn finish(&mut self) -> Vec<Closed<K, A>> {
        self.newest_ms = i64::MAX;
        self.take_closed()
    }

    /// Windows that end by then were given out.
    fn closed_until(&self) -> i64 {
        self.over_at(self.newest_ms)
    }

    fn over_at(&self, newest_ms: i64) -> i64 {
        newest_ms.saturating_sub(if newest_ms == i64::MAX { 0 } else { self.lateness_ms })
    }

    /// A record of that time ends a window that is open.
    fn makes_room(&self, newest_ms: i64) -> bool {
        let oldest = self.open.first_key_value();
        oldest.is_some_and(|((start, _), _)| start.saturating_add(self.length_ms) <= self.over_at(newest_ms))
    }

    fn take_closed(&mut self) -> Vec<Closed<K, A>> {
        let (until, length_ms) = (self.closed_until(), self.length_ms);
        let mut closed = Vec::new();
        while let Some(first) = self.open.first_entry()
            && first.key().0.saturating_add(length_ms) <= until
        {
            let ((start, key), value) = first.remove_entry();
            closed.push(Closed { key, window_ms: start..start.saturating_add(length_ms), value });
        }
        closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(closed: &[Closed<&str, u64>]) -> Vec<(String, i64, u64)> {
        closed.iter().map(|c| (c.key.to_owned(), c.window_ms.start, c.value)).collect()
    }

    #[test]
    fn a_window_is_given_out_once_when_it_is_over() {
        let mut windows = Windows::new(10, 5, 100);
        let mut add = |key, at| windows.add(key, at, |sum: &mut u64| *sum += 1).map(|closed| shown(&closed));
        assert_eq!(add("a", 3), Ok(vec![]));
        assert_eq!(add("b", 9), Ok(vec![]));
        assert_eq!(add("a", 12), Ok(vec![]));
        // Late, but not too late.
        assert_eq!(add("a", 4), Ok(vec![]));
        assert_eq!(add("a", 15), Ok(vec![("a".to_owned(), 0, 2), ("b".to_owned(), 0, 1)]));
        assert_eq!(add("a", 9), Err(NotCounted::Late { timestamp_ms: 9, end_ms: 10 }));
        assert_eq!(add("a", -3), Err(NotCounted::Late { timestamp_ms: -3, end_ms: 0 }));
        assert_eq!(shown(&windows.finish()), [("a".to_owned(), 10, 2)]);
        assert!(windows.finish().is_empty());
    }

    #[test]
    fn times_before_1970_have_windows_too() {
        let mut windows = Windows::new(10, 0, 100);
        windows.add("a", -1, |sum: &mut u64| *sum += 1).unwrap();
        let closed = windows.add("a", 0, |sum| *sum += 1).unwrap();
        assert_eq!(closed[0].window_ms, -10..0);
    }

    #[test]
    fn no_more_windows_are_open_than_may() {
        let mut windows = Windows::new(10, 0, 1);
        windows.add("a", 1, |sum: &mut u64| *sum += 1).unwrap();
        assert_eq!(windows.add("b", 1, |sum| *sum += 1), Err(NotCounted::Full(1)));
        windows.add("a", 2, |sum| *sum += 1).unwrap();
        // A record that ends a window has room.
        assert_eq!(windows.add("b", 10, |sum| *sum += 1).unwrap()[0].value, 2);
    }
}
