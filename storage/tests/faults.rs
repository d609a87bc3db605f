//! Every kind of call is made to fail, at every point of a run that does everything: what the log then says, what it leaves
//! on the disk, what readers still get, and what is there after a power cut. And every file is damaged in turn.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests may panic, and say what they counted")]
#![allow(clippy::disallowed_methods, reason = "one test looks at the open files of its process")]

#[allow(dead_code, reason = "other tests use what this one does not")]
mod batches;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use batches::{Kind, Recipe, Sent, epochs_from, epochs_of, replay};
use floodmark_proto::batch::BatchHeader;
use floodmark_proto::ids::{LeaderEpoch, Offset};
use floodmark_storage::clock::Clock;
use floodmark_storage::fs::sim::{Fault, FaultKind, FaultOn};
use floodmark_storage::fs::{Disk, OpenMode, RealDisk, SimDisk, SyncPoint};
use floodmark_storage::log::append::AppendAs;
use floodmark_storage::log::{Log, LogContext};
use floodmark_storage::producers::Origin;
use floodmark_storage::random::Random;
use floodmark_storage::{LogConfig, LogError, LogReader, ReadLimits, TailBudget};

const DIR: &str = "logs/t-0";
const LEADER: AppendAs = AppendAs::Leader { epoch: LeaderEpoch(1), origin: Origin::Client };
const ALL: ReadLimits = ReadLimits { max_bytes: 1 << 20, below: Offset::MAX };

fn disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("logs")).unwrap();
    disk.sync_dir(Path::new("."), SyncPoint::DataDirCreated).unwrap();
    disk
}

fn open(disk: &SimDisk) -> Result<Log, LogError> {
    let context = LogContext {
        disk: Arc::new(disk.clone()),
        clock: Clock::manual(1_000_000),
        random: Random::seeded(7),
        tail_budget: TailBudget::new(0),
    };
    let config = LogConfig {
        segment_bytes: 900,
        index_interval_bytes: 150,
        prewrite_bytes: 0,
        ..LogConfig::default()
    };
    Log::open(context, Path::new(DIR), config).map(|(log, _)| log)
}

/// The batches of a log that reads of, in order; an error where a read fails or a batch is not whole.
fn read_all(reader: &LogReader) -> Result<Vec<bytes::Bytes>, LogError> {
    let (mut from, mut found) = (reader.start(), Vec::new());
    loop {
        let pieces = reader.read(from, ALL)?;
        if pieces.is_empty() {
            return Ok(found);
        }
        for mut rest in pieces {
            while !rest.is_empty() {
                let header = BatchHeader::parse(&rest).unwrap();
                from = header.next_offset();
                found.push(rest.split_to(header.size_bytes()));
            }
        }
    }
}

fn bytes_of(sent: &[Sent]) -> Vec<bytes::Bytes> {
    sent.iter().map(|s| s.bytes.clone()).collect()
}

const KINDS: [Kind; 8] = [
    Kind::Plain,
    Kind::Idempotent(1),
    Kind::Transactional(7),
    Kind::Plain,
    Kind::Transactional(8),
    Kind::End { id: 7, abort: true },
    Kind::Idempotent(2),
    Kind::End { id: 8, abort: false },
];

fn next(sent: &[Sent]) -> Sent {
    let n = sent.len();
    let recipe = Recipe {
        kind: KINDS[n % 8],
        records: 1 + n % 3,
        value_bytes: n * 7 % 60,
        time: 1_000 + 10 * n as i64,
    };
    recipe.at(sent.last().map_or(0, |s| s.next), 1, sent.iter())
}

fn fill(log: &mut Log, sent: &mut Vec<Sent>, batches: usize) {
    for _ in 0..batches {
        let batch = next(sent);
        assert!(log.append([batch.fresh()], LEADER).unwrap()[0].is_ok());
        sent.push(batch);
    }
}

fn group(sent: &[Sent], batches: usize) -> Vec<Sent> {
    let mut all = sent.to_vec();
    for _ in 0..batches {
        let batch = next(&all);
        all.push(batch);
    }
    all.split_off(sent.len())
}

fn fault(on: FaultOn, kind: FaultKind, after: u64, times: u64) -> Fault {
    Fault { on, path_ends: String::new(), after, times, kind }
}

