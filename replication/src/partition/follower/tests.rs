//! Answers of a leader, and what they ask for.

use floodmark_storage::leader_epochs::LeaderEpochs;

use super::*;

const LEADER: BrokerId = BrokerId(1);
const EPOCH: LeaderEpoch = LeaderEpoch(9);
const FOLLOWING: Following = Following { leader: LEADER, epoch: EPOCH, partition_epoch: 4 };

fn epochs(entries: &[(i32, i64)]) -> LeaderEpochs {
    let mut epochs = LeaderEpochs::new();
    for (epoch, start) in entries {
        epochs.assign(LeaderEpoch(*epoch), Offset(*start));
    }
    epochs
}

fn log(epochs: &LeaderEpochs, start: i64, end: i64) -> LogView<'_> {
    LogView {
        start: Offset(start),
        end: Offset(end),
        durable: Offset(end),
        high_watermark: Offset(start),
        epochs,
    }
}

/// An answer to what `log` asks for, without anything in it.
fn answer(log: &LogView<'_>) -> Fetched {
    Fetched {
        leader: LEADER,
        leader_epoch: EPOCH,
        fetch_offset: log.end,
        last_fetched_epoch: log.last_epoch(),
        batches: Vec::new(),
        high_watermark: log.end,
        log_start: Offset(0),
        diverging: None,
    }
}

/// Fails when the cut goes to the high watermark (R1), or to the leader's end whatever epochs this log has (R2).
#[test]
fn r1_r2_a_log_is_cut_where_the_epochs_part() {
    let own = epochs(&[(1, 0), (3, 10), (5, 20)]);
    let log = log(&own, 0, 30);
    for (diverging, to) in [
        // Both have the epoch: the shorter one ends it.
        ((5, 25), 25),
        ((3, 15), 15),
        ((3, 40), 20),
        // The leader has an epoch that is not here, between those that are: nothing after it can be the same.
        ((4, 18), 18),
        ((4, 40), 20),
        ((2, 10), 10),
        ((2, 5), 5),
        // Older than everything here.
        ((0, 7), 0),
    ] {
        let (epoch, end) = diverging;
        let fetched = Fetched { diverging: Some((LeaderEpoch(epoch), Offset(end))), ..answer(&log) };
        let step = FOLLOWING.step(&fetched, None, &log).unwrap();
        assert_eq!(step, Step::Cut { to: Offset(to) }, "{diverging:?}");
    }
}

/// Fails when an answer of another leader, or to another question, is taken.
#[test]
fn r3_r5_what_is_said_of_another_log_or_by_another_leader_is_refused() {
    let own = epochs(&[(1, 0), (5, 20)]);
    let log = log(&own, 0, 30);
    let diverging = Some((LeaderEpoch(1), Offset(3)));
    let good = Fetched { diverging, ..answer(&log) };
    let refused = |fetched: Fetched| FOLLOWING.step(&fetched, None, &log).unwrap_err();
    let older = refused(Fetched { leader_epoch: LeaderEpoch(8), ..good.clone() });
    assert!(matches!(older, PartitionError::FencedEpoch { .. }), "{older:?}");
    let newer = refused(Fetched { leader_epoch: LeaderEpoch(10), ..good.clone() });
    assert!(matches!(newer, PartitionError::UnknownEpoch { .. }), "{newer:?}");
    for not_the_next in [
        Fetched { leader: BrokerId(2), ..good.clone() },
        Fetched { fetch_offset: Offset(29), ..good.clone() },
        Fetched { fetch_offset: Offset(31), ..good.clone() },
        // The log is as long as it was, and is another one.
        Fetched { last_fetched_epoch: Some(LeaderEpoch(1)), ..good.clone() },
        Fetched { last_fetched_epoch: None, ..good.clone() },
    ] {
        let error = refused(not_the_next);
        assert!(matches!(error, PartitionError::NotTheNext { expected: Offset(30), .. }), "{error:?}");
    }
    assert!(FOLLOWING.step(&good, None, &log).is_ok());
}

#[test]
fn a_log_that_ends_before_the_leaders_starts_begins_again_there() {
    let own = epochs(&[(1, 0)]);
    let log = log(&own, 0, 30);
    let step = |log_start: i64| {
        let fetched = Fetched { log_start: Offset(log_start), ..answer(&log) };
        FOLLOWING.step(&fetched, None, &log).unwrap()
    };
    assert_eq!(step(30), Step::Append { begin_at: None });
    assert_eq!(step(31), Step::Reset { at: Offset(31) });
}

#[test]
fn a_first_batch_that_the_leaders_start_lies_in_is_taken_whole_by_an_empty_log_alone() {
    let none = LeaderEpochs::new();
    let own = epochs(&[(1, 0)]);
    for (log, first_base, begin_at) in [
        (log(&none, 55, 55), Some(50), Some(50)),
        (log(&none, 55, 55), Some(55), None),
        (log(&none, 55, 55), None, None),
        (log(&own, 0, 55), Some(50), None),
    ] {
        let step = FOLLOWING.step(&answer(&log), first_base.map(Offset), &log).unwrap();
        assert_eq!(step, Step::Append { begin_at: begin_at.map(Offset) });
    }
}

/// Fails when the watermark is taken over as it is, or the start passes it.
#[test]
fn r6_watermark_and_start_are_never_above_what_is_here() {
    let own = epochs(&[(1, 0)]);
    let fetched = Fetched { high_watermark: Offset(50), log_start: Offset(45), ..answer(&log(&own, 0, 30)) };
    for (end, high_watermark, start) in [(30, 30, 30), (48, 48, 45), (60, 50, 45)] {
        let found = FOLLOWING.high_watermark_after(&fetched, Offset(end));
        assert_eq!(found, Offset(high_watermark));
        assert_eq!(FOLLOWING.start_after(&fetched, found), Offset(start));
    }
}

/// Fails when a follower says that it has on its disk what it was sent only (R39).
#[test]
fn r39_a_position_tells_what_is_synced() {
    let own = epochs(&[(1, 0), (4, 30)]);
    let log = LogView { durable: Offset(12), ..log(&own, 3, 30) };
    let position = FOLLOWING.position(&log);
    assert_eq!(
        (position.fetch_offset, position.synced_end, position.log_start),
        (Offset(30), Offset(12), Offset(3))
    );
    // Not epoch 4, of which there is no record.
    assert_eq!(position.last_fetched_epoch, Some(LeaderEpoch(1)));
    let cut = LogView { durable: Offset(31), ..log };
    assert_eq!(FOLLOWING.position(&cut).synced_end, Offset(30));
    let nothing = LogView { start: Offset(30), ..log };
    assert_eq!(FOLLOWING.position(&nothing).last_fetched_epoch, None);
}

#[test]
fn who_lacks_what_is_committed_is_behind() {
    let own = epochs(&[(1, 0)]);
    let fetched = Fetched { high_watermark: Offset(50), ..answer(&log(&own, 0, 30)) };
    for (end, is_behind) in [(30, true), (49, true), (50, false), (51, false)] {
        assert_eq!(Following::is_behind(&fetched, Offset(end)), is_behind, "{end}");
    }
}
