//! The log through its public face, on a simulated disk.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use floodmark_proto::batch::{BatchBuilder, BatchHeader, NewRecord, RecordBatch};
use floodmark_proto::ids::{LeaderEpoch, Offset, ProducerId};

use super::append::AppendAs;
use super::sync::CHECKPOINT_INTERVALS_MAX;
use super::*;
use crate::clock::Stopwatch;
use crate::config::FlushPolicy;
use crate::fs::SimDisk;
use crate::fs::sim::{Fault, FaultKind, FaultOn};
use crate::group_commit::{DiskThreads, GroupCommit, Owner};
use crate::producers::Origin;
use crate::segment::ReadLimits;
use crate::segment::name::FileKind;

const LEADER: AppendAs = AppendAs::Leader { epoch: LeaderEpoch(3), origin: Origin::Client };
const ALL: ReadLimits = ReadLimits { max_bytes: 1 << 20, below: Offset::MAX };

fn context(disk: &SimDisk, tail_bytes: u64) -> LogContext {
    LogContext {
        disk: Arc::new(disk.clone()),
        clock: Clock::manual(1_000),
        random: Random::seeded(1),
        tail_budget: TailBudget::new(tail_bytes),
    }
}

fn small() -> LogConfig {
    LogConfig { segment_bytes: 2_000, index_interval_bytes: 200, prewrite_bytes: 0, ..LogConfig::default() }
}

fn batch(timestamp: i64, records: usize) -> RecordBatch {
    let mut builder = BatchBuilder::new();
    for n in 0..records {
        let value = format!("value {timestamp} {n}");
        let record = NewRecord {
            timestamp: timestamp + n as i64,
            key: Some(b"key"),
            value: Some(value.as_bytes()),
            headers: &[],
        };
        builder.push(&record).unwrap();
    }
    builder.build().unwrap()
}

fn open(disk: &SimDisk, tail_bytes: u64) -> (Log, recovery::RecoveryReport) {
    // A log answers for its own directory's name; the one above is its data directory's business.
    disk.create_dir_all(Path::new("logs")).unwrap();
    disk.sync_dir(Path::new("."), SyncPoint::DataDirCreated).unwrap();
    Log::open(context(disk, tail_bytes), Path::new("logs/t-0"), small()).unwrap()
}

/// Base offsets and record counts of everything readable.
fn read_all(reader: &LogReader) -> Vec<(i64, i32)> {
    let mut found = Vec::new();
    let mut from = reader.start();
    loop {
        let pieces = reader.read(from, ALL).unwrap();
        if pieces.is_empty() {
            return found;
        }
        for piece in pieces {
            let mut rest = &piece[..];
            while !rest.is_empty() {
                let header = BatchHeader::parse(rest).unwrap();
                found.push((header.base_offset.0, header.record_count));
                from = header.next_offset();
                rest = &rest[header.size_bytes()..];
            }
        }
    }
}

fn fill(log: &mut Log, batches: i64) {
    for n in 0..batches {
        let outcomes = log.append([batch(log.end().0 * 10 + n, 1 + n as usize % 3)], LEADER).unwrap();
        assert!(outcomes[0].is_ok(), "{outcomes:?}");
    }
}

#[test]
fn what_is_appended_is_read_across_segments_with_and_without_the_tail() {
    for tail_bytes in [0, 1_000, 1 << 20] {
        let disk = SimDisk::new();
        let (mut log, report) = open(&disk, tail_bytes);
        assert!(report.was_new);
        fill(&mut log, 100);
        assert!(log.segments().len() > 3, "{}", log.segments().len());
        let before = read_all(&log.reader());
        assert_eq!(before.len(), 100);
        log.sync().unwrap();
        assert_eq!(read_all(&log.reader()), before);
        log.close().unwrap();
        let (log, report) = open(&disk, tail_bytes);
        assert!(report.was_clean, "{report:?}");
        assert_eq!(read_all(&log.reader()), before);
        assert_eq!(disk.violations(), Vec::<String>::new());
    }
}

