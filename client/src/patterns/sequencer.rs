//! Puts items back into the order of their numbers, within a bound. Pure.

use std::collections::BTreeMap;

/// What arrived out of order, until what comes before it arrives too.
///
/// ```
/// use floodmark_client::patterns::Sequencer;
///
/// let mut sequencer = Sequencer::new(1, 100);
/// assert!(sequencer.push(2, "b")?.is_empty());
/// assert_eq!(sequencer.push(1, "a")?, ["a", "b"]);
/// # Ok::<(), floodmark_client::patterns::OutOfSequence>(())
/// ```
#[derive(Debug, Clone)]
pub struct Sequencer<T> {
    next: u64,
    waiting_max: usize,
    waiting: BTreeMap<u64, T>,
}

/// Why an item was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OutOfSequence {
    /// An item of this number was given out, or waits, already.
    #[error("number {0} was there already")]
    Repeated(u64),
    /// As many wait as may. Whoever knows that the missing one will not come gives it up with [`Sequencer::skip`].
    #[error(
        "number {missing} is missing, and {waiting} items wait for it, which is as many as may: skip it, or raise the bound"
    )]
    Full {
        /// What everything waits for.
        missing: u64,
        /// How many wait.
        waiting: usize,
    },
}

impl<T> Sequencer<T> {
    /// Waits for `first`, and keeps `waiting_max` items at most that came before their turn.
    #[must_use]
    pub fn new(first: u64, waiting_max: usize) -> Sequencer<T> {
        Sequencer { next: first, waiting_max, waiting: BTreeMap::new() }
    }

    /// Takes an item; gives out all whose turn it is.
    pub fn push(&mut self, number: u64, item: T) -> Result<Vec<T>, OutOfSequence> {
        if number < self.next || self.waiting.contains_key(&number) {
            return Err(OutOfSequence::Repeated(number));
        }
        // The one that everything waits for is always taken.
        if number != self.next && self.waiting.len() >= self.waiting_max {
            return Err(OutOfSequence::Full { missing: self.next, waiting: self.waiting.len() });
        }
        self.waiting.insert(number, item);
        Ok(self.ready())
    }

    /// Gives up what is missing, up to the first item that waits; gives out all whose turn it is then.
    pub fn skip(&mut self) -> Vec<T> {
        if let Some((&first, _)) = self.waiting.first_key_value() {
            self.next = first;
        }
        self.ready()
    }

    /// The number that everything waits for.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.next
    }

    /// Items that wait for their turn.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn ready(&mut self) -> Vec<T> {
        let mut ready = Vec::new();
        while let Some(item) = self.waiting.remove(&self.next) {
            ready.push(item);
            self.next = self.next.saturating_add(1);
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_missing_holds_up_as_many_as_may_wait() {
        let mut sequencer = Sequencer::new(0, 2);
        assert_eq!(sequencer.push(1, 1), Ok(vec![]));
        assert_eq!(sequencer.push(1, 1), Err(OutOfSequence::Repeated(1)));
        assert_eq!(sequencer.push(3, 3), Ok(vec![]));
        assert_eq!(sequencer.push(4, 4), Err(OutOfSequence::Full { missing: 0, waiting: 2 }));
        assert_eq!(sequencer.push(0, 0), Ok(vec![0, 1]));
        assert_eq!(sequencer.push(0, 0), Err(OutOfSequence::Repeated(0)));
        assert_eq!((sequencer.missing(), sequencer.waiting()), (2, 1));
        assert_eq!(sequencer.skip(), [3]);
        assert!(sequencer.skip().is_empty());
        assert_eq!(sequencer.push(4, 4), Ok(vec![4]));
    }

    proptest! {
        #[test]
        fn any_order_becomes_the_order_of_numbers(order in Just((0_u64..40).collect::<Vec<_>>()).prop_shuffle()) {
            let mut sequencer = Sequencer::new(0, 40);
            let out: Vec<u64> = order.iter().flat_map(|n| sequencer.push(*n, *n).unwrap()).collect();
            prop_assert_eq!(out, (0..40).collect::<Vec<_>>());
        }
    }
}
