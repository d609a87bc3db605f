//! Compaction of whole logs on a simulated disk, against what a plain map says.

mod crash;
mod live;
mod model;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use floodmark_proto::batch::{
    BatchBuilder, BatchHeader, DecompressLimits, EndTransactionMarker, NewRecord, RecordBatch, Records,
    TransactionResult,
};
use floodmark_proto::ids::{LeaderEpoch, Offset, ProducerId};

use super::*;
use crate::TailBudget;
use crate::clock::Clock;
use crate::config::{CompactionConfig, LogConfig};
use crate::fs::SimDisk;
use crate::log::append::AppendAs;
use crate::log::reader::LogReader;
use crate::log::{LogContext, recovery::RecoveryReport};
use crate::producers::Origin;
use crate::random::Random;
use crate::segment::ReadLimits;

const LEADER: AppendAs = AppendAs::Leader { epoch: LeaderEpoch(3), origin: Origin::Client };
const RETENTION_MS: i64 = 1_000;

/// Offset, key, value, timestamp.
type Row = (i64, String, Option<String>, i64);

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 1_500,
        index_interval_bytes: 200,
        prewrite_bytes: 0,
        compaction: Some(CompactionConfig {
            min_dirty_ratio: 0.0,
            delete_retention_ms: RETENTION_MS,
            map_bytes: 1 << 20,
            ..CompactionConfig::default()
        }),
        ..LogConfig::default()
    }
}

/// A log on a simulated disk with a clock that stands still.
struct Fixture {
    disk: SimDisk,
    clock: Clock,
    config: LogConfig,
    log: Log,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture::with(SimDisk::new(), config())
    }

    fn with(disk: SimDisk, config: LogConfig) -> Fixture {
        use crate::fs::Disk as _;
        disk.create_dir_all(Path::new("logs")).unwrap();
        disk.sync_dir(Path::new("."), SyncPoint::PartitionCreated).unwrap();
        let clock = Clock::manual(100_000);
        let log = open(&disk, &clock, &config).unwrap().0;
        Fixture { disk, clock, config, log }
    }

    fn append(&mut self, batch: RecordBatch) -> Offset {
        self.log.append([batch], LEADER).unwrap()[0].clone().unwrap().base_offset
    }

    /// One record a batch.
    fn put(&mut self, records: &[(&str, Option<&str>)]) {
        for (key, value) in records {
            self.append(batch(BatchBuilder::new(), self.clock.now_ms(), &[(key, *value)]));
        }
    }

    /// A transaction with its marker.
    fn transact(&mut self, producer: i64, sequence: i32, records: &[(&str, &str)], end: TransactionResult) {
        let records: Vec<_> = records.iter().map(|(k, v)| (*k, Some(*v))).collect();
        let builder = BatchBuilder::new().producer(ProducerId(producer), 0, sequence).transactional(true);
        self.append(batch(builder, self.clock.now_ms(), &records));
        self.append(marker(producer, end, self.clock.now_ms()));
    }

    /// Seals what is there and makes it cleanable.
    fn settle(&mut self) {
        if self.log.active.position > 0 {
            self.log.active.wake(&self.config).unwrap();
            self.log.roll().unwrap();
        }
        self.log.on_high_watermark(self.log.end());
        self.log.checkpoint().unwrap();
    }

    fn compact(&mut self) -> CompactionReport {
        self.log.compact(CompactWhen::Asked, CompactionControl::default()).unwrap().unwrap()
    }

    fn reopen(&mut self) -> RecoveryReport {
        let (log, report) = open(&self.disk, &self.clock, &self.config).unwrap();
        self.log = log;
        self.log.on_high_watermark(self.log.end());
        report
    }

    fn rows(&self) -> Vec<Row> {
        committed(&self.log.reader())
    }

    fn batches(&self) -> Vec<BatchHeader> {
        headers(&self.log.reader())
    }
}

