//! One batch at a time against Kafka's rules.

mod by_offset;

use std::collections::HashMap;

use floodmark_proto::batch::{CompressionType, HEADER_LEN, NewRecord, RecordBatch, check_stored};
use floodmark_proto::ids::ProducerId;

use super::*;
use crate::producers::{Origin, ProducerStates};

type KeyValue = (Option<&'static str>, Option<&'static str>);

const MIDDLE: Standing = Standing { is_last_of_segment: false, may_grow: true };
const LAST: Standing = Standing { is_last_of_segment: true, may_grow: true };

fn builder(base: i64) -> BatchBuilder {
    BatchBuilder::new().base_offset(Offset(base)).base_timestamp(1_000)
}

fn with_records(mut builder: BatchBuilder, records: &[KeyValue]) -> RecordBatch {
    for (n, (key, value)) in records.iter().enumerate() {
        let (key, value) = (key.map(str::as_bytes), value.map(str::as_bytes));
        builder.push(&NewRecord { timestamp: 1_000 + n as i64, key, value, headers: &[] }).unwrap();
    }
    builder.build().unwrap()
}

fn marker(base: i64, producer: i64, result: TransactionResult) -> RecordBatch {
    let mut builder = builder(base).producer(ProducerId(producer), 0, -1);
    builder.push_marker(1_000, &EndTransactionMarker { result, coordinator_epoch: 4 }).unwrap();
    builder.build().unwrap()
}

fn transactional(base: i64, producer: i64, sequence: i32, records: &[KeyValue]) -> RecordBatch {
    with_records(builder(base).producer(ProducerId(producer), 0, sequence).transactional(true), records)
}

fn aborted(producer: i64, first: i64, last: i64) -> AbortedTransaction {
    AbortedTransaction {
        producer_id: ProducerId(producer),
        first_offset: Offset(first),
        last_offset: Offset(last),
        last_stable_offset: Offset(last + 1),
    }
}

/// All that is covered is judged by its key.
fn facts(newest: &[(&str, i64)], covered: i64, now_ms: i64) -> FilterFacts {
    let mut map = OffsetMap::new(10_000, 100, (7, 8));
    for (key, offset) in newest {
        map.put(map.hash(key.as_bytes()), Offset(*offset)).unwrap();
    }
    FilterFacts {
        keys: MappedKeys {
            map,
            first_dirty: Offset(covered),
            covered: Offset(covered),
            unreadable_batches: 0,
        },
        aborted: AbortedTransactions::default(),
        producers: LastOfProducers::default(),
        now_ms,
        delete_retention_ms: 500,
    }
}

fn judge(filter: &mut BatchFilter, batch: &RecordBatch, standing: Standing) -> Fate {
    let fate = filter.judge(batch.as_bytes(), batch.header(), standing);
    if let Fate::Replace(header, bytes) = &fate {
        assert_eq!(check_stored(bytes).as_ref(), Ok(header));
        let was = batch.header();
        assert_eq!((header.base_offset, header.last_offset_delta), (was.base_offset, was.last_offset_delta));
        assert_eq!((header.producer_id, header.producer_epoch), (was.producer_id, was.producer_epoch));
        assert_eq!((header.base_sequence, header.leader_epoch), (was.base_sequence, was.leader_epoch));
    }
    fate
}

/// Offsets and times of what is left of a batch that was rewritten.
fn left(fate: &Fate) -> Vec<(i64, i64)> {
    let Fate::Replace(_, bytes) = fate else { panic!("{fate:?}") };
    let mut scratch = Vec::new();
    let records = Records::open(bytes, &DECODED_MAX, &mut scratch).unwrap();
    records.map(|r| r.unwrap()).map(|r| (r.offset.0, r.timestamp)).collect()
}

fn header_of(fate: &Fate) -> BatchHeader {
    let Fate::Replace(header, _) = fate else { panic!("{fate:?}") };
    *header
}

const A: KeyValue = (Some("a"), Some("1"));
const B: KeyValue = (Some("b"), Some("2"));
const GONE_A: KeyValue = (Some("a"), None);

#[test]
fn the_newest_record_of_a_key_stays_under_every_codec() {
    for codec in CompressionType::ALL {
        let batch = with_records(builder(10).compression(codec, None), &[A, B, A, (None, Some("x"))]);
        let mut filter = BatchFilter::new(facts(&[("a", 12)], 20, 0));
        let fate = judge(&mut filter, &batch, MIDDLE);
        assert_eq!(left(&fate), [(11, 1_001), (12, 1_002)], "{codec:?}");
        let header = header_of(&fate);
        assert_eq!((header.max_timestamp, header.attributes), (1_002, batch.header().attributes));
        let counts = filter.counts();
        assert_eq!((counts.records_kept, counts.records_dropped, counts.keyless_dropped), (2, 2, 1));
        let mut filter = BatchFilter::new(facts(&[("a", 13), ("b", 14)], 20, 0));
        assert!(matches!(judge(&mut filter, &batch, MIDDLE), Fate::Drop));
        let mut filter = BatchFilter::new(facts(&[], 5, 0));
        assert!(matches!(judge(&mut filter, &batch, MIDDLE), Fate::Keep), "past what the map covers");
    }
}

