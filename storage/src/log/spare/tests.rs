//! The next segment's file: there when its turn comes, gone when nobody needs it, and never in anybody's way.

use std::sync::Arc;

use floodmark_proto::batch::{BatchBuilder, NewRecord, RecordBatch};
use floodmark_proto::ids::{LeaderEpoch, Offset};

use super::*;
use crate::clock::Clock;
use crate::config::LogConfig;
use crate::fs::sim::{Fault, FaultKind, FaultOn};
use crate::fs::{DirEntry, SimDisk};
use crate::log::append::AppendAs;
use crate::log::tail_cache::TailBudget;
use crate::log::{Log, LogContext};
use crate::producers::Origin;
use crate::random::Random;
use crate::segment::ReadLimits;

const LEADER: AppendAs = AppendAs::Leader { epoch: LeaderEpoch(0), origin: Origin::Client };
const DIR: &str = "t-0";
const SEGMENT_BYTES: u32 = 20_000;
const PIECE_BYTES: u32 = 2_000;

fn open(disk: &SimDisk) -> Log {
    open_with(disk, SEGMENT_BYTES)
}

fn open_with(disk: &SimDisk, segment_bytes: u32) -> Log {
    let context = LogContext {
        disk: Arc::new(disk.clone()),
        clock: Clock::manual(1_000),
        random: Random::seeded(1),
        tail_budget: TailBudget::new(0),
    };
    let config = LogConfig { segment_bytes, prewrite_bytes: PIECE_BYTES, ..LogConfig::default() };
    Log::open(context, Path::new(DIR), config).unwrap().0
}

fn batch() -> RecordBatch {
    batch_of(400)
}

fn batch_of(bytes: usize) -> RecordBatch {
    let mut builder = BatchBuilder::new();
    let value = vec![7; bytes];
    builder.push(&NewRecord { timestamp: 1, key: None, value: Some(&value), headers: &[] }).unwrap();
    builder.build().unwrap()
}

/// Appends until the active segment holds `bytes`, and writes what zeros are due after each batch.
fn fill_to(log: &mut Log, bytes: u64) {
    while log.active.position < bytes {
        append(log);
    }
}

fn append(log: &mut Log) {
    log.append([batch()], LEADER).unwrap()[0].as_ref().unwrap();
    while let Some(job) = log.prewrite_job() {
        job.run().unwrap();
    }
}

fn roll(log: &mut Log) {
    let base = log.active.segment.base;
    while log.active.segment.base == base {
        append(log);
    }
}

fn files(disk: &SimDisk, ending: &str) -> Vec<DirEntry> {
    let all = disk.list(Path::new(DIR)).unwrap().into_iter();
    all.filter(|entry| entry.name.ends_with(ending)).collect()
}

fn spare_bytes(disk: &SimDisk) -> Option<u64> {
    files(disk, TEMPORARY).first().map(|entry| entry.bytes)
}

fn offsets(log: &Log) -> Vec<i64> {
    let (reader, mut found) = (log.reader(), Vec::new());
    let mut from = reader.start();
    let limits = ReadLimits { max_bytes: 1, below: Offset::MAX };
    while let Some(piece) = reader.read(from, limits).unwrap().first() {
        let header = floodmark_proto::batch::BatchHeader::parse(piece).unwrap();
        found.push(header.base_offset.0);
        from = header.next_offset();
    }
    found
}

