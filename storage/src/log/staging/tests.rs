//! Batches that wait in the log's own memory: who sees them when, and what becomes of them where something goes wrong.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use floodmark_proto::batch::{BatchBuilder, BatchHeader, NewRecord, RecordBatch};
use floodmark_proto::ids::LeaderEpoch;

use super::*;
use crate::clock::{Clock, Stopwatch};
use crate::config::LogConfig;
use crate::fs::sim::{Fault, FaultKind, FaultOn};
use crate::fs::{Disk, SimDisk, SyncPoint};
use crate::group_commit::{DiskThreads, GroupCommit, Owner};
use crate::log::LogContext;
use crate::log::append::AppendAs;
use crate::log::pace::Pace;
use crate::log::reader::LogReader;
use crate::log::tail_cache::TailBudget;
use crate::producers::Origin;
use crate::random::Random;
use crate::segment::ReadLimits;

const LEADER: AppendAs = AppendAs::Leader { epoch: LeaderEpoch(0), origin: Origin::Client };
const ALL: ReadLimits = ReadLimits { max_bytes: 1 << 20, below: Offset(i64::MAX) };

fn open(disk: &SimDisk) -> Log {
    disk.create_dir_all(Path::new("logs")).unwrap();
    disk.sync_dir(Path::new("."), SyncPoint::DataDirCreated).unwrap();
    let context = LogContext {
        disk: Arc::new(disk.clone()),
        clock: Clock::manual(1_000),
        random: Random::seeded(1),
        tail_budget: TailBudget::new(0),
    };
    let config = LogConfig { segment_bytes: 100_000, prewrite_bytes: 0, ..LogConfig::default() };
    Log::open(context, Path::new("logs/t-0"), config).unwrap().0
}

fn batch(n: u64, bytes: usize) -> RecordBatch {
    let value = format!("{n:0bytes$}");
    let mut builder = BatchBuilder::new();
    builder
        .push(&NewRecord { timestamp: n as i64, key: None, value: Some(value.as_bytes()), headers: &[] })
        .unwrap();
    builder.build().unwrap()
}

fn append(log: &mut Log, numbers: std::ops::Range<u64>) {
    for n in numbers {
        log.append([batch(n, 1_500)], LEADER).unwrap()[0].as_ref().unwrap();
    }
}

/// The numbers in all records that a reader finds.
fn numbers(log: &LogReader) -> Vec<u64> {
    let (mut from, mut found) = (log.start(), Vec::new());
    loop {
        let pieces: Vec<Bytes> = log.read(from, ALL).unwrap();
        if pieces.is_empty() {
            return found;
        }
        for mut piece in pieces {
            while !piece.is_empty() {
                let header = BatchHeader::parse(&piece).unwrap();
                found.push(header.base_timestamp as u64);
                from = header.next_offset();
                drop(piece.split_to(header.size_bytes()));
            }
        }
    }
}

/// What the log's next owner finds after a power cut.
fn numbers_after_power_cut(disk: &SimDisk) -> Vec<u64> {
    numbers(&open(&disk.image().power_cut(0)).reader())
}

fn no_space() -> Fault {
    Fault {
        on: FaultOn::Write,
        path_ends: ".log".to_owned(),
        after: 0,
        times: u64::MAX,
        kind: FaultKind::NoSpace,
    }
}

#[test]
fn what_waits_is_seen_by_nobody_until_it_is_on_the_disk_and_lost_with_the_process() {
    let disk = SimDisk::new();
    let mut log = open(&disk);
    append(&mut log, 0..2);
    assert!(log.begin_staging().unwrap());
    assert_eq!(numbers_after_power_cut(&disk), [0, 1], "what was written before is synced first");
    append(&mut log, 2..5);
    assert_eq!((numbers(&log.reader()), log.end()), (vec![0, 1], Offset(5)));
    assert_eq!(numbers(&open(&disk.image().killed()).reader()), [0, 1]);
    let job = log.begin_sync().unwrap();
    append(&mut log, 5..6);
    let outcome = job.run();
    assert_eq!(numbers(&log.reader()), [0, 1]);
    log.finish_sync(job, outcome).unwrap();
    assert_eq!((numbers(&log.reader()), log.durable()), (vec![0, 1, 2, 3, 4], Offset(5)));
    assert_eq!(numbers_after_power_cut(&disk), [0, 1, 2, 3, 4]);
    // The next one goes on in the block in which that has ended.
    log.sync().unwrap();
    assert_eq!(numbers_after_power_cut(&disk), [0, 1, 2, 3, 4, 5]);
    assert_eq!(disk.violations(), Vec::<String>::new());
}

