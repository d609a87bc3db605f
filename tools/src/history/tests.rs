//! Histories written by hand, at least two for each kind of anomaly: one in which all is well though it looks alike, and one in which
//! it is not. A checker that has never failed proves nothing.

use super::{Anomaly, Event, Op, Value, Verdict, check};

/// Events one after the other, unless they say otherwise.
#[derive(Default)]
struct Story(Vec<Event>);

impl Story {
    fn then(mut self, op: Op) -> Story {
        let begun = self.0.len() as u64 * 10;
        self.0.push(Event { begun, ended: begun + 1, did: op });
        self
    }

    /// Begun before everything else, ended when its turn comes.
    fn all_along(mut self, op: Op) -> Story {
        let ended = self.0.len() as u64 * 10 + 1;
        self.0.push(Event { begun: 0, ended, did: op });
        self
    }

    fn verdict(&self) -> Verdict {
        check(&self.0).unwrap()
    }

    fn anomalies(&self) -> Vec<Anomaly> {
        self.verdict().anomalies
    }
}

const P: u32 = 3;

fn v(producer: u32, n: u64) -> Value {
    Value { producer, n }
}

fn send(producer: u32, first: u64, count: u64, acked_at: Option<i64>) -> Op {
    Op::Send { producer, idempotent: false, partition: P, first, count, acked_at }
}

fn send_once(producer: u32, first: u64, count: u64, acked_at: Option<i64>) -> Op {
    Op::Send { producer, idempotent: true, partition: P, first, count, acked_at }
}

fn read(from: i64, records: &[(i64, Value)]) -> Op {
    Op::Read { reader: 1, partition: P, from, records: records.to_vec() }
}

fn log_of(start: i64, values: &[Value]) -> Op {
    replica(1, start, values)
}

fn replica(replica: u32, from: i64, values: &[Value]) -> Op {
    let records = (from..).zip(values.iter().copied()).collect();
    Op::Final { partition: P, replica, from, records, ends: true }
}

fn commit(offset: i64, acked: bool) -> Op {
    Op::Commit { group: "g".to_owned(), partition: P, offset, acked }
}

fn resume(offset: Option<i64>) -> Op {
    Op::Resume { group: "g".to_owned(), partition: P, offset }
}

fn own(generation: i32, member: &str, partitions: &[u32]) -> Op {
    let partitions = partitions.iter().copied().collect();
    Op::Own { group: "g".to_owned(), generation, member: member.to_owned(), partitions }
}

#[track_caller]
fn all_is_well(story: Story) {
    assert_eq!(story.anomalies(), []);
}

#[test]
fn nothing_happened() {
    all_is_well(Story::default());
    all_is_well(Story::default().then(log_of(0, &[])));
}

#[test]
fn lost_acked() {
    let sent = || Story::default().then(send(1, 0, 2, Some(0))).then(send(1, 2, 1, Some(2)));
    all_is_well(sent().then(log_of(0, &[v(1, 0), v(1, 1), v(1, 2)])));
    // Nobody was told of the last one, so it may be gone.
    let unknown = Story::default().then(send(1, 0, 2, Some(0))).then(send(1, 2, 1, None));
    all_is_well(unknown.then(log_of(0, &[v(1, 0), v(1, 1)])));
    // What retention took is not lost.
    all_is_well(sent().then(log_of(2, &[v(1, 2)])));
    let lost = sent().then(log_of(0, &[v(1, 0), v(1, 1)]));
    assert_eq!(lost.anomalies(), [Anomaly::LostAcked { partition: P, value: v(1, 2), acked_at: 2 }]);
    // In the middle of a batch.
    let lost = sent().then(log_of(0, &[v(1, 0)])).anomalies();
    assert_eq!(lost.len(), 2, "{lost:?}");
}