#[test]
fn an_unclosed_log_is_scanned_from_its_recovery_point_only() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, 0);
    fill(&mut log, 50);
    log.checkpoint().unwrap();
    let durable = log.reader().size_bytes();
    fill(&mut log, 50);
    log.sync().unwrap();
    let before = read_all(&log.reader());
    let all = log.reader().size_bytes();
    drop(log);
    let (log, report) = open(&disk, 0);
    assert!(!report.was_clean);
    assert_eq!(report.scanned_bytes, all - durable);
    assert_eq!((report.cut_bytes, report.producers_replayed_from), (0, None));
    assert_eq!(read_all(&log.reader()), before);
}

/// Fails when a part of a group is shown before all of it is written: where the rest finds no space the part is taken back, and a follower
/// that had copied it would hold other records than this log, under the same epoch.
#[test]
fn nothing_of_a_group_is_seen_before_all_of_it_is_written() {
    for tail_bytes in [0, 1 << 20] {
        let disk = SimDisk::new();
        let (mut log, _) = open(&disk, tail_bytes);
        fill(&mut log, 5);
        let (reader, before) = (log.reader(), read_all(&log.reader()));
        let (end, segments) = (log.end(), log.segments().len());
        // Made when the ones before it are accepted, and written as far as segments were rolled for them.
        let next = |n: i64| {
            assert_eq!((reader.end(), read_all(&reader)), (end, before.clone()), "batch {n}");
            batch(n, 1)
        };
        disk.inject(Fault {
            on: FaultOn::Open,
            path_ends: ".log".to_owned(),
            after: 2,
            times: 1,
            kind: FaultKind::NoSpace,
        });
        let refused = log.append((0..100).map(&next), LEADER);
        assert!(matches!(refused, Err(LogError::Full { .. })), "{refused:?}");
        assert_eq!((disk.faults_taken(), reader.end(), read_all(&reader)), (1, end, before.clone()));
        assert!(log.append((0..100).map(&next), LEADER).unwrap().iter().all(Result::is_ok));
        assert!(log.segments().len() > segments + 2, "{}", log.segments().len());
        assert_eq!((reader.end(), read_all(&reader).len()), (log.end(), before.len() + 100));
    }
}

#[test]
fn what_is_written_and_not_published_is_not_read() {
    for tail_bytes in [0, 1 << 20] {
        let disk = SimDisk::new();
        let (mut log, _) = open(&disk, tail_bytes);
        fill(&mut log, 30);
        let all = read_all(&log.reader());
        // As a reader finds it that comes between the write and the new end.
        for shown in 0..all.len() {
            let (base, records) = all[shown];
            log.shared.end.store(base, Ordering::Release);
            assert_eq!(
                read_all(&log.reader()),
                all[..shown],
                "tail of {tail_bytes}, end {base} of {records}"
            );
        }
    }
}

#[test]
fn truncation_cuts_at_batch_boundaries_and_survives_reopening() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, 1 << 20);
    fill(&mut log, 100);
    log.sync().unwrap();
    let all = read_all(&log.reader());
    for cut in [150, 99, 98, 51, 20, 1] {
        let end = log.truncate_to(Offset(cut)).unwrap();
        let expected: Vec<_> = all.iter().copied().filter(|(base, n)| base + i64::from(*n) <= cut).collect();
        let last = expected.last().map_or(0, |(base, n)| base + i64::from(*n));
        assert_eq!((end.0, log.end().0), (last, last), "cut at {cut}");
        assert_eq!(read_all(&log.reader()), expected);
        log.close().unwrap();
        log = open(&disk, 1 << 20).0;
        assert_eq!(read_all(&log.reader()), expected);
    }
    fill(&mut log, 10);
    assert!(log.reader().read(Offset(500), ALL).unwrap_err().to_string().contains("outside"));
    log.reset_to(Offset(1_000)).unwrap();
    fill(&mut log, 3);
    drop(log);
    let (log, _) = open(&disk, 0);
    assert_eq!(read_all(&log.reader()), [(1_000, 1), (1_001, 2), (1_003, 3)]);
    assert_eq!(disk.violations(), Vec::<String>::new());
}

