//! Failures that other systems had, one test each, named by its number in the list of docs/TESTING.md. Each says which line
//! guards against it; without that line the test fails.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

#[allow(dead_code, reason = "other tests use what this one does not")]
mod batches;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use batches::{Kind, Recipe, Sent};
use bytes::Bytes;
use floodmark_proto::batch::{BatchHeader, check_stored};
use floodmark_proto::ids::{LeaderEpoch, Offset};
use floodmark_storage::clock::{Clock, Stopwatch};
use floodmark_storage::fs::sim::{Fault, FaultKind, FaultOn};
use floodmark_storage::fs::{Disk, OpenMode, RealDisk, SimDisk, SyncPoint};
use floodmark_storage::log::append::AppendAs;
use floodmark_storage::log::recovery::RecoveryReport;
use floodmark_storage::log::{Log, LogContext};
use floodmark_storage::producers::Origin;
use floodmark_storage::random::Random;
use floodmark_storage::{LogConfig, LogError, LogReader, ReadLimits, TailBudget};

const DIR: &str = "logs/t-0";
const LEADER: AppendAs = AppendAs::Leader { epoch: LeaderEpoch(1), origin: Origin::Client };
const ALL: ReadLimits = ReadLimits { max_bytes: 1 << 20, below: Offset::MAX };

fn sim() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("logs")).unwrap();
    disk.sync_dir(Path::new("."), SyncPoint::DataDirCreated).unwrap();
    disk
}

fn small() -> LogConfig {
    LogConfig { segment_bytes: 1_500, index_interval_bytes: 150, prewrite_bytes: 0, ..LogConfig::default() }
}

fn open_on(disk: Arc<dyn Disk>, dir: &Path, tail_bytes: u64) -> Result<(Log, RecoveryReport), LogError> {
    let context = LogContext {
        disk,
        clock: Clock::manual(1_000_000),
        random: Random::seeded(7),
        tail_budget: TailBudget::new(tail_bytes),
    };
    Log::open(context, dir, small())
}

fn open(disk: &SimDisk) -> (Log, RecoveryReport) {
    open_on(Arc::new(disk.clone()), Path::new(DIR), 0).unwrap()
}

fn plain(records: usize) -> Recipe {
    Recipe { kind: Kind::Plain, records, value_bytes: 50, time: 1_000 }
}

fn append(log: &mut Log, recipe: Recipe, before: &[Sent]) -> Sent {
    let epoch = log.reader().leader_epochs().latest().map_or(1, |e| e.epoch.0);
    let sent = recipe.at(log.end().0, epoch, before.iter());
    let append_as = AppendAs::Leader { epoch: LeaderEpoch(epoch), origin: Origin::Client };
    let outcome = log.append([sent.fresh()], append_as).unwrap().remove(0).unwrap();
    assert_eq!(outcome.base_offset.0, sent.base);
    sent
}

fn fill(log: &mut Log, batches: usize) -> Vec<Sent> {
    (0..batches).map(|n| append(log, plain(1 + n % 3), &[])).collect()
}