fn open(disk: &SimDisk, clock: &Clock, config: &LogConfig) -> Result<(Log, RecoveryReport), LogError> {
    open_with_tail(disk, clock, config, 0)
}

fn open_with_tail(
    disk: &SimDisk,
    clock: &Clock,
    config: &LogConfig,
    tail_bytes: u64,
) -> Result<(Log, RecoveryReport), LogError> {
    let context = LogContext {
        disk: Arc::new(disk.clone()),
        clock: clock.clone(),
        random: Random::seeded(1),
        tail_budget: TailBudget::new(tail_bytes),
    };
    Log::open(context, Path::new("logs/t-0"), config.clone())
}

fn batch(mut builder: BatchBuilder, now_ms: i64, records: &[(&str, Option<&str>)]) -> RecordBatch {
    for (key, value) in records {
        let (key, value) = (Some(key.as_bytes()), value.map(str::as_bytes));
        builder.push(&NewRecord { timestamp: now_ms, key, value, headers: &[] }).unwrap();
    }
    builder.build().unwrap()
}

fn marker(producer: i64, result: TransactionResult, now_ms: i64) -> RecordBatch {
    let mut builder = BatchBuilder::new().producer(ProducerId(producer), 0, -1);
    builder.push_marker(now_ms, &EndTransactionMarker { result, coordinator_epoch: 1 }).unwrap();
    builder.build().unwrap()
}

/// Reads to the end, which may move meanwhile: what compaction removed behind an older end has a newer record after it.
fn pieces(reader: &LogReader) -> Vec<bytes::Bytes> {
    let mut all = Vec::new();
    let mut from = reader.start();
    loop {
        let end = reader.end();
        let read = reader.read(from, ReadLimits { max_bytes: 1 << 20, below: end }).unwrap();
        if read.is_empty() && reader.end() == end {
            return all;
        }
        for mut rest in read.iter().map(|piece| &piece[..]) {
            while !rest.is_empty() {
                let header = BatchHeader::parse(rest).unwrap();
                assert!(header.next_offset() > from, "a reader is sent back from {from}");
                from = header.next_offset();
                rest = &rest[header.size_bytes()..];
            }
        }
        all.extend(read);
    }
}

fn split(reader: &LogReader) -> Vec<bytes::Bytes> {
    let mut batches = Vec::new();
    for mut piece in pieces(reader) {
        while !piece.is_empty() {
            let header = floodmark_proto::batch::check_stored(&piece).unwrap();
            batches.push(piece.split_to(header.size_bytes()));
        }
    }
    batches
}

fn headers(reader: &LogReader) -> Vec<BatchHeader> {
    split(reader).iter().map(|b| BatchHeader::parse(b).unwrap()).collect()
}

/// What a reader of committed records is shown.
fn committed(reader: &LogReader) -> Vec<Row> {
    let aborted = reader.aborted_transactions(reader.start(), reader.end()).unwrap();
    assert!(aborted.is_empty() || reader.has_aborted_transactions(reader.start()));
    let mut rows = Vec::new();
    for batch in split(reader) {
        let header = BatchHeader::parse(&batch).unwrap();
        let is_aborted = |offset: Offset| {
            let range =
                |a: &crate::index::AbortedTransaction| a.first_offset <= offset && offset < a.last_offset;
            aborted.iter().any(|a| a.producer_id == header.producer_id && range(a))
        };
        if header.attributes.is_control()
            || (header.attributes.is_transactional() && is_aborted(header.base_offset))
        {
            continue;
        }
        let mut scratch = Vec::new();
        for record in Records::open(&batch, &DecompressLimits::DEFAULT, &mut scratch).unwrap() {
            let record = record.unwrap();
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            rows.push((
                record.offset.0,
                text(record.key.unwrap_or(b"")),
                record.value.map(text),
                record.timestamp,
            ));
        }
    }
    rows
}

