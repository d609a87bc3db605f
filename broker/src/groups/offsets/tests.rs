//! Commits in every order of record and transaction, retention, and what a deletion has to cover.

use super::*;

const NOW: i64 = 1_000_000_000;
const WEEK_MS: i64 = 7 * 24 * 60 * 60 * 1000;
const P: ProducerId = ProducerId(7);
const Q: ProducerId = ProducerId(8);

fn at(offset: i64) -> CommittedOffset {
    CommittedOffset {
        offset,
        leader_epoch: -1,
        metadata: Arc::from(""),
        commit_timestamp_ms: NOW,
        expire_timestamp_ms: None,
        topic_id: [0; 16],
    }
}

fn t() -> Arc<str> {
    Arc::from("t")
}

fn fetched(offsets: &GroupOffsets) -> Option<i64> {
    offsets.fetch("t", 0, [0; 16], false).expect("no transaction asked for").map(|kept| kept.offset)
}

fn subscribed(topics: &[&str]) -> Retention {
    Retention::SinceCommit(Subscription::Topics(topics.iter().map(|t| (*t).to_owned()).collect()))
}

#[test]
fn trap_23_what_was_committed_is_fetched_whole() {
    let mut offsets = GroupOffsets::default();
    assert_eq!(offsets.fetch("t", 0, [0; 16], true), Ok(None));
    let kept = CommittedOffset { leader_epoch: 5, metadata: Arc::from("m"), ..at(3) };
    offsets.apply_commit(&t(), 0, kept.clone(), Offset(1));
    assert_eq!(offsets.fetch("t", 0, [0; 16], true), Ok(Some(&kept)));
    assert_eq!(offsets.fetch("t", 1, [0; 16], true), Ok(None));
    assert_eq!(offsets.fetch("u", 0, [0; 16], true), Ok(None));
    assert_eq!(offsets.committed().map(|(t, p, o)| (&**t, p, o.offset)).collect::<Vec<_>>(), [("t", 0, 3)]);
}

#[test]
fn a_commit_on_its_way_is_not_seen_and_leaves_nothing_when_it_fails() {
    let mut offsets = GroupOffsets::default();
    offsets.begin(&t(), 0);
    assert_eq!((fetched(&offsets), offsets.count(), offsets.partitions().count()), (None, 0, 0));
    assert_eq!(offsets.all(), [(t(), 0)], "but it has to be deleted with the rest");
    offsets.end(&t(), 0);
    assert!(offsets.is_empty());
}

#[test]
fn the_commit_with_the_later_record_counts() {
    let mut offsets = GroupOffsets::default();
    offsets.apply_commit(&t(), 0, at(9), Offset(2));
    offsets.apply_commit(&t(), 0, at(5), Offset(1));
    assert_eq!(fetched(&offsets), Some(9));
    offsets.apply_commit(&t(), 0, at(4), Offset(3));
    assert_eq!(fetched(&offsets), Some(4), "back is a direction too");
}

#[test]
fn trap_22_offsets_of_a_transaction_are_seen_once_it_is_committed() {
    for (is_commit, expected) in [(true, Some(20)), (false, Some(10))] {
        let mut offsets = GroupOffsets::default();
        offsets.apply_commit(&t(), 0, at(10), Offset(1));
        offsets.apply_transactional(P, &t(), 0, at(20), Offset(2));
        assert_eq!(fetched(&offsets), Some(10));
        assert_eq!(offsets.fetch("t", 0, [0; 16], true), Err(GroupError::UnstableOffset));
        assert!(offsets.has_transaction_of(P) && !offsets.has_transaction_of(Q));
        offsets.apply_transaction_end(Q, true);
        assert_eq!(fetched(&offsets), Some(10), "the end of another transaction");
        offsets.apply_transaction_end(P, is_commit);
        assert_eq!(fetched(&offsets), expected);
        assert!(offsets.fetch("t", 0, [0; 16], true).is_ok(), "it does not stick");
        offsets.apply_transaction_end(P, true);
        assert_eq!(fetched(&offsets), expected, "an end that comes twice");
    }
}

#[test]
fn an_aborted_transaction_leaves_nothing() {
    let mut offsets = GroupOffsets::default();
    offsets.apply_transactional(P, &t(), 0, at(20), Offset(2));
    assert!(!offsets.is_empty());
    offsets.apply_transaction_end(P, false);
    assert!(offsets.is_empty());
}

