//! Many threads against one log, on disks that work and disks that fail.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use floodmark_proto::batch::{BatchBuilder, BatchHeader, NewRecord};
use floodmark_proto::ids::LeaderEpoch;

use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::Duration;

use super::*;
use crate::clock::{Clock, Stopwatch};
use crate::config::LogConfig;
use crate::error::AppendError;
use crate::fs::sim::{Fault, FaultKind, FaultOn};
use crate::fs::{Disk, RealDisk, SimDisk, SyncPoint};
use crate::log::LogContext;
use crate::log::tail_cache::TailBudget;
use crate::producers::Origin;
use crate::random::Random;
use crate::segment::ReadLimits;

/// How long anything may take that has to happen at all.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs a test that waits for other threads: where it hangs, it fails instead of holding up all others.
fn in_time(test: impl FnOnce() + Send + 'static) {
    let (running, ended) = sync_channel::<()>(1);
    let test = thread::spawn(move || {
        let _running = running;
        test();
    });
    assert_ne!(ended.recv_timeout(PATIENCE), Err(RecvTimeoutError::Timeout), "the test hangs");
    test.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

const LEADER: AppendAs = AppendAs::Leader { epoch: LeaderEpoch(0), origin: Origin::Client };

fn open(disk: Arc<dyn Disk>, dir: &Path) -> GroupCommit {
    open_for(disk, dir, Owner::default())
}

/// As the leader of a partition wants it: everything durable soon.
fn eager() -> Owner {
    Owner { on_moved: Box::new(|log| log.durable() < log.end()), announce: Box::new(|| {}) }
}

fn open_for(disk: Arc<dyn Disk>, dir: &Path, owner: Owner) -> GroupCommit {
    let disks = DiskThreads::start(2).unwrap();
    GroupCommit::new(Log::open(context(disk), dir, config()).unwrap().0, &disks, owner)
}

fn context(disk: Arc<dyn Disk>) -> LogContext {
    LogContext { disk, clock: Clock::System, random: Random::seeded(1), tail_budget: TailBudget::new(10_000) }
}

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 20_000,
        prewrite_bytes: 8_192,
        checkpoint_interval_bytes: 10_000,
        ..LogConfig::default()
    }
}

fn batch(value: &str) -> RecordBatch {
    let mut builder = BatchBuilder::new();
    let record = NewRecord { timestamp: 1, key: None, value: Some(value.as_bytes()), headers: &[] };
    builder.push(&record).unwrap();
    builder.build().unwrap()
}

fn values(reader: &LogReader) -> Vec<(Offset, String)> {
    let mut found = Vec::new();
    let mut from = reader.start();
    loop {
        let pieces = reader.read(from, ReadLimits { max_bytes: 4_000, below: Offset::MAX }).unwrap();
        if pieces.is_empty() {
            return found;
        }
        for piece in pieces {
            let mut rest = &piece[..];
            while !rest.is_empty() {
                let header = BatchHeader::parse(rest).unwrap();
                let mut scratch = Vec::new();
                let limits = floodmark_proto::batch::DecompressLimits { max_bytes: 1_000, max_ratio: 10 };
                for record in floodmark_proto::batch::Records::open(rest, &limits, &mut scratch).unwrap() {
                    let record = record.unwrap();
                    found.push((record.offset, String::from_utf8(record.value.unwrap().to_vec()).unwrap()));
                }
                from = header.next_offset();
                rest = &rest[header.size_bytes()..];
            }
        }
    }
}

#[test]
fn every_caller_gets_the_offset_of_its_own_batch_and_keeps_it_through_reopening() {
    in_time(|| {
        let dir = tempfile::tempdir().unwrap();
        let log = open(Arc::new(RealDisk), &dir.path().join("t-0"));
        let mut acknowledged = thread::scope(|scope| {
            let callers: Vec<_> = (0..16)
                .map(|caller| {
                    let log = log.clone();
                    scope.spawn(move || {
                        let mut mine = Vec::new();
                        for n in 0..50 {
                            let value = format!("{caller}-{n}-{}", "x".repeat(n * 7));
                            let receipt = log.append_synced(vec![batch(&value)], LEADER).unwrap();
                            let appended = receipt.outcomes[0].clone().unwrap();
                            assert!(log.reader().durable() > appended.last_offset);
                            mine.push((appended.base_offset, value));
                        }
                        mine
                    })
                })
                .collect();
            callers.into_iter().flat_map(|c| c.join().unwrap()).collect::<Vec<_>>()
        });
        acknowledged.sort();
        assert_eq!(values(&log.reader()), acknowledged);
        log.abandon();
        let log = open(Arc::new(RealDisk), &dir.path().join("t-0"));
        assert_eq!(values(&log.reader()), acknowledged);
    });
}

