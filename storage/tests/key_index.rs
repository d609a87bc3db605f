//! Streams of a log against what a reading of all of it says: whatever was done to the log, and whatever became of the files of its key
//! index, each stream is exactly its records.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use floodmark_proto::batch::event_headers::APPEND_ID;
use floodmark_proto::batch::{
    BatchBuilder, BatchHeader, CompressionType, DecompressLimits, EndTransactionMarker, NewRecord,
    RecordBatch, Records, TransactionResult,
};
use floodmark_proto::ids::{LeaderEpoch, Offset, ProducerId};
use floodmark_storage::clock::Clock;
use floodmark_storage::compaction::choose::CompactWhen;
use floodmark_storage::fs::{Disk, OpenMode, SimDisk, SyncPoint, write_all_at};
use floodmark_storage::key_index::Direction;
use floodmark_storage::log::append::{AppendAs, Appended, ToAppend};
use floodmark_storage::log::condition::{Condition, Expected, KeyCheck};
use floodmark_storage::log::reader::{StreamQuery, StreamRead};
use floodmark_storage::log::{CompactionControl, Log, LogContext};
use floodmark_storage::producers::Origin;
use floodmark_storage::random::{Random, SplitMix};
use floodmark_storage::{AppendError, CompactionConfig, LogConfig, ReadLimits, TailBudget};
use proptest::prelude::*;

const LEADER: AppendAs = AppendAs::Leader { epoch: LeaderEpoch(1), origin: Origin::Client };
const KEYS: u8 = 6;

fn key(n: u8) -> [u8; 5] {
    [b'k', b'e', b'y', b'0' + n / 10, b'0' + n % 10]
}

/// Offset and value of each record of each key, as a reading of everything finds them.
type Streams = BTreeMap<Vec<u8>, Vec<(i64, Vec<u8>)>>;

struct Store {
    disk: SimDisk,
    clock: Clock,
    config: LogConfig,
    log: Option<Log>,
    /// Older forms of index files, to come back at a bad time.
    old_files: Vec<(PathBuf, Vec<u8>)>,
    sent: u32,
}

impl Store {
    fn new(segment_bytes: u32, compacted: bool) -> Store {
        let disk = SimDisk::new();
        disk.create_dir_all(Path::new("logs")).unwrap();
        disk.sync_dir(Path::new("."), SyncPoint::DataDirCreated).unwrap();
        let compaction =
            CompactionConfig { min_dirty_ratio: 0.0, delete_retention_ms: 0, ..CompactionConfig::default() };
        let config = LogConfig {
            segment_bytes,
            index_interval_bytes: 200,
            key_index: true,
            compaction: compacted.then_some(compaction),
            ..LogConfig::default()
        };
        let mut store =
            Store { disk, clock: Clock::manual(1_000), config, log: None, old_files: Vec::new(), sent: 0 };
        store.open();
        store
    }

    fn open(&mut self) {
        let context = LogContext {
            disk: Arc::new(self.disk.clone()),
            clock: self.clock.clone(),
            random: Random::seeded(5),
            tail_budget: TailBudget::new(0),
        };
        self.log = Some(Log::open(context, Path::new("logs/t-0"), self.config.clone()).unwrap().0);
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().unwrap()
    }

    fn batch(&mut self, keys: &[Option<u8>], codec: CompressionType) -> RecordBatch {
        let mut builder = BatchBuilder::new().compression(codec, None);
        for n in keys {
            self.sent += 1;
            let value = format!("value {} of {n:?}", self.sent);
            let key = n.map(key);
            let (key, value) = (key.as_ref().map(|k| &k[..]), Some(value.as_bytes()));
            builder.push(&NewRecord { timestamp: i64::from(self.sent), key, value, headers: &[] }).unwrap();
        }
        builder.build().unwrap()
    }

    fn append(&mut self, keys: &[Option<u8>], codec: CompressionType) {
        let batch = self.batch(keys, codec);
        self.log().append([batch], LEADER).unwrap()[0].as_ref().unwrap();
    }

