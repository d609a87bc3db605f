//! Kafka's rules by table, and all of them against a model that scans the whole log for every answer.

use floodmark_proto::batch::{Attributes, BatchHeader};
use floodmark_proto::ids::LeaderEpoch;
use proptest::prelude::*;

use super::*;
use crate::format_error::FormatError;

mod model;

/// A batch of producer 1, to be changed field by field.
fn batch(base_offset: i64, base_sequence: i32, records: i32) -> BatchHeader {
    BatchHeader {
        base_offset: Offset(base_offset),
        batch_length: 49,
        leader_epoch: LeaderEpoch(0),
        crc: 0,
        attributes: Attributes(0),
        last_offset_delta: records - 1,
        base_timestamp: 1_000,
        max_timestamp: 1_000,
        producer_id: ProducerId(1),
        producer_epoch: 0,
        base_sequence,
        record_count: records,
    }
}

fn transactional(base_offset: i64, producer: i64, base_sequence: i32) -> BatchHeader {
    let header = batch(base_offset, base_sequence, 1);
    BatchHeader {
        producer_id: ProducerId(producer),
        attributes: header.attributes.with_transactional(true),
        ..header
    }
}

fn marker(base_offset: i64, producer: i64) -> BatchHeader {
    let header = transactional(base_offset, producer, -1);
    BatchHeader { attributes: header.attributes.with_control(true), ..header }
}

fn in_epoch(epoch: i16, header: BatchHeader) -> BatchHeader {
    BatchHeader { producer_epoch: epoch, ..header }
}

const COMMIT: EndMarker = EndMarker { is_abort: false, coordinator_epoch: 3 };
const ABORT: EndMarker = EndMarker { is_abort: true, coordinator_epoch: 3 };

fn states(batches: &[BatchHeader]) -> ProducerStates {
    let mut states = ProducerStates::default();
    for batch in batches {
        states.record(batch, None);
    }
    states
}

fn expected_sequence(result: Result<Verdict, ProducerError>) -> Option<i32> {
    match result {
        Err(ProducerError::OutOfOrderSequence { expected, .. }) => Some(expected),
        _ => None,
    }
}

#[test]
fn the_last_five_batches_are_told_from_gaps() {
    let log: Vec<_> = (0..7).map(|n| batch(100 + 2 * n, 2 * n as i32, 2)).collect();
    let states = states(&log);
    for (n, sent) in log.iter().enumerate() {
        let verdict = states.check(&BatchHeader { base_offset: Offset(0), ..*sent }, None, Origin::Client);
        if n < 2 {
            assert_eq!(expected_sequence(verdict), Some(14), "batch {n} is older than the last five");
        } else {
            let base_offset = Offset(100 + 2 * n as i64);
            let duplicate =
                Verdict::Duplicate { base_offset, last_offset: base_offset + 1, timestamp: 1_000 };
            assert_eq!(verdict, Ok(duplicate), "batch {n}");
        }
    }
    assert_eq!(states.check(&batch(0, 14, 1), None, Origin::Client), Ok(Verdict::Append));
    assert_eq!(expected_sequence(states.check(&batch(0, 15, 1), None, Origin::Client)), Some(14), "a gap");
    let overlapping = batch(0, 12, 1);
    assert_eq!(
        expected_sequence(states.check(&overlapping, None, Origin::Client)),
        Some(14),
        "half a duplicate"
    );
}

#[test]
fn sequences_wrap_from_the_largest_to_zero() {
    let across = batch(0, i32::MAX - 1, 4);
    let mut states = states(&[across]);
    assert_eq!(states.get(ProducerId(1)).map(ProducerState::next_sequence), Some(2));
    assert!(matches!(states.check(&across, None, Origin::Client), Ok(Verdict::Duplicate { .. })));
    assert_eq!(states.check(&batch(0, 2, 1), None, Origin::Client), Ok(Verdict::Append));
    states.record(&batch(4, 2, 1), None);
    states.record(&batch(5, i32::MAX, 1), None);
    assert_eq!(states.check(&batch(0, 0, 1), None, Origin::Client), Ok(Verdict::Append));
}

