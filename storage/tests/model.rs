//! Random operations on a log beside a list of batches: whatever is done in whatever order, both hold the same.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

#[allow(dead_code, reason = "other tests use what this one does not")]
mod batches;

use std::path::Path;
use std::sync::Arc;

use batches::{Kind, Recipe, Sent, epochs_from, epochs_of, replay};
use bytes::Bytes;
use floodmark_proto::batch::BatchHeader;
use floodmark_proto::ids::{LeaderEpoch, Offset};
use floodmark_storage::clock::Clock;
use floodmark_storage::fs::{Disk, SimDisk, SyncPoint};
use floodmark_storage::log::append::AppendAs;
use floodmark_storage::log::{Log, LogContext, PrewriteJob};
use floodmark_storage::producers::Origin;
use floodmark_storage::random::Random;
use floodmark_storage::{LogConfig, LogError, ReadLimits, TailBudget};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Op {
    /// As leader, or as a replica after a gap of so many offsets.
    Append(Vec<(u8, u8, u8, i16)>, Option<u8>),
    Sync,
    Checkpoint,
    NewEpoch,
    Read {
        at: u8,
        max_bytes: u16,
        below: u8,
    },
    ByTime(i16),
    Truncate(u8),
    Reset(u8),
    DeleteBefore(u8),
    /// Seconds for the clock: segments are rolled by time where batches carry none.
    Wait(u8),
    Reopen,
    Crash(u64),
    Prewrite,
    RunPrewrite,
    ReleaseIdle,
    Stage,
}

fn op() -> impl Strategy<Value = Op> {
    let batch = (0..10u8, 1..4u8, 0..120u8, -30..400i16);
    prop_oneof![
        8 => (prop::collection::vec(batch, 1..4), prop::option::weighted(0.2, 0..9u8))
            .prop_map(|(batches, gap)| Op::Append(batches, gap)),
        2 => Just(Op::Sync),
        1 => Just(Op::Checkpoint),
        1 => Just(Op::NewEpoch),
        4 => (any::<u8>(), 0..3_000u16, any::<u8>())
            .prop_map(|(at, max_bytes, below)| Op::Read { at, max_bytes, below }),
        2 => (-10..900i16).prop_map(Op::ByTime),
        1 => any::<u8>().prop_map(Op::Truncate),
        1 => (0..30u8).prop_map(Op::Reset),
        1 => any::<u8>().prop_map(Op::DeleteBefore),
        1 => any::<u8>().prop_map(Op::Wait),
        1 => Just(Op::Reopen),
        1 => any::<u64>().prop_map(Op::Crash),
        1 => Just(Op::Prewrite),
        1 => Just(Op::RunPrewrite),
        1 => Just(Op::ReleaseIdle),
        2 => Just(Op::Stage),
    ]
}

struct Pair {
    disk: SimDisk,
    clock: Clock,
    config: LogConfig,
    tail_bytes: u64,
    log: Option<Log>,
    job: Option<PrewriteJob>,
    sent: Vec<Sent>,
    durable: usize,
    /// Where the log began or was reset to, or was cut inside a gap.
    floor: i64,
    start: i64,
    epoch: i32,
    assigned: Option<(i32, i64)>,
    /// Epochs of earlier batches went with a cut that left nothing to read.
    epochs_since: usize,
}

impl Pair {
    fn new(segment_bytes: u32, prewrite_bytes: u32, tail_bytes: u64) -> Pair {
        let disk = SimDisk::new();
        disk.create_dir_all(Path::new("logs")).unwrap();
        disk.sync_dir(Path::new("."), SyncPoint::DataDirCreated).unwrap();
        let config = LogConfig {
            segment_bytes,
            segment_ms: 200_000,
            index_interval_bytes: 150,
            prewrite_bytes,
            ..LogConfig::default()
        };
        let mut pair = Pair {
            disk,
            clock: Clock::manual(1_000),
            config,
            tail_bytes,
            log: None,
            job: None,
            sent: Vec::new(),
            durable: 0,
            floor: 0,
            start: 0,
            epoch: 1,
            assigned: None,
            epochs_since: 0,
        };
        pair.open();
        pair
    }