#[test]
fn acknowledged_elsewhere_is_lost_where_it_was_acknowledged() {
    let sent = || Story::default().then(send(1, 0, 1, None)).then(send(2, 0, 1, Some(0)));
    let moved = sent().then(log_of(0, &[v(1, 0), v(2, 0)]));
    let lost = Anomaly::LostAcked { partition: P, value: v(2, 0), acked_at: 0 };
    let two = Anomaly::TwoValues { partition: P, offset: 0, values: (v(2, 0), v(1, 0)) };
    assert_eq!(moved.anomalies(), [two, lost]);
    all_is_well(sent().then(log_of(0, &[v(2, 0), v(1, 0)])));
}

#[test]
fn lost_after_a_consumer_had_it() {
    let seen = || Story::default().then(send(1, 0, 2, None)).then(read(0, &[(0, v(1, 0)), (1, v(1, 1))]));
    all_is_well(seen().then(log_of(0, &[v(1, 0), v(1, 1)])));
    let lost = seen().then(log_of(0, &[v(1, 0)]));
    assert_eq!(lost.anomalies(), [Anomaly::LostRead { partition: P, value: v(1, 1), read_at: 1 }]);
}

#[test]
fn duplicate() {
    let twice = |send: fn(u32, u64, u64, Option<i64>) -> Op| {
        Story::default().then(send(1, 0, 1, None)).then(send(1, 0, 1, Some(1)))
    };
    // Sent twice without idempotence: both may have been written.
    all_is_well(twice(send).then(log_of(0, &[v(1, 0), v(1, 0)])));
    let doubled = twice(send_once).then(log_of(0, &[v(1, 0), v(1, 0)]));
    assert_eq!(
        doubled.anomalies(),
        [Anomaly::Duplicate { partition: P, value: v(1, 0), offsets: vec![0, 1] }]
    );
    // Sent once, and nobody may write it twice.
    let doubled = Story::default().then(send(1, 0, 1, Some(0))).then(log_of(0, &[v(1, 0), v(1, 0)]));
    assert_eq!(
        doubled.anomalies(),
        [Anomaly::Duplicate { partition: P, value: v(1, 0), offsets: vec![0, 1] }]
    );
    // An idempotent producer's second try is told of the first.
    let told = Story::default().then(send_once(1, 0, 1, None)).then(send_once(1, 0, 1, Some(0)));
    all_is_well(told.then(log_of(0, &[v(1, 0)])));
}

#[test]
fn reordering() {
    let sent = |send: fn(u32, u64, u64, Option<i64>) -> Op| {
        Story::default().all_along(send(1, 0, 1, None)).all_along(send(1, 1, 1, None))
    };
    for kind in [send, send_once] {
        all_is_well(sent(kind).then(log_of(0, &[v(1, 0), v(1, 1)])));
        let turned = sent(kind).then(log_of(0, &[v(1, 1), v(1, 0)]));
        let expected = Anomaly::Reordered { partition: P, value: v(1, 0), behind: v(1, 1) };
        assert_eq!(turned.anomalies(), [expected]);
    }
    // Two producers owe each other no order, and one that sends again without idempotence owes none to itself.
    let two = Story::default().all_along(send(1, 0, 1, None)).all_along(send(2, 0, 1, None));
    all_is_well(two.then(log_of(0, &[v(2, 0), v(1, 0)])));
    let again = sent(send).all_along(send(1, 0, 1, None));
    all_is_well(again.then(log_of(0, &[v(1, 1), v(1, 0)])));
}