#[test]
fn epochs_fence_and_begin_at_zero() {
    let states = states(&[in_epoch(2, batch(0, 0, 3))]);
    let check = |epoch, sequence, origin| states.check(&in_epoch(epoch, batch(0, sequence, 1)), None, origin);
    let stale = Err(ProducerError::StaleEpoch { producer_id: ProducerId(1), epoch: 1, current: 2 });
    assert_eq!(check(1, 3, Origin::Client), stale);
    assert_eq!(check(1, -1, Origin::Coordinator), stale);
    assert_eq!(check(1, 3, Origin::Replica), Ok(Verdict::Append));
    assert_eq!(check(3, 0, Origin::Client), Ok(Verdict::Append));
    assert_eq!(expected_sequence(check(3, 3, Origin::Client)), Some(0));
    assert_eq!(check(3, -1, Origin::Coordinator), Ok(Verdict::Append));
    assert_eq!(check(2, 3, Origin::Client), Ok(Verdict::Append));
}

#[test]
fn an_unknown_producer_may_begin_anywhere() {
    let states = ProducerStates::default();
    assert_eq!(states.check(&batch(0, 77, 1), None, Origin::Client), Ok(Verdict::Append));
    let no_sequence = Err(ProducerError::NoSequence { producer_id: ProducerId(1) });
    assert_eq!(states.check(&batch(0, -1, 1), None, Origin::Client), no_sequence);
    let mut without_epoch = ProducerStates::default();
    without_epoch.record(&in_epoch(-1, batch(0, -1, 1)), None);
    assert_eq!(without_epoch.check(&batch(0, 77, 1), None, Origin::Client), Ok(Verdict::Append));
    let anonymous = BatchHeader { producer_id: ProducerId::NONE, ..batch(0, -1, 1) };
    assert_eq!(states.check(&anonymous, None, Origin::Client), Ok(Verdict::Append));
}

#[test]
fn batches_without_a_producer_only_move_the_end() {
    let anonymous = BatchHeader { producer_id: ProducerId::NONE, ..batch(5, -1, 3) };
    let states = states(&[anonymous]);
    assert!(states.is_empty());
    assert_eq!(states.end_offset(), Offset(8));
}

#[test]
fn plain_data_inside_a_transaction_is_refused() {
    let states = states(&[transactional(7, 1, 0)]);
    let refused = ProducerError::NotTransactional { producer_id: ProducerId(1), first_offset: Offset(7) };
    assert_eq!(states.check(&batch(0, 1, 1), None, Origin::Client), Err(refused));
    assert_eq!(states.check(&batch(0, 1, 1), None, Origin::Replica), Ok(Verdict::Append));
    assert_eq!(states.check(&transactional(0, 1, 1), None, Origin::Client), Ok(Verdict::Append));
}

#[test]
fn markers_end_transactions_and_leave_fences() {
    let mut states = states(&[transactional(10, 1, 0), transactional(11, 2, 0), transactional(12, 1, 1)]);
    assert_eq!(states.first_open_offset(), Some(Offset(10)));

    let abort = in_epoch(1, marker(13, 1));
    assert_eq!(states.check(&abort, Some(&ABORT), Origin::Coordinator), Ok(Verdict::Append));
    let aborted = states.record(&abort, Some(&ABORT)).expect("a transaction was open");
    assert_eq!(
        aborted,
        CompletedTransaction {
            producer_id: ProducerId(1),
            first_offset: Offset(10),
            last_offset: Offset(13),
            is_aborted: true,
            last_stable_offset: Offset(11),
        }
    );
    assert_eq!(aborted.index_entry().map(|e| e.last_stable_offset), Some(Offset(11)));
    assert_eq!(states.first_open_offset(), Some(Offset(11)));

    let commit = marker(14, 2);
    let committed = states.record(&commit, Some(&COMMIT)).expect("a transaction was open");
    assert_eq!(committed.last_stable_offset, Offset(15), "nothing is open, so the offset after the marker");
    assert_eq!(committed.index_entry(), None, "only aborted ones are indexed");
    assert_eq!(states.record(&marker(15, 2), Some(&COMMIT)), None, "nothing was open");

    // The fences of the markers.
    let zombie = EndMarker { coordinator_epoch: 2, ..COMMIT };
    let fenced = ProducerError::CoordinatorFenced { producer_id: ProducerId(2), epoch: 2, current: 3 };
    assert_eq!(states.check(&marker(0, 2), Some(&zombie), Origin::Coordinator), Err(fenced));
    let stale = ProducerError::StaleEpoch { producer_id: ProducerId(1), epoch: 0, current: 1 };
    assert_eq!(states.check(&marker(0, 1), Some(&ABORT), Origin::Coordinator), Err(stale));
    assert_eq!(states.check(&transactional(0, 1, 2), None, Origin::Client), Err(stale));
    // The marker began an epoch, so sequences begin again; one in the same epoch changes nothing.
    assert_eq!(states.check(&in_epoch(1, transactional(0, 1, 0)), None, Origin::Client), Ok(Verdict::Append));
    assert_eq!(states.check(&transactional(0, 2, 1), None, Origin::Client), Ok(Verdict::Append));
}

