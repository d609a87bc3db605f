//! When a majority of voters last took this node for their leader. Counted from when each message was sent, since from then on at the
//! latest its receiver waits before it elects another. Not taken from openraft's metrics, which are as old as the last change.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::types::NodeId;

/// What came back from each voter.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    /// The term it was in, and when the message was sent that it answered.
    last: Mutex<BTreeMap<NodeId, (u64, Instant)>>,
}

impl Acks {
    /// A voter has answered as one that follows the leader of `term`.
    pub(crate) fn note(&self, voter: NodeId, term: u64, sent: Instant) {
        let mut last = self.last.lock();
        let held = last.entry(voter).or_insert((term, sent));
        *held = (*held).max((term, sent));
    }

    /// How long ago a majority of each of `configs` followed the leader `own` of `term`; `None` where none has yet.
    pub(crate) fn since(
        &self,
        configs: &[BTreeSet<NodeId>],
        own: NodeId,
        term: u64,
        now: Instant,
    ) -> Option<Duration> {
        let last = self.last.lock();
        let heard = |voter: &NodeId| match last.get(voter) {
            _ if *voter == own => Some(now),
            Some((of, sent)) if *of == term => Some(*sent),
            _ => None,
        };
        let mut oldest = now;
        for voters in configs {
            let mut times: Vec<Instant> = voters.iter().filter_map(heard).collect();
            times.sort_unstable();
            let majority = voters.len() / 2 + 1;
            oldest = oldest.min(*times.get(times.len().checked_sub(majority)?)?);
        }
        (!configs.is_empty()).then(|| now.saturating_duration_since(oldest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_majority_counts_from_its_slowest_member() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let acks = Acks::default();
        for (voter, term, ms) in [(2, 5, 10), (3, 5, 30), (4, 5, 20), (4, 4, 90), (5, 6, 99), (3, 5, 25)] {
            acks.note(voter, term, at(ms));
        }
        let since = |configs: &[&[NodeId]]| {
            let configs: Vec<BTreeSet<NodeId>> =
                configs.iter().map(|c| c.iter().copied().collect()).collect();
            acks.since(&configs, 1, 5, at(100)).map(|d| d.as_millis())
        };
        assert_eq!(since(&[&[1]]), Some(0), "alone");
        assert_eq!(since(&[&[1, 2]]), Some(90));
        assert_eq!(since(&[&[1, 2, 3]]), Some(70));
        assert_eq!(since(&[&[1, 2, 3, 4]]), Some(80));
        assert_eq!(since(&[&[1, 2, 3, 4, 5]]), Some(80), "what was answered in another term does not count");
        assert_eq!(since(&[&[1, 5, 6]]), None);
        assert_eq!(since(&[&[1, 3, 6], &[1, 2]]), Some(90), "both majorities of a change of voters");
        assert_eq!(since(&[&[1, 3], &[5, 6, 1]]), None);
        assert_eq!(since(&[&[2, 3, 4]]), Some(80), "a leader that leaves does not count itself");
        assert_eq!(since(&[]), None);
    }
}