    fn open(&mut self) {
        let context = LogContext {
            disk: Arc::new(self.disk.clone()),
            clock: self.clock.clone(),
            random: Random::seeded(7),
            tail_budget: TailBudget::new(self.tail_bytes),
        };
        self.log = Some(Log::open(context, Path::new("logs/t-0"), self.config.clone()).unwrap().0);
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().unwrap()
    }

    fn end(&self) -> i64 {
        self.sent.last().map_or(self.floor, |s| s.next.max(self.floor))
    }

    /// An offset of the log, its ends included.
    fn offset(&self, at: u8) -> i64 {
        self.start + (self.end() - self.start) * i64::from(at) / 255
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Append(batches, gap) => self.append(&batches, gap),
            Op::Sync => {
                self.log().sync().unwrap();
                self.durable = self.sent.len();
                assert_eq!(self.log().durable().0, self.end());
            }
            Op::Checkpoint => {
                self.log().checkpoint().unwrap();
                self.durable = self.sent.len();
                assert_eq!(self.log().recovery_point().0, self.end());
            }
            Op::NewEpoch => {
                self.epoch += 1;
                self.assigned = Some((self.epoch, self.end()));
                let epoch = LeaderEpoch(self.epoch);
                self.log().assign_epoch(epoch).unwrap();
            }
            Op::Read { at, max_bytes, below } => {
                self.see_all();
                self.read(at, usize::from(max_bytes), below);
            }
            Op::ByTime(time) => {
                self.see_all();
                self.by_time(i64::from(time));
            }
            Op::Truncate(at) => self.truncate(at),
            Op::Reset(ahead) => {
                let offset = self.end() + i64::from(ahead);
                self.log().reset_to(Offset(offset)).unwrap();
                self.emptied_at(offset);
            }
            Op::DeleteBefore(at) => {
                let (offset, end) = (self.offset(at), self.end());
                self.log().on_high_watermark(Offset(end));
                self.log().delete_before(Offset(offset)).unwrap();
                self.start = offset;
                self.floor = self.floor.max(offset);
                let durable = self.sent.iter().filter(|s| s.base < offset).count();
                self.durable = self.durable.max(durable);
            }
            Op::Wait(seconds) => self.clock.advance_ms(i64::from(seconds) * 1_000),
            Op::Reopen => {
                self.log.take().unwrap().close().unwrap();
                self.durable = self.sent.len();
                self.open();
            }
            Op::Crash(seed) => self.crash(seed),
            Op::Prewrite => {
                if let Some(job) = self.log().prewrite_job() {
                    self.job = Some(job);
                }
            }
            Op::RunPrewrite => {
                if let Some(job) = self.job.take() {
                    job.run().unwrap();
                }
            }
            Op::ReleaseIdle => self.log().release_idle(),
            Op::Stage => {
                // Where zeros are on their way it does not begin.
                self.log().begin_staging().unwrap();
            }
        }
    }

    /// What waits for a sync is not to be read before.
    fn see_all(&mut self) {
        self.log().end_staging().unwrap();
    }

    fn append(&mut self, batches: &[(u8, u8, u8, i16)], gap: Option<u8>) {
        let known = self.sent.len();
        let begun = self.assigned.is_some_and(|(_, at)| at == self.end());
        let mut base = self.end() + if begun { 0 } else { i64::from(gap.unwrap_or(0)) };
        for (kind, records, value_bytes, time) in batches {
            let id = i64::from(kind % 2);
            let open = |sent: &[Sent]| replay(sent.iter()).producers.get(&(10 + id)).and_then(|k| k.open);
            let kind = match kind {
                0..=3 => Kind::Plain,
                4..=5 => Kind::Idempotent(id),
                8..=9 if open(&self.sent).is_some() => {
                    Kind::End { id: 10 + id, abort: *kind == 8 || id == 1 }
                }
                _ => Kind::Transactional(10 + id),
            };
            let recipe = Recipe {
                kind,
                records: usize::from(*records),
                value_bytes: usize::from(*value_bytes),
                time: i64::from(*time).max(0),
            };
            let made = recipe.at(base, self.epoch, self.sent.iter());
            base = made.next;
            self.sent.push(made);
        }
        let added = self.sent[known..].to_vec();
        let given: Vec<_> =
            added.iter().map(|s| if gap.is_some() { s.stored() } else { s.fresh() }).collect();
        let append_as = match gap {
            Some(_) => AppendAs::Replica,
            None => AppendAs::Leader { epoch: LeaderEpoch(self.epoch), origin: Origin::Client },
        };
        let outcomes = self.log().append(given, append_as).unwrap();
        for (outcome, sent) in outcomes.iter().zip(&added) {
            let appended = outcome.as_ref().unwrap();
            assert_eq!((appended.base_offset.0, appended.last_offset.0), (sent.base, sent.last()));
        }
        assert_eq!(self.log().end().0, self.end());
    }

    fn read(&mut self, at: u8, max_bytes: usize, below: u8) {
        let (from, below) = (self.offset(at), self.offset(below));
        let limits = ReadLimits { max_bytes, below: Offset(below) };
        let reader = self.log().reader();
        // Notes of earlier reads may be older than cuts and compactions.
        if let Some(at_hand) = reader.read_at_hand(Offset(from), limits) {
            assert!(!at_hand.is_empty() && at_hand.len() <= max_bytes);
            self.check_read(from, below, vec![at_hand]);
        }
        let read = reader.read(Offset(from), limits).unwrap();
        let bytes: usize = read.iter().map(|b| b.len()).sum();
        let found = self.check_read(from, below, read);
        // The first batch comes whatever its size, where the offset lies below the limit; more only as far as they fit.
        assert!(found > 0 || from >= below || self.sent.iter().all(|s| s.next <= from || s.last() >= below));
        assert!(found <= 1 || bytes <= max_bytes);
        let next = self.sent.partition_point(|s| s.next <= from) + found;
        if let Some(from) = self.sent.get(next).map(|s| s.base)
            && let Some(at_hand) = reader.read_at_hand(Offset(from), limits)
        {
            assert!(self.check_read(from, below, vec![at_hand]) > 0);
        }
        let outside = [Offset(self.start - 1), Offset(self.end() + 1)];
        for offset in outside {
            assert!(matches!(self.log().reader().read(offset, limits), Err(LogError::OutOfRange { .. })));
        }
    }

    /// What was read from there is what was sent; says how many batches that are.
    fn check_read(&self, from: i64, below: i64, read: Vec<Bytes>) -> usize {
        let mut found = Vec::new();
        for mut piece in read {
            while !piece.is_empty() {
                let header = BatchHeader::parse(&piece).unwrap();
                found.push(piece.split_to(header.size_bytes()));
            }
        }
        let first = self.sent.partition_point(|s| s.next <= from);
        let may: Vec<&Sent> = self.sent[first..].iter().take_while(|s| s.last() < below).collect();
        assert!(found.len() <= may.len());
        assert!(found.iter().zip(&may).all(|(bytes, sent)| *bytes == sent.bytes));
        found.len()
    }

    fn records(&self) -> impl Iterator<Item = (i64, i64)> {
        let start = self.start;
        let all = self.sent.iter().flat_map(|s| s.times.iter().copied().zip(s.base..));
        all.filter(move |(_, offset)| *offset >= start)
    }

    fn by_time(&mut self, time: i64) {
        let reader = self.log().reader();
        let found = reader.first_at_or_after(time).unwrap().map(|f| (f.timestamp, f.offset.0));
        assert_eq!(found, self.records().find(|(t, _)| *t >= time), "first at or after {time}");
        let largest = reader.largest_timestamp().unwrap().map(|f| (f.timestamp, f.offset.0));
        let max = self.records().map(|(t, _)| t).max();
        assert_eq!(largest, self.records().find(|(t, _)| Some(*t) == max), "largest");
    }

    fn truncate(&mut self, at: u8) {
        let target = self.offset(at);
        let kept = self.sent.iter().take_while(|s| s.next <= target).count();
        let straddles = self.sent.get(kept).is_some_and(|s| s.base < target);
        let end = if straddles { self.sent[kept].base } else { target };
        if end < self.start {
            return;
        }
        let was = self.end();
        assert_eq!(self.log().truncate_to(Offset(target)).unwrap(), Offset(end));
        if end == was {
            return;
        }
        if end == self.start && self.log().producers().is_empty() {
            return self.emptied_at(end);
        }
        self.sent.truncate(kept);
        self.durable = kept;
        self.floor = end;
        if end == self.start {
            self.epochs_since = kept;
        }
        self.assigned = self.assigned.filter(|(_, at)| *at < end);
    }

    fn emptied_at(&mut self, offset: i64) {
        self.sent.clear();
        self.epochs_since = 0;
        self.durable = 0;
        self.floor = offset;
        self.start = offset;
        self.assigned = None;
    }

    fn crash(&mut self, seed: u64) {
        // Zeros are never written by a process that is gone.
        self.job = None;
        self.log = None;
        self.disk = self.disk.image().power_cut(seed);
        self.open();
        let end = self.log().end().0;
        let kept = self.sent.iter().take_while(|s| s.next <= end).count();
        assert!(kept >= self.durable, "{kept} of {} durable batches", self.durable);
        let lost = self.sent.get(kept).map(|s| (s.epoch, s.base));
        self.sent.truncate(kept);
        assert_eq!(end, self.end());
        self.durable = kept;
        self.assigned = self.assigned.filter(|(_, at)| *at == end);
        let latest = self.log().reader().leader_epochs().latest().map(|e| (e.epoch.0, e.start_offset.0));
        if latest.is_some() && latest == lost {
            self.assigned = latest;
        }
    }

    fn check(&mut self) {
        self.see_all();
        let (start, end) = (self.start, self.end());
        let kept: Vec<Sent> = self.sent.iter().filter(|s| s.next > start).cloned().collect();
        let replayed = replay(self.sent.iter());
        let mut epochs = epochs_of(self.sent[self.epochs_since..].iter());
        if let Some((epoch, at)) = self.assigned.filter(|(_, at)| *at == end) {
            epochs.retain(|(_, begin)| *begin < at);
            epochs.push((epoch, at));
        }
        let log = self.log();
        assert_eq!((log.start().0, log.end().0), (start, end));
        let reader = log.reader();
        let mut from = start;
        for sent in &kept {
            let read = reader.read(Offset(from), ReadLimits { max_bytes: 1, below: Offset::MAX }).unwrap();
            assert_eq!(read[0], sent.bytes);
            from = sent.next;
        }
        replayed.compare(log.producers()).unwrap();
        let found: Vec<_> =
            reader.leader_epochs().entries().iter().map(|e| (e.epoch.0, e.start_offset.0)).collect();
        assert_eq!(found, epochs_from(epochs, start));
        let aborted = reader.aborted_transactions(Offset(start), Offset(end)).unwrap();
        let overlaps = |a: &floodmark_storage::index::AbortedTransaction| {
            a.last_offset.0 >= start && a.first_offset.0 < end
        };
        assert_eq!(aborted, replayed.aborted.into_iter().filter(overlaps).collect::<Vec<_>>());
        assert_eq!(self.disk.violations(), Vec::<String>::new());
    }
}

proptest! {
    #[test]
    fn a_log_is_a_list_of_batches(
        ops in prop::collection::vec(op(), 1..100),
        segment_bytes in 600..2_500u32,
        prewrite_bytes in prop_oneof![Just(0u32), 300..2_000u32],
        tail_bytes in prop_oneof![Just(0u64), 200..3_000u64, Just(1 << 20)],
    ) {
        let mut pair = Pair::new(segment_bytes, prewrite_bytes, tail_bytes);
        for op in ops {
            pair.apply(op);
        }
        pair.check();
        for time in [0, 50, 200, 399, 402, 500] {
            pair.by_time(time);
        }
        pair.apply(Op::Crash(8));
        pair.check();
    }
}