    /// Every stream, by reading all batches.
    fn streams(&mut self) -> Streams {
        let reader = self.log().reader();
        let mut streams = Streams::new();
        let mut from = reader.start();
        loop {
            let limits = ReadLimits { max_bytes: 1 << 20, below: Offset::MAX };
            let read = reader.read(from, limits).unwrap();
            if read.is_empty() {
                return streams;
            }
            for mut piece in read {
                while !piece.is_empty() {
                    let header = BatchHeader::parse(&piece).unwrap();
                    let batch = piece.split_to(header.size_bytes());
                    let mut scratch = Vec::new();
                    for record in Records::open(&batch, &DecompressLimits::DEFAULT, &mut scratch).unwrap() {
                        let record = record.unwrap();
                        if let Some(key) = record.key.filter(|_| record.offset >= reader.start()) {
                            let value = record.value.unwrap_or_default().to_vec();
                            streams.entry(key.to_vec()).or_default().push((record.offset.0, value));
                        }
                    }
                    from = header.next_offset();
                }
            }
        }
    }

    fn check(&mut self, seed: u64) {
        let streams = self.streams();
        let reader = self.log().reader();
        let (start, end) = (reader.start().0, reader.end().0);
        let mut random = SplitMix::new(seed);
        for n in 0..KEYS + 1 {
            let key = key(n);
            let stream = streams.get(&key[..]).cloned().unwrap_or_default();
            let mut below = || Offset(start + random.below((end - start + 2) as u64) as i64);
            let limit = below();
            let last = stream.iter().map(|(offset, _)| *offset).rfind(|offset| *offset < limit.0);
            assert_eq!(reader.last_of_key(&key, limit).unwrap(), last.map(Offset), "key {n} below {limit}");
            let (from, limit) = (below(), below());
            for direction in [Direction::Forward, Direction::Backward] {
                let max_records = 1 + random.below(5) as usize;
                let max_bytes = if random.below(2) == 0 { 40 } else { 1 << 20 };
                let query = StreamQuery { key: &key, from, direction, below: limit, max_records, max_bytes };
                check_read(&reader.read_stream(&query).unwrap(), &query, &stream);
            }
        }
        assert_eq!(self.disk.violations(), Vec::<String>::new());
    }

    fn index_files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let is_index = |(path, _): &(PathBuf, Vec<u8>)| path.extension().is_some_and(|e| e == "keyindex");
        self.disk.files().into_iter().filter(is_index).collect()
    }

    fn write(&self, path: &Path, bytes: &[u8]) {
        let file = self.disk.open(path, OpenMode::Create).unwrap();
        write_all_at(&*file, &mut [IoSlice::new(bytes)], 0).unwrap();
    }

    /// Does something to an index file that a crash or a bad disk might.
    fn harm(&mut self, seed: u64) {
        let mut random = SplitMix::new(seed);
        let files = self.index_files();
        self.old_files.extend(files.iter().cloned());
        let whole: Vec<_> = files.into_iter().filter(|(_, bytes)| bytes.len() >= 1024).collect();
        let Some((path, bytes)) = whole.get(random.below(whole.len() as u64) as usize).cloned() else {
            return;
        };
        match random.below(5) {
            0 => self.disk.remove_file(&path).unwrap(),
            1 => self.write(&path, &bytes[..random.below(bytes.len() as u64) as usize]),
            2 => self.disk.flip_bit(&path, random.below(bytes.len() as u64), random.below(8) as u8),
            3 => {
                let mut zeroed = bytes.clone();
                let at = random.below(bytes.len() as u64 / 1024) as usize * 1024;
                zeroed[at..at + 1024].fill(0);
                self.write(&path, &zeroed);
            }
            _ => {
                let old = &self.old_files[random.below(self.old_files.len() as u64) as usize].1;
                self.write(&path, &old.clone());
            }
        }
    }
}