#[test]
fn the_head_goes_segment_by_segment_and_never_past_the_watermark() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, 0);
    fill(&mut log, 100);
    assert!(matches!(log.delete_before(Offset(5)), Err(LogError::OutOfRange { .. })));
    log.on_high_watermark(log.end());
    log.delete_before(Offset(100)).unwrap();
    assert_eq!(log.start(), Offset(100));
    assert!(log.reader().read(Offset(99), ALL).is_err());
    let kept = read_all(&log.reader());
    assert!(kept[0].0 <= 100 && kept[0].0 + i64::from(kept[0].1) > 100);
    let end = log.end();
    drop(log);
    let (mut log, _) = open(&disk, 0);
    assert_eq!((log.start(), log.end(), read_all(&log.reader())), (Offset(100), end, kept));
    log.on_high_watermark(end);
    log.delete_before(end).unwrap();
    assert_eq!((log.start(), log.end(), log.segments().len()), (end, end, 1));
    fill(&mut log, 2);
    assert_eq!(read_all(&log.reader()).len(), 2);
}

#[test]
fn times_are_found_inside_batches_and_out_of_order() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, 0);
    for timestamp in [100, 300, 200, 900, 400] {
        log.append([batch(timestamp, 3)], LEADER).unwrap();
    }
    let reader = log.reader();
    let at = |t| reader.first_at_or_after(t).unwrap().map(|f| (f.offset.0, f.timestamp));
    assert_eq!(at(0), Some((0, 100)));
    assert_eq!(at(101), Some((1, 101)));
    assert_eq!(at(103), Some((3, 300)));
    assert_eq!(at(303), Some((9, 900)));
    assert_eq!(at(903), None);
    assert_eq!(reader.largest_timestamp().unwrap().map(|f| f.offset.0), Some(11));
}

#[test]
fn a_retry_is_answered_with_its_first_offset_across_restarts() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, 0);
    let from_producer = |sequence| {
        let mut builder = BatchBuilder::new().producer(ProducerId(7), 0, sequence);
        let record = NewRecord { timestamp: 5, key: None, value: Some(b"v"), headers: &[] };
        builder.push(&record).unwrap();
        builder.build().unwrap()
    };
    for sequence in 0..3 {
        log.append([from_producer(sequence)], LEADER).unwrap();
    }
    for reopen in ["live", "crash", "clean"] {
        let outcomes = log.append([from_producer(2)], LEADER).unwrap();
        let appended = outcomes[0].clone().unwrap();
        assert!(appended.is_duplicate && appended.base_offset == Offset(2), "{reopen}: {appended:?}");
        assert!(log.append([from_producer(9)], LEADER).unwrap()[0].is_err());
        if reopen == "live" {
            drop(log);
        } else {
            log.close().unwrap();
        }
        log = open(&disk, 0).0;
    }
}

#[test]
fn a_sync_that_overtakes_another_claims_nothing_for_it() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, 0);
    fill(&mut log, 30);
    // The first begins and is slow; the second begins later, finds the same bytes unsynced, and ends first.
    let slow = log.begin_checkpoint().unwrap();
    let quick = log.begin_sync().unwrap();
    let outcome = quick.run();
    log.finish_sync(quick, outcome).unwrap();
    let durable = log.durable();
    assert_eq!(durable, log.end());
    let image = disk.image();
    for seed in 0..100 {
        let after = image.power_cut(seed);
        assert!(open(&after, 0).0.end() >= durable, "seed {seed}");
    }
    fill(&mut log, 5);
    let outcome = slow.run();
    log.finish_sync(slow, outcome).unwrap();
    assert!(log.durable() < log.end());
}

#[test]
fn segments_roll_by_size_by_time_by_index_and_by_the_reach_of_an_index() {
    let rolls = |config: LogConfig, timestamps: &[i64]| {
        let disk = SimDisk::new();
        disk.create_dir_all(Path::new("logs")).unwrap();
        let mut log = Log::open(context(&disk, 0), Path::new("logs/t-0"), config).unwrap().0;
        for timestamp in timestamps {
            log.append([batch(*timestamp, 1)], LEADER).unwrap()[0].clone().unwrap();
        }
        log.segments().iter().map(|s| s.base.0).collect::<Vec<_>>()
    };
    let large = LogConfig { prewrite_bytes: 0, ..LogConfig::default() };
    let size = batch(0, 1).size_bytes() as u32;
    let two_fit = LogConfig { segment_bytes: size * 2 + size / 2, ..large.clone() };
    assert_eq!(rolls(two_fit, &[0; 5]), [0, 2, 4]);
    let a_second = LogConfig { segment_ms: 1_000, ..large.clone() };
    assert_eq!(rolls(a_second, &[5, 1_005, 1_006, 2_006, 2_007]), [0, 2, 4]);
    // Two entries fit the time index beside the last one; every batch after the first gets one.
    let small_index = LogConfig { index_interval_bytes: 1, segment_index_bytes: 36, ..large.clone() };
    assert_eq!(rolls(small_index, &[1, 2, 3, 4, 5, 6]), [0, 3]);
    assert_eq!(rolls(large, &[1, 2, 3, 4, 5, 6]), [0]);
}