#[test]
fn a_control_batch_emptied_by_compaction_changes_nothing() {
    let mut states = states(&[transactional(10, 1, 0)]);
    assert_eq!(states.record(&marker(20, 1), None), None);
    assert_eq!(states.first_open_offset(), Some(Offset(10)));
    assert_eq!(states.end_offset(), Offset(21));
}

#[test]
fn the_stable_offset_waits_for_the_marker_to_be_replicated() {
    let mut states = states(&[transactional(10, 1, 0), transactional(11, 2, 0)]);
    states.record(&marker(12, 1), Some(&COMMIT));
    assert_eq!(states.first_unstable_offset(), Some(Offset(10)));
    states.on_high_watermark(Offset(12));
    assert_eq!(states.first_unstable_offset(), Some(Offset(10)), "the marker itself is not replicated");
    states.on_high_watermark(Offset(13));
    assert_eq!(states.first_unstable_offset(), Some(Offset(11)));

    let stable = |hw, start| states.last_stable_offset(Offset(hw), Offset(start)).0;
    assert_eq!(stable(13, 0), 11);
    assert_eq!(stable(5, 0), 5, "never past the high watermark");
    assert_eq!(stable(20, 15), 15, "never before the log start");
    assert_eq!(ProducerStates::default().last_stable_offset(Offset(9), Offset(0)), Offset(9));
}

#[test]
fn a_late_batch_of_an_ended_transaction_is_released_by_the_next_marker() {
    let mut states = states(&[transactional(10, 1, 0)]);
    states.record(&marker(11, 1), Some(&ABORT));
    states.record(&transactional(12, 1, 1), None);
    assert_eq!(states.first_open_offset(), Some(Offset(12)));
    let completed = states.record(&in_epoch(5, marker(13, 1)), Some(&COMMIT)).expect("it counts as open");
    assert_eq!(completed.first_offset, Offset(12));
    assert_eq!(states.first_open_offset(), None);
}

#[test]
fn expiry_spares_open_transactions() {
    let mut states = states(&[batch(0, 0, 1), transactional(1, 2, 0)]);
    assert_eq!(states.expire(1_999, 1_000), 0);
    assert_eq!(states.expire(2_000, 1_000), 1);
    assert!(states.get(ProducerId(1)).is_none());
    assert!(states.get(ProducerId(2)).is_some());
    assert_eq!(states.check(&batch(0, 9, 1), None, Origin::Client), Ok(Verdict::Append), "unknown again");
    assert_eq!(states.expire(i64::MAX, 0), 0);
    assert_eq!(states.expire(i64::MIN, 1_000), 0, "a clock that went back expires nothing");
}