#[test]
fn short_writes_are_not_seen() {
    let disk = disk();
    disk.inject(fault(FaultOn::Write, FaultKind::Short, 0, u64::MAX));
    let (mut log, mut sent) = (open(&disk).unwrap(), Vec::new());
    fill(&mut log, &mut sent, 40);
    log.checkpoint().unwrap();
    log.truncate_to(Offset(sent[30].base)).unwrap();
    sent.truncate(30);
    fill(&mut log, &mut sent, 20);
    assert_eq!(read_all(&log.reader()).unwrap(), bytes_of(&sent));
    log.close().unwrap();
    assert!(disk.faults_taken() > 100);
    let log = open(&disk).unwrap();
    assert_eq!(read_all(&log.reader()).unwrap(), bytes_of(&sent));
    replay(sent.iter()).compare(log.producers()).unwrap();
}

#[test]
fn a_group_without_space_leaves_no_trace() {
    for room in (0..900).step_by(7) {
        let disk = disk();
        let (mut log, mut sent) = (open(&disk).unwrap(), Vec::new());
        fill(&mut log, &mut sent, 9);
        log.sync().unwrap();
        fill(&mut log, &mut sent, 3);
        log.assign_epoch(LeaderEpoch(1)).unwrap();
        let failed = group(&sent, 8);
        let used: usize = disk.files().values().map(Vec::len).sum();
        disk.limit_capacity((used + room) as u64);
        let outcome = log.append(failed.iter().map(Sent::fresh), LEADER);
        assert!(matches!(outcome, Err(LogError::Full { .. })), "room {room}: {outcome:?}");
        assert!(outcome.unwrap_err().is_retryable());
        assert_eq!(log.end().0, sent.last().unwrap().next);
        assert_eq!(read_all(&log.reader()).unwrap(), bytes_of(&sent), "room {room}");
        replay(sent.iter()).compare(log.producers()).unwrap();
        let image = disk.image();
        for seed in 0..4 {
            let after = open(&image.power_cut(seed + 8 * room as u64)).unwrap();
            let found = read_all(&after.reader()).unwrap();
            assert!(bytes_of(&sent).starts_with(&found) && found.len() >= 9, "room {room} seed {seed}");
        }
        disk.heal();
        assert!(log.append(failed.iter().map(Sent::fresh), LEADER).unwrap().iter().all(Result::is_ok));
        log.sync().unwrap();
        sent.extend(failed);
        let log = open(&disk.image().power_cut(8)).unwrap();
        assert_eq!(read_all(&log.reader()).unwrap(), bytes_of(&sent));
        let aborted = log.reader().aborted_transactions(Offset(0), log.end()).unwrap();
        assert_eq!(aborted, replay(sent.iter()).aborted, "room {room}");
    }
}

#[test]
fn a_log_without_a_descriptor_refuses_and_goes_on_once_there_is_one() {
    let mut struck = 0;
    for after in 0..24 {
        let disk = disk();
        let (mut log, mut sent) = (open(&disk).unwrap(), Vec::new());
        disk.inject(fault(FaultOn::Open, FaultKind::NoDescriptor, after, 1));
        for n in 0..50 {
            let batch = next(&sent);
            match log.append([batch.fresh()], LEADER) {
                Ok(outcomes) => assert!(outcomes[0].is_ok()),
                Err(e) => {
                    assert!(matches!(e, LogError::NoDescriptor { .. }), "open {after}: {e}");
                    assert!(e.is_retryable());
                    assert_eq!(read_all(&log.reader()).unwrap(), bytes_of(&sent), "open {after}");
                    struck += 1;
                    assert!(log.append([batch.fresh()], LEADER).unwrap()[0].is_ok());
                }
            }
            sent.push(batch);
            if n % 16 == 9 {
                log.sync().unwrap();
                log.release_idle();
            }
        }
        assert_eq!(read_all(&log.reader()).unwrap(), bytes_of(&sent));
        log.close().unwrap();
        assert_eq!(read_all(&open(&disk).unwrap().reader()).unwrap(), bytes_of(&sent), "open {after}");
    }
    assert!(struck > 15, "{struck}");
}