fn read_all(reader: &LogReader) -> Vec<Bytes> {
    let (mut from, mut found) = (reader.start(), Vec::new());
    loop {
        let pieces = reader.read(from, ALL).unwrap();
        if pieces.is_empty() {
            return found;
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

fn bytes_of(sent: &[Sent]) -> Vec<Bytes> {
    sent.iter().map(|s| s.bytes.clone()).collect()
}

/// Guards: `batch.next <= limits.below` in `Tail::read`; the size and `last >= below` in `whole_batches`.
#[test]
fn r13_a_fetch_that_races_an_append_gets_whole_batches_below_its_limit() {
    for tail_bytes in [0, 20_000] {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = open_on(Arc::new(RealDisk), &dir.path().join("t-0"), tail_bytes).unwrap();
        let limit = AtomicI64::new(0);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // However this thread ends, the readers must end, too.
            let _done = Done(&done);
            for n in 0..2 {
                let (reader, limit, done) = (log.reader(), &limit, &done);
                scope.spawn(move || read_while(&reader, limit, done, n));
            }
            for n in 0..500 {
                let recipes = [plain(1 + n % 4), plain(2)];
                let mut base = log.end().0;
                let group = recipes.map(|r| {
                    let sent = r.at(base, 1, [].iter());
                    base = sent.next;
                    sent
                });
                // Behind the log's end by a batch, so that there is always something that must not be seen.
                limit.store(log.end().0, Ordering::Release);
                assert!(log.append(group.iter().map(Sent::fresh), LEADER).unwrap().iter().all(Result::is_ok));
                if n % 50 == 0 {
                    log.sync().unwrap();
                }
            }
        });
    }
}

struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn read_while(reader: &LogReader, limit: &AtomicI64, done: &AtomicBool, n: usize) {
    let mut from = Offset(0);
    let mut read = 0;
    let begun = Stopwatch::start();
    while !done.load(Ordering::Acquire) || read == 0 {
        assert!(begun.elapsed() < Duration::from_secs(120), "{read} batches read, and no end to it");
        let below = Offset(limit.load(Ordering::Acquire));
        let max_bytes = if n == 0 { 700 } else { 1 << 20 };
        for mut rest in reader.read(from, ReadLimits { max_bytes, below }).unwrap() {
            while !rest.is_empty() {
                let header = check_stored(&rest).unwrap();
                assert_eq!(header.base_offset, from, "a batch is missing");
                assert!(header.last_offset() < below, "{} is not below {below}", header.last_offset());
                from = header.next_offset();
                read += 1;
                let _ = rest.split_to(header.size_bytes());
            }
        }
        if n == 1 && read % 97 == 0 {
            from = Offset(0);
        }
    }
}

/// Guard: `check_poison` at the head of `Log::append`.
#[test]
fn r15_nothing_is_appended_after_a_write_failed() {
    let disk = sim();
    let (mut log, _) = open(&disk);
    let sent = fill(&mut log, 5);
    disk.inject(Fault {
        on: FaultOn::Write,
        path_ends: ".log".into(),
        after: 0,
        times: 1,
        kind: FaultKind::Eio,
    });
    let next = plain(1).at(log.end().0, 1, [].iter());
    assert!(matches!(log.append([next.fresh()], LEADER), Err(LogError::Poisoned(_))));
    // The disk would take it now.
    let operations = disk.operations();
    assert!(matches!(log.append([next.fresh()], LEADER), Err(LogError::Poisoned(_))));
    assert_eq!(disk.operations(), operations);
    assert_eq!(read_all(&log.reader()), bytes_of(&sent));
}

/// Guard: `flush_aborts` before `publish` in `Active::write`, and the cut of the data file in `Log::undo`.
#[test]
fn r16_a_transaction_index_that_cannot_be_written_gives_no_offset_twice() {
    for kind in [FaultKind::NoSpace, FaultKind::Eio] {
        let disk = sim();
        let (mut log, _) = open(&disk);
        let mut sent = Vec::new();
        for recipe in [plain(2), Recipe { kind: Kind::Transactional(5), ..plain(1) }, plain(1)] {
            let batch = append(&mut log, recipe, &sent);
            sent.push(batch);
        }
        log.sync().unwrap();
        let marker = Recipe { kind: Kind::End { id: 5, abort: true }, ..plain(1) };
        let marker = marker.at(log.end().0, 1, sent.iter());
        disk.inject(Fault { on: FaultOn::Write, path_ends: ".txnindex".into(), after: 0, times: 1, kind });
        assert!(log.append([marker.fresh()], LEADER).is_err());
        assert_eq!(log.end().0, marker.base);
        assert_eq!(read_all(&log.reader()), bytes_of(&sent));
        if kind == FaultKind::NoSpace {
            let other = append(&mut log, plain(3), &sent);
            sent.push(other);
            log.sync().unwrap();
        }
        let (log, _) = open(&disk.image().power_cut(8));
        assert_eq!(read_all(&log.reader()), bytes_of(&sent));
        assert!(log.reader().aborted_transactions(Offset(0), log.end()).unwrap().is_empty());
        assert_eq!(log.producers().first_open_offset(), Some(Offset(sent[1].base)));
    }
}

/// Guards: the directory's sync in `SyncJob::run`, and both syncs of `replace_file`, in their order.
#[test]
fn r17_a_new_segment_and_a_new_manifest_keep_their_names() {
    let disk = sim();
    let (mut log, _) = open(&disk);
    let mut sent = fill(&mut log, 10);
    log.sync().unwrap();
    let before = log.reader().size_bytes();
    while log.reader().size_bytes() < before + 3_000 {
        sent.push(append(&mut log, plain(3), &[]));
        log.sync().unwrap();
        let after = open(&disk.image().power_cut(8)).0;
        assert_eq!(read_all(&after.reader()), bytes_of(&sent));
    }
    log.on_high_watermark(log.end());
    log.delete_before(Offset(7)).unwrap();
    for seed in 0..16 {
        assert_eq!(open(&disk.image().power_cut(seed)).0.start(), Offset(7));
    }
}

/// Guards: `LeaderEpochs::parse` refuses a torn file, `Opening::rebuild_epochs`, and the calls of `truncate_from_end` in
/// `truncate_to` and in recovery.
#[test]
fn r18_epochs_are_rebuilt_where_torn_and_trimmed_with_the_log() {
    let disk = sim();
    let (mut log, _) = open(&disk);
    for epoch in 1..6 {
        log.assign_epoch(LeaderEpoch(epoch)).unwrap();
        fill(&mut log, 4);
    }
    log.checkpoint().unwrap();
    let entries = log.reader().leader_epochs().entries().to_vec();
    assert_eq!(entries.len(), 5);
    drop(log);
    let path = PathBuf::from(format!("{DIR}/leader-epoch-checkpoint"));
    let length = disk.files()[&path].len() as u64;
    for torn in 0..length {
        let disk = disk.image().killed();
        disk.open(&path, OpenMode::Write).unwrap().set_size(torn).unwrap();
        let (log, _) = open(&disk);
        assert_eq!(log.reader().leader_epochs().entries(), entries, "torn at {torn}");
    }
    let (mut log, _) = open(&disk);
    log.truncate_to(entries[3].start_offset).unwrap();
    assert_eq!(log.reader().leader_epochs().entries(), &entries[..3]);
    drop(log);
    for seed in 0..16 {
        let (log, _) = open(&disk.image().power_cut(seed));
        assert_eq!(log.reader().leader_epochs().entries(), &entries[..3]);
    }
}

/// Guards: snapshots at each segment's base are kept (`prune_snapshots`, `delete_before`) and synced with the recovery point,
/// and `fits` in `Active::must_roll`.
#[test]
fn r19_a_cut_keeps_producers_whose_batches_are_gone_and_no_index_overflows() {
    let disk = sim();
    let (mut log, _) = open(&disk);
    let idempotent = Recipe { kind: Kind::Idempotent(9), ..plain(2) };
    let first = append(&mut log, idempotent, &[]);
    let sent = fill(&mut log, 30);
    log.on_high_watermark(log.end());
    log.checkpoint().unwrap();
    log.delete_before(Offset(sent[15].base)).unwrap();
    log.truncate_to(Offset(sent[25].base)).unwrap();
    let retried = |log: &mut Log| log.append([first.fresh()], LEADER).unwrap().remove(0).unwrap();
    assert!(retried(&mut log).is_duplicate);
    drop(log);
    let disk = disk.image().power_cut(8);
    let (mut log, _) = open(&disk);
    assert!(retried(&mut log).is_duplicate);
    // A replica is told to go on far away: 2^31 and more past the segment's base.
    let mut bases = vec![log.end().0];
    for far in [1 << 31, (1 << 31) + (1 << 32)] {
        let sent = plain(2).at(log.end().0 + far, 1, [].iter());
        assert!(log.append([sent.stored()], AppendAs::Replica).unwrap()[0].is_ok());
        bases.push(sent.base);
    }
    log.sync().unwrap();
    let (log, _) = open(&disk.image().power_cut(8));
    for base in &bases[1..] {
        let read = log.reader().read(Offset(*base), ReadLimits { max_bytes: 1, below: Offset::MAX }).unwrap();
        assert_eq!(BatchHeader::parse(&read[0]).unwrap().base_offset, Offset(*base));
    }
}

/// Guards: an index entry counts only if its batch is the one it names (`Segment::start_of_walk`), and `OffsetBehindEnd`.
#[test]
fn r20_an_index_that_lags_or_lies_misleads_nobody_and_a_replicas_offsets_only_rise() {
    let disk = sim();
    let (mut log, _) = open(&disk);
    let sent = fill(&mut log, 40);
    log.close().unwrap();
    for (path, bytes) in disk.files() {
        if path.extension().is_none_or(|e| e != "index") || bytes.len() < 16 {
            continue;
        }
        // Positions of later batches, and positions between batches.
        for change in 0..2 {
            let disk = disk.image().killed();
            let index = disk.open(&path, OpenMode::Write).unwrap();
            let mut wrong = bytes.clone();
            if change == 0 {
                let last = bytes.len() - 8;
                (0..last).filter(|at| at % 8 >= 4).for_each(|at| wrong[at] = bytes[at + 8]);
            } else {
                wrong.chunks_mut(8).for_each(|entry| entry[7] ^= 1);
            }
            index.write_at(&[std::io::IoSlice::new(&wrong)], 0).unwrap();
            let (log, _) = open(&disk);
            for batch in &sent {
                let limits = ReadLimits { max_bytes: 1, below: Offset::MAX };
                assert_eq!(log.reader().read(Offset(batch.base), limits).unwrap()[0], batch.bytes);
            }
        }
    }
    let (mut log, _) = open(&disk);
    let behind = plain(1).at(log.end().0 - 1, 1, [].iter());
    assert!(log.append([behind.stored()], AppendAs::Replica).unwrap()[0].is_err());
    assert_eq!(read_all(&log.reader()), bytes_of(&sent));
}

/// Guard: recovery takes the end of a segment from the manifest (`end: record.end_offset` in `Opening::segment_of`), not from
/// the last record that is left. The last batch of a compacted log is for compaction's own test of this number.
#[test]
fn r21_the_end_does_not_go_back_where_nothing_is_left_before_it() {
    let disk = sim();
    let (mut log, _) = open(&disk);
    fill(&mut log, 12);
    let end = log.end();
    log.on_high_watermark(end);
    log.delete_before(end).unwrap();
    drop(log);
    for seed in 0..16 {
        let (mut log, _) = open(&disk.image().power_cut(seed));
        assert_eq!((log.start(), log.end()), (end, end));
        let sent = append(&mut log, plain(1), &[]);
        assert_eq!(sent.base, end.0);
        log.close().unwrap();
    }
    // The end may also lie in a gap, where no batch tells of it.
    let (mut log, _) = open(&disk);
    let far = plain(1).at(end.0 + 10, 1, [].iter());
    assert!(log.append([far.stored()], AppendAs::Replica).unwrap()[0].is_ok());
    log.truncate_to(end + 4).unwrap();
    drop(log);
    for seed in 0..16 {
        assert_eq!(open(&disk.image().power_cut(seed)).0.end(), end + 4);
    }
}

/// Guards: `cut_file` in `Opening::scan_segment` and the trim of the data file in `Active::seal`, either of which leaves nothing
/// behind the end that could be met again.
#[test]
fn r40_a_torn_tail_does_not_come_back_behind_later_batches() {
    for seed in 0..400 {
        let disk = sim();
        let (mut log, _) = open(&disk);
        let mut sent = fill(&mut log, 3);
        log.sync().unwrap();
        // All of one size, so that what is written later ends where the lost batches began.
        let lost: Vec<_> = (0..4).map(|_| append(&mut log, plain(1), &[])).collect();
        let cut = disk.image().power_cut(seed);
        let (mut log, _) = open(&cut);
        let kept = read_all(&log.reader()).len();
        sent.extend(lost.into_iter().take(kept - 3));
        sent.push(append(&mut log, Recipe { time: 7_777, ..plain(1) }, &[]));
        log.sync().unwrap();
        for again in [0, 1, 5] {
            let (log, _) = open(&cut.image().power_cut(again));
            assert_eq!(read_all(&log.reader()), bytes_of(&sent), "seed {seed}, then {again}");
        }
    }
}

/// Guard: `BatchScan::step` takes any batch that does not begin before the least offset.
#[test]
fn r40_a_gap_forward_is_good() {
    let disk = sim();
    let (mut log, _) = open(&disk);
    let mut sent = fill(&mut log, 2);
    for gap in [1, 40, 3_000] {
        let batch = plain(2).at(log.end().0 + gap, 1, [].iter());
        assert!(log.append([batch.stored()], AppendAs::Replica).unwrap()[0].is_ok());
        sent.push(batch);
    }
    log.sync().unwrap();
    let (log, report) = open(&disk.image().power_cut(8));
    assert_eq!((read_all(&log.reader()), report.cut_bytes), (bytes_of(&sent), 0));
}

/// Guards: `Indexer::resume` goes on after the entries that are there, and `end_marker` and `BatchScan` take a batch without
/// records.
#[test]
fn r40_no_index_entry_stands_twice_and_an_empty_batch_is_no_surprise() {
    let disk = sim();
    let (mut log, _) = open(&disk);
    let mut sent = fill(&mut log, 9);
    let empty = floodmark_proto::batch::BatchBuilder::new().last_offset_delta(4).build().unwrap();
    let mut bytes = empty;
    bytes.stamp(log.end(), LeaderEpoch(1));
    let stored = bytes.as_bytes().to_vec();
    assert!(log.append([bytes], AppendAs::Replica).unwrap()[0].is_ok());
    sent.push(Sent {
        base: log.end().0 - 5,
        next: log.end().0,
        epoch: 1,
        bytes: Bytes::from(stored),
        times: Vec::new(),
        producer: None,
    });
    log.checkpoint().unwrap();
    drop(log);
    for _ in 0..12 {
        let (mut log, _) = open(&disk);
        assert_eq!(read_all(&log.reader()), bytes_of(&sent));
        sent.push(append(&mut log, plain(1), &[]));
        log.checkpoint().unwrap();
    }
    open(&disk).0.close().unwrap();
    let mut seen = 0;
    for (path, entries) in disk.files() {
        if path.extension().is_some_and(|e| e == "index") {
            assert!(entries.chunks(8).is_sorted_by(|a, b| a < b), "{}: {entries:?}", path.display());
            seen += entries.len() / 8;
        }
    }
    assert!(seen > 5, "{seen}");
}
