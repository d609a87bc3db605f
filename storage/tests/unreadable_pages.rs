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
use floodmark_storage::fs::{Disk, OpenMode, RealDisk, SyncPoint, write_all_at};
use floodmark_storage::log::append::AppendAs;
use floodmark_storage::log::{Log, LogContext};
use floodmark_storage::producers::Origin;
use floodmark_storage::random::Random;
use floodmark_storage::{LogConfig, LogError, ReadLimits, TailBudget};

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
    let config = LogConfig { segment_bytes: 64 << 10, prewrite_bytes: 0, ..LogConfig::default() };
    let (mut log, _) = Log::open(context, dir, config).unwrap();
    for n in 0..100 {
        let mut builder = BatchBuilder::new();
        let record = NewRecord { timestamp: n, key: None, value: Some(&[n as u8; 4000]), headers: &[] };
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