#[test]
fn an_idle_log_keeps_no_file_open() {
    let dir = tempfile::tempdir().unwrap();
    let context = LogContext {
        disk: Arc::new(RealDisk),
        clock: Clock::System,
        random: Random::seeded(7),
        tail_budget: TailBudget::new(0),
    };
    let (mut log, _) = Log::open(context, &dir.path().join("t-0"), LogConfig::default()).unwrap();
    let open_files = || {
        let held =
            std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fd.unwrap().path().read_link().ok());
        held.filter(|path| path.starts_with(dir.path())).count()
    };
    let mut sent = Vec::new();
    fill(&mut log, &mut sent, 3);
    assert_eq!(open_files(), 1, "a log that has got little");
    log.release_idle();
    log.release_idle();
    assert_eq!(open_files(), 1, "what is not synced must be synced through the same handle");
    log.sync().unwrap();
    log.release_idle();
    log.release_idle();
    assert_eq!(open_files(), 0);
    assert_eq!(read_all(&log.reader()).unwrap(), bytes_of(&sent));
    fill(&mut log, &mut sent, 3);
    assert_eq!(read_all(&log.reader()).unwrap(), bytes_of(&sent));
}

#[test]
fn the_first_batches_after_a_group_without_space_are_durable_once_synced() {
    let disk = disk();
    let (mut log, mut sent) = (open(&disk).unwrap(), Vec::new());
    // Leaves an empty segment of which even the name is durable.
    log.reset_to(Offset(0)).unwrap();
    let used: usize = disk.files().values().map(Vec::len).sum();
    disk.limit_capacity(used as u64 + 10);
    assert!(matches!(log.append([next(&sent).fresh()], LEADER), Err(LogError::Full { .. })));
    disk.heal();
    // The empty segment was removed and made anew.
    fill(&mut log, &mut sent, 3);
    log.sync().unwrap();
    for seed in 0..8 {
        let log = open(&disk.image().power_cut(seed)).unwrap();
        assert_eq!(read_all(&log.reader()).unwrap(), bytes_of(&sent), "seed {seed}");
    }
}

/// A durable log of several segments, of which the first two may go.
fn log_with_a_head(batches: usize, interval_bytes: u32) -> (SimDisk, Log, Vec<Sent>, i64) {
    let disk = disk();
    let (mut log, mut sent) = (open(&disk).unwrap(), Vec::new());
    log.set_config(LogConfig { index_interval_bytes: interval_bytes, ..log.config().clone() });
    fill(&mut log, &mut sent, batches);
    log.on_high_watermark(log.end());
    log.checkpoint().unwrap();
    let start = segment_bases(&disk)[2] + 1;
    (disk, log, sent, start)
}

#[test]
fn deleting_the_head_on_a_full_disk_works_or_changes_nothing() {
    let (mut refused, mut done) = (0, 0);
    for room in (0..1_500).step_by(11) {
        // Nothing in the indexes, so nothing to make room with.
        let (disk, mut log, sent, start) = log_with_a_head(40, 1 << 20);
        let used: usize = disk.files().values().map(Vec::len).sum();
        disk.limit_capacity((used + room) as u64);
        let outcome = log.delete_before(Offset(start));
        let first = match &outcome {
            Ok(()) => {
                done += 1;
                sent.partition_point(|s| s.next <= start)
            }
            Err(LogError::Full { .. }) => {
                refused += 1;
                0
            }
            Err(e) => panic!("room {room}: {e}"),
        };
        assert_eq!(log.start().0, if outcome.is_ok() { start } else { 0 });
        assert!(log.reader().poison().is_none());
        let kept = bytes_of(&sent[first..]);
        assert_eq!(read_all(&log.reader()).unwrap(), kept, "room {room}");
        for seed in 0..6 {
            let after = open(&disk.image().power_cut(seed)).unwrap();
            assert_eq!((after.start(), read_all(&after.reader()).unwrap()), (log.start(), kept.clone()));
        }
        disk.heal();
        log.delete_before(Offset(start)).unwrap();
        assert_eq!(log.start().0, start);
        assert!(log.append([next(&sent).fresh()], LEADER).unwrap()[0].is_ok());
        log.close().unwrap();
        let log = open(&disk).unwrap();
        let epochs = log.reader().leader_epochs().entries().to_vec();
        assert_eq!((log.start().0, epochs[0].start_offset.0), (start, start), "room {room}");
    }
    assert!(refused > 10 && done > 10, "{refused} refused, {done} done");
}