/// The newest value of each key that has one.
fn newest(rows: &[Row]) -> BTreeMap<String, String> {
    let mut map = BTreeMap::new();
    for (_, key, value, _) in rows {
        match value {
            Some(value) => map.insert(key.clone(), value.clone()),
            None => map.remove(key),
        };
    }
    map
}

fn offsets(rows: &[Row]) -> Vec<i64> {
    rows.iter().map(|r| r.0).collect()
}

#[test]
fn the_newest_record_of_each_key_stays_at_its_offset_with_its_time() {
    let mut f = Fixture::new();
    for n in 0..60 {
        let value = format!("value {n}");
        f.put(&[(&format!("key {}", n % 7), Some(&value))]);
        f.clock.advance_ms(1);
    }
    f.settle();
    let (before, segments) = (f.rows(), f.log.segments().len());
    assert!(segments > 3);
    let report = f.compact();
    assert_eq!(report.end, CompactionEnd::Complete);
    assert_eq!((report.keys, report.counts.records_kept, report.counts.records_dropped), (7, 7, 53));
    assert_eq!(f.rows(), before[53..]);
    assert_eq!(report.segments_in, segments as u64 - 1);
    f.compact();
    assert_eq!(f.log.segments().len(), 2, "what became small is merged by the next pass");
    assert!(report.bytes_saved > 0 && f.log.manifest.first_dirty == Offset(60));
    // Look-ups by offset and time go through new indexes.
    assert_eq!(f.log.reader().first_at_or_after(100_055).unwrap().unwrap().offset, Offset(55));
    assert_eq!(f.log.reader().largest_timestamp().unwrap().unwrap().offset, Offset(59));
    f.put(&[("key 0", Some("after"))]);
    f.log.sync().unwrap();
    let with_new = f.rows();
    f.reopen();
    assert_eq!(f.rows(), with_new);
    assert_eq!(f.disk.violations(), Vec::<String>::new());
    let names: Vec<_> = f.disk.files().into_keys().map(|p| p.display().to_string()).collect();
    assert!(names.iter().all(|n| !n.contains("cleaned") && !n.ends_with(".tmp")), "{names:?}");
}

#[test]
fn compacting_again_changes_nothing() {
    let mut f = Fixture::new();
    for n in 0..80 {
        f.put(&[(&format!("key {}", n % 30), Some("some value that takes its room"))]);
    }
    f.settle();
    f.compact();
    f.compact();
    let files = f.disk.files();
    let report = f.compact();
    assert_eq!((report.counts.records_dropped, report.segments_out, report.bytes_saved), (0, 0, 0));
    assert_eq!(f.disk.files(), files);
}

#[test]
fn r21_the_log_end_stays_where_it_was_though_its_last_records_are_gone() {
    let mut f = Fixture::new();
    f.put(&[("a", Some("1")), ("b", Some("1")), ("gone", None)]);
    f.settle();
    f.compact();
    f.clock.advance_ms(RETENTION_MS);
    f.compact();
    assert_eq!(offsets(&f.rows()), [0, 1]);
    let segments = f.log.segments().clone();
    assert_eq!((segments[0].end(), segments[1].base), (Offset(3), Offset(3)));
    assert_eq!(f.batches().last().map(|h| (h.next_offset(), h.record_count)), Some((Offset(3), 0)));
    for _ in 0..2 {
        f.reopen();
        assert_eq!((f.log.end(), offsets(&f.rows())), (Offset(3), vec![0, 1]));
    }
    // Without a manifest the end is what the batches say.
    f.log.active.sleep();
    crate::fs::Disk::remove_file(&f.disk, Path::new("logs/t-0/log.manifest")).unwrap();
    f.reopen();
    assert_eq!((f.log.end(), offsets(&f.rows())), (Offset(3), vec![0, 1]));
}