#[test]
fn a_log_that_fills_its_segments_finds_the_next_file_full_of_zeros() {
    let disk = SimDisk::new();
    let mut log = open(&disk);
    fill_to(&mut log, u64::from(SEGMENT_BYTES) / 2);
    assert_eq!(spare_bytes(&disk), None, "most logs never fill a segment");
    for segments in 1..4 {
        roll(&mut log);
        let data = files(&disk, ".log");
        assert_eq!(data.len(), segments + 1);
        let zeros = data[segments].bytes;
        assert!(zeros > u64::from(SEGMENT_BYTES) / 4 * 3, "segment {segments} began with {zeros} bytes");
        assert!(data[segments - 1].bytes < u64::from(SEGMENT_BYTES), "trimmed where its batches end");
        fill_to(&mut log, u64::from(SEGMENT_BYTES) / 2);
        let spare = spare_bytes(&disk).unwrap();
        assert!(spare <= log.active.position + u64::from(PIECE_BYTES), "{spare}: no faster than the log");
    }
    let (end, expected) = (log.end().0, offsets(&log));
    assert_eq!(expected, (0..end).collect::<Vec<_>>());
    log.sync().unwrap();
    let again = open(&disk.image().power_cut(1));
    assert_eq!(offsets(&again), expected);
}

#[test]
fn a_log_whose_syncs_are_large_gets_no_zeros() {
    let disk = SimDisk::new();
    let mut log = open_with(&disk, 64 << 20);
    for _ in 0..5 {
        log.append([batch_of(1 << 20)], LEADER).unwrap()[0].as_ref().unwrap();
        log.sync().unwrap();
        assert!(!log.is_tending_due() && log.prewrite_job().is_none());
    }
    assert_eq!(files(&disk, ".log")[0].bytes, log.active.position);
    for _ in 0..10 {
        log.append([batch()], LEADER).unwrap()[0].as_ref().unwrap();
        log.sync().unwrap();
    }
    append(&mut log);
    assert!(files(&disk, ".log")[0].bytes > log.active.position, "they are small again");
}

#[test]
fn whoever_does_not_need_it_gives_its_space_back() {
    let busy = || {
        let disk = SimDisk::new();
        let mut log = open(&disk);
        roll(&mut log);
        fill_to(&mut log, u64::from(SEGMENT_BYTES) / 2);
        assert!(spare_bytes(&disk).is_some());
        (disk, log)
    };
    let (disk, log) = busy();
    log.close().unwrap();
    assert_eq!(spare_bytes(&disk), None, "closed");
    let (disk, mut log) = busy();
    log.sync().unwrap();
    log.release_idle();
    assert_eq!(spare_bytes(&disk), None, "idle");
    append(&mut log);
    let (disk, log) = busy();
    let end = log.end();
    drop(log);
    let log = open(&disk);
    assert_eq!((spare_bytes(&disk), log.end()), (None, end), "killed and opened again");
}

#[test]
fn a_disk_with_little_room_keeps_it_for_the_log() {
    let disk = SimDisk::new();
    let mut log = open(&disk);
    roll(&mut log);
    fill_to(&mut log, u64::from(SEGMENT_BYTES) / 2);
    let spare = spare_bytes(&disk).unwrap();
    // Less than a segment beside the zeros.
    let used: u64 = files(&disk, "").iter().map(|entry| entry.bytes).sum();
    disk.limit_capacity(used + u64::from(SEGMENT_BYTES) / 2);
    roll(&mut log);
    let bytes = files(&disk, ".log").last().unwrap().bytes;
    assert!(bytes < u64::from(SEGMENT_BYTES), "{bytes}: zeros of its own, a piece at a time; {spare}");
    assert_eq!(offsets(&log), (0..log.end().0).collect::<Vec<_>>());
}

#[test]
fn zeros_that_failed_are_not_built_upon() {
    let disk = SimDisk::new();
    let mut log = open(&disk);
    roll(&mut log);
    while log.spare.due(log.spare_need()).is_none() {
        log.append([batch()], LEADER).unwrap()[0].as_ref().unwrap();
    }
    disk.inject(Fault {
        on: FaultOn::Sync,
        path_ends: TEMPORARY.into(),
        after: 0,
        times: 1,
        kind: FaultKind::Eio,
    });
    assert!(log.prewrite_job().unwrap().run().is_err());
    assert_eq!(disk.faults_taken(), 1);
    roll(&mut log);
    log.sync().unwrap();
    let end = log.end().0;
    assert_eq!(offsets(&open(&disk.image().power_cut(3))), (0..end).collect::<Vec<_>>());
}