#[test]
fn the_head_makes_room_for_its_own_deletion() {
    let (disk, mut log, sent, _) = log_with_a_head(200, 1);
    let used: usize = disk.files().values().map(Vec::len).sum();
    disk.limit_capacity(used as u64);
    let tried = log.append([next(&sent).fresh()], LEADER);
    assert!(matches!(tried, Err(LogError::Full { .. })), "{tried:?}");
    // Enough segments that their indexes are more than a manifest.
    let bases = segment_bases(&disk);
    let start = bases[bases.len() - 1];
    let indexes: usize = disk
        .files()
        .iter()
        .filter(|(p, _)| p.to_string_lossy().contains("index"))
        .map(|(_, b)| b.len())
        .sum();
    assert!(indexes > 3_000, "{indexes}");
    log.delete_before(Offset(start)).unwrap();
    assert_eq!(log.start().0, start);
    assert!(log.append([next(&sent).fresh()], LEADER).unwrap()[0].is_ok(), "the space is there");
}

/// A run of everything, up to the first error. Says what was acknowledged as durable, and what was handed in.
struct Run {
    disk: SimDisk,
    sent: Vec<Sent>,
    durable: usize,
    start: i64,
    error: Option<LogError>,
    log: Option<Log>,
}

fn run(disk: SimDisk) -> Run {
    let mut run = Run { disk, sent: Vec::new(), durable: 0, start: 0, error: None, log: None };
    run.error = steps(&mut run).err();
    run
}

fn steps(run: &mut Run) -> Result<(), LogError> {
    run.log = Some(open(&run.disk)?);
    let log = run.log.as_mut().unwrap();
    for round in 0..3 {
        for _ in 0..5 {
            let more = group(&run.sent, 3);
            run.sent.extend(more.iter().cloned());
            let outcomes = log.append(more.iter().map(Sent::fresh), LEADER);
            if let Err(LogError::Full { .. }) = &outcomes {
                run.sent.truncate(run.sent.len() - more.len());
            }
            outcomes?;
            log.sync()?;
            run.durable = run.sent.len();
        }
        if round == 1 {
            let keep = run.sent.len() - 4;
            // While it lasts, either length is right.
            run.durable = keep;
            let truncated = log.truncate_to(Offset(run.sent[keep].base));
            if truncated.is_ok() {
                run.sent.truncate(keep);
            }
            truncated?;
        }
        log.checkpoint()?;
        let start = run.sent[run.sent.len() / 3].base;
        log.on_high_watermark(log.end());
        run.start = start;
        log.delete_before(Offset(start))?;
    }
    run.log.take().unwrap().close()?;
    run.log = Some(open(&run.disk)?);
    Ok(())
}

#[test]
fn a_failed_call_stops_writing_and_nothing_else() {
    let mut struck = 0;
    let whole = run(disk());
    assert!(whole.error.is_none(), "{:?}", whole.error);
    let kinds = [
        (FaultOn::Write, FaultKind::Eio),
        (FaultOn::Write, FaultKind::NoSpace),
        (FaultOn::Sync, FaultKind::Eio),
        (FaultOn::Sync, FaultKind::NoSpace),
        (FaultOn::SetSize, FaultKind::Eio),
        (FaultOn::Rename, FaultKind::Eio),
        (FaultOn::Remove, FaultKind::Eio),
        (FaultOn::Open, FaultKind::Eio),
        (FaultOn::Read, FaultKind::Eio),
    ];
    for (on, kind) in kinds {
        for after in 0.. {
            let disk = disk();
            // Once: were it tried again, it would succeed.
            disk.inject(fault(on, kind, after, 1));
            let run = run(disk.clone());
            if disk.faults_taken() == 0 {
                break;
            }
            struck += 1;
            check_run(run, on, kind, &format!("{kind:?} on {on:?} number {after}"));
        }
    }
    println!("{struck} calls failed");
    assert!(struck > 400, "{struck}");
}