#[test]
fn r22_tombstones_and_markers_live_their_time_after_the_first_clean_pass_and_no_longer() {
    let mut f = Fixture::new();
    f.put(&[("a", Some("1")), ("b", Some("1"))]);
    f.transact(7, 0, &[("b", "never")], TransactionResult::Abort);
    f.transact(8, 0, &[("c", "1")], TransactionResult::Commit);
    f.put(&[("a", None), ("c", Some("2")), ("z", Some("1"))]);
    f.clock.advance_ms(50_000);
    f.settle();
    // So that nothing is kept for the producers' sake.
    f.log.config.producer_expiration_ms = 1;
    f.log.expire_producers();
    f.compact();
    let tombstone = |f: &Fixture| f.rows().iter().any(|r| r.1 == "a" && r.2.is_none());
    let markers = |f: &Fixture| f.batches().iter().filter(|h| h.attributes.is_control()).count();
    assert!(tombstone(&f), "its age before the first pass does not count");
    assert_eq!((offsets(&f.rows()), markers(&f)), (vec![1, 6, 7, 8], 2));
    f.compact();
    f.clock.advance_ms(RETENTION_MS - 1);
    f.compact();
    assert!(tombstone(&f) && markers(&f) == 2);
    f.clock.advance_ms(1);
    f.compact();
    assert!(!tombstone(&f), "it is not kept for ever");
    assert_eq!((offsets(&f.rows()), markers(&f)), (vec![1, 7, 8], 0));
    assert_eq!(f.log.reader().aborted_transactions(Offset(0), Offset(99)).unwrap(), []);
    assert!(!f.log.reader().has_aborted_transactions(Offset(0)));
    let last = f.rows();
    f.reopen();
    assert_eq!((f.rows(), f.log.reader().last_stable_offset()), (last, f.log.end()));
}

#[test]
fn r23_a_stale_first_dirty_offset_is_noted_and_cleaning_goes_on() {
    for stale in [1_000_000, i64::MAX] {
        let mut f = Fixture::new();
        f.put(&[("a", Some("1")), ("a", Some("2")), ("b", Some("1"))]);
        f.settle();
        let manifest = Manifest { first_dirty: Offset(stale), ..f.log.manifest.clone() };
        f.log.commit_manifest(manifest).unwrap();
        f.reopen();
        let report = f.log.compact(CompactWhen::Due, CompactionControl::default()).unwrap().unwrap();
        assert_eq!((report.reset_from, report.first_dirty), (Some(Offset(stale)), Offset(0)));
        assert_eq!((offsets(&f.rows()), f.log.manifest.first_dirty), (vec![1, 2], Offset(3)));
    }
}

#[test]
fn r23_a_first_dirty_offset_inside_a_batch_and_offsets_past_31_bits_are_cleaned() {
    let mut f = Fixture::new();
    let far = i64::from(i32::MAX) * 5;
    f.log.reset_to(Offset(far)).unwrap();
    f.append(batch(BatchBuilder::new(), 1, &[("a", Some("1")), ("b", Some("1")), ("a", Some("2"))]));
    f.put(&[("b", Some("2"))]);
    f.settle();
    let manifest = Manifest { first_dirty: Offset(far + 1), ..f.log.manifest.clone() };
    f.log.commit_manifest(manifest).unwrap();
    let report = f.compact();
    assert_eq!((report.first_dirty, report.keys), (Offset(far + 1), 2));
    assert_eq!(offsets(&f.rows()), [far + 2, far + 3]);
}

#[test]
fn a_map_that_is_too_small_makes_more_passes_and_loses_nothing() {
    let mut f = Fixture::new();
    if let Some(compaction) = &mut f.log.config.compaction {
        compaction.map_bytes = 24 * 10;
    }
    for n in 0..100 {
        f.put(&[(&format!("key {}", n % 25), Some(&format!("{n}")))]);
    }
    f.append(batch(
        BatchBuilder::new(),
        1,
        &(0..40).map(|n| ["x", "y", "z", "key 1"][n % 4]).map(|k| (k, Some("w"))).collect::<Vec<_>>(),
    ));
    f.settle();
    let before = newest(&f.rows());
    let (mut passes, mut first_dirty) = (0, Offset(0));
    while first_dirty < f.log.end() {
        let report = f.compact();
        assert!(report.keys <= 10 && report.covered > first_dirty, "{report:?}");
        assert_eq!(newest(&f.rows()), before);
        first_dirty = f.log.manifest.first_dirty;
        passes += 1;
    }
    assert!(passes > 5, "{passes}");
    assert_eq!(f.rows().len(), before.len());
}

