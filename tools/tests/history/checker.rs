//! Judges a history. Pure, and knows nothing of how it came about. Where a client was not told what became of something, both are
//! allowed; everything else has one right outcome.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::{Event, Op, Partition, Value};

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Anomaly {
    /// acked-is-kept: acknowledged at this offset and not there in the end.
    LostAcked { partition: Partition, value: Value, acked_at: i64 },
    /// committed-only: a consumer was given it, and it is not there in the end.
    LostRead { partition: Partition, value: Value, read_at: i64 },
    /// exactly-once-append: at more offsets than it was sent times; for an idempotent producer, at more than one.
    Duplicate { partition: Partition, value: Value, offsets: Vec<i64> },
    /// order: in the log before what its producer sent before it.
    Reordered { partition: Partition, value: Value, behind: Value },
    /// order: appended after something else had been acknowledged, and yet before it in the log.
    WentBack { partition: Partition, value: Value, at: i64, acked_before: i64 },
    /// order: one offset, two values, as acknowledged or as read, at whatever time.
    TwoValues { partition: Partition, offset: i64, values: (Value, Value) },
    /// no-invention: nobody sent it.
    Invented { partition: Partition, value: Value, offset: i64 },
    /// order: offsets of the whole partition are not dense.
    Gap { partition: Partition, expected: i64, found: i64 },
    /// order: a consumer was given something else than what follows its position.
    Skipped { reader: u32, partition: Partition, expected: i64, found: i64 },
    /// offsets-stay: a group was told an older offset than one that had been acknowledged, or none.
    CommitWentBack { group: String, partition: Partition, acked: i64, told: Option<i64> },
    /// no-invention: a group was told an offset that nobody had committed.
    CommitInvented { group: String, partition: Partition, told: i64 },
    /// Two members of one generation with the same partition.
    TwoOwners { group: String, generation: i32, partition: Partition },
    /// Something was sent to the partition, and it was never read to its end: nothing is shown.
    Unread { partition: Partition },
}

/// All attempts to send one value.
struct Sent {
    idempotent: bool,
    attempts: usize,
    begun_first: u64,
    acked_at: Vec<i64>,
}

/// What all clients know of one partition.
#[derive(Default)]
struct Known {
    sent: BTreeMap<Value, Sent>,
    /// What was seen at an offset first, by an acknowledgement or a read.
    at: BTreeMap<i64, Value>,
    read: BTreeMap<Value, i64>,
    /// Start and records in the end.
    log: Option<(i64, Vec<(i64, Value)>)>,
    /// When an acknowledgement was there, and the last offset that it spoke of.
    acks: Vec<(u64, i64)>,
}

/// Every promise that the history breaks. An event's place in the list means nothing, its moments do.
pub(crate) fn check(events: &[Event]) -> Vec<Anomaly> {
    let mut anomalies = Vec::new();
    let mut partitions: BTreeMap<Partition, Known> = BTreeMap::new();
    for event in events {
        take_in(event, &mut partitions, &mut anomalies);
    }
    for (partition, known) in &partitions {
        check_partition(*partition, known, &mut anomalies);
    }
    check_commits(events, &mut anomalies);
    check_owners(events, &mut anomalies);
    anomalies
}

fn take_in(event: &Event, partitions: &mut BTreeMap<Partition, Known>, anomalies: &mut Vec<Anomaly>) {
    match &event.op {
        Op::Send { producer, idempotent, partition, first, count, acked_at } => {
            let known = partitions.entry(*partition).or_default();
            for (n, place) in (*first..first + count).zip(0..) {
                let value = Value { producer: *producer, n };
                let sent = known.sent.entry(value).or_insert(Sent {
                    idempotent: *idempotent,
                    attempts: 0,
                    begun_first: event.begun,
                    acked_at: Vec::new(),
                });
                sent.attempts += 1;
                sent.begun_first = sent.begun_first.min(event.begun);
                if let Some(base) = acked_at {
                    sent.acked_at.push(base + place);
                    see(*partition, known, base + place, value, anomalies);
                }
            }
            if let Some(base) = acked_at {
                known.acks.push((event.ended, base + *count as i64 - 1));
            }
        }
        Op::Read { reader, partition, from, records } => {
            let known = partitions.entry(*partition).or_default();
            for ((offset, value), expected) in records.iter().zip(*from..) {
                if *offset != expected {
                    let (reader, partition, found) = (*reader, *partition, *offset);
                    anomalies.push(Anomaly::Skipped { reader, partition, expected, found });
                    break;
                }
                known.read.insert(*value, *offset);
                see(*partition, known, *offset, *value, anomalies);
            }
        }
        Op::Final { partition, start, records } => {
            let known = partitions.entry(*partition).or_default();
            for (offset, value) in records {
                see(*partition, known, *offset, *value, anomalies);
            }
            known.log = Some((*start, records.clone()));
        }
        Op::Commit { .. } | Op::Resume { .. } | Op::Own { .. } => {}
    }
}

fn see(partition: Partition, known: &mut Known, offset: i64, value: Value, anomalies: &mut Vec<Anomaly>) {
    match known.at.entry(offset) {
        Entry::Vacant(place) => {
            place.insert(value);
        }
        Entry::Occupied(place) if *place.get() == value => {}
        Entry::Occupied(place) => {
            anomalies.push(Anomaly::TwoValues { partition, offset, values: (*place.get(), value) });
        }
    }
}