#[test]
fn a_failed_sync_reaches_every_caller_and_nobody_waits_for_ever() {
    in_time(|| {
        let disk = SimDisk::new();
        let log = open(Arc::new(disk.clone()), Path::new("t-0"));
        log.append_synced(vec![batch("good")], LEADER).unwrap();
        disk.inject(Fault {
            on: FaultOn::Sync,
            path_ends: ".log".into(),
            after: 3,
            times: 1,
            kind: FaultKind::Eio,
        });
        let failures: usize = thread::scope(|scope| {
            let caller = |_| {
                let log = log.clone();
                scope.spawn(move || {
                    (0..20).filter(|_| log.append_synced(vec![batch("x")], LEADER).is_err()).count()
                })
            };
            let callers: Vec<_> = (0..8).map(caller).collect();
            callers.into_iter().map(|c| c.join().unwrap()).sum()
        });
        assert_eq!(disk.faults_taken(), 1);
        assert!(failures > 100, "{failures}");
        assert!(matches!(log.append(vec![batch("late")], LEADER), Err(LogError::Poisoned(_))));
    });
}

#[test]
fn waiting_for_what_was_cut_off_fails_instead_of_hanging() {
    in_time(|| {
        let disk = SimDisk::new();
        let log = open(Arc::new(disk), Path::new("t-0"));
        let receipt = log.append(vec![batch("a"), batch("b")], LEADER).unwrap();
        log.with_log(|log| log.truncate_to(Offset(1))).unwrap();
        assert!(matches!(log.wait_synced(receipt.end), Err(LogError::OutOfRange { .. })));
    });
}

#[test]
fn appends_handed_in_while_the_log_is_taken_return_at_once_and_keep_their_order() {
    in_time(|| {
        let log = open(Arc::new(SimDisk::new()), Path::new("t-0"));
        let (give, take) = sync_channel(100);
        log.with_log(|_| {
            for n in 0..100 {
                let give = give.clone();
                log.submit(vec![batch(&n.to_string())], LEADER, move |outcome| {
                    give.send((n, outcome.unwrap().outcomes[0].clone().unwrap().base_offset)).unwrap();
                });
            }
            assert!(take.try_recv().is_err(), "the log is still taken");
        });
        let told: Vec<_> = (0..100).map(|_| take.recv().unwrap()).collect();
        assert_eq!(told, (0..100).map(|n| (n, Offset(n))).collect::<Vec<_>>());
    });
}

#[test]
fn a_batch_that_is_refused_leaves_nothing_to_wait_for() {
    in_time(|| {
        let log = open(Arc::new(SimDisk::new()), Path::new("t-0"));
        log.append(vec![batch("a")], LEADER).unwrap();
        let receipt = log.append(vec![batch(&"x".repeat(30_000))], LEADER).unwrap();
        assert!(receipt.outcomes[0].is_err());
        assert_eq!(receipt.end, Offset::ZERO);
        assert_eq!(log.wait_synced(receipt.end).map_err(|e| e.to_string()), Ok(()));
    });
}

#[test]
fn a_leader_that_was_followed_by_another_appends_no_more() {
    in_time(|| {
        let log = open(Arc::new(SimDisk::new()), Path::new("t-0"));
        log.with_log(|log| log.assign_epoch(LeaderEpoch(3))).unwrap();
        let refused = log.append(vec![batch("late")], LEADER).unwrap().outcomes.remove(0).unwrap_err();
        assert_eq!(refused, AppendError::EpochBehind { epoch: LeaderEpoch(0), latest: LeaderEpoch(3) });
    });
}

#[test]
fn closing_answers_those_who_wait_and_refuses_those_who_come() {
    in_time(|| {
        let disk = SimDisk::new();
        let log = open(Arc::new(disk.clone()), Path::new("t-0"));
        log.append_synced(vec![batch("a")], LEADER).unwrap();
        log.append(vec![batch("b")], LEADER).unwrap();
        log.close().unwrap();
        log.wait_synced(Offset(2)).unwrap();
        assert!(matches!(log.append(vec![batch("c")], LEADER), Err(LogError::Closed)));
        assert!(matches!(log.wait_synced(Offset(3)), Err(LogError::Closed)));
        assert!(matches!(log.close(), Err(LogError::Closed)));
        assert_eq!(values(&log.reader()).len(), 2);
        let again = Log::open(context(Arc::new(disk)), Path::new("t-0"), config()).unwrap();
        assert!(again.1.was_clean);
    });
}