#[test]
fn aborted_data_is_skipped_across_merged_segments_and_its_marker_may_lie_behind() {
    let mut f = Fixture::new();
    for n in 0..6 {
        f.put(&[("a", Some(&"x".repeat(600)))]);
        f.transact(7, 2 * n, &[("a", "never"), ("b", "never")], TransactionResult::Abort);
        f.settle();
    }
    f.append(batch(
        BatchBuilder::new().producer(ProducerId(7), 0, 12).transactional(true),
        1,
        &[("a", Some("never"))],
    ));
    let data_end = f.log.end();
    f.log.active.wake(&f.config).unwrap();
    f.log.roll().unwrap();
    f.append(marker(7, TransactionResult::Abort, 1));
    f.log.on_high_watermark(f.log.end());
    f.log.checkpoint().unwrap();
    let report = f.compact();
    assert_eq!((report.end, report.covered), (CompactionEnd::Complete, data_end));
    assert_eq!(offsets(&f.rows()), [20], "the newest committed value, not the newest value");
    // The last batch of the producer stays for its sequence, without its record.
    assert!(
        f.batches()
            .iter()
            .all(|h| !h.attributes.is_transactional() || h.attributes.is_control() || h.record_count == 0)
    );
    let rows = f.rows();
    f.reopen();
    assert_eq!((f.rows(), f.log.reader().last_stable_offset()), (rows, f.log.end()));
}

#[test]
fn a_producer_goes_on_where_it_was_though_all_snapshots_are_lost() {
    let mut f = Fixture::new();
    let sent = |sequence| {
        batch(BatchBuilder::new().producer(ProducerId(5), 2, sequence), 100_000, &[("a", Some("v"))])
    };
    for sequence in 0..5 {
        f.append(sent(sequence));
    }
    f.put(&[("a", Some("last"))]);
    f.settle();
    f.compact();
    for path in f.disk.files().into_keys().filter(|p| p.extension().is_some_and(|e| e == "snapshot")) {
        crate::fs::Disk::remove_file(&f.disk, &path).unwrap();
    }
    f.reopen();
    assert_eq!(offsets(&f.rows()), [5]);
    assert!(f.log.append([sent(4)], LEADER).unwrap()[0].as_ref().unwrap().is_duplicate);
    assert!(f.log.append([sent(7)], LEADER).unwrap()[0].is_err());
    assert!(f.log.append([sent(5)], LEADER).unwrap()[0].is_ok());
}

#[test]
fn what_is_not_committed_or_not_durable_is_left_alone() {
    let mut f = Fixture::new();
    f.put(&[("a", Some("1")), ("a", Some("2"))]);
    f.log.active.wake(&f.config).unwrap();
    f.log.roll().unwrap();
    let asked = |f: &mut Fixture| f.log.compact(CompactWhen::Asked, CompactionControl::default()).unwrap();
    f.log.on_high_watermark(f.log.end());
    assert_eq!(asked(&mut f), None, "no checkpoint has passed it");
    f.log.checkpoint().unwrap();
    f.log.shared.high_watermark.store(1, Ordering::Release);
    assert_eq!(asked(&mut f), None, "not committed");
    f.log.on_high_watermark(f.log.end());
    f.append(batch(
        BatchBuilder::new().producer(ProducerId(1), 0, 0).transactional(true),
        1,
        &[("a", Some("3"))],
    ));
    assert!(asked(&mut f).is_some());
    assert_eq!(offsets(&f.rows()), [1, 2]);
    f.log.config.compaction = None;
    assert_eq!(asked(&mut f), None);
}

