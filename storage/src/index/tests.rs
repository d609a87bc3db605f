//! Layouts against bytes written out by hand, search against a linear scan, the entry rule against a naive one.

use std::convert::Infallible;

use floodmark_proto::batch::{Attributes, BatchHeader};
use floodmark_proto::ids::{LeaderEpoch, Offset, ProducerId};
use proptest::prelude::*;

use super::*;

const POLICY: IndexPolicy = IndexPolicy { interval_bytes: 100, max_index_bytes: 10_000 };

fn header(base_offset: i64, records: i32, max_timestamp: i64) -> BatchHeader {
    BatchHeader {
        base_offset: Offset(base_offset),
        batch_length: 49,
        leader_epoch: LeaderEpoch(0),
        crc: 0,
        attributes: Attributes(0),
        last_offset_delta: records - 1,
        base_timestamp: max_timestamp,
        max_timestamp,
        producer_id: ProducerId::NONE,
        producer_epoch: -1,
        base_sequence: -1,
        record_count: records,
    }
}

fn offsets(bytes: &[u8]) -> impl FnMut(u32) -> Result<OffsetEntry, Infallible> {
    |n| Ok(offset_index::entry_at(bytes, n).expect("within the index"))
}

#[test]
fn layouts_are_kafkas() {
    let offset = OffsetEntry { relative_offset: 0x0102_0304, position: 0x0506_0708 };
    assert_eq!(offset.encode(), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(OffsetEntry::decode(&offset.encode()), offset);
    assert_eq!(offset.offset(Offset(1)), Offset(0x0102_0305));

    let time = TimeEntry { timestamp: 0x0102_0304_0506_0708, relative_offset: 0x090a_0b0c };
    assert_eq!(time.encode(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    assert_eq!(TimeEntry::decode(&time.encode()), time);

    let aborted = AbortedTransaction {
        producer_id: ProducerId(1),
        first_offset: Offset(2),
        last_offset: Offset(3),
        last_stable_offset: Offset(4),
    };
    let mut bytes = vec![0, 0];
    for field in [1u64, 2, 3, 4] {
        bytes.extend(field.to_be_bytes());
    }
    assert_eq!(aborted.encode().as_slice(), bytes);
    assert_eq!(transaction_index::parse(&bytes), Ok(vec![aborted]));
}

#[test]
fn only_31_bits_after_the_base_fit() {
    let base = Offset(10);
    for (offset, expected) in
        [(9, false), (10, true), (10 + i64::from(i32::MAX), true), (11 + i64::from(i32::MAX), false)]
    {
        assert_eq!(fits(base, Offset(offset)), expected, "offset {offset}");
    }
    assert!(!fits(Offset(i64::MIN), Offset(i64::MAX)), "the difference overflows");
}

#[test]
fn an_offset_that_does_not_fit_changes_nothing() {
    let mut indexer = Indexer::new(Offset(10), POLICY);
    let error = indexer.on_batch(&header(0, 1, 5), 0).expect_err("before the base");
    assert_eq!(
        error,
        FormatError::OutOfRange {
            file: "segment",
            place: Place::Byte(0),
            field: "last offset of the batch",
            value: 0
        }
    );
    assert_eq!(indexer.largest_timestamp(), None);
}

#[test]
fn entries_come_after_more_than_the_interval_and_never_at_position_zero() {
    let mut indexer = Indexer::new(Offset(50), POLICY);
    let mut at =
        |base, timestamp, position| indexer.on_batch(&header(base, 5, timestamp), position).expect("fits");
    assert_eq!(at(50, 1_000, 0), IndexEntries::default());
    assert_eq!(at(55, 900, 100), IndexEntries::default(), "exactly the interval is not more");
    assert_eq!(
        at(60, 900, 101),
        IndexEntries {
            offset: Some(OffsetEntry { relative_offset: 14, position: 101 }),
            time: Some(TimeEntry { timestamp: 1_000, relative_offset: 4 }),
        }
    );
    assert_eq!(
        at(65, 1_000, 202),
        IndexEntries { offset: Some(OffsetEntry { relative_offset: 19, position: 202 }), time: None },
        "the timestamp did not rise"
    );
    assert_eq!(at(70, 2_000, 250), IndexEntries::default());
    assert_eq!(indexer.final_time_entry(), Some(TimeEntry { timestamp: 2_000, relative_offset: 24 }));
    assert_eq!(indexer.final_time_entry(), None, "written once");
    assert_eq!(indexer.largest_timestamp(), Some(TimestampOffset { timestamp: 2_000, offset: Offset(74) }));
}

#[test]
fn batches_without_timestamps_leave_the_time_index_empty() {
    let mut indexer = Indexer::new(Offset(0), POLICY);
    let entries = indexer.on_batch(&header(0, 1, -1), 500).expect("fits");
    assert!(entries.offset.is_some());
    assert_eq!(entries.time, None);
    assert_eq!(indexer.final_time_entry(), None);
}

#[test]
fn a_full_index_says_so_and_takes_no_more() {
    // Room for three offset entries, or two time entries of which the last is kept for sealing.
    let mut indexer = Indexer::new(Offset(0), IndexPolicy { interval_bytes: 0, max_index_bytes: 24 });
    assert!(!indexer.is_full());
    let first = indexer.on_batch(&header(0, 1, 10), 100).expect("fits");
    assert!(first.offset.is_some() && first.time.is_some());
    assert!(indexer.is_full(), "the time index has one slot left, kept for sealing");
    let second = indexer.on_batch(&header(1, 1, 20), 200).expect("fits");
    assert!(second.offset.is_some() && second.time.is_none());
    indexer.on_batch(&header(2, 1, 30), 300).expect("fits");
    assert_eq!(indexer.on_batch(&header(3, 1, 40), 400).expect("fits"), IndexEntries::default());
    assert_eq!(indexer.final_time_entry(), Some(TimeEntry { timestamp: 40, relative_offset: 3 }));
}

#[test]
fn padding_and_damage_end_a_valid_prefix() {
    let offset = |o, p| OffsetEntry { relative_offset: o, position: p }.encode();
    for (entries, expected) in [
        (vec![], 0),
        (vec![offset(1, 10), offset(2, 20)], 2),
        (vec![offset(1, 10), offset(0, 0), offset(0, 0)], 1),
        (vec![offset(0, 0)], 0),
        (vec![offset(1, 10), offset(1, 20)], 1),
        (vec![offset(1, 10), offset(2, 10)], 1),
        (vec![offset(1 << 31, 10)], 0),
        (vec![offset(1, 1 << 31)], 0),
    ] {
        let mut bytes = entries.concat();
        assert_eq!(offset_index::valid_prefix(&bytes), expected, "{bytes:?}");
        bytes.extend([1, 2, 3]);
        assert_eq!(offset_index::valid_prefix(&bytes), expected, "a cut entry is no entry");
    }
    let time = |t, o| TimeEntry { timestamp: t, relative_offset: o }.encode();
    for (entries, expected) in [
        (vec![time(1, 10), time(2, 20)], 2),
        (vec![time(1, 10), time(2, 10)], 2),
        (vec![time(1, 10), time(1, 20)], 1),
        (vec![time(1, 10), time(2, 9)], 1),
        (vec![time(1, 10), time(0, 0), time(0, 0)], 1),
        (vec![time(0, 0)], 1),
        (vec![time(0, 0), time(0, 0)], 0),
        (vec![time(0, 0), time(5, 3)], 2),
        (vec![time(-1, 0), time(5, 3)], 0),
        (vec![time(1, 1 << 31)], 0),
    ] {
        assert_eq!(time_index::valid_prefix(&entries.concat()), expected, "{entries:?}");
    }
}

#[test]
fn transaction_index_names_what_is_wrong() {
    let good = |first, last| AbortedTransaction {
        producer_id: ProducerId(1),
        first_offset: Offset(first),
        last_offset: Offset(last),
        last_stable_offset: Offset(last + 1),
    };
    let bytes = |entries: &[AbortedTransaction]| entries.iter().flat_map(|e| e.encode()).collect::<Vec<u8>>();
    let mut newer = bytes(&[good(0, 5)]);
    newer[1] = 1;
    let mut unknown = newer.clone();
    unknown[0] = 0xff;
    let mut late_stable = good(0, 5);
    late_stable.last_stable_offset = Offset(7);
    let mut no_producer = good(0, 5);
    no_producer.producer_id = ProducerId::NONE;
    let cases = [
        (newer, "has version 1, newer than 0"),
        (unknown, "has version -255, which does not exist"),
        (bytes(&[good(0, 5)])[..33].to_vec(), "cut short: needs 34 bytes, has 33"),
        (bytes(&[good(0, 5), good(1, 5)]), "entry 1: last offset is 5, out of order after 5"),
        (bytes(&[good(6, 5)]), "entry 0: last offset is 5, out of range"),
        (bytes(&[good(-1, 5)]), "entry 0: first offset is -1, out of range"),
        (bytes(&[late_stable]), "entry 0: last stable offset is 7, out of range"),
        (bytes(&[no_producer]), "entry 0: producer id is -1, out of range"),
    ];
    for (bytes, message) in cases {
        let error = transaction_index::parse(&bytes).expect_err(message).to_string();
        assert!(error.contains(message), "{error} should contain {message}");
        assert!(transaction_index::valid_prefix(&bytes) < bytes.len().div_ceil(34), "{message}");
    }
}

#[test]
fn collecting_stops_where_no_later_entry_can_overlap() {
    let aborted = |first, last, stable| AbortedTransaction {
        producer_id: ProducerId(1),
        first_offset: Offset(first),
        last_offset: Offset(last),
        last_stable_offset: Offset(stable),
    };
    let entries = [aborted(0, 10, 5), aborted(5, 20, 21), aborted(30, 40, 41)];
    let collect = |first, end| transaction_index::collect(&entries, Offset(first), Offset(end));
    assert_eq!(collect(0, 5).aborted, [entries[0]]);
    assert!(collect(0, 5).is_complete, "the stable offset reached the end of the read");
    assert_eq!(collect(10, 15).aborted, [entries[0], entries[1]]);
    assert_eq!(collect(11, 15).aborted, [entries[1]], "the marker lies before the read");
    assert_eq!(collect(21, 30).aborted, []);
    assert!(!collect(21, 50).is_complete, "later segments may hold more");
    assert_eq!(transaction_index::entries_before(&entries, Offset(20)), 1);
    assert_eq!(transaction_index::entries_before(&entries, Offset(21)), 2);
}

#[test]
fn an_error_of_the_accessor_comes_back() {
    assert_eq!(offset_index::find(3, |_| Err("disk"), 1), Err("disk"));
}

fn rising_entries() -> impl Strategy<Value = Vec<OffsetEntry>> {
    prop::collection::vec((1u32..50, 1u32..50), 0..60).prop_map(|steps| {
        let (mut relative_offset, mut position) = (0, 0);
        steps
            .into_iter()
            .map(|(o, p)| {
                relative_offset += o;
                position += p;
                OffsetEntry { relative_offset, position }
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn search_agrees_with_a_scan(entries in rising_entries(), target in 0u32..3_200) {
        let bytes: Vec<u8> = entries.iter().flat_map(|e| e.encode()).collect();
        let count = entries.len() as u32;
        prop_assert_eq!(offset_index::valid_prefix(&bytes), entries.len());

        let scan = entries.iter().rev().find(|e| e.relative_offset <= target).copied();
        prop_assert_eq!(offset_index::find(count, offsets(&bytes), target), Ok(scan));
        prop_assert_eq!(offset_index::find_in(&bytes, target), scan);
        let scan = entries.iter().rev().find(|e| e.position <= target).copied();
        prop_assert_eq!(offset_index::find_by_position(count, offsets(&bytes), target), Ok(scan));
        let scan = entries.iter().filter(|e| e.relative_offset < target).count() as u32;
        prop_assert_eq!(offset_index::entries_before(count, offsets(&bytes), target), Ok(scan));

        let times: Vec<TimeEntry> = entries.iter()
            .map(|e| TimeEntry { timestamp: i64::from(e.position), relative_offset: e.relative_offset }).collect();
        let bytes: Vec<u8> = times.iter().flat_map(|e| e.encode()).collect();
        let time_at = |n| Ok::<_, Infallible>(time_index::entry_at(&bytes, n).expect("within the index"));
        prop_assert_eq!(time_index::valid_prefix(&bytes), times.len());
        let scan = times.iter().rev().find(|e| e.timestamp <= i64::from(target)).copied();
        prop_assert_eq!(time_index::find(count, time_at, i64::from(target)), Ok(scan));
        let scan = times.iter().rev().find(|e| e.relative_offset <= target).copied();
        prop_assert_eq!(time_index::find_by_offset(count, time_at, target), Ok(scan));
        let scan = times.iter().filter(|e| e.relative_offset < target).count() as u32;
        prop_assert_eq!(time_index::entries_before(count, time_at, target), Ok(scan));
    }

    #[test]
    fn whatever_the_bytes_a_valid_prefix_is_sorted(bytes in prop::collection::vec(0u8..3, 0..200)) {
        let kept = offset_index::valid_prefix(&bytes);
        prop_assert!(kept * offset_index::ENTRY_LEN <= bytes.len());
        for n in 1..kept as u32 {
            let pair = (offset_index::entry_at(&bytes, n - 1), offset_index::entry_at(&bytes, n));
            let (Some(a), Some(b)) = pair else { panic!("within the prefix") };
            prop_assert!(a.relative_offset < b.relative_offset && a.position < b.position);
        }
        let kept = transaction_index::valid_prefix(&bytes);
        prop_assert!(transaction_index::parse(&bytes[..kept * transaction_index::ENTRY_LEN]).is_ok());
    }

    /// R20: resuming from what is on disk goes on exactly where an indexer that saw everything is.
    #[test]
    fn resuming_at_any_batch_gives_the_same_bytes(
        batches in prop::collection::vec((1i32..5, 61u32..200, -1i64..50), 1..60),
        resume_after in 0usize..60,
        interval_bytes in 0u32..400,
    ) {
        let policy = IndexPolicy { interval_bytes, max_index_bytes: 10_000 };
        let mut position = 0;
        let mut offset = 1_000;
        let log: Vec<(BatchHeader, u32)> = batches.iter().map(|(records, bytes, timestamp)| {
            let placed = (header(offset, *records, *timestamp), position);
            offset += i64::from(*records);
            position += bytes;
            placed
        }).collect();
        let resume_after = resume_after.min(log.len());

        let mut through = Indexer::new(Offset(1_000), policy);
        let mut offsets_of_all = Vec::new();
        let mut times_of_all = Vec::new();
        let (mut offsets_at_cut, mut times_at_cut) = (0, 0);
        for (n, (header, position)) in log.iter().enumerate() {
            if n == resume_after {
                (offsets_at_cut, times_at_cut) = (offsets_of_all.len(), times_of_all.len());
            }
            let entries = through.on_batch(header, *position).expect("fits");
            offsets_of_all.extend(entries.offset);
            times_of_all.extend(entries.time);
        }
        if resume_after == log.len() {
            (offsets_at_cut, times_at_cut) = (offsets_of_all.len(), times_of_all.len());
        }

        let mut offsets = offsets_of_all[..offsets_at_cut].to_vec();
        let mut times = times_of_all[..times_at_cut].to_vec();
        let mut resumed = Indexer::resume(
            Offset(1_000),
            policy,
            offsets.last().map(|last| (offsets.len() as u32, *last)),
            times.last().map(|last| (times.len() as u32, *last)),
        );
        let from = offsets.last().map_or(0, |last| last.position);
        for (header, position) in log.iter().filter(|(_, position)| *position >= from) {
            let entries = resumed.on_batch(header, *position).expect("fits");
            offsets.extend(entries.offset);
            times.extend(entries.time);
        }
        prop_assert_eq!(offsets, offsets_of_all);
        prop_assert_eq!(times, times_of_all);
        prop_assert_eq!(resumed.largest_timestamp(), through.largest_timestamp());
        prop_assert_eq!(resumed.final_time_entry(), through.final_time_entry());
    }
}