#[test]
fn log_append_time_is_kept_when_records_go() {
    let batch = with_records(builder(0).log_append_time(9_999), &[A, B]);
    let fate = judge(&mut BatchFilter::new(facts(&[("a", 7)], 20, 0)), &batch, MIDDLE);
    assert_eq!(left(&fate), [(1, 9_999)]);
    assert!(header_of(&fate).attributes.is_log_append_time());
}

#[test]
fn r22_a_tombstone_gets_its_time_once_and_goes_after_it() {
    let batch = with_records(builder(0), &[GONE_A, B]);
    let uncovered = judge(&mut BatchFilter::new(facts(&[], 1, 100)), &batch, MIDDLE);
    assert!(matches!(uncovered, Fate::Keep), "its clock starts when all of it is covered");
    let no_room = Standing { may_grow: false, ..MIDDLE };
    assert!(matches!(judge(&mut BatchFilter::new(facts(&[], 2, 100)), &batch, no_room), Fate::Keep));
    let timed = judge(&mut BatchFilter::new(facts(&[], 2, 100)), &batch, MIDDLE);
    assert_eq!(left(&timed), [(0, 1_000), (1, 1_001)], "times survive the new base");
    assert_eq!(header_of(&timed).delete_horizon_ms(), Some(600));
    let Fate::Replace(_, bytes) = timed else { unreachable!() };
    let timed = RecordBatch::from_stored(bytes[..].into()).unwrap();
    for (now_ms, stays) in [(100, 2), (599, 2), (600, 1)] {
        let fate = judge(&mut BatchFilter::new(facts(&[], 2, now_ms)), &timed, MIDDLE);
        match fate {
            Fate::Keep => assert_eq!(stays, 2, "at {now_ms}"),
            fate => assert_eq!((left(&fate), stays), (vec![(1, 1_001)], 1), "at {now_ms}"),
        }
    }
    let newer = judge(&mut BatchFilter::new(facts(&[("a", 5)], 9, 100)), &timed, MIDDLE);
    assert_eq!(left(&newer), [(1, 1_001)], "one with a newer value goes at once");
}

#[test]
fn times_that_cannot_be_told_from_the_horizon_do_not_end_the_pass() {
    let mut far = BatchBuilder::new().base_timestamp(i64::MIN);
    let record = NewRecord { timestamp: i64::MIN, key: Some(b"a"), value: None, headers: &[] };
    far.push(&record).unwrap();
    far.push(&NewRecord { key: Some(b"b"), ..record }).unwrap();
    let far = far.build().unwrap();
    assert!(matches!(judge(&mut BatchFilter::new(facts(&[], 9, 100)), &far, MIDDLE), Fate::Keep));
    let fate = judge(&mut BatchFilter::new(facts(&[("a", 8)], 9, 100)), &far, MIDDLE);
    assert_eq!((left(&fate), header_of(&fate).delete_horizon_ms()), (vec![(1, i64::MIN)], None));
}

#[test]
fn r21_the_last_batch_of_a_segment_is_emptied_and_its_end_and_time_stay() {
    let batch = with_records(builder(5).compression(CompressionType::Zstd, None), &[A, A]);
    let emptied = judge(&mut BatchFilter::new(facts(&[("a", 9)], 20, 0)), &batch, LAST);
    let header = header_of(&emptied);
    assert_eq!((header.record_count, header.next_offset(), header.max_timestamp), (0, Offset(7), 1_001));
    let Fate::Replace(_, bytes) = emptied else { unreachable!() };
    let emptied = RecordBatch::from_stored(bytes[..].into()).unwrap();
    assert!(matches!(judge(&mut BatchFilter::new(facts(&[], 20, 0)), &emptied, LAST), Fate::Keep));
    assert!(matches!(judge(&mut BatchFilter::new(facts(&[], 20, 0)), &emptied, MIDDLE), Fate::Drop));
}

#[test]
fn the_last_batch_of_a_live_producer_keeps_its_sequence() {
    let mut producers = ProducerStates::new(Offset(0));
    let first = with_records(builder(0).producer(ProducerId(3), 0, 0), &[A]);
    let second = with_records(builder(1).producer(ProducerId(3), 0, 1), &[A]);
    for batch in [&first, &second] {
        producers.check(batch.header(), None, Origin::Client).unwrap();
        producers.record(batch.header(), None);
    }
    let with = FilterFacts { producers: LastOfProducers::new(&producers), ..facts(&[("a", 9)], 20, 0) };
    let mut filter = BatchFilter::new(with);
    assert!(matches!(judge(&mut filter, &first, MIDDLE), Fate::Drop));
    assert_eq!(header_of(&judge(&mut filter, &second, MIDDLE)).record_count, 0);
    let mut expired = BatchFilter::new(facts(&[("a", 9)], 20, 0));
    assert!(matches!(judge(&mut expired, &second, MIDDLE), Fate::Drop));
}