fn check_run(mut run: Run, on: FaultOn, kind: FaultKind, what: &str) {
    if let Some(mut log) = run.log.take() {
        let writes = matches!(on, FaultOn::Sync) || on == FaultOn::Write && kind == FaultKind::Eio;
        if writes && run.error.is_some() {
            assert!(matches!(run.error, Some(LogError::Poisoned(_))), "{what}: {:?}", run.error);
        }
        if let Some(LogError::Poisoned(first)) = &run.error {
            poisoned_log_is_still(&run.disk, &mut log, &first.to_string(), what);
        }
        // Readers see everything up to the published end, or are told what of it went away under a change that failed.
        let reader = log.reader();
        match read_all(&reader) {
            Ok(found) => {
                let gone = run.sent.partition_point(|s| s.next <= reader.start().0);
                assert!(bytes_of(&run.sent[gone..]).starts_with(&found), "{what}: other bytes");
            }
            Err(LogError::Io { .. } | LogError::Damaged { .. }) => {}
            Err(e) => panic!("{what}: {e}"),
        }
    }
    let image = run.disk.image();
    run.disk.heal();
    for seed in [None, Some(0), Some(1), Some(4), Some(5), Some(6)] {
        let disk = seed.map_or_else(|| image.killed(), |seed| image.power_cut(seed));
        let log = open(&disk).unwrap_or_else(|e| panic!("{what}, cut {seed:?}: {e}"));
        let found = read_all(&log.reader()).unwrap();
        let gone = run.sent.partition_point(|s| s.next <= log.start().0);
        let count = gone + found.len();
        assert!(log.start().0 <= run.start.max(0), "{what}, cut {seed:?}");
        assert!(count >= run.durable, "{what}, cut {seed:?}: {count} of {} durable", run.durable);
        assert_eq!(found, bytes_of(&run.sent[gone..count]), "{what}, cut {seed:?}");
        replay(run.sent[..count].iter()).compare(log.producers()).unwrap();
    }
}