#[test]
fn the_longest_silent_are_forgotten_beyond_the_cap() {
    let mut states = ProducerStates::default();
    states.record(&transactional(0, 0, 0), None);
    for n in 1..=PRODUCERS_MAX as i64 {
        states.record(&BatchHeader { producer_id: ProducerId(n), ..batch(n, 0, 1) }, None);
    }
    assert_eq!(states.len(), PRODUCERS_MAX + 1 - PRODUCERS_MAX / 4);
    assert!(states.get(ProducerId(0)).is_some(), "its transaction is open");
    assert!(states.get(ProducerId(PRODUCERS_MAX as i64 / 4)).is_none());
    assert!(states.get(ProducerId(PRODUCERS_MAX as i64 / 4 + 1)).is_some());
}

#[test]
fn open_transactions_are_capped_for_clients() {
    let mut states = ProducerStates::default();
    for n in 0..OPEN_TRANSACTIONS_MAX as i64 {
        states.record(&transactional(n, n, 0), None);
    }
    let next = transactional(0, OPEN_TRANSACTIONS_MAX as i64, 0);
    let refused = Err(ProducerError::TooManyTransactions { limit: OPEN_TRANSACTIONS_MAX });
    assert_eq!(states.check(&next, None, Origin::Client), refused);
    assert_eq!(states.check(&next, None, Origin::Replica), Ok(Verdict::Append));
    assert_eq!(states.check(&transactional(0, 0, 1), None, Origin::Client), Ok(Verdict::Append), "goes on");
}

#[test]
fn the_snapshot_layout_is_kafkas() {
    let mut states = states(&[in_epoch(0x0203, batch(0x10, 5, 3))]);
    states.record(&in_epoch(7, BatchHeader { max_timestamp: 9, ..marker(0x20, 2) }), Some(&COMMIT));
    let mut body: Vec<u8> = Vec::new();
    body.extend(2i32.to_be_bytes());
    body.extend([&1i64.to_be_bytes()[..], &[2, 3], &7i32.to_be_bytes(), &0x12i64.to_be_bytes()].concat());
    body.extend([&2i32.to_be_bytes()[..], &1_000i64.to_be_bytes(), &[0xff; 4], &[0xff; 8]].concat());
    body.extend([&2i64.to_be_bytes()[..], &[0, 7], &[0xff; 4], &[0xff; 8], &[0; 4]].concat());
    body.extend([&9i64.to_be_bytes()[..], &3i32.to_be_bytes(), &[0xff; 8]].concat());
    let crc = floodmark_proto::batch::crc32c::crc32c(&body);
    let expected = [&[0, 1][..], &crc.to_be_bytes(), &body].concat();
    assert_eq!(states.to_snapshot(), expected);
    assert_eq!(ProducerStates::from_snapshot(&expected, Offset(0x21)).map(|s| s.to_snapshot()), Ok(expected));
}

/// A client that was not told of its last five batches sends all of them again, also after a restart.
#[test]
fn retries_of_all_batches_on_their_way_are_known_after_a_restart() {
    let sent: Vec<BatchHeader> = (0..7).map(|n| batch(n * 2, n as i32 * 2, 2)).collect();
    let states = states(&sent);
    let bytes = states.to_snapshot();
    assert_eq!(bytes.len(), 10 + 5 * 46, "the last one where Kafka has it, four before it");
    let reloaded = ProducerStates::from_snapshot(&bytes, Offset(14)).unwrap();
    assert_eq!(reloaded, states);
    for (header, place) in sent.iter().zip(0..) {
        let verdict = reloaded.check(header, None, Origin::Client);
        if place < 2 {
            assert!(matches!(verdict, Err(ProducerError::OutOfOrderSequence { .. })), "{verdict:?}");
        } else {
            let expected = Verdict::Duplicate {
                base_offset: Offset(place * 2),
                last_offset: Offset(place * 2 + 1),
                timestamp: header.max_timestamp,
            };
            assert_eq!(verdict, Ok(expected));
        }
    }
}

