//! What producers sent to one partition and were told, held against what is there in the end.

use std::collections::BTreeMap;

use super::Verdict;
use super::end_state::{At, EndState};
use super::intervals::Intervals;
use super::staircase::Staircase;
use crate::history::{Anomaly, Event, Op, Partition, Value};

/// What one producer sent to the partition.
#[derive(Default)]
struct OfProducer {
    idempotent: bool,
    sent: Intervals,
    /// What a producer without idempotence sent more than once: how many times.
    again: BTreeMap<u64, u64>,
}

/// A send that has not been acknowledged yet, and perhaps never will.
#[derive(Clone, Copy)]
struct Unanswered {
    count: u64,
    /// The highest offset that had been acknowledged to anybody when it was sent first.
    floor: Option<i64>,
}

#[derive(Default)]
pub(super) struct Sends {
    producers: BTreeMap<u32, OfProducer>,
    /// By the first value.
    unanswered: BTreeMap<Value, Unanswered>,
    /// The last offset of what had been acknowledged at a moment.
    acked: Staircase,
}

impl Sends {
    pub(super) fn on_send(&mut self, event: &Event, end: &mut EndState, verdict: &mut Verdict) {
        let &Op::Send { producer, idempotent, partition, first, count, acked_at } = &event.did else {
            return;
        };
        self.note_sent(producer, idempotent, first, count);
        let first = Value { producer, n: first };
        let floor = self.acked.before(event.begun);
        let earlier = self.unanswered.get(&first).map(|earlier| earlier.floor);
        let floor = earlier.map_or(floor, |earlier| earlier.min(floor));
        let Some(base) = acked_at else {
            match idempotent {
                true => verdict.seen.sends_unknown_idempotent += 1,
                false => verdict.seen.sends_unknown_plain += 1,
            }
            self.unanswered.insert(first, Unanswered { count, floor });
            return;
        };
        verdict.seen.sends_acked += 1;
        verdict.seen.records_acked += count;
        self.unanswered.remove(&first);
        for (n, acked_at) in (first.n..first.n + count).zip(base..) {
            let value = Value { producer, n };
            if end.compare(partition, acked_at, value, verdict) != At::Fine {
                verdict.push(Anomaly::LostAcked { partition, value, acked_at });
            }
        }
        if let Some(acked_before) = floor.filter(|floor| base <= *floor) {
            verdict.push(Anomaly::WentBack { partition, value: first, at: base, acked_before });
        }
        if count > 0 {
            self.acked.rise(event.ended, base + count as i64 - 1);
        }
    }

    fn note_sent(&mut self, producer: u32, idempotent: bool, first: u64, count: u64) {
        let of = self.producers.entry(producer).or_default();
        of.idempotent = idempotent;
        if !idempotent {
            for n in (first..first + count).filter(|n| of.sent.contains(*n)) {
                *of.again.entry(n).or_insert(1) += 1;
            }
        }
        of.sent.insert(first, count);
    }

    fn is_sent(&self, value: Value) -> bool {
        self.producers.get(&value.producer).is_some_and(|of| of.sent.contains(value.n))
    }

    pub(super) fn finish(&self, partition: Partition, end: &EndState, verdict: &mut Verdict) {
        if !end.is_known() && !self.producers.is_empty() {
            verdict.push(Anomaly::Unread { partition });
        }
        for (offset, value) in end.records().chain(end.elsewhere()) {
            if !self.is_sent(value) {
                verdict.push(Anomaly::Invented { partition, value, offset });
            }
        }
        self.check_order(partition, end, verdict);
        self.check_unanswered(partition, end, verdict);
    }

    /// What one producer sent to a partition lies there once and as it was sent. A value that was sent again by a producer that is not
    /// idempotent may lie anywhere, as often as it was sent. Each finding costs a look at the whole log, so it ends with the last that is kept.
    fn check_order(&self, partition: Partition, end: &EndState, verdict: &mut Verdict) {
        let mut last: BTreeMap<u32, u64> = BTreeMap::new();
        let mut again: BTreeMap<Value, u64> = BTreeMap::new();
        for (offset, value) in end.records() {
            let Some(of) = self.producers.get(&value.producer) else { continue };
            if let Some(times_max) = of.again.get(&value.n) {
                let times = again.entry(value).or_default();
                *times += 1;
                if *times > *times_max {
                    verdict.push(duplicate(partition, value, end));
                }
                continue;
            }
            match last.get(&value.producer).copied() {
                Some(behind) if behind >= value.n => {
                    if places(value, end).next() == Some(offset) {
                        let behind = Value { n: behind, ..value };
                        verdict.push(Anomaly::Reordered { partition, value, behind });
                    } else {
                        verdict.push(duplicate(partition, value, end));
                    }
                    if verdict.is_full() {
                        return;
                    }
                }
                _ => {
                    last.insert(value.producer, value.n);
                }
            }
        }
    }

    /// What nobody was told of may be there or not, but not before what had been acknowledged when it was sent.
    fn check_unanswered(&self, partition: Partition, end: &EndState, verdict: &mut Verdict) {
        if self.unanswered.is_empty() {
            return;
        }
        for (at, value) in end.records() {
            let before = self.unanswered.range(..=value).next_back();
            let of =
                before.filter(|(first, of)| first.producer == value.producer && value.n < first.n + of.count);
            if let Some(acked_before) = of.and_then(|(_, of)| of.floor).filter(|floor| at <= *floor) {
                verdict.push(Anomaly::WentBack { partition, value, at, acked_before });
            }
        }
    }
}

fn places(value: Value, end: &EndState) -> impl Iterator<Item = i64> {
    end.records().filter(move |(_, other)| *other == value).map(|(offset, _)| offset)
}

fn duplicate(partition: Partition, value: Value, end: &EndState) -> Anomaly {
    Anomaly::Duplicate { partition, value, offsets: places(value, end).collect() }
}