/// No later write is tried, and every call gives the first reason.
fn poisoned_log_is_still(disk: &SimDisk, log: &mut Log, first: &str, what: &str) {
    let operations = disk.operations();
    let batch = Recipe { kind: Kind::Plain, records: 1, value_bytes: 1, time: 1 }.at(0, 1, [].iter());
    let errors = [
        log.append([batch.fresh()], LEADER).map(|_| ()),
        log.sync(),
        log.checkpoint(),
        log.truncate_to(Offset(1)).map(|_| ()),
        log.reset_to(Offset(1)),
        log.delete_before(Offset(1)),
        log.assign_epoch(LeaderEpoch(99)),
        log.begin_sync().map(|_| ()),
        log.begin_checkpoint().map(|_| ()),
    ];
    for error in errors {
        match error {
            Err(LogError::Poisoned(poison)) => assert_eq!(poison.to_string(), first, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
    }
    log.release_idle();
    assert!(log.prewrite_job().is_none());
    assert_eq!(disk.operations(), operations, "{what}: something was written");
}

#[test]
fn a_failed_sync_of_zeros_written_ahead_is_not_swallowed() {
    let disk = disk();
    let mut log = open(&disk).unwrap();
    log.set_config(LogConfig { prewrite_bytes: 400, ..log.config().clone() });
    let mut sent = Vec::new();
    fill(&mut log, &mut sent, 2);
    let job = log.prewrite_job().unwrap();
    disk.inject(fault(FaultOn::Sync, FaultKind::Eio, 0, 1));
    assert!(job.run().is_err());
    // The system has dropped the batches with the zeros, and tells the other handle so.
    assert!(matches!(log.sync(), Err(LogError::Poisoned(_))));
    assert_eq!(log.durable(), Offset(0));
}

#[test]
fn a_sync_that_succeeds_after_another_has_failed_makes_nothing_durable() {
    let disk = disk();
    let mut log = open(&disk).unwrap();
    let mut sent = Vec::new();
    fill(&mut log, &mut sent, 1);
    let failing = log.begin_sync().unwrap();
    fill(&mut log, &mut sent, 1);
    let other = log.begin_sync().unwrap();
    disk.inject(fault(FaultOn::Sync, FaultKind::Eio, 0, 1));
    // The system tells the open file of what it lost, once, and the other sync would find nothing left to do.
    let failed = failing.run();
    let outcome = other.run();
    assert!(matches!(outcome, Err(LogError::Poisoned(_))), "{outcome:?}");
    assert!(log.finish_sync(other, outcome).is_err());
    assert!(log.finish_sync(failing, failed).is_err());
    assert_eq!(log.durable(), Offset(0));
}

/// Fails when recovery trusts what it reads: what a failed sync could not write is still in the memory of the system, which takes it for
/// written, and what is appended and synced behind it is gone with a power cut.
#[test]
fn what_a_failed_sync_left_in_memory_is_written_again_by_the_next_opening() {
    for (path_ends, restarts) in [(".log", 1), (".log", 3), (".txnindex", 1)] {
        let disk = disk();
        let (mut log, mut sent) = (open(&disk).unwrap(), Vec::new());
        fill(&mut log, &mut sent, 7);
        log.checkpoint().unwrap();
        fill(&mut log, &mut sent, 11);
        disk.inject(Fault { path_ends: path_ends.to_owned(), ..fault(FaultOn::Sync, FaultKind::Eio, 0, 1) });
        assert!(matches!(log.checkpoint(), Err(LogError::Poisoned(_))), "{path_ends}");
        drop(log);
        let mut disk = disk.image().killed();
        // The system may tell the next one of the failure, too, and nobody after that.
        for _ in 1..restarts {
            disk.inject(Fault {
                path_ends: path_ends.to_owned(),
                ..fault(FaultOn::Sync, FaultKind::Eio, 0, 1)
            });
            assert!(open(&disk).is_err());
            disk = disk.image().killed();
        }
        let mut log = open(&disk).unwrap();
        let kept = read_all(&log.reader()).unwrap().len();
        sent.truncate(kept);
        let more = 5;
        fill(&mut log, &mut sent, more);
        log.checkpoint().unwrap();
        assert!(!disk.files().keys().any(|path| path.ends_with("write.failed")));
        drop(log);
        for seed in [0, 1, 4, 5] {
            let log = open(&disk.image().power_cut(seed)).unwrap_or_else(|e| panic!("{path_ends}: {e}"));
            assert_eq!(read_all(&log.reader()).unwrap(), bytes_of(&sent), "{path_ends}, cut {seed}");
            replay(sent.iter()).compare(log.producers()).unwrap();
        }
    }
}

#[test]
fn a_range_that_cannot_be_read_fails_the_reads_that_touch_it() {
    for sealed in [false, true] {
        let disk = disk();
        let (mut log, mut sent) = (open(&disk).unwrap(), Vec::new());
        fill(&mut log, &mut sent, 30);
        log.sync().unwrap();
        let bases = segment_bases(&disk);
        let base = if sealed { bases[1] } else { *bases.last().unwrap() };
        let path = file(base, "log");
        let bytes = disk.files()[&path].len() as u64;
        disk.make_unreadable(&path, 0, bytes);
        let reader = log.reader();
        for batch in &sent {
            let segment = bases.iter().rev().find(|b| **b <= batch.base).unwrap();
            let outcome = reader.read(Offset(batch.base), ReadLimits { max_bytes: 1, below: Offset::MAX });
            if *segment == base {
                assert!(matches!(outcome, Err(LogError::Io { .. })), "{outcome:?}");
            } else {
                assert_eq!(outcome.unwrap()[0], batch.bytes);
            }
        }
        assert!(reader.poison().is_none());
        assert!(log.append([next(&sent).fresh()], LEADER).unwrap()[0].is_ok());
    }
}

fn file(base: i64, extension: &str) -> PathBuf {
    PathBuf::from(format!("{DIR}/{base:020}.{extension}"))
}

fn segment_bases(disk: &SimDisk) -> Vec<i64> {
    let is_data = |path: &&PathBuf| path.extension().is_some_and(|e| e == "log");
    let base = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    disk.files().keys().filter(is_data).map(base).collect()
}

#[derive(Clone, Copy, PartialEq)]
enum Left {
    Killed,
    Closed,
}

/// A log of several segments, durable, left with its recovery point in the middle of the last segment, or closed.
fn durable_log(left: Left) -> (SimDisk, Vec<Sent>, i64) {
    let disk = disk();
    let (mut log, mut sent) = (open(&disk).unwrap(), Vec::new());
    fill(&mut log, &mut sent, 26);
    let start = sent[2].base + 1;
    log.on_high_watermark(log.end());
    log.checkpoint().unwrap();
    log.delete_before(Offset(start)).unwrap();
    fill(&mut log, &mut sent, 1);
    log.checkpoint().unwrap();
    fill(&mut log, &mut sent, 1);
    log.sync().unwrap();
    match left {
        Left::Killed => drop(log),
        Left::Closed => log.close().unwrap(),
    }
    (disk, sent, start)
}

/// All that a log can be asked, as one comparable value.
fn answers(log: &Log) -> Result<String, LogError> {
    let reader = log.reader();
    let mut text = format!("{} {} ", log.start(), log.end());
    for batch in read_all(&reader)? {
        text += &format!("{:x} ", crc_of(&batch));
    }
    for offset in log.start().0..log.end().0 {
        let read = reader.read(Offset(offset), ReadLimits { max_bytes: 1, below: Offset::MAX })?;
        text += &format!("{:x} ", read.first().map_or(0, |b| crc_of(b)));
    }
    for time in (990..1_400).step_by(9) {
        text += &format!("{:?} ", reader.first_at_or_after(time)?.map(|f| (f.timestamp, f.offset.0)));
    }
    text += &format!("{:?}", reader.aborted_transactions(log.start(), log.end())?);
    text += &format!("{:?}", reader.leader_epochs().entries());
    text += &format!("{:?}", log.producers().to_snapshot());
    Ok(text)
}

fn crc_of(batch: &[u8]) -> u64 {
    batch.iter().fold(7, |sum, byte| sum * 31 % 1_000_000_007 + u64::from(*byte))
}

#[test]
fn what_is_derived_is_rebuilt_with_the_same_answers() {
    let damaged: usize = [Left::Killed, Left::Closed].into_iter().map(rebuilt_with_the_same_answers).sum();
    println!("{damaged} damaged files rebuilt or passed over");
    assert!(damaged > 5_000);
}

fn rebuilt_with_the_same_answers(left: Left) -> usize {
    let (disk, sent, start) = durable_log(left);
    let image = disk.image();
    let expected = answers(&open(&image.killed()).unwrap()).unwrap();
    let epochs = epochs_from(epochs_of(sent.iter()), start);
    assert!(expected.contains(&format!("start_offset: Offset({})", epochs[0].1)));
    assert!(expected.contains("AbortedTransaction"), "{expected}");
    let derived = ["index", "snapshot", "leader-epoch-checkpoint"];
    let mut damaged = 0;
    for (path, bytes) in disk.files() {
        let name = path.to_string_lossy().into_owned();
        if !derived.iter().any(|d| name.ends_with(d)) {
            continue;
        }
        let removed = image.killed();
        removed.remove_file(&path).unwrap();
        let log = open(&removed).unwrap_or_else(|e| panic!("without {name}: {e}"));
        if name.ends_with("snapshot") {
            replay(sent.iter()).compare(log.producers()).unwrap();
        } else {
            assert_eq!(answers(&log).unwrap(), expected, "without {name}");
        }
        // Opening looks into the other indexes only where the log was not closed.
        let is_known = name.ends_with("txnindex") || name.ends_with("checkpoint");
        if left == Left::Closed && !is_known {
            continue;
        }
        for length in 0..bytes.len() {
            let shorter = image.killed();
            shorter.open(&path, OpenMode::Write).unwrap().set_size(length as u64).unwrap();
            let log = open(&shorter).unwrap_or_else(|e| panic!("{name} cut to {length}: {e}"));
            assert_eq!(answers(&log).unwrap(), expected, "{name} cut to {length}");
            damaged += 1;
        }
        for bit in 0..bytes.len() * 8 {
            let flipped = image.killed();
            flipped.flip_bit(&path, bit as u64 / 8, (bit % 8) as u8);
            let log = open(&flipped).unwrap_or_else(|e| panic!("bit {bit} of {name}: {e}"));
            assert_eq!(answers(&log).unwrap(), expected, "bit {bit} of {name}");
            damaged += 1;
        }
    }
    damaged
}

#[test]
fn a_transaction_index_that_goes_away_is_missed_by_readers_and_by_whoever_cuts_the_log() {
    let disk = disk();
    let (mut log, mut sent) = (open(&disk).unwrap(), Vec::new());
    fill(&mut log, &mut sent, 60);
    log.sync().unwrap();
    let aborted = replay(sent.iter()).aborted;
    let reader = log.reader();
    assert_eq!(reader.aborted_transactions(Offset(0), log.end()).unwrap(), aborted);
    let indexes: Vec<_> =
        disk.files().into_keys().filter(|p| p.extension().is_some_and(|e| e == "txnindex")).collect();
    assert!(indexes.len() > 2);
    for path in indexes.iter().cloned() {
        let other = disk.image().killed();
        other.flip_bit(&path, 17, 0);
        let twin = open(&other).unwrap();
        assert_eq!(twin.reader().aborted_transactions(Offset(0), twin.end()).unwrap(), aborted);
        other.flip_bit(&path, 17, 0);
        let outcome = twin.reader().aborted_transactions(Offset(0), twin.end());
        assert!(
            matches!(&outcome, Err(LogError::Damaged { path: named, .. }) if *named == path),
            "{outcome:?}"
        );
    }
    let last = indexes.last().unwrap().clone();
    disk.remove_file(&last).unwrap();
    let (end, files) = (log.end(), disk.files());
    let base: i64 = last.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let second = sent.iter().find(|s| s.base > base).unwrap().base;
    let outcome = log.truncate_to(Offset(second));
    assert!(matches!(&outcome, Err(LogError::Damaged { path, .. }) if *path == last), "{outcome:?}");
    assert_eq!((log.end(), disk.files().len()), (end, files.len()), "something was cut");
}

#[test]
fn damage_below_the_durable_point_is_named_and_nothing_is_cut() {
    let (disk, _, _) = durable_log(Left::Killed);
    let image = disk.image();
    let bases = segment_bases(&disk);
    for (n, base) in bases.iter().enumerate() {
        let path = file(*base, "log");
        let gone = image.killed();
        gone.remove_file(&path).unwrap();
        named(&gone, &path);
        // All of a sealed segment is durable; of the active one, up to the recovery point.
        let durable = if n + 1 == bases.len() { 100 } else { disk.files()[&path].len() as u64 };
        for length in (0..durable).step_by(37) {
            let shorter = image.killed();
            shorter.open(&path, OpenMode::Write).unwrap().set_size(length).unwrap();
            let before = shorter.files();
            named(&shorter, &path);
            assert_eq!(shorter.files(), before, "{} cut to {length} was changed", path.display());
        }
    }
}

fn named(disk: &SimDisk, expected: &Path) {
    match open(disk) {
        Err(LogError::Damaged { path, .. }) => assert_eq!(path, expected),
        other => panic!("{} is missing or short, and opening says {other:?}", expected.display()),
    }
}

#[test]
fn a_flipped_bit_in_a_durable_batch_never_makes_the_log_shorter() {
    let (disk, sent, start) = durable_log(Left::Killed);
    let image = disk.image();
    let base = segment_bases(&disk)[1];
    let path = file(base, "log");
    let whole = sent.iter().filter(|s| s.next > start).count();
    for bit in 0..disk.files()[&path].len() * 8 {
        let flipped = image.killed();
        flipped.flip_bit(&path, bit as u64 / 8, (bit % 8) as u8);
        // Producer state may have to be replayed over it, and then opening says so.
        let log = match open(&flipped) {
            Ok(log) => log,
            Err(LogError::Damaged { path: named, .. }) if named == path => continue,
            Err(e) => panic!("bit {bit}: {e}"),
        };
        assert_eq!(log.end().0, sent.last().unwrap().next, "bit {bit}");
        match read_all(&log.reader()) {
            // Where only the content changed the batch is served as it is; its checksum tells whoever reads it.
            Ok(found) => assert_eq!(found.len(), whole, "bit {bit}: batches are missing"),
            Err(LogError::Damaged { path: named, .. }) => assert_eq!(named, path),
            Err(e) => panic!("bit {bit}: {e}"),
        }
    }
}

#[test]
fn without_its_manifest_a_log_keeps_every_record() {
    let (disk, sent, start) = durable_log(Left::Killed);
    let image = disk.image();
    let path = PathBuf::from(format!("{DIR}/log.manifest"));
    let bits = disk.files()[&path].len() * 8;
    for bit in std::iter::once(None).chain((0..bits).step_by(11).map(Some)) {
        let disk = image.killed();
        match bit {
            None => disk.remove_file(&path).unwrap(),
            Some(bit) => disk.flip_bit(&path, bit as u64 / 8, (bit % 8) as u8),
        }
        let log = match open(&disk) {
            // The version's digit became a larger one.
            Err(LogError::BadFile { path: named, .. }) if named == path => continue,
            other => other.unwrap(),
        };
        // A damaged one is told from none at all, as in a directory of Kafka's; then the epochs tell where the log started.
        let first = segment_bases(&disk)[0];
        assert_eq!(log.start().0, if bit.is_some() { start } else { first });
        let kept: Vec<Sent> = sent.iter().filter(|s| s.next > log.start().0).cloned().collect();
        assert_eq!(read_all(&log.reader()).unwrap(), bytes_of(&kept));
        replay(sent.iter()).compare(log.producers()).unwrap();
    }
}
