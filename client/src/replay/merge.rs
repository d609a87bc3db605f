//! Records of several partitions in one order that is the same each time: by timestamp, but never against the order of a partition. Pure.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// Partitions under way, each with what has come of it.
#[derive(Debug)]
pub(crate) struct Merge<R> {
    lanes: Vec<Lane<R>>,
    /// The lanes that have a record, by when it was written.
    heads: BinaryHeap<Reverse<(i64, usize)>>,
    /// Lanes whose next record is not known yet.
    starving: Vec<usize>,
}

#[derive(Debug)]
struct Lane<R> {
    records: VecDeque<(i64, R)>,
    /// What was given out last was no older than this, so that a partition whose times go back does not hold up the others.
    newest: i64,
    has_ended: bool,
}

impl<R> Merge<R> {
    /// For so many partitions, of which nothing is known yet.
    pub(crate) fn new(lanes: usize) -> Merge<R> {
        let lane = |_| Lane { records: VecDeque::new(), newest: i64::MIN, has_ended: false };
        Merge {
            lanes: (0..lanes).map(lane).collect(),
            heads: BinaryHeap::new(),
            starving: (0..lanes).collect(),
        }
    }

    /// A partition whose next records must be known before anything can be given out.
    pub(crate) fn starving(&self) -> Option<usize> {
        self.starving.last().copied()
    }

    /// The next records of a lane, with their timestamps.
    pub(crate) fn feed(&mut self, lane: usize, records: impl IntoIterator<Item = (i64, R)>) {
        self.lanes[lane].records.extend(records);
        if let Some(at) = self.starving.iter().position(|starving| *starving == lane)
            && self.show_head(lane)
        {
            self.starving.swap_remove(at);
        }
    }

    /// A lane has no more.
    pub(crate) fn end(&mut self, lane: usize) {
        self.lanes[lane].has_ended = true;
        self.starving.retain(|starving| *starving != lane || !self.lanes[lane].records.is_empty());
    }

    /// The timestamp of the record that is next, and its lane; `None` where a lane starves, or all have ended.
    pub(crate) fn peek(&self) -> Option<(i64, usize)> {
        if !self.starving.is_empty() {
            return None;
        }
        self.heads.peek().map(|Reverse((_, lane))| (self.lanes[*lane].records[0].0, *lane))
    }

    /// Takes it.
    pub(crate) fn take(&mut self) -> Option<(usize, R)> {
        if !self.starving.is_empty() {
            return None;
        }
        let Reverse((_, lane)) = self.heads.pop()?;
        let (timestamp, record) = self.lanes[lane].records.pop_front()?;
        let this = &mut self.lanes[lane];
        this.newest = this.newest.max(timestamp);
        if !self.show_head(lane) && !self.lanes[lane].has_ended {
            self.starving.push(lane);
        }
        Some((lane, record))
    }

    /// The first record of a lane that is not given out yet.
    pub(crate) fn front(&self, lane: usize) -> Option<&R> {
        self.lanes[lane].records.front().map(|(_, record)| record)
    }

    fn show_head(&mut self, lane: usize) -> bool {
        let this = &self.lanes[lane];
        let Some((timestamp, _)) = this.records.front() else { return false };
        self.heads.push(Reverse(((*timestamp).max(this.newest), lane)));
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds lanes in pieces of `step` whenever they starve.
    fn merged(lanes: &[Vec<i64>], step: usize) -> Vec<(usize, i64)> {
        let mut merge = Merge::new(lanes.len());
        let mut fed = vec![0; lanes.len()];
        let mut out = Vec::new();
        loop {
            if let Some(lane) = merge.starving() {
                let (from, to) = (fed[lane], (fed[lane] + step).min(lanes[lane].len()));
                merge.feed(lane, lanes[lane][from..to].iter().map(|t| (*t, *t)));
                fed[lane] = to;
                if to == lanes[lane].len() {
                    merge.end(lane);
                }
                continue;
            }
            let Some((timestamp, lane)) = merge.peek() else { break };
            assert_eq!(merge.front(lane), Some(&timestamp));
            let taken = merge.take().unwrap();
            assert_eq!(taken, (lane, timestamp));
            out.push(taken);
        }
        assert!(merge.take().is_none());
        out
    }

    #[test]
    fn the_oldest_head_is_next_and_a_partition_keeps_its_order() {
        type Lanes<'a> = &'a [&'a [i64]];
        let cases: [(Lanes<'_>, &[(usize, i64)]); 5] = [
            (&[&[1, 4], &[2, 3]], &[(0, 1), (1, 2), (1, 3), (0, 4)]),
            // Equal times: the lower partition first.
            (&[&[5, 5], &[5]], &[(0, 5), (0, 5), (1, 5)]),
            // A time that goes back stays behind what was before it, and counts as old as that.
            (&[&[9, 1, 10], &[8, 9, 11]], &[(1, 8), (0, 9), (0, 1), (1, 9), (0, 10), (1, 11)]),
            (&[&[], &[1], &[]], &[(1, 1)]),
            (&[], &[]),
        ];
        for (lanes, expected) in cases {
            let lanes: Vec<Vec<i64>> = lanes.iter().map(|lane| lane.to_vec()).collect();
            for step in 1..4 {
                assert_eq!(merged(&lanes, step), expected, "{lanes:?} {step}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_order_does_not_depend_on_how_records_arrive(
            lanes in prop::collection::vec(prop::collection::vec(0_i64..20, 0..12), 0..5),
            steps in (1_usize..12, 1_usize..12),
        ) {
            let out = merged(&lanes, steps.0);
            prop_assert_eq!(&out, &merged(&lanes, steps.1));
            for (n, lane) in lanes.iter().enumerate() {
                let own: Vec<i64> = out.iter().filter(|(at, _)| *at == n).map(|(_, t)| *t).collect();
                prop_assert_eq!(&own, lane);
            }
        }
    }
}