#[test]
fn an_abandoned_log_touches_no_file_any_more() {
    in_time(|| {
        let disk = SimDisk::new();
        let log = open_for(Arc::new(disk.clone()), Path::new("t-0"), eager());
        for n in 0..200 {
            log.submit(vec![batch(&n.to_string().repeat(100))], LEADER, |_| {});
        }
        log.abandon();
        assert!(matches!(log.wait_synced(Offset(i64::MAX)), Err(LogError::Closed)));
        // A sync of an open file changes no name and no byte.
        let files = disk.files();
        thread::sleep(Duration::from_millis(20));
        log.sync_soon(Offset(200));
        thread::sleep(Duration::from_millis(20));
        assert_eq!(disk.files(), files);
    });
}

#[test]
fn a_panic_stops_the_log_and_nobody_waits_for_ever() {
    in_time(|| {
        let panics = Arc::new(AtomicBool::new(false));
        let when = Arc::clone(&panics);
        let caller = thread::current().id();
        let on_moved = move |_: &mut Log| {
            // The disk thread may still be at its round for the batch before.
            let is_mine = thread::current().id() == caller;
            assert!(!(is_mine && when.swap(false, Ordering::AcqRel)), "told to");
            false
        };
        let owner = Owner { on_moved: Box::new(on_moved), announce: Box::new(|| {}) };
        let log = open_for(Arc::new(SimDisk::new()), Path::new("t-0"), owner);
        log.append_synced(vec![batch("good")], LEADER).unwrap();
        panics.store(true, Ordering::Release);
        let (give, take) = sync_channel(1);
        let submit = || log.submit(vec![batch("x")], LEADER, move |outcome| give.send(outcome).unwrap());
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(submit)).is_err());
        assert!(matches!(take.recv().unwrap(), Err(LogError::Abandoned)));
        assert!(matches!(log.append(vec![batch("late")], LEADER), Err(LogError::Poisoned(_))));
        assert!(matches!(log.wait_synced(Offset(2)), Err(LogError::Poisoned(_))));
    });
}

#[test]
fn a_disk_thread_outlives_a_panic_of_those_it_tells() {
    in_time(|| {
        let context = context(Arc::new(SimDisk::new()));
        let disks = DiskThreads::start(1).unwrap();
        let log = Log::open(context, Path::new("t-0"), config()).unwrap().0;
        let log = GroupCommit::new(log, &disks, Owner::default());
        log.append(vec![batch("a")], LEADER).unwrap();
        log.with_log(|_| log.when_synced(Offset(1), |_| panic!("told to")));
        log.append_synced(vec![batch("b")], LEADER).unwrap();
    });
}

/// One batch comes as the sync of the one before it ends, so the round goes on, and begins its sync before it tells.
#[test]
fn a_sync_that_fails_as_it_is_begun_is_told_to_those_whom_it_covers_and_to_nobody_else() {
    in_time(|| {
        let disk = SimDisk::new();
        let (give, take) = sync_channel(1);
        let this: Arc<OnceLock<GroupCommit>> = Arc::default();
        let (same, is_behind_to_come) = (Arc::clone(&this), AtomicBool::new(true));
        let on_moved = move |log: &mut Log| {
            let is_first_durable = log.end() > Offset::ZERO && log.durable() == log.end();
            if is_first_durable && is_behind_to_come.swap(false, Ordering::AcqRel) {
                let (waiter, give) = (same.get().unwrap().clone(), give.clone());
                same.get().unwrap().submit(vec![batch("behind")], LEADER, move |receipt| {
                    waiter.when_synced(receipt.unwrap().end, move |outcome| give.send(outcome).unwrap());
                });
            }
            log.durable() < log.end()
        };
        let owner = Owner { on_moved: Box::new(on_moved), announce: Box::new(|| {}) };
        let log = open_for(Arc::new(disk.clone()), Path::new("t-0"), owner);
        this.set(log.clone()).unwrap();
        let fault = Fault {
            on: FaultOn::BeginSync,
            path_ends: ".log".into(),
            after: 0,
            times: 1,
            kind: FaultKind::Eio,
        };
        disk.inject(fault);
        let first = log.append(vec![batch("first")], LEADER).unwrap();
        log.wait_synced(first.end).unwrap();
        assert!(matches!(take.recv().unwrap(), Err(LogError::Poisoned(_))));
        assert_eq!((disk.faults_taken(), log.reader().durable()), (1, first.end));
        assert!(matches!(log.append(vec![batch("late")], LEADER), Err(LogError::Poisoned(_))));
    });
}