#[test]
fn offset_going_back() {
    // The second was begun when the first had been acknowledged.
    let after = |at| Story::default().then(send(1, 0, 2, Some(5))).then(send(2, 0, 1, Some(at)));
    let values = [v(1, 0), v(1, 1), v(2, 0)];
    all_is_well(after(7).then(log_of(5, &values)));
    let back = after(4).then(log_of(4, &[v(2, 0), v(1, 0), v(1, 1)]));
    let expected = Anomaly::WentBack { partition: P, value: v(2, 0), at: 4, acked_before: 6 };
    assert_eq!(back.anomalies(), [expected]);
    // Both at once may come in either order.
    let at_once = Story::default().all_along(send(1, 0, 2, Some(5))).all_along(send(2, 0, 1, Some(4)));
    all_is_well(at_once.then(log_of(4, &[v(2, 0), v(1, 0), v(1, 1)])));
    // A second try of something older is told of the first, which may lie far back.
    let again = Story::default().then(send_once(1, 0, 1, None)).then(send(2, 0, 1, Some(1))).then(send_once(
        1,
        0,
        1,
        Some(0),
    ));
    all_is_well(again.then(log_of(0, &[v(1, 0), v(2, 0)])));
}

#[test]
fn two_values_at_one_offset() {
    let sent = || Story::default().all_along(send(1, 0, 1, None)).all_along(send(2, 0, 1, None));
    let log = || log_of(0, &[v(1, 0), v(2, 0)]);
    all_is_well(sent().then(read(0, &[(0, v(1, 0))])).then(log()));
    let changed = sent().then(read(0, &[(0, v(2, 0))])).then(log()).anomalies();
    let expected = Anomaly::TwoValues { partition: P, offset: 0, values: (v(2, 0), v(1, 0)) };
    assert!(changed.contains(&expected), "{changed:?}");
    // Two consumers that never met a fault.
    let differ = sent().then(read(1, &[(1, v(1, 0))])).then(read(1, &[(1, v(2, 0))])).anomalies();
    let expected = Anomaly::TwoValues { partition: P, offset: 1, values: (v(1, 0), v(2, 0)) };
    assert!(differ.contains(&expected), "{differ:?}");
    // Other partitions have offsets of their own.
    let elsewhere =
        Op::Final { partition: P + 1, replica: 1, from: 0, records: vec![(0, v(2, 0))], ends: true };
    let there =
        Op::Send { producer: 2, idempotent: false, partition: P + 1, first: 0, count: 1, acked_at: Some(0) };
    all_is_well(sent().then(there).then(elsewhere).then(log()));
}

#[test]
fn invented() {
    let sent = || Story::default().then(send(1, 0, 1, None));
    all_is_well(sent().then(log_of(0, &[v(1, 0)])));
    let invented = |at| Anomaly::Invented { partition: P, value: v(9, 9), offset: at };
    assert_eq!(sent().then(log_of(0, &[v(1, 0), v(9, 9)])).anomalies(), [invented(1)]);
    let read_only = sent().then(read(7, &[(7, v(9, 9))])).then(log_of(8, &[]));
    assert_eq!(read_only.anomalies(), [invented(7)]);
}

#[test]
fn gap() {
    let sent = || Story::default().then(send(1, 0, 1, None)).then(send(1, 1, 1, None));
    let dense = log_of(4, &[v(1, 0), v(1, 1)]);
    all_is_well(sent().then(dense));
    for (records, found) in [(vec![(4, v(1, 0)), (6, v(1, 1))], 6), (vec![(5, v(1, 0)), (6, v(1, 1))], 5)] {
        let holed = sent().then(Op::Final { partition: P, replica: 1, from: 4, records, ends: true });
        let expected = if found == 6 { 5 } else { 4 };
        assert_eq!(holed.anomalies(), [Anomaly::Gap { partition: P, expected, found }]);
    }
}

#[test]
fn skipped() {
    let values = [v(1, 0), v(1, 1), v(1, 2)];
    let sent = || Story::default().then(send(1, 0, 3, Some(0)));
    let good =
        sent().then(read(0, &[(0, v(1, 0))])).then(read(1, &[])).then(read(1, &[(1, v(1, 1)), (2, v(1, 2))]));
    all_is_well(good.then(log_of(0, &values)));
    let skip = |expected, found| Anomaly::Skipped { reader: 1, partition: P, expected, found };
    let over = sent().then(read(0, &[(0, v(1, 0)), (2, v(1, 2))])).then(log_of(0, &values));
    assert_eq!(over.anomalies(), [skip(1, 2)]);
    let back = sent().then(read(1, &[(0, v(1, 0))])).then(log_of(0, &values));
    assert_eq!(back.anomalies(), [skip(1, 0)]);
}