fn check_partition(partition: Partition, known: &Known, anomalies: &mut Vec<Anomaly>) {
    for (&offset, &value) in &known.at {
        if !known.sent.contains_key(&value) {
            anomalies.push(Anomaly::Invented { partition, value, offset });
        }
    }
    let Some((start, log)) = &known.log else {
        if !known.sent.is_empty() {
            anomalies.push(Anomaly::Unread { partition });
        }
        return;
    };
    if let Some(((found, _), expected)) = log.iter().zip(*start..).find(|((at, _), expected)| at != expected)
    {
        anomalies.push(Anomaly::Gap { partition, expected, found: *found });
    }
    let mut places: BTreeMap<Value, Vec<i64>> = BTreeMap::new();
    for (offset, value) in log {
        places.entry(*value).or_default().push(*offset);
    }
    let is_there = |value: &Value, offset: i64| {
        offset < *start || places.get(value).is_some_and(|offsets| offsets.contains(&offset))
    };
    for (&value, sent) in &known.sent {
        for &acked_at in sent.acked_at.iter().filter(|at| !is_there(&value, **at)) {
            anomalies.push(Anomaly::LostAcked { partition, value, acked_at });
        }
        let offsets = places.get(&value).map_or(&[][..], Vec::as_slice);
        if offsets.len() > if sent.idempotent { 1 } else { sent.attempts } {
            anomalies.push(Anomaly::Duplicate { partition, value, offsets: offsets.to_vec() });
        }
    }
    for (&value, &read_at) in known.read.iter().filter(|(value, at)| !is_there(value, **at)) {
        anomalies.push(Anomaly::LostRead { partition, value, read_at });
    }
    check_order(partition, known, log, anomalies);
    check_moments(partition, known, &places, anomalies);
}

/// What one producer sent to a partition lies there as it was sent. A value that was sent again by a producer that is not idempotent
/// may lie anywhere.
fn check_order(partition: Partition, known: &Known, log: &[(i64, Value)], anomalies: &mut Vec<Anomaly>) {
    let mut last: BTreeMap<u32, Value> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (_, value) in log {
        let is_bound = known.sent.get(value).is_some_and(|sent| sent.idempotent || sent.attempts == 1);
        if !is_bound || !seen.insert(*value) {
            continue;
        }
        match last.get(&value.producer) {
            Some(behind) if behind.n > value.n => {
                anomalies.push(Anomaly::Reordered { partition, value: *value, behind: *behind });
            }
            _ => {
                last.insert(value.producer, *value);
            }
        }
    }
}

/// What was begun after an acknowledgement lies behind what was acknowledged.
fn check_moments(
    partition: Partition,
    known: &Known,
    places: &BTreeMap<Value, Vec<i64>>,
    anomalies: &mut Vec<Anomaly>,
) {
    let mut acks = known.acks.clone();
    acks.sort_unstable();
    let mut acks = acks.into_iter().peekable();
    let mut sends: Vec<(&Value, &Sent)> = known.sent.iter().collect();
    sends.sort_unstable_by_key(|(_, sent)| sent.begun_first);
    let mut highest = -1;
    for (value, sent) in sends {
        while let Some((_, last)) = acks.next_if(|(ended, _)| *ended < sent.begun_first) {
            highest = highest.max(last);
        }
        let told = sent.acked_at.iter().chain(places.get(value).into_iter().flatten());
        if let Some(&at) = told.min().filter(|at| **at <= highest) {
            anomalies.push(Anomaly::WentBack { partition, value: *value, at, acked_before: highest });
        }
    }
}

/// A commit, without whose it is.
struct Committed {
    begun: u64,
    ended: u64,
    offset: i64,
    acked: bool,
}

fn check_commits(events: &[Event], anomalies: &mut Vec<Anomaly>) {
    let mut commits: BTreeMap<(&str, Partition), Vec<Committed>> = BTreeMap::new();
    for event in events {
        if let &Op::Commit { ref group, partition, offset, acked } = &event.op {
            let (begun, ended) = (event.begun, event.ended);
            let all = commits.entry((group, partition)).or_default();
            all.push(Committed { begun, ended, offset, acked });
        }
    }
    for event in events {
        let Op::Resume { group, partition, offset: told } = &event.op else { continue };
        let all = commits.get(&(group.as_str(), *partition)).map_or(&[][..], Vec::as_slice);
        let before = all.iter().filter(|commit| commit.acked && commit.ended < event.begun);
        let acked = before.map(|commit| commit.offset).max();
        if let Some(acked) = acked.filter(|acked| told.is_none_or(|told| told < *acked)) {
            let (group, partition, told) = (group.clone(), *partition, *told);
            anomalies.push(Anomaly::CommitWentBack { group, partition, acked, told });
        }
        let is_known =
            |told: i64| all.iter().any(|commit| commit.offset == told && commit.begun < event.ended);
        if let Some(told) = told.filter(|told| !is_known(*told)) {
            anomalies.push(Anomaly::CommitInvented { group: group.clone(), partition: *partition, told });
        }
    }
}

fn check_owners(events: &[Event], anomalies: &mut Vec<Anomaly>) {
    let mut owners: BTreeMap<(&str, i32, Partition), &str> = BTreeMap::new();
    for event in events {
        let Op::Own { group, generation, member, partitions } = &event.op else { continue };
        for partition in partitions {
            let owner = *owners.entry((group, *generation, *partition)).or_insert(member);
            if owner != member {
                let (group, generation, partition) = (group.clone(), *generation, *partition);
                anomalies.push(Anomaly::TwoOwners { group, generation, partition });
            }
        }
    }
}