/// Many threads, a sync that fails at a moment the seed decides, when it is begun or when it is run: who was told durable is durable, whatever the power cut takes,
/// and everybody is told something.
#[test]
fn who_was_told_durable_survives_failed_syncs_and_power_cuts() {
    in_time(|| {
        for seed in 0..48 {
            let disk = SimDisk::new();
            let log = open_for(Arc::new(disk.clone()), Path::new("t-0"), eager());
            log.append_synced(vec![batch("first")], LEADER).unwrap();
            // Only what waits behind a sync is begun before it is run, which happens less often.
            let (on, within) = if seed % 2 == 0 { (FaultOn::Sync, 60) } else { (FaultOn::BeginSync, 4) };
            let fault = Fault {
                on,
                path_ends: ".log".into(),
                after: Random::seeded(seed).next_u64() % within,
                times: 1,
                kind: FaultKind::Eio,
            };
            disk.inject(fault);
            let told: Arc<Mutex<Vec<(Offset, String)>>> = Arc::default();
            let failed: Arc<AtomicUsize> = Arc::default();
            let (at_cut, image) = thread::scope(|scope| {
                for caller in 0..4 {
                    let (log, told, failed) = (log.clone(), Arc::clone(&told), Arc::clone(&failed));
                    scope.spawn(move || submit_all(&log, caller, seed, &told, &failed));
                }
                thread::sleep(Duration::from_micros(200 * (seed % 16)));
                // In this order: what was told before is in the image.
                let at_cut = told.lock().clone();
                (at_cut, disk.image())
            });
            log.with_log(|_| {});
            let begun = Stopwatch::start();
            while told.lock().len() + failed.load(Ordering::Acquire) < 4 * CALLS {
                assert!(begun.elapsed() < PATIENCE, "seed {seed}: somebody is told nothing");
                thread::yield_now();
            }
            // Of zeros that could not be synced nobody hears, until the batches in that file are synced next.
            let has_failed = match on {
                FaultOn::BeginSync => disk.faults_taken() > 0,
                _ => disk.failed_syncs().iter().any(|point| *point != SyncPoint::Prewritten),
            };
            if has_failed {
                assert!(failed.load(Ordering::Acquire) > 0, "seed {seed}: the failed sync reached nobody");
                assert!(log.reader().poison().is_some(), "seed {seed}");
            }
            log.abandon();
            for (told, image) in [(at_cut, image), (told.lock().clone(), disk.image())] {
                let after = open(Arc::new(image.power_cut(seed)), Path::new("t-0"));
                let kept = values(&after.reader());
                for batch in told {
                    assert!(kept.contains(&batch), "seed {seed}: {batch:?} was told durable");
                }
            }
        }
    });
}

const CALLS: usize = 40;

/// Hands in batches one after the other, and waits now and then; offsets must rise as the calls were made.
fn submit_all(
    log: &GroupCommit,
    caller: usize,
    seed: u64,
    told: &Arc<Mutex<Vec<(Offset, String)>>>,
    failed: &Arc<AtomicUsize>,
) {
    let mut chance = crate::random::SplitMix::new(seed * 100 + caller as u64);
    let offsets: Arc<Mutex<BTreeMap<usize, Offset>>> = Arc::default();
    for n in 0..CALLS {
        let value = format!("{caller}-{n}-{}", "x".repeat(chance.below(300) as usize));
        let (told, failed) = (Arc::clone(told), Arc::clone(failed));
        let (waiter, offsets) = (log.clone(), Arc::clone(&offsets));
        log.submit(vec![batch(&value)], LEADER, move |receipt| {
            let Ok(receipt) = receipt else {
                failed.fetch_add(1, Ordering::AcqRel);
                return;
            };
            let offset = receipt.outcomes[0].clone().unwrap().base_offset;
            offsets.lock().insert(n, offset);
            waiter.when_synced(receipt.end, move |outcome| match outcome {
                Ok(()) => told.lock().push((offset, value)),
                Err(_) => drop(failed.fetch_add(1, Ordering::AcqRel)),
            });
        });
        if chance.below(8) == 0 {
            let _ = log.wait_synced(log.reader().end());
        }
    }
    log.with_log(|_| {});
    assert!(offsets.lock().values().is_sorted(), "offsets rise as the calls were made");
}