#[test]
fn trap_22_a_plain_commit_behind_a_transactions_own_outlives_it() {
    let mut offsets = GroupOffsets::default();
    offsets.apply_transactional(P, &t(), 0, at(20), Offset(2));
    offsets.apply_commit(&t(), 0, at(30), Offset(3));
    offsets.apply_transaction_end(P, true);
    assert_eq!(fetched(&offsets), Some(30));
}

#[test]
fn of_two_transactions_the_later_record_counts_whichever_ends_first() {
    for order in [[P, Q], [Q, P]] {
        let mut offsets = GroupOffsets::default();
        offsets.apply_transactional(P, &t(), 0, at(1), Offset(1));
        offsets.apply_transactional(Q, &t(), 0, at(2), Offset(2));
        for producer in order {
            offsets.apply_transaction_end(producer, true);
        }
        assert_eq!(fetched(&offsets), Some(2));
    }
}

#[test]
fn a_transaction_that_commits_an_offset_twice_commits_the_later_one() {
    let mut offsets = GroupOffsets::default();
    offsets.apply_transactional(P, &t(), 0, at(1), Offset(1));
    offsets.apply_transactional(P, &t(), 0, at(2), Offset(2));
    offsets.apply_transaction_end(P, true);
    assert_eq!(fetched(&offsets), Some(2));
}

#[test]
fn a_tombstone_takes_everything_with_it() {
    let mut offsets = GroupOffsets::default();
    offsets.apply_commit(&t(), 0, at(1), Offset(1));
    offsets.apply_transactional(P, &t(), 0, at(2), Offset(2));
    offsets.apply_delete(&t(), 0);
    assert!(offsets.is_empty());
    offsets.apply_transaction_end(P, true);
    assert_eq!(fetched(&offsets), None);
}

#[test]
fn an_offset_of_a_topic_that_was_there_before_under_the_name_is_none() {
    let mut offsets = GroupOffsets::default();
    offsets.apply_commit(&t(), 0, CommittedOffset { topic_id: [1; 16], ..at(1) }, Offset(1));
    for (topic_id, is_found) in [([1; 16], true), ([2; 16], false), ([0; 16], true)] {
        assert_eq!(offsets.fetch("t", 0, topic_id, false).map(|f| f.is_some()), Ok(is_found));
    }
}

#[test]
fn trap_26_r31_when_offsets_expire() {
    let cases: [(&str, Retention, Option<i64>, i64, bool); 12] = [
        ("rebalancing", Retention::Stopped, None, WEEK_MS * 9, false),
        ("rebalancing, old client", Retention::Stopped, Some(NOW), WEEK_MS * 9, false),
        ("empty for less", Retention::Since(NOW), None, WEEK_MS - 1, false),
        ("empty for long", Retention::Since(NOW), None, WEEK_MS, true),
        ("committed long ago, empty since lately", Retention::Since(NOW + WEEK_MS), None, WEEK_MS, false),
        ("topic is read", subscribed(&["t"]), None, WEEK_MS * 9, false),
        ("topic is read, old client", subscribed(&["t"]), Some(NOW), WEEK_MS * 9, false),
        ("topic is not read any more", subscribed(&["u"]), None, WEEK_MS, true),
        (
            "nobody knows what is read",
            Retention::SinceCommit(Subscription::Unknown),
            None,
            WEEK_MS * 9,
            false,
        ),
        ("no members ever", Retention::SinceCommit(Subscription::None), None, WEEK_MS, true),
        ("old client, time not over", Retention::Since(NOW), Some(NOW + WEEK_MS * 3), WEEK_MS * 2, false),
        ("old client, time over", Retention::Since(NOW), Some(NOW + 5), 5, true),
    ];
    for (name, retention, expire_timestamp_ms, passed, expires) in cases {
        let mut offsets = GroupOffsets::default();
        offsets.apply_commit(&t(), 0, CommittedOffset { expire_timestamp_ms, ..at(1) }, Offset(1));
        let expired = offsets.expired(&retention, NOW + passed, WEEK_MS);
        assert_eq!(!expired.is_empty(), expires, "{name}");
    }
}

#[test]
fn offsets_with_something_on_its_way_do_not_expire() {
    let mut offsets = GroupOffsets::default();
    offsets.apply_commit(&t(), 0, at(1), Offset(1));
    offsets.apply_commit(&t(), 1, at(1), Offset(2));
    offsets.apply_commit(&t(), 2, at(1), Offset(3));
    offsets.begin(&t(), 0);
    offsets.apply_transactional(P, &t(), 1, at(2), Offset(4));
    assert_eq!(offsets.expired(&Retention::Since(NOW), NOW + WEEK_MS, WEEK_MS), [(t(), 2)]);
}