#[test]
fn a_pass_is_cancelled_and_paced_and_the_next_one_is_complete() {
    let mut f = Fixture::new();
    for n in 0..60 {
        f.put(&[("a", Some(&format!("{n}")))]);
    }
    f.settle();
    if let Some(compaction) = &mut f.log.config.compaction {
        compaction.bytes_per_second = Some(10_000);
    }
    let paused = Arc::new(parking_lot::Mutex::new(std::time::Duration::ZERO));
    let total = Arc::clone(&paused);
    let control = CompactionControl::new(move |pause| *total.lock() += pause);
    control.cancel();
    let report = f.log.compact(CompactWhen::Asked, control).unwrap().unwrap();
    assert_eq!((report.end, f.rows().len()), (CompactionEnd::Stopped, 60));
    assert_eq!(f.log.manifest.first_dirty, Offset(0));
    let total = Arc::clone(&paused);
    let control = CompactionControl::new(move |pause| *total.lock() += pause);
    let report = f.log.compact(CompactWhen::Asked, control).unwrap().unwrap();
    assert_eq!((report.end, f.rows().len()), (CompactionEnd::Complete, 1));
    let owed = (report.bytes_read + report.bytes_written) as f64 / 10_000.0;
    let paused = paused.lock().as_secs_f64();
    assert!(paused > owed * 0.7 && paused < owed * 1.1, "{paused} of {owed} seconds");
}

/// A process may have some 65,000 maps, and a large log more segments.
#[test]
fn a_pass_keeps_no_map_of_the_segments_that_it_is_through_with() {
    let compaction = CompactionConfig { max_lag_ms: 1_000_000, ..config().compaction.unwrap() };
    let mut f = Fixture::with(SimDisk::new(), LogConfig { compaction: Some(compaction), ..config() });
    for n in 0..200 {
        f.put(&[(&format!("key {}", n % 50), Some("a value of some length"))]);
    }
    f.settle();
    let segments = f.log.segments().len();
    assert!(segments > 10, "{segments}");
    f.log.reader().release_idle();
    f.log.reader().release_idle();
    let pass = f.log.begin_compaction(CompactWhen::Asked, CompactionControl::default()).unwrap();
    let mut pass = pass.unwrap();
    let mut groups = 0;
    loop {
        assert_eq!(f.disk.live_maps(), 0, "after {groups} of the groups");
        let Some(group) = pass.clean_next().unwrap() else { break };
        groups += 1;
        f.log.install_cleaned(&mut pass, group).unwrap();
    }
    assert!(groups > 2, "{groups}");
    f.log.finish_compaction(pass).unwrap();
    // What readers have open is used, and stays theirs.
    f.rows();
    let read = f.disk.live_maps();
    assert!(read > 0);
    f.compact();
    assert!(f.disk.live_maps() <= read);
}

#[test]
fn memory_does_not_serve_what_a_pass_took() {
    let mut f = Fixture::new();
    f.log = open_with_tail(&f.disk, &f.clock, &f.config, 1 << 20).unwrap().0;
    f.transact(7, 0, &[("a", "aborted")], TransactionResult::Abort);
    f.transact(7, 1, &[("b", "committed")], TransactionResult::Commit);
    f.put(&[("c", Some("1"))]);
    for _ in 0..3 {
        f.settle();
        f.compact();
        // Once the aborted batch is gone no index tells of it, and memory must not hold it either.
        assert_eq!(f.rows().iter().map(|r| r.1.as_str()).collect::<Vec<_>>(), ["b", "c"]);
        f.clock.advance_ms(2 * RETENTION_MS);
    }
    assert_eq!(f.log.reader().aborted_transactions(Offset(0), f.log.end()).unwrap(), []);
}