#[test]
fn a_gap_larger_than_an_index_can_name_begins_a_segment() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, 0);
    for base in [0, 5, 5 + (1 << 31), 6 + (1 << 33)] {
        let mut copied = batch(base, 1);
        copied.stamp(Offset(base), LeaderEpoch(1));
        log.append([copied], AppendAs::Replica).unwrap()[0].clone().unwrap();
    }
    assert_eq!(log.segments().iter().map(|s| s.base.0).collect::<Vec<_>>(), [0, 6, 6 + (1 << 33)]);
    let before = read_all(&log.reader());
    drop(log);
    let (log, report) = open(&disk, 0);
    assert_eq!((read_all(&log.reader()), report.cut_bytes), (before, 0));
}

#[test]
fn what_somebody_lacks_is_told_in_bytes() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, 0);
    let sizes: Vec<u64> = (0..120)
        .map(|n| {
            let batch = batch(n, 1 + n as usize % 3);
            let size = batch.size_bytes() as u64;
            log.append([batch], LEADER).unwrap()[0].clone().unwrap();
            size
        })
        .collect();
    assert!(log.segments().len() > 3);
    let reader = log.reader();
    let mut base = 0;
    for (n, _) in sizes.iter().enumerate() {
        let expected: u64 = sizes[n..].iter().sum();
        assert_eq!(reader.bytes_from(Offset(base)), expected, "from {base}");
        base += 1 + n as i64 % 3;
    }
    assert_eq!(Offset(base), log.end());
    assert_eq!((reader.bytes_from(log.end()), reader.bytes_from(Offset::MAX)), (0, 0));
}

#[test]
fn retention_takes_old_and_surplus_segments_but_nothing_uncommitted() {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("logs")).unwrap();
    let context = context(&disk, 0);
    let clock = context.clock.clone();
    let config = LogConfig { retention_ms: 10_000, ..small() };
    let mut log = Log::open(context, Path::new("logs/t-0"), config.clone()).unwrap().0;
    for n in 0..60 {
        log.append([batch(1_000 + n * 100, 1)], LEADER).unwrap();
    }
    clock.advance_ms(12_500);
    assert_eq!(log.apply_retention().unwrap(), [], "nothing is committed yet");
    log.on_high_watermark(log.end());
    let gone = log.apply_retention().unwrap();
    assert!(!gone.is_empty() && log.start() > Offset(0));
    let oldest = log.reader().first_at_or_after(0).unwrap().unwrap();
    assert_eq!(oldest.offset, log.start());
    let bytes = log.reader().size_bytes();
    log.set_config(LogConfig { retention_ms: -1, retention_bytes: bytes as i64 / 3, ..config });
    assert!(!log.apply_retention().unwrap().is_empty());
    assert!(log.reader().size_bytes() >= bytes / 3);
    // Everything is old: the segment being written goes too, and the log goes on where it was.
    log.set_config(LogConfig { retention_ms: 1, ..small() });
    clock.advance_ms(1_000_000);
    let end = log.end();
    log.apply_retention().unwrap();
    assert_eq!((log.start(), log.end(), log.reader().size_bytes()), (end, end, 0));
    drop(log);
    assert_eq!(open(&disk, 0).0.end(), end);
}