#[test]
fn a_log_that_waited_has_the_files_of_one_that_did_not() {
    let files = |is_staged: bool| {
        let disk = SimDisk::new();
        let mut log = open(&disk);
        for n in 0..200 {
            if is_staged && n % 20 == 3 {
                assert!(log.begin_staging().unwrap());
            }
            append(&mut log, n..n + 1);
            if n % 7 == 0 {
                log.sync().unwrap();
            }
            if n % 50 == 49 {
                log.checkpoint().unwrap();
            }
        }
        log.close().unwrap();
        disk.files()
    };
    let (staged, other) = (files(true), files(false));
    assert!(staged.len() > 10, "several segments");
    let differs = staged.iter().find(|(path, bytes)| other.get(*path) != Some(bytes));
    assert_eq!(differs.map(|(path, _)| path), None);
    assert_eq!(staged.len(), other.len());
}

#[test]
fn a_sync_that_overtakes_another_writes_what_that_one_has_too() {
    let disk = SimDisk::new();
    let mut log = open(&disk);
    log.begin_staging().unwrap();
    append(&mut log, 0..3);
    let slow = log.begin_sync().unwrap();
    append(&mut log, 3..5);
    let fast = log.begin_checkpoint().unwrap();
    let outcome = fast.run();
    log.finish_sync(fast, outcome).unwrap();
    assert_eq!((log.durable(), log.recovery_point()), (Offset(5), Offset(5)));
    append(&mut log, 5..7);
    log.sync().unwrap();
    // Were it to write now, the block in which its piece ends would be as it was.
    let outcome = slow.run();
    log.finish_sync(slow, outcome).unwrap();
    assert_eq!(numbers(&log.reader()), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(numbers_after_power_cut(&disk), [0, 1, 2, 3, 4, 5, 6]);
}

#[test]
fn what_finds_no_space_is_gone_and_the_log_goes_on_before_it() {
    let disk = SimDisk::new();
    let mut log = open(&disk);
    log.begin_staging().unwrap();
    append(&mut log, 0..3);
    log.sync().unwrap();
    append(&mut log, 3..5);
    let failing = log.begin_sync().unwrap();
    append(&mut log, 5..6);
    let stale = log.begin_sync().unwrap();
    disk.inject(no_space());
    let outcome = failing.run();
    assert!(matches!(log.finish_sync(failing, outcome), Err(LogError::Full { .. })));
    assert_eq!((log.end(), log.durable(), log.is_staging()), (Offset(3), Offset(3), false));
    assert_eq!((numbers(&log.reader()), log.stopped().is_none()), (vec![0, 1, 2], true));
    assert!(matches!(log.append([batch(9, 1_500)], LEADER), Err(LogError::Full { .. })));
    disk.heal();
    append(&mut log, 6..7);
    // What it had would come to lie upon that.
    let outcome = stale.run();
    assert!(log.finish_sync(stale, outcome).is_err());
    log.sync().unwrap();
    assert!(log.begin_staging().unwrap());
    append(&mut log, 7..8);
    log.sync().unwrap();
    assert_eq!(numbers(&log.reader()), [0, 1, 2, 6, 7]);
    assert_eq!(numbers_after_power_cut(&disk), [0, 1, 2, 6, 7]);
}

#[test]
fn a_group_that_fails_takes_nothing_along_that_waited_before_it() {
    let disk = SimDisk::new();
    let mut log = open(&disk);
    log.begin_staging().unwrap();
    append(&mut log, 0..3);
    // It needs a segment more, of which the files find no descriptor.
    let fault = Fault { on: FaultOn::Open, path_ends: ".log".to_owned(), ..no_space() };
    disk.inject(Fault { kind: FaultKind::NoDescriptor, times: 1, ..fault });
    let large = (0..3).map(|n| batch(10 + n, 40_000));
    assert!(matches!(log.append(large, LEADER), Err(LogError::NoDescriptor { .. })));
    disk.heal();
    assert_eq!((log.end(), numbers(&log.reader())), (Offset(3), vec![0, 1, 2]));
    append(&mut log, 3..4);
    log.sync().unwrap();
    assert_eq!(numbers_after_power_cut(&disk), [0, 1, 2, 3]);
}

#[test]
fn a_disk_without_a_way_past_its_systems_memory_is_written_as_ever() {
    let disk = SimDisk::new();
    let mut log = open(&disk);
    log.begin_staging().unwrap();
    append(&mut log, 0..2);
    disk.refuse_through();
    log.sync().unwrap();
    assert_eq!(numbers_after_power_cut(&disk), [0, 1], "it refused only when it was asked to write");
    append(&mut log, 2..3);
    log.look_after_staging().unwrap();
    assert!(!log.is_staging() && !log.begin_staging().unwrap());
    append(&mut log, 3..4);
    log.sync().unwrap();
    assert_eq!(numbers_after_power_cut(&disk), [0, 1, 2, 3]);
    let skipping = SimDisk::new();
    skipping.skip_sync(SyncPoint::AppendRefused);
    let mut log = open(&skipping);
    log.begin_staging().unwrap();
    append(&mut log, 0..2);
    skipping.refuse_through();
    log.sync().unwrap();
    assert_eq!(numbers_after_power_cut(&skipping), [], "without its sync it is lost");
    let disk = SimDisk::new();
    disk.refuse_through();
    assert!(!open(&disk).begin_staging().unwrap(), "it refused at once");
}

#[test]
fn a_log_that_goes_quiet_gives_its_memory_back() {
    let disk = SimDisk::new();
    let mut log = open(&disk);
    log.begin_staging().unwrap();
    append(&mut log, 0..2);
    log.release_idle();
    assert!(log.is_staging(), "something waits");
    log.sync().unwrap();
    log.release_idle();
    assert!(!log.is_staging() && log.staging.free.is_empty());
}

/// A log in a flood that nobody reads, under one who wants everything durable at once.
fn flooded(disk: &SimDisk) -> GroupCommit {
    let mut log = open(disk);
    log.pace = Pace::in_flood(1_000);
    let on_moved = |log: &mut Log| {
        log.pace = Pace::in_flood(1_000);
        log.set_hidden_until_durable(true);
        log.durable() < log.end()
    };
    let owner = Owner { on_moved: Box::new(on_moved), announce: Box::new(|| {}) };
    GroupCommit::new(log, &DiskThreads::start(2).unwrap(), owner)
}

/// Submits numbers in order; says which were taken, and which found no space. Who kills the process when it has told somebody finds his record.
fn submit(disk: &SimDisk, log: &GroupCommit, numbers: impl Iterator<Item = u64>) -> (Vec<u64>, Vec<u64>) {
    let (told, tell) = sync_channel(5_000);
    for n in numbers {
        let (told, disk) = (told.clone(), disk.clone());
        log.submit(vec![batch(n, 300)], LEADER, move |outcome| {
            let outcome = outcome.map(|receipt| {
                if n.is_multiple_of(40) {
                    let end = open(&disk.image().killed()).end();
                    assert!(end >= receipt.end, "told of {} where {end} is kept", receipt.end);
                }
            });
            told.send((n, outcome)).unwrap();
        });
    }
    drop(told);
    let (mut taken, mut full) = (Vec::new(), Vec::new());
    // Those on different ways are told by different threads.
    for (n, outcome) in tell {
        match outcome {
            Ok(()) => taken.push(n),
            Err(LogError::Full { .. }) => full.push(n),
            Err(other) => panic!("{n}: {other}"),
        }
    }
    taken.sort_unstable();
    (taken, full)
}

#[test]
fn in_a_flood_nobody_is_told_before_his_records_are_on_the_disk() {
    let disk = SimDisk::new();
    let log = flooded(&disk);
    // The first sync is of what was written as ever.
    log.append_synced(vec![batch(0, 300)], LEADER).unwrap();
    assert!(log.with_log(|log| log.is_staging()));
    let (taken, full) = submit(&disk, &log, 1..2_000);
    assert_eq!((taken.len(), full), (1_999, vec![]));
    assert_eq!(numbers_after_power_cut(&disk), (0..2_000).collect::<Vec<_>>());
    // With several at once, who go on as they are told.
    let next = AtomicU64::new(2_000);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    log.append_synced(vec![batch(n, 300)], LEADER).unwrap();
                }
            });
        }
    });
    let mut found = numbers_after_power_cut(&disk);
    found.sort_unstable();
    assert_eq!(found, (0..2_800).collect::<Vec<_>>());
    log.append(vec![batch(2_800, 300)], LEADER).unwrap();
    log.close().unwrap();
    assert_eq!(numbers(&log.reader()).len(), 2_801);
}