/// A marker's time takes the place of the last batch's, so that this is written by itself.
#[test]
fn the_last_batch_keeps_its_time_behind_a_marker() {
    let mut states = states(&[transactional(0, 1, 0), transactional(1, 1, 1)]);
    states.record(&BatchHeader { max_timestamp: 9_999, ..marker(2, 1) }, Some(&COMMIT));
    let bytes = states.to_snapshot();
    assert_eq!(bytes.len(), 10 + 3 * 46);
    let reloaded = ProducerStates::from_snapshot(&bytes, Offset(3)).unwrap();
    assert_eq!(reloaded.get(ProducerId(1)), states.get(ProducerId(1)));
}

/// Entries of one producer that cannot be its batches in the order of the log.
#[test]
fn earlier_batches_that_do_not_fit_are_refused() {
    let good = states(&[batch(0, 0, 1), batch(1, 1, 1), batch(2, 2, 1)]).to_snapshot();
    let parse = |bytes: &[u8]| ProducerStates::from_snapshot(bytes, Offset(3));
    assert!(parse(&good).is_ok());
    // Fields of the first entry: another epoch, no batch, an offset behind the next one's, an open transaction; of the last one: an
    // offset before the one before it.
    for (at, to) in [
        (18, &1i16.to_be_bytes()[..]),
        (24, &(-1i64).to_be_bytes()),
        (24, &1i64.to_be_bytes()),
        (48, &0i64.to_be_bytes()),
        (24 + 2 * 46, &0i64.to_be_bytes()),
    ] {
        let mut bytes = good.clone();
        bytes[at..at + to.len()].copy_from_slice(to);
        let crc = floodmark_proto::batch::crc32c::crc32c(&bytes[6..]);
        bytes[2..6].copy_from_slice(&crc.to_be_bytes());
        let refused = parse(&bytes);
        assert!(matches!(refused, Err(FormatError::Repeated { .. })), "{at}: {refused:?}");
    }
}

#[test]
fn bad_snapshots_are_told_apart() {
    let states = states(&[transactional(0, 1, 0), transactional(1, 2, 0)]);
    let good = states.to_snapshot();
    let parse = |bytes: &[u8]| ProducerStates::from_snapshot(bytes, Offset(2));
    assert!(parse(&good).is_ok());
    let changed = |at: usize, to: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + to.len()].copy_from_slice(to);
        let crc = floodmark_proto::batch::crc32c::crc32c(&bytes[6..]);
        bytes[2..6].copy_from_slice(&crc.to_be_bytes());
        bytes
    };
    // The first entry begins at byte 10; its fields follow in the order of the format.
    for (bytes, message) in [
        (good[..9].to_vec(), "needs 10 bytes, has 9"),
        (good[..good.len() - 1].to_vec(), "needs 102 bytes, has 101"),
        ([&good[..], &[0]].concat(), "goes on at byte 102"),
        (changed(0, &[0, 2]), "has version 2, newer than 1"),
        (changed(0, &[0, 0]), "has version 0, which does not exist"),
        (changed(6, &[0xff; 4]), "number of producers is -1"),
        (changed(6, &[0x7f, 0xff, 0xff, 0xff]), "needs 98784247772 bytes"),
        (changed(10, &[0x80]), "entry 0: producer id is"),
        (changed(18, &(-2i16).to_be_bytes()), "producer epoch is -2"),
        (changed(20, &(-2i32).to_be_bytes()), "last sequence is -2"),
        (changed(24, &2i64.to_be_bytes()), "last offset is 2"),
        (changed(32, &1i32.to_be_bytes()), "offset delta is 1"),
        (changed(44, &(-2i32).to_be_bytes()), "coordinator epoch is -2"),
        (changed(48, &2i64.to_be_bytes()), "first offset of the open transaction is 2"),
        (changed(48, &1i64.to_be_bytes()), "entry 1: first offset of the open transaction 1 stands there"),
        (changed(10, &2i64.to_be_bytes()), "entry 1: producer id 2 stands there"),
    ] {
        let error = parse(&bytes).expect_err(message).to_string();
        assert!(error.contains(message), "{error} should contain {message}");
    }
    let mut flipped = good.clone();
    flipped[40] ^= 1;
    assert!(matches!(parse(&flipped), Err(FormatError::Checksum { .. })));
}