#[test]
fn a_flush_is_due_by_records_or_by_age() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, 0);
    let by_records = FlushPolicy { records: Some(3), interval: None };
    log.set_config(LogConfig { flush: by_records, ..small() });
    let mut due = Vec::new();
    for _ in 0..4 {
        log.append([batch(0, 1)], LEADER).unwrap();
        due.push(log.is_flush_due());
        if log.is_flush_due() {
            log.sync().unwrap();
        }
    }
    assert_eq!(due, [false, false, true, false]);
    log.set_config(LogConfig {
        flush: FlushPolicy { records: None, interval: Some(Duration::ZERO) },
        ..small()
    });
    assert!(log.is_flush_due());
    log.sync().unwrap();
    assert!(!log.is_flush_due());
}

#[test]
fn without_a_manifest_a_flipped_offset_costs_no_segment() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, 0);
    fill(&mut log, 100);
    log.close().unwrap();
    disk.remove_file(Path::new("logs/t-0/log.manifest")).unwrap();
    // The offset lies outside the checksum: the batch at the start now claims to be far behind those that follow.
    disk.flip_bit(Path::new("logs/t-0/00000000000000000000.log"), 5, 0);
    let segments = |disk: &SimDisk| {
        disk.files().into_keys().filter(|p| p.extension().is_some_and(|e| e == "log")).count()
    };
    let before = segments(&disk);
    let error = Log::open(context(&disk, 0), Path::new("logs/t-0"), small()).unwrap_err();
    assert!(matches!(error, LogError::Damaged { .. }), "{error}");
    assert_eq!(segments(&disk), before);
}

#[test]
fn an_offset_before_the_first_one_is_the_first_one() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, 0);
    fill(&mut log, 5);
    assert_eq!(log.truncate_to(Offset(-7)).unwrap(), Offset(0));
    drop(log);
    assert_eq!(open(&disk, 0).0.end(), Offset(0));
}

/// Fails when a read without a disk gives anything but what a read gives, or is to be had only from the tail.
#[test]
fn a_reader_that_comes_back_needs_no_disk() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, 0);
    fill(&mut log, 100);
    // What is sealed is mapped from now on; the last segment is not.
    log.sync().unwrap();
    disk.keep_all_at_hand();
    let (reader, few) = (log.reader(), ReadLimits { max_bytes: 400, below: Offset::MAX });
    assert!(reader.read_at_hand(Offset(0), few).is_none(), "nobody has read up to there");
    let (mut from, mut reads, mut at_hand) = (Offset(0), 0, 0);
    while from < log.end() {
        let without = reader.read_at_hand(from, few);
        let read = reader.read(from, few).unwrap();
        reads += 1;
        if let Some(batches) = without {
            assert_eq!(batches, read[0]);
            at_hand += 1;
        }
        let before = (from, reader.read_at_hand(from, ReadLimits { below: from, ..few }));
        assert_eq!(before.1, None, "{} is not below {}", before.0, before.0);
        assert_eq!(reader.read_at_hand(from, ReadLimits { max_bytes: 10, ..few }), None, "a batch is larger");
        let last = whole_headers(&read[0]).pop().unwrap();
        from = last.next_offset();
    }
    assert_eq!(at_hand, reads - log.segments().len(), "each segment is begun by its index");
    assert!(at_hand > 20, "{at_hand}");
    assert_eq!(reader.read_at_hand(log.end(), few), None);
}

/// Fails when what is there in part is taken for all of it.
#[test]
fn a_read_that_finds_part_of_what_it_needs_in_memory_is_left_to_one_that_may_wait() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, 0);
    fill(&mut log, 5);
    let reader = log.reader();
    assert_eq!(log.segments().len(), 1, "only the segment that is written is read from its file");
    let (mut found, mut left) = (0, 0);
    for round in 0..300 {
        let few = ReadLimits { max_bytes: 100 + round, below: Offset::MAX };
        let mut from = Offset(0);
        while from < log.end() {
            let at_hand = reader.read_at_hand(from, few);
            let read = reader.read(from, few).unwrap();
            match at_hand {
                Some(batches) => {
                    assert_eq!(batches, read[0]);
                    found += 1;
                }
                None => left += 1,
            }
            from = whole_headers(&read[0]).pop().unwrap().next_offset();
        }
    }
    assert!(found > 50 && left > 50, "{found} were found, {left} were not");
}

