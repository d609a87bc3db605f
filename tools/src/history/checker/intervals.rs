//! A set of numbers that mostly follow each other, as few intervals.

use std::collections::BTreeMap;

/// Start and end, exclusive, of what is in the set; no two touch each other.
#[derive(Debug, Clone, Default)]
pub(super) struct Intervals(BTreeMap<u64, u64>);

impl Intervals {
    pub(super) fn contains(&self, n: u64) -> bool {
        self.0.range(..=n).next_back().is_some_and(|(_, end)| n < *end)
    }

    pub(super) fn insert(&mut self, from: u64, count: u64) {
        let (mut from, mut end) = (from, from.saturating_add(count));
        while let Some((&start, &stop)) = self.0.range(..=end).next_back().filter(|(_, stop)| **stop >= from)
        {
            self.0.remove(&start);
            (from, end) = (from.min(start), end.max(stop));
        }
        if from < end {
            self.0.insert(from, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Intervals;

    #[test]
    fn holds_what_a_set_holds() {
        let mut random = floodmark_storage::random::SplitMix::new(7);
        for _ in 0..200 {
            let (mut intervals, mut set) = (Intervals::default(), std::collections::BTreeSet::new());
            for _ in 0..20 {
                let (from, count) = (random.below(60), random.below(8));
                intervals.insert(from, count);
                set.extend(from..from + count);
            }
            assert!((0..80).all(|n| intervals.contains(n) == set.contains(&n)), "{intervals:?} {set:?}");
            let ends: Vec<_> = intervals.0.iter().collect();
            assert!(ends.windows(2).all(|pair| pair[0].1 < pair[1].0), "{intervals:?}");
        }
    }
}
