//! A page that the disk cannot deliver ends neither the process nor anybody else's reading. Files are shortened beneath their
//! maps, which gives the same signal as a bad sector.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test, and one that damages files behind the engine's back"
)]

use std::fs::OpenOptions;
use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

use floodmark_proto::batch::{BatchBuilder, NewRecord};
use floodmark_proto::ids::{LeaderEpoch, Offset};
use floodmark_storage::clock::Clock;
use floodmark_storage::compaction::choose::CompactWhen;
use floodmark_storage::fs::{Disk, OpenMode, RealDisk, SyncPoint, write_all_at};
use floodmark_storage::log::append::AppendAs;
use floodmark_storage::log::{CompactionControl, Log, LogContext};
use floodmark_storage::producers::Origin;
use floodmark_storage::random::Random;
use floodmark_storage::{CompactionConfig, LogConfig, LogError, ReadLimits, TailBudget};

const PAGE: usize = 4096;

fn shorten(path: &Path, bytes: u64) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(bytes).unwrap();
}

#[test]
fn touching_a_lost_page_reads_zeros_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let make = |name: &str| {
        let path = dir.path().join(name);
        let file = RealDisk.open(&path, OpenMode::Create).unwrap();
        write_all_at(&*file, &mut [IoSlice::new(&[7; 4 * PAGE])], 0).unwrap();
        file.sync(SyncPoint::AppendData).unwrap();
        (path, file.map(4 * PAGE as u64).unwrap())
    };
    let ((lost, map), (_, healthy)) = (make("lost"), make("healthy"));
    shorten(&lost, PAGE as u64);
    let bytes: &[u8] = map.as_ref();
    assert!(map.check().is_ok());
    assert_eq!((bytes[0], bytes[2 * PAGE + 5], bytes[4 * PAGE - 1]), (7, 0, 0));
    assert!(map.check().is_err());
    assert!(map.populate(0..4 * PAGE).is_err());
    let bytes: &[u8] = healthy.as_ref();
    assert!(bytes.iter().all(|b| *b == 7) && healthy.check().is_ok());
    // The guard of a map that is gone serves the next one, clean.
    drop(map);
    let (_, next) = make("next");
    assert!(next.check().is_ok());
}

/// Fails when a file's bytes that are in memory must be waited for, or others are given than lie there.
#[test]
fn what_was_just_written_is_at_hand() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = RealDisk.open(&dir.path().join("file"), OpenMode::Create).unwrap();
    let written: Vec<u8> = (0..3 * PAGE).map(|n| n as u8 ^ (n / PAGE) as u8).collect();
    write_all_at(&*file, &mut [IoSlice::new(&written)], 0).unwrap();
    let mut read = vec![0; PAGE];
    let at_hand = file.read_at_hand(&mut read, PAGE as u64 + 9);
    if at_hand.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::Unsupported) {
        eprintln!("skipped: this file system cannot tell what it has in memory");
        return;
    }
    assert_eq!(at_hand.unwrap(), PAGE);
    assert_eq!(read, written[PAGE + 9..2 * PAGE + 9]);
    assert_eq!(file.read_at_hand(&mut read, 3 * PAGE as u64 - 9).unwrap(), 9);
    assert_eq!(file.read_at_hand(&mut read, 3 * PAGE as u64).unwrap(), 0);
}

#[test]
fn populating_reports_a_lost_page_before_anybody_touches_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let file = RealDisk.open(&path, OpenMode::Create).unwrap();
    write_all_at(&*file, &mut [IoSlice::new(&[7; 4 * PAGE])], 0).unwrap();
    let map = file.map(4 * PAGE as u64).unwrap();
    assert!(map.populate(0..2 * PAGE).is_ok());
    shorten(&path, 0);
    assert!(map.populate(PAGE..2 * PAGE).is_err());
    assert!(map.check().is_ok(), "no page was touched, so none is marked");
}

fn filled_log(dir: &Path) -> Log {
    let context = LogContext {
        disk: Arc::new(RealDisk),
        clock: Clock::System,
        random: Random::seeded(1),
        tail_budget: TailBudget::new(0),
    };
    let compaction = Some(CompactionConfig::default());
    let config = LogConfig { segment_bytes: 64 << 10, prewrite_bytes: 0, compaction, ..LogConfig::default() };
    let (mut log, _) = Log::open(context, dir, config).unwrap();
    for n in 0..100 {
        let mut builder = BatchBuilder::new();
        let (key, value) = ([(n % 10) as u8], [n as u8; 4000]);
        let record = NewRecord { timestamp: n, key: Some(&key), value: Some(&value), headers: &[] };
        builder.push(&record).unwrap();
        let leader = AppendAs::Leader { epoch: LeaderEpoch(0), origin: Origin::Client };
        log.append([builder.build().unwrap()], leader).unwrap();
    }
    log.sync().unwrap();
    log
}

#[test]
fn a_damaged_log_answers_with_an_error_and_its_neighbour_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let damaged = filled_log(&dir.path().join("damaged-0"));
    let healthy = filled_log(&dir.path().join("healthy-0"));
    let limits = ReadLimits { max_bytes: 64 << 10, below: Offset::MAX };
    let handed_out = damaged.reader().read(Offset(0), limits).unwrap();
    shorten(&dir.path().join("damaged-0/00000000000000000000.log"), 0);
    let error = damaged.reader().read(Offset(0), limits).unwrap_err();
    assert!(matches!(error, LogError::Io { .. } | LogError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("00000000000000000000.log"), "{error}");
    // Bytes handed out earlier are zeros now, which no checksum accepts; the process lives.
    let stale: usize = handed_out.iter().map(|b| b.iter().filter(|b| **b != 0).count()).sum();
    assert_eq!(stale, 0);
    let mut from = Offset(0);
    while from < healthy.end() {
        let pieces = healthy.reader().read(from, limits).unwrap();
        let bytes: usize = pieces.iter().map(|b| b.len()).sum();
        from = from + (bytes / 4000) as i64;
    }
    // Other segments of the damaged log are readable still.
    assert!(!damaged.reader().read(Offset(50), limits).unwrap().is_empty());
}

#[test]
fn cleaning_ends_at_a_lost_page_and_leaves_the_segment_alone() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("damaged-0");
    let mut log = filled_log(&dir);
    log.on_high_watermark(log.end());
    log.checkpoint().unwrap();
    let mut pass = log.begin_compaction(CompactWhen::Asked, CompactionControl::default()).unwrap().unwrap();
    // All segments have been read for their keys by then, and are mapped.
    let first = pass.clean_next().unwrap().unwrap();
    let lost = dir.join("00000000000000000032.log");
    let bytes = std::fs::metadata(&lost).unwrap().len();
    shorten(&lost, bytes / 2);
    log.install_cleaned(&mut pass, first).unwrap();
    let error = loop {
        match pass.clean_next() {
            Ok(Some(group)) => log.install_cleaned(&mut pass, group).unwrap(),
            Ok(None) => panic!("the pass went over a lost page"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, LogError::Io { .. } | LogError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("00000000000000000032.log"), "{error}");
    assert_eq!(std::fs::metadata(&lost).unwrap().len(), bytes / 2);
    let limits = ReadLimits { max_bytes: 64 << 10, below: Offset::MAX };
    assert!(!log.reader().read(Offset(90), limits).unwrap().is_empty());
}