#[test]
fn r22_aborted_data_goes_and_its_marker_follows_when_nothing_needs_it() {
    let data = transactional(0, 3, 0, &[A, B]);
    let abort = marker(2, 3, TransactionResult::Abort);
    let of_three = || AbortedTransactions::new(vec![aborted(3, 0, 2)]);
    let mut filter = BatchFilter::new(FilterFacts { aborted: of_three(), ..facts(&[], 20, 100) });
    assert!(matches!(judge(&mut filter, &data, MIDDLE), Fate::Drop));
    assert!(matches!(judge(&mut filter, &abort, MIDDLE), Fate::Keep), "its data was there in this pass");
    assert_eq!(filter.take_aborted(), [aborted(3, 0, 2)]);
    let mut filter = BatchFilter::new(FilterFacts { aborted: of_three(), ..facts(&[], 20, 200) });
    let timed = judge(&mut filter, &abort, MIDDLE);
    assert_eq!((header_of(&timed).delete_horizon_ms(), filter.take_aborted()), (Some(700), vec![]));
    let Fate::Replace(_, bytes) = timed else { unreachable!() };
    let timed = RecordBatch::from_stored(bytes[..].into()).unwrap();
    assert!(matches!(judge(&mut BatchFilter::new(facts(&[], 20, 699)), &timed, MIDDLE), Fate::Keep));
    assert!(matches!(judge(&mut BatchFilter::new(facts(&[], 20, 700)), &timed, MIDDLE), Fate::Drop));
    let emptied = judge(&mut BatchFilter::new(facts(&[], 20, 700)), &timed, LAST);
    assert_eq!(header_of(&emptied).record_count, 0);
    assert!(header_of(&emptied).attributes.is_control());
}

#[test]
fn a_commit_marker_stays_while_an_emptied_batch_of_its_transaction_does() {
    let mut filter = BatchFilter::new(facts(&[("a", 9)], 20, 100));
    let data = transactional(0, 3, 0, &[A]);
    assert_eq!(header_of(&judge(&mut filter, &data, LAST)).record_count, 0);
    assert!(matches!(judge(&mut filter, &marker(1, 3, TransactionResult::Commit), MIDDLE), Fate::Keep));
    let alone = judge(&mut filter, &marker(2, 3, TransactionResult::Commit), MIDDLE);
    assert_eq!(header_of(&alone).delete_horizon_ms(), Some(600));
}

#[test]
fn only_data_inside_the_aborted_range_counts_as_aborted() {
    let index = || AbortedTransactions::new(vec![aborted(3, 10, 20), aborted(3, 30, 40), aborted(5, 0, 99)]);
    for (base, producer, is_aborted) in [
        (9, 3, false),
        (10, 3, true),
        (19, 3, true),
        (25, 3, false),
        (30, 3, true),
        (41, 3, false),
        (41, 4, false),
    ] {
        let batch = transactional(base, producer, 0, &[A]);
        assert_eq!(index().holds(batch.header()), is_aborted, "{base} of {producer}");
    }
    assert!(!index().holds(with_records(builder(10).producer(ProducerId(3), 0, 0), &[A]).header()));
}

#[test]
fn the_mapper_covers_up_to_the_record_that_found_no_room() {
    let none = AbortedTransactions::default();
    let mut mapper = KeyMapper::new(OffsetMap::new(24 * 3, 100, (1, 1)), Offset(11), &none);
    let batch = with_records(builder(10), &[(Some("before"), None), A, B, A, (Some("c"), None)]);
    assert_eq!(mapper.add(batch.as_bytes(), batch.header()), Err(MapFull));
    let keys = mapper.finish();
    assert_eq!((keys.covered, keys.map.len()), (Offset(14), 2));
    assert_eq!(
        (keys.map.newest(keys.map.hash(b"a")), keys.map.newest(keys.map.hash(b"before"))),
        (Some(Offset(13)), None)
    );
}

#[test]
fn markers_and_aborted_data_have_no_keys_to_map() {
    let aborted = AbortedTransactions::new(vec![aborted(3, 0, 2)]);
    let mut mapper = KeyMapper::new(OffsetMap::new(1_000, 100, (1, 1)), Offset(0), &aborted);
    for batch in [transactional(0, 3, 0, &[A, B]), marker(2, 3, TransactionResult::Abort)] {
        mapper.add(batch.as_bytes(), batch.header()).unwrap();
    }
    let keys = mapper.finish();
    assert_eq!((keys.map.len(), keys.covered), (0, Offset(3)));
}