/// Fails when one of the ways to read what is newest, or to wait for it, does not count as asking for it.
#[test]
fn who_asks_for_the_newest_finds_what_comes_next_in_memory() {
    type Ask = fn(&LogReader, Offset);
    let asks: [(&str, Ask, bool); 5] = [
        ("waits", |reader, end| assert!(reader.read_in_memory(end, ALL).unwrap().unwrap().is_empty()), true),
        ("waits for a disk", |reader, end| assert!(reader.read(end, ALL).unwrap().is_empty()), true),
        ("reads", |reader, end| assert!(!reader.read(Offset(end.0 - 1), ALL).unwrap().is_empty()), true),
        ("goes on", |reader, end| assert!(reader.read_at_hand(Offset(end.0 - 1), ALL).is_none()), true),
        ("reads what is old", |reader, _| assert!(!reader.read(Offset(0), ALL).unwrap().is_empty()), false),
    ];
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, 1_000);
    let reader = log.reader();
    for (name, ask, is_kept) in asks {
        fill(&mut log, 100);
        let end = log.end();
        assert!(reader.read_in_memory(Offset(end.0 - 1), ALL).unwrap().is_none(), "{name}: nobody asked");
        ask(&reader, end);
        fill(&mut log, 1);
        assert_eq!(reader.read_in_memory(end, ALL).unwrap().is_some(), is_kept, "{name}");
    }
}

fn whole_headers(mut bytes: &[u8]) -> Vec<BatchHeader> {
    let mut headers = Vec::new();
    while !bytes.is_empty() {
        let header = BatchHeader::parse(bytes).unwrap();
        bytes = &bytes[header.size_bytes()..];
        headers.push(header);
    }
    headers
}

#[test]
fn what_is_old_to_others_is_not_kept_in_memory_and_has_no_zeros_ahead() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, 100_000);
    log.set_config(LogConfig { segment_bytes: 1 << 20, prewrite_bytes: 64 << 10, ..small() });
    let reader = log.reader();
    let in_memory = |from| reader.read_in_memory(Offset(from), ALL).unwrap().is_some();
    fill(&mut log, 200);
    assert!(in_memory(0));
    let end = log.end().0;
    log.set_behind(true);
    assert!(!in_memory(0) && !in_memory(end - 1), "what is in memory ends where the log does");
    let before = log.bytes_to_sync();
    fill(&mut log, 20);
    let behind_end = log.end().0;
    assert!(log.bytes_to_sync() > before && !in_memory(end) && log.prewrite_job().is_none());
    log.sync().unwrap();
    assert_eq!(log.bytes_to_sync(), 0);
    log.set_behind(false);
    fill(&mut log, 20);
    assert!(!in_memory(behind_end - 1) && in_memory(behind_end));
    assert!(log.prewrite_job().is_some());
    let read: i64 = read_all(&reader).iter().map(|(_, records)| i64::from(*records)).sum();
    assert_eq!(read, log.end().0);
}

fn large_batch() -> RecordBatch {
    let value = vec![1; 1 << 20];
    let mut builder = BatchBuilder::new();
    builder.push(&NewRecord { timestamp: 1, key: None, value: Some(&value), headers: &[] }).unwrap();
    builder.build().unwrap()
}

#[test]
fn where_much_comes_the_recovery_point_moves_once_in_a_moment_and_is_not_left_behind() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, 0);
    let config = LogConfig { segment_bytes: 1 << 30, checkpoint_interval_bytes: 1 << 20, ..small() };
    log.set_config(config);
    let append = |log: &mut Log| {
        log.append([large_batch()], LEADER).unwrap()[0].as_ref().unwrap();
    };
    append(&mut log);
    assert!(log.is_checkpoint_due(), "so much as is configured");
    let count = |log: &mut Log, bytes_per_s| {
        log.pace = Pace::coming(bytes_per_s, 1_000);
        log.checkpoint().unwrap();
        let mut appended = 0;
        while !log.is_checkpoint_due() {
            append(log);
            appended += 1;
        }
        appended
    };
    assert_eq!(count(&mut log, 0), 1);
    assert_eq!(count(&mut log, 20 << 20), 5, "a quarter of a second of it");
    assert_eq!(count(&mut log, 1 << 40), CHECKPOINT_INTERVALS_MAX, "a recovery is not for ever");
    // One that is not taken, because the manifest was changed meanwhile, is due again with all that it had.
    let superseded = log.begin_checkpoint().unwrap();
    log.on_high_watermark(log.end());
    log.delete_before(Offset(1)).unwrap();
    append(&mut log);
    assert!(!log.is_checkpoint_left(), "more may come: what has come is not synced");
    log.sync().unwrap();
    let outcome = superseded.run();
    log.finish_sync(superseded, outcome).unwrap();
    assert!(log.is_checkpoint_due() && log.is_checkpoint_left());
    log.checkpoint().unwrap();
    assert_eq!((log.recovery_point(), log.is_checkpoint_left()), (log.end(), false));
}