/// Paging is for the caller; each page must be right.
fn check_read(read: &StreamRead, query: &StreamQuery<'_>, stream: &[(i64, Vec<u8>)]) {
    let (from, below) = (query.from.0, query.below.0);
    let wanted: Vec<_> = match query.direction {
        Direction::Forward => stream.iter().filter(|(o, _)| *o >= from && *o < below).collect(),
        Direction::Backward => stream.iter().rev().filter(|(o, _)| *o <= from && *o < below).collect(),
    };
    let found: Vec<_> =
        read.records.iter().map(|r| (r.offset.0, r.value.as_ref().unwrap().to_vec())).collect();
    assert!(found.iter().eq(wanted.iter().take(found.len()).copied()), "{query:?}: {found:?}, {wanted:?}");
    assert!(read.records.iter().all(|r| r.key == query.key));
    assert_eq!(read.is_cut_short, found.len() < wanted.len(), "{query:?}");
    assert!(found.len() <= query.max_records);
    assert!(!found.is_empty() || wanted.is_empty());
    let bytes: usize = read.records.iter().map(|r| r.size_bytes()).sum();
    assert!(found.len() <= 1 || bytes <= query.max_bytes);
    let next = wanted.get(found.len()).map(|(offset, _)| *offset);
    match query.direction {
        // Nothing of the stream lies between the last record and where the next read begins.
        Direction::Forward => {
            assert!(next.is_none_or(|next| next >= read.reached.0));
            assert!(found.last().is_none_or(|(last, _)| *last < read.reached.0));
        }
        Direction::Backward => {
            assert!(next.is_none_or(|next| next < read.reached.0));
            assert!(found.last().is_none_or(|(last, _)| *last >= read.reached.0));
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    Append(Vec<Option<u8>>, u8),
    AppendIf(u8, u8),
    WriteIndexes,
    Checkpoint,
    Truncate(u8),
    DeleteBefore(u8),
    Reset,
    Reopen,
    Crash(u64),
    Compact,
    Switch,
    ReleaseIdle,
    Harm(u64),
    Check(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => (prop::collection::vec(prop::option::weighted(0.9, 0..KEYS), 1..6), 0..5u8)
            .prop_map(|(keys, codec)| Op::Append(keys, codec)),
        // More than the index keeps before its table, where the segment has room for it.
        2 => (prop::collection::vec(prop::option::weighted(0.9, 0..KEYS), 60..200), 0..5u8)
            .prop_map(|(keys, codec)| Op::Append(keys, codec)),
        4 => (0..KEYS, 0..6u8).prop_map(|(key, expected)| Op::AppendIf(key, expected)),
        3 => Just(Op::WriteIndexes),
        1 => Just(Op::Checkpoint),
        1 => any::<u8>().prop_map(Op::Truncate),
        1 => any::<u8>().prop_map(Op::DeleteBefore),
        1 => Just(Op::Reset),
        1 => Just(Op::Reopen),
        1 => any::<u64>().prop_map(Op::Crash),
        1 => Just(Op::Compact),
        1 => Just(Op::Switch),
        1 => Just(Op::ReleaseIdle),
        3 => any::<u64>().prop_map(Op::Harm),
        4 => any::<u64>().prop_map(Op::Check),
    ]
}

impl Store {
    fn apply(&mut self, op: Op) {
        let offset =
            |log: &Log, at: u8| Offset(log.start().0 + (log.end() - log.start()) * i64::from(at) / 255);
        match op {
            Op::Append(keys, codec) => {
                // Compacted topics take no record without a key.
                let is_compacted = self.config.compaction.is_some();
                let max = (self.config.segment_bytes as usize / 60).max(5);
                let keys = keys.into_iter().take(max).map(|k| if is_compacted { k.or(Some(0)) } else { k });
                let keys: Vec<_> = keys.collect();
                self.append(&keys, CompressionType::from_code(codec).unwrap());
            }
            Op::AppendIf(key, expected) => self.append_if(key, expected),
            Op::WriteIndexes => {
                while let Some(job) = self.log().key_index_job() {
                    job.run().unwrap();
                }
            }
            Op::Checkpoint => self.log().checkpoint().unwrap(),
            Op::Truncate(at) => {
                let at = offset(self.log(), at);
                self.log().truncate_to(at).unwrap();
            }
            Op::DeleteBefore(at) => {
                let at = offset(self.log(), at);
                let end = self.log().end();
                self.log().on_high_watermark(end);
                self.log().delete_before(at).unwrap();
            }
            Op::Reset => {
                let end = self.log().end();
                self.log().reset_to(end).unwrap();
            }
            Op::Reopen => {
                self.log.take().unwrap().close().unwrap();
                self.open();
            }
            Op::Crash(seed) => {
                self.log = None;
                self.disk = self.disk.image().power_cut(seed);
                self.open();
            }
            Op::Compact => {
                let end = self.log().end();
                self.log().on_high_watermark(end);
                self.log().checkpoint().unwrap();
                self.log().compact(CompactWhen::Asked, CompactionControl::default()).unwrap();
            }
            Op::Switch => {
                self.config.key_index = false;
                let off = self.config.clone();
                self.log().set_config(off);
                assert_eq!(self.index_files(), Vec::new(), "nobody wants them");
                self.append(&[Some(1)], CompressionType::None);
                self.config.key_index = true;
                let on = self.config.clone();
                self.log().set_config(on);
            }
            Op::ReleaseIdle => (0..2).for_each(|_| self.log().release_idle()),
            Op::Harm(seed) => self.harm(seed),
            Op::Check(seed) => self.check(seed),
        }
    }

    fn append_if(&mut self, n: u8, expected: u8) {
        let stream = self.streams().get(&key(n)[..]).cloned().unwrap_or_default();
        let last = stream.last().map(|(offset, _)| Offset(*offset));
        let expected = match expected {
            0 => Expected::Any,
            1 => Expected::NoStream,
            2 => Expected::StreamExists,
            3 => Expected::Exactly(Offset(3)),
            _ => last.map_or(Expected::NoStream, Expected::Exactly),
        };
        let batch = self.batch(&[Some(n), Some(n)], CompressionType::None);
        let next = self.log().end();
        let key = Bytes::copy_from_slice(&key(n));
        let seen = self.log().reader().look_at_stream(&key, expected, None).unwrap();
        assert_eq!(seen.last, last);
        let check = KeyCheck { record: 0, key, expected, earlier: None };
        // Half of the time nobody looked before.
        let seen = (self.sent.is_multiple_of(2)).then_some(seen);
        let outcome = self.append_on(batch, Condition { checks: vec![check], append_id: None, seen });
        match outcome {
            Ok(appended) => {
                assert!(expected.holds(last));
                assert_eq!((appended.base_offset, appended.last_offset), (next, next.next()));
            }
            Err(AppendError::Conflict { actual, .. }) => {
                assert!(!expected.holds(last));
                assert_eq!((actual, self.log().end()), (last, next));
            }
            other => panic!("{other:?}"),
        }
    }

    fn append_on(&mut self, batch: RecordBatch, condition: Condition) -> Result<Appended, AppendError> {
        let one = ToAppend { batch, keys: None, condition: Some(Box::new(condition)) };
        self.log().append([one], LEADER).unwrap().remove(0)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn a_stream_is_its_records_whatever_happens(
        ops in prop::collection::vec(op(), 1..80),
        segment_bytes in prop_oneof![3 => 400..3_000u32, 1 => 15_000..30_000u32],
        compacted in prop::bool::weighted(0.3),
    ) {
        let mut store = Store::new(segment_bytes, compacted);
        for op in ops {
            store.apply(op);
        }
        store.check(1);
        store.apply(Op::Crash(3));
        store.check(2);
        store.apply(Op::Reopen);
        store.check(3);
    }
}

fn condition(key: &[u8], expected: Expected) -> Condition {
    let check = KeyCheck { record: 0, key: Bytes::copy_from_slice(key), expected, earlier: None };
    Condition { checks: vec![check], ..Condition::default() }
}

fn event(key: &[u8], id: Option<&[u8]>, records: usize) -> RecordBatch {
    let mut builder = BatchBuilder::new();
    let headers: Vec<_> = id.iter().map(|id| (APPEND_ID, Some(*id))).collect();
    for _ in 0..records {
        let record = NewRecord { timestamp: 1, key: Some(key), value: Some(b"v"), headers: &headers };
        builder.push(&record).unwrap();
    }
    builder.build().unwrap()
}

#[test]
fn of_a_group_each_append_is_decided_behind_those_before_it() {
    let mut store = Store::new(1 << 20, false);
    let appends = [
        (&b"a"[..], Expected::NoStream),
        (b"a", Expected::NoStream),
        (b"b", Expected::NoStream),
        (b"a", Expected::Exactly(Offset(0))),
        (b"a", Expected::Exactly(Offset(0))),
        (b"c", Expected::StreamExists),
        (b"a", Expected::StreamExists),
    ];
    let group = appends.map(|(key, expected)| ToAppend {
        batch: event(key, None, 1),
        keys: None,
        condition: Some(Box::new(condition(key, expected))),
    });
    let outcomes = store.log().append(group, LEADER).unwrap();
    let told: Vec<_> = outcomes
        .into_iter()
        .map(|outcome| match outcome {
            Ok(appended) => Ok(appended.base_offset.0),
            Err(AppendError::Conflict { actual, .. }) => Err(actual.map(|a| a.0)),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, [Ok(0), Err(Some(0)), Ok(1), Ok(2), Err(Some(2)), Err(None), Ok(3)]);
}

#[test]
fn a_batch_of_several_streams_goes_whole_or_not_at_all() {
    let mut store = Store::new(1 << 20, false);
    store.append(&[Some(1)], CompressionType::None);
    let of = |record, n, expected, earlier| KeyCheck {
        record,
        key: Bytes::copy_from_slice(&key(n)),
        expected,
        earlier,
    };
    let checks = |last| {
        vec![
            of(0, 0, Expected::NoStream, None),
            of(1, 1, Expected::Exactly(Offset(0)), None),
            of(2, 0, last, Some(0)),
        ]
    };
    for (last, fails) in
        [(Expected::NoStream, true), (Expected::Exactly(Offset(7)), true), (Expected::StreamExists, false)]
    {
        let batch = store.batch(&[Some(0), Some(1), Some(0)], CompressionType::None);
        let outcome = store.append_on(batch, Condition { checks: checks(last), ..Condition::default() });
        match outcome {
            Err(AppendError::Conflict { record: 2, actual, .. }) => {
                assert!(fails && actual == Some(Offset(1)))
            }
            other => assert!(!fails && other.unwrap().last_offset == Offset(3)),
        }
    }
    assert_eq!(store.log().end(), Offset(4));
}

#[test]
fn a_retry_is_answered_as_the_append_that_landed() {
    let mut store = Store::new(1 << 20, false);
    store.append(&[Some(3)], CompressionType::None);
    for (expected, with_look) in [
        (Expected::NoStream, false),
        (Expected::NoStream, true),
        (Expected::Any, true),
        (Expected::StreamExists, true),
    ] {
        let key = format!("{expected:?} {with_look}").into_bytes();
        if expected == Expected::StreamExists {
            store.append_on(event(&key, None, 1), Condition::default()).unwrap();
        }
        let mut send = |id: &[u8], look: bool| {
            let mut condition =
                Condition { append_id: Some(Bytes::copy_from_slice(id)), ..condition(&key, expected) };
            if look {
                condition.seen = Some(store.log().reader().look_at_stream(&key, expected, Some(id)).unwrap());
            }
            store.append_on(event(&key, Some(id), 3), condition)
        };
        let first = send(b"first", with_look).unwrap();
        assert!(!first.is_duplicate);
        let again = send(b"first", with_look).unwrap();
        assert_eq!(again, Appended { is_duplicate: true, ..first });
        let other = send(b"other", with_look);
        if expected == Expected::NoStream {
            assert!(
                matches!(other, Err(AppendError::Conflict { actual, .. }) if actual == Some(first.last_offset))
            );
        } else {
            assert!(other.unwrap().base_offset > first.last_offset);
            // Also behind what came since.
            assert_eq!(send(b"first", !with_look).unwrap(), again);
        }
    }
}

#[test]
fn an_idempotent_producer_is_known_by_its_sequence_before_anything_is_expected() {
    let mut store = Store::new(1 << 20, false);
    let batch = || {
        let mut builder = BatchBuilder::new().producer(ProducerId(7), 0, 0);
        builder.push(&NewRecord { timestamp: 1, key: Some(b"a"), value: None, headers: &[] }).unwrap();
        builder.build().unwrap()
    };
    let first = store.append_on(batch(), condition(b"a", Expected::NoStream)).unwrap();
    let again = store.append_on(batch(), condition(b"a", Expected::NoStream)).unwrap();
    assert_eq!(again, Appended { is_duplicate: true, ..first });
}

#[test]
fn records_of_aborted_transactions_are_in_no_stream() {
    let mut store = Store::new(1 << 20, false);
    store.append(&[Some(0)], CompressionType::None);
    for (id, result) in [(1, TransactionResult::Abort), (2, TransactionResult::Commit)] {
        let mut builder = BatchBuilder::new().producer(ProducerId(id), 0, 0).transactional(true);
        builder
            .push(&NewRecord { timestamp: 1, key: Some(&key(0)), value: Some(b"t"), headers: &[] })
            .unwrap();
        let mut marker = BatchBuilder::new().producer(ProducerId(id), 0, -1).transactional(true);
        marker.push_marker(1, &EndTransactionMarker { result, coordinator_epoch: 0 }).unwrap();
        let origin = |origin| AppendAs::Leader { epoch: LeaderEpoch(1), origin };
        store.log().append([builder.build().unwrap()], origin(Origin::Client)).unwrap()[0].as_ref().unwrap();
        store.log().append([marker.build().unwrap()], origin(Origin::Coordinator)).unwrap()[0]
            .as_ref()
            .unwrap();
        let last = store.log().reader().last_of_key(&key(0), Offset::MAX).unwrap();
        assert_eq!(last, Some(Offset(if id == 1 { 0 } else { 3 })));
    }
}

#[test]
fn a_log_without_an_index_refuses_conditions_and_reads_by_key() {
    let mut store = Store::new(1 << 20, false);
    let off = LogConfig { key_index: false, ..store.config.clone() };
    store.log().set_config(off);
    let refused = store.append_on(event(b"a", None, 1), condition(b"a", Expected::Any));
    assert_eq!(refused, Err(AppendError::NoKeyIndex));
    assert!(store.log().reader().last_of_key(b"a", Offset::MAX).is_err());
}

#[test]
fn the_newest_record_decides_wherever_the_index_has_it() {
    let mut store = Store::new(1 << 20, false);
    // While records go from the list before the table into the table, and again behind cuts, within the list and far behind it.
    for (appends, cut) in [(80u8, 10), (150, 140), (40, 0), (200, 300)] {
        (0..appends).for_each(|n| [3, 4, 1].into_iter().for_each(|e| store.append_if(n % KEYS, e)));
        store.check(u64::from(appends));
        let end = store.log().end().0 - cut;
        store.log().truncate_to(Offset(end)).unwrap();
        store.check(u64::from(appends) + 1);
    }
}

#[test]
fn who_reads_while_events_come_in_misses_none_before_the_end_that_is_published() {
    let mut store = Store::new(100_000, false);
    let (reader, mut looks) = (store.log().reader(), 0);
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            for _ in 0..6_000 {
                store.log().append([event(b"a", None, 1)], LEADER).unwrap();
                while let Some(job) = store.log().key_index_job() {
                    job.run().unwrap();
                }
            }
        });
        while !writing.is_finished() {
            let end = reader.end();
            if end > Offset::ZERO {
                assert_eq!(reader.last_of_key(b"a", end).unwrap(), Some(Offset(end.0 - 1)));
                looks += 1;
            }
        }
    });
    assert!(looks > 0);
}