#[test]
fn only_one_pass_at_a_time() {
    let mut f = Fixture::new();
    f.put(&[("a", Some("1"))]);
    f.settle();
    let begin =
        |f: &mut Fixture| f.log.begin_compaction(CompactWhen::Asked, CompactionControl::default()).unwrap();
    let first = begin(&mut f);
    assert!(first.is_some() && begin(&mut f).is_none());
    drop(first);
    assert!(begin(&mut f).is_some());
}

#[test]
fn a_pass_that_the_log_has_overtaken_is_discarded() {
    for change in ["truncate", "reset", "delete"] {
        for begun in [false, true] {
            let mut f = Fixture::new();
            for n in 0..60 {
                f.put(&[(&format!("key {}", n % 5), Some("some value"))]);
            }
            f.settle();
            let mut pass =
                f.log.begin_compaction(CompactWhen::Asked, CompactionControl::default()).unwrap().unwrap();
            let group = if begun { pass.clean_next().unwrap() } else { None };
            assert_eq!(group.is_some(), begun);
            match change {
                "truncate" => drop(f.log.truncate_to(Offset(20)).unwrap()),
                "reset" => f.log.reset_to(Offset(500)).unwrap(),
                _ => f.log.delete_before(Offset(40)).unwrap(),
            }
            let before = (f.rows(), f.log.manifest.sealed.clone());
            if let Some(group) = group {
                f.log.install_cleaned(&mut pass, group).unwrap();
            }
            assert!(pass.clean_next().unwrap().is_none(), "{change}");
            let report = f.log.finish_compaction(pass).unwrap();
            assert_eq!(report.end, CompactionEnd::Superseded, "{change}");
            assert_eq!((f.rows(), f.log.manifest.sealed.clone()), before);
            f.put(&[("new", Some("1"))]);
            f.log.sync().unwrap();
            let rows = f.rows();
            f.reopen();
            assert_eq!(f.rows(), rows, "{change}");
        }
    }
}

#[test]
fn a_checkpoint_that_began_before_a_swap_does_not_undo_it() {
    let mut f = Fixture::new();
    for n in 0..60 {
        f.put(&[(&format!("key {}", n % 5), Some("some value"))]);
    }
    f.settle();
    f.put(&[("later", Some("1"))]);
    let checkpoint = f.log.begin_checkpoint().unwrap();
    let outcome = checkpoint.run();
    f.compact();
    f.log.finish_sync(checkpoint, outcome).unwrap();
    assert!(f.log.is_checkpoint_due());
    let rows = f.rows();
    f.reopen();
    assert_eq!(f.rows(), rows);
}

#[test]
fn damage_and_a_full_disk_end_the_pass_and_leave_the_log_as_it_was() {
    let mut f = Fixture::new();
    for n in 0..60 {
        f.put(&[(&format!("key {}", n % 5), Some("some value"))]);
    }
    f.settle();
    let rows = f.rows();
    let full = crate::fs::sim::Fault {
        on: crate::fs::sim::FaultOn::Write,
        path_ends: ".cleaned".to_owned(),
        after: 0,
        times: 1,
        kind: crate::fs::sim::FaultKind::NoSpace,
    };
    f.disk.inject(full);
    let tried = f.log.compact(CompactWhen::Asked, CompactionControl::default());
    assert!(matches!(tried, Err(LogError::Io { .. })), "{tried:?}");
    assert_eq!(f.rows(), rows);
    f.put(&[("key 0", Some("still takes writes"))]);
    // What is in memory already is what it was; the first call only finds out that nobody reads any more.
    f.log.reader().release_idle();
    f.log.reader().release_idle();
    f.disk.flip_bit(Path::new("logs/t-0/00000000000000000000.log"), 100, 3);
    let tried = f.log.compact(CompactWhen::Asked, CompactionControl::default());
    assert!(matches!(tried, Err(LogError::Damaged { .. })), "{tried:?}");
    f.log.reader().release_idle();
    f.log.reader().release_idle();
    f.disk.flip_bit(Path::new("logs/t-0/00000000000000000000.log"), 100, 3);
    assert_eq!(f.compact().end, CompactionEnd::Complete);
}