#[test]
fn in_a_flood_that_fills_the_disk_all_are_told_what_became_of_theirs() {
    let mut without_space = 0;
    for seed in 0..8 {
        let disk = SimDisk::new();
        let log = flooded(&disk);
        log.append_synced(vec![batch(0, 300)], LEADER).unwrap();
        let is_over = AtomicBool::new(false);
        let (taken, full) = thread::scope(|scope| {
            let heals = scope.spawn(|| {
                let mut times = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let used: usize = disk.files().values().map(Vec::len).sum();
                    disk.limit_capacity((used + 3_000 * seed) as u64);
                    thread::sleep(Duration::from_micros(300));
                    disk.heal();
                    thread::sleep(Duration::from_micros(300));
                    times += 1;
                }
                times
            });
            let submitted = submit(&disk, &log, 1..3_000);
            is_over.store(true, Ordering::Relaxed);
            assert!(heals.join().unwrap() > 0);
            submitted
        });
        assert_eq!(taken.len() + full.len(), 2_999);
        without_space += full.len();
        let found = numbers_after_power_cut(&disk);
        assert_eq!(found[1..], taken, "{} found no space", full.len());
        // Space is there now.
        assert_eq!(submit(&disk, &log, 3_000..3_010).0.len(), 10);
    }
    assert!(without_space > 0);
}