#[test]
fn a_full_disk_takes_the_index_file_and_nothing_else() {
    let mut store = Store::new(2_000, false);
    for n in 0..60 {
        store.append(&[Some(n % KEYS)], CompressionType::None);
    }
    let used: u64 = store.disk.files().values().map(|bytes| bytes.len() as u64).sum();
    store.disk.limit_capacity(used);
    while let Some(job) = store.log().key_index_job() {
        job.run().unwrap();
    }
    store.check(1);
}

#[test]
fn a_stream_reads_little_more_than_its_own_batches() {
    let mut store = Store::new(200_000, false);
    for n in 0..30_000u32 {
        let key = if n % 1_000 == 0 { b"wanted".to_vec() } else { n.to_le_bytes().to_vec() };
        let batch = event(&key, None, 1);
        store.log().append([batch], LEADER).unwrap();
        while let Some(job) = store.log().key_index_job() {
            job.run().unwrap();
        }
    }
    let segments =
        store.disk.files().into_keys().filter(|p| p.extension().is_some_and(|e| e == "log")).count();
    assert!(segments > 10);
    let (from, below) = (Offset::ZERO, Offset::MAX);
    let direction = Direction::Forward;
    let query =
        StreamQuery { key: b"wanted", from, direction, below, max_records: 1_000, max_bytes: 1 << 20 };
    let read = store.log().reader().read_stream(&query).unwrap();
    assert_eq!(read.records.len(), 30);
    // Header, last batch, filter, keys and postings of each segment, and a first read of each record.
    assert!(
        read.cost.bytes < segments as u64 * 5 * 1024 + 30 * 1024,
        "{:?} for {segments} segments",
        read.cost
    );
    let stranger = StreamQuery { key: b"stranger", ..query };
    let read = store.log().reader().read_stream(&stranger).unwrap();
    assert!(read.cost.calls <= segments as u64 * 11 / 10 + 1, "{:?} for {segments} segments", read.cost);
}