#[test]
fn a_checkpoint_that_another_overtakes_changes_nothing_and_stops_nothing() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, 0);
    fill(&mut log, 4);
    let slow = log.begin_checkpoint().unwrap();
    fill(&mut log, 4);
    log.checkpoint().unwrap();
    let point = log.recovery_point();
    // Its producer snapshot is gone.
    let outcome = slow.run();
    log.finish_sync(slow, outcome).unwrap();
    assert_eq!(log.recovery_point(), point);
    fill(&mut log, 1);
    log.sync().unwrap();
}

#[test]
fn a_disk_thread_lets_go_of_what_has_come_in_a_flood() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, 0);
    log.set_config(LogConfig { segment_bytes: 1 << 30, ..small() });
    log.pace = Pace::in_flood(1_000);
    let log = GroupCommit::new(log, &DiskThreads::start(2).unwrap(), Owner::default());
    for _ in 0..9 {
        log.append_synced(vec![large_batch()], LEADER).unwrap();
    }
    let since = Stopwatch::start();
    while disk.let_go().is_empty() {
        assert!(since.elapsed() < Duration::from_secs(20));
        std::thread::yield_now();
    }
    assert_eq!(disk.let_go()[0].1.start, 0);
}

#[test]
fn what_comes_in_a_flood_and_is_read_by_nobody_need_not_stay_in_memory() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, 0);
    log.set_config(LogConfig { segment_bytes: 24 << 20, ..small() });
    log.pace = Pace::in_flood(1_000);
    let reader = log.reader();
    let large = large_batch();
    let append = |log: &mut Log| {
        let copy = RecordBatch::from_client(BytesMut::from(large.as_bytes()), usize::MAX).unwrap();
        log.append([copy], LEADER).unwrap()[0].as_ref().unwrap();
        log.active.position
    };
    let mut written = 0;
    let mut due = |log: &mut Log, appends| {
        for _ in 0..appends {
            written = append(log);
            log.sync().unwrap();
        }
        // What is not synced is no part of it.
        append(log);
        let is_due = log.is_tending_due();
        let job = log.let_go_job();
        assert_eq!(is_due, job.is_some());
        if let Some(job) = job {
            job.run();
        }
        is_due.then_some(written)
    };
    let first = due(&mut log, 9).unwrap();
    let path = log.active.segment.path(FileKind::Data);
    assert_eq!(disk.let_go(), [(path.clone(), 0..first)]);
    let second = due(&mut log, 9).unwrap();
    assert_eq!(disk.let_go()[1..], [(path.clone(), first..second)]);
    // The end of that segment is left, and the next one begins anew.
    let third = due(&mut log, 14).unwrap();
    let next = log.active.segment.path(FileKind::Data);
    assert!(next != path);
    assert_eq!(disk.let_go()[2..], [(next.clone(), 0..third)]);
    // What was cut off and comes again is counted from the front.
    log.truncate_to(Offset(26)).unwrap();
    let fourth = due(&mut log, 9).unwrap();
    assert_eq!(disk.let_go()[3..], [(next, 0..fourth)]);
    // Who waits at the end gets what comes from memory, so he changes nothing.
    assert!(reader.read(reader.end(), ALL).unwrap().is_empty());
    assert!(log.pace.outruns_memory());
    let batches = reader.read(Offset(0), ALL).unwrap();
    assert!(batches[0][..].ends_with(&large.as_bytes()[61..]), "what was let go of is there");
    assert_eq!(due(&mut log, 9), None);
}