#[test]
fn in_a_flood_that_a_disk_fails_in_nobody_waits_for_ever() {
    let disk = SimDisk::new();
    let log = flooded(&disk);
    log.append_synced(vec![batch(0, 300)], LEADER).unwrap();
    disk.inject(Fault { after: 5, kind: FaultKind::Eio, ..no_space() });
    let since = Stopwatch::start();
    while log.append(vec![batch(1, 300)], LEADER).is_ok() {
        assert!(since.elapsed() < Duration::from_secs(20));
    }
    assert!(matches!(log.reader().stopped(), Some(LogError::Poisoned(_))));
    assert!(matches!(log.append(vec![batch(1, 300)], LEADER), Err(LogError::Poisoned(_))));
}

#[test]
fn a_log_that_has_failed_keeps_nobody_waiting_for_room() {
    let disk = SimDisk::new();
    let mut log = open(&disk);
    log.begin_staging().unwrap();
    append(&mut log, 0..1);
    let failing = log.begin_sync().unwrap();
    append(&mut log, 1..3);
    assert!(log.room(true) < 1 << 30);
    disk.inject(Fault { kind: FaultKind::Eio, ..no_space() });
    let outcome = failing.run();
    assert!(log.finish_sync(failing, outcome).is_err());
    assert_eq!((log.room(true), log.room(false)), (usize::MAX, usize::MAX));
    assert!(matches!(log.append([batch(3, 10)], LEADER), Err(LogError::Poisoned(_))));
}

#[test]
fn what_somebody_may_have_copied_is_not_taken_back() {
    let disk = SimDisk::new();
    let mut log = open(&disk);
    log.set_hidden_until_durable(true);
    log.begin_staging().unwrap();
    append(&mut log, 0..2);
    log.set_hidden_until_durable(false);
    disk.inject(no_space());
    assert!(log.sync().is_err());
    assert!(matches!(log.stopped(), Some(LogError::Poisoned(_))));
    assert_eq!(log.end(), Offset(2));
}

#[test]
fn a_sync_that_comes_to_a_closed_log_writes_nothing_more() {
    let disk = SimDisk::new();
    let mut log = open(&disk);
    log.begin_staging().unwrap();
    append(&mut log, 0..2);
    let late = log.begin_sync().unwrap();
    log.end_abruptly();
    let before = disk.files();
    let outcome = late.run();
    assert!(matches!(log.finish_sync(late, outcome), Err(LogError::Closed)));
    assert!(disk.files() == before && matches!(log.stopped(), Some(LogError::Closed)));
}