#[test]
fn commit_going_back() {
    let committed = || Story::default().then(commit(5, true)).then(commit(8, true));
    all_is_well(committed().then(resume(Some(8))));
    let back = |told| Anomaly::CommitWentBack { group: "g".to_owned(), partition: P, acked: 8, told };
    assert_eq!(committed().then(resume(Some(5))).anomalies(), [back(Some(5))]);
    assert_eq!(committed().then(resume(None)).anomalies(), [back(None)]);
    // A commit of which nobody was told may count or not, but not less than the one before it.
    let unknown = || Story::default().then(commit(8, true)).then(commit(9, false));
    all_is_well(unknown().then(resume(Some(8))));
    all_is_well(unknown().then(resume(Some(9))));
    // One that was acknowledged only after the question had been asked need not have been seen.
    all_is_well(Story::default().then(commit(5, true)).then(commit(8, true)).all_along(resume(Some(5))));
    // Other groups and partitions know nothing of it.
    let other = Op::Resume { group: "h".to_owned(), partition: P, offset: None };
    all_is_well(committed().then(other));
}

#[test]
fn commit_invented() {
    all_is_well(Story::default().then(resume(None)));
    all_is_well(Story::default().then(commit(3, false)).then(resume(Some(3))));
    let invented = |told| Anomaly::CommitInvented { group: "g".to_owned(), partition: P, told };
    assert_eq!(Story::default().then(resume(Some(0))).anomalies(), [invented(0)]);
    assert_eq!(Story::default().then(commit(3, true)).then(resume(Some(4))).anomalies(), [invented(4)]);
    // It was asked before anybody committed.
    assert_eq!(Story::default().then(resume(Some(3))).then(commit(3, true)).anomalies(), [invented(3)]);
}

#[test]
fn two_owners() {
    all_is_well(Story::default().then(own(1, "a", &[0, 1])).then(own(1, "b", &[2])));
    // The next generation divides anew, and a member may be told twice.
    all_is_well(Story::default().then(own(1, "a", &[0])).then(own(2, "b", &[0])).then(own(2, "b", &[0])));
    let two = Story::default().then(own(1, "a", &[0, 1])).then(own(1, "b", &[1, 2]));
    let expected = Anomaly::TwoOwners { group: "g".to_owned(), generation: 1, partition: 1 };
    assert_eq!(two.anomalies(), [expected]);
}

#[test]
fn a_partition_that_was_never_read_shows_nothing() {
    let sent = || Story::default().then(send(1, 0, 1, Some(0)));
    assert_eq!(sent().anomalies(), [Anomaly::Unread { partition: P }]);
    all_is_well(sent().then(log_of(0, &[v(1, 0)])));
}

#[test]
fn position_going_back() {
    let values = [v(1, 0), v(1, 1), v(1, 2)];
    let read_two =
        || Story::default().then(send(1, 0, 3, Some(0))).then(read(0, &[(0, v(1, 0)), (1, v(1, 1))]));
    let seek = |offset| Op::Seek { reader: 1, partition: P, offset };
    let log = || log_of(0, &values);
    all_is_well(read_two().then(read(2, &[(2, v(1, 2))])).then(log()));
    // It went back because it wanted to.
    all_is_well(read_two().then(seek(1)).then(read(1, &[(1, v(1, 1))])).then(log()));
    let back = read_two().then(read(1, &[(1, v(1, 1))])).then(log());
    let expected = Anomaly::PositionWentBack { reader: 1, partition: P, position: 2, from: 1 };
    assert_eq!(back.anomalies(), [expected]);
    let over = read_two().then(read(3, &[])).then(log());
    assert_eq!(over.anomalies(), [Anomaly::Skipped { reader: 1, partition: P, expected: 2, found: 3 }]);
}

#[test]
fn replicas_that_differ() {
    let sent = || Story::default().all_along(send(1, 0, 1, None)).all_along(send(2, 0, 1, None));
    let one = || sent().then(log_of(0, &[v(1, 0), v(2, 0)]));
    all_is_well(one().then(replica(2, 0, &[v(1, 0), v(2, 0)])));
    // One that starts later, and says nothing of what lies before.
    all_is_well(one().then(replica(2, 1, &[v(2, 0)])));
    let other = one().then(replica(2, 0, &[v(2, 0), v(1, 0)])).anomalies();
    let two = |offset, values| Anomaly::TwoValues { partition: P, offset, values };
    assert_eq!(other, [two(0, (v(2, 0), v(1, 0))), two(1, (v(1, 0), v(2, 0)))]);
    let short = one().then(replica(2, 0, &[v(1, 0)])).anomalies();
    assert_eq!(short, [Anomaly::UnevenReplicas { partition: P, first: (1, 2), other: (2, 1) }]);
    let long = one().then(replica(2, 0, &[v(1, 0), v(2, 0), v(1, 0)])).anomalies();
    assert!(
        long.contains(&Anomaly::UnevenReplicas { partition: P, first: (1, 2), other: (2, 3) }),
        "{long:?}"
    );
}

#[test]
fn a_log_that_is_read_in_pieces() {
    let piece = |replica, from, n: u64, ends| Op::Final {
        partition: P,
        replica,
        from,
        records: vec![(from, v(1, n))],
        ends,
    };
    let sent = || Story::default().then(send(1, 0, 2, Some(0)));
    let whole = || sent().then(piece(1, 0, 0, false)).then(piece(1, 1, 1, true));
    all_is_well(whole());
    all_is_well(whole().then(piece(2, 0, 0, false)).then(piece(2, 1, 1, true)));
    // Never read to its end: what it holds is known, and that it is all is not.
    assert_eq!(
        sent().then(piece(1, 0, 0, false)).anomalies().last(),
        Some(&Anomaly::Unread { partition: P })
    );
    // A history that nobody can have recorded.
    assert!(check(&sent().then(piece(1, 0, 0, false)).then(piece(1, 3, 1, true)).0).is_err());
    assert!(check(&whole().then(piece(1, 2, 1, true)).0).is_err());
}

#[test]
fn sent_again_after_something_else_had_been_acknowledged() {
    // The second try of an idempotent producer is told where the first one lies, which was begun before.
    let first_try = || Story::default().then(send_once(1, 0, 1, None)).then(send(2, 0, 1, Some(1)));
    all_is_well(first_try().then(send_once(1, 0, 1, Some(0))).then(log_of(0, &[v(1, 0), v(2, 0)])));
    // One that was never answered lies before what had been acknowledged when it was sent.
    let unanswered = Story::default().then(send(2, 0, 1, Some(1))).then(send_once(1, 0, 1, None));
    let expected = Anomaly::WentBack { partition: P, value: v(1, 0), at: 0, acked_before: 1 };
    assert_eq!(unanswered.then(log_of(0, &[v(1, 0), v(2, 0)])).anomalies(), [expected]);
}

#[test]
fn all_are_counted_and_some_are_kept() {
    let lost = 5_000;
    let story = Story::default().then(send(1, 0, lost, Some(0))).then(log_of(0, &[]));
    let verdict = story.verdict();
    assert_eq!(verdict.counts, std::collections::BTreeMap::from([("lost_acked", lost)]));
    assert!((1..lost as usize).contains(&verdict.anomalies.len()));
}
