//! Holds an opened log against what must, and what may, be in it. Asks only through the log's public face.

use std::path::Path;
use std::sync::Arc;

use floodmark_proto::batch::{BatchHeader, DecompressLimits, Records};
use floodmark_proto::ids::Offset;
use floodmark_storage::clock::Clock;
use floodmark_storage::fs::{Disk, SimDisk};
use floodmark_storage::key_index::Direction;
use floodmark_storage::log::reader::StreamQuery;
use floodmark_storage::log::{Log, LogContext};
use floodmark_storage::random::Random;
use floodmark_storage::{LogConfig, ReadLimits, TailBudget};

use super::compacted::{Compacted, Left};
use crate::batches::{Sent, epochs_from, epochs_of, replay};

pub(crate) const DIR: &str = "logs/t-0";
pub(crate) const ALL: ReadLimits = ReadLimits { max_bytes: 1 << 20, below: Offset::MAX };

/// One state that a log may be in after a cut.
#[derive(Debug, Clone, Default)]
pub(crate) struct Alternative {
    /// What was handed to append since the log began or was reset, deleted heads included.
    pub(crate) batches: Vec<Arc<Sent>>,
    /// The first of these that must be there; later ones may, in order.
    pub(crate) must: usize,
    /// Where the log began or was reset to.
    pub(crate) origin: i64,
    /// The log never ends before this.
    pub(crate) floor: i64,
    /// First offset to be read.
    pub(crate) start: i64,
    /// An epoch that began at an offset where nothing was appended since, as far as was acknowledged.
    pub(crate) assigned: Option<(i32, i64)>,
    /// Epochs of batches before this one went with a cut that left nothing to read.
    pub(crate) epochs_since: usize,
    /// What compaction has made of them.
    pub(crate) compacted: Arc<Compacted>,
}

impl Alternative {
    pub(crate) fn end_of(&self, count: usize) -> i64 {
        self.batches[..count].last().map_or(self.origin, |s| s.next).max(self.floor)
    }

    pub(crate) fn end(&self) -> i64 {
        self.end_of(self.batches.len())
    }

    /// What a reader finds of some batches, each with its place among all.
    pub(crate) fn visible(&self, range: std::ops::Range<usize>) -> Vec<(usize, Left)> {
        range.filter_map(|at| Some((at, self.compacted.left_of(&self.batches[at])?))).collect()
    }

    pub(crate) fn epochs(&self, count: usize) -> Vec<(i32, i64)> {
        let mut epochs = epochs_of(self.batches[self.epochs_since.min(count)..count].iter().map(|s| &**s));
        if let Some((epoch, at)) = self.assigned
            && at == self.end_of(count)
            && epochs.last().is_none_or(|(latest, _)| *latest < epoch)
        {
            epochs.retain(|(_, start)| *start < at);
            epochs.push((epoch, at));
        }
        epochs_from(epochs, self.start)
    }
}

/// Which check failed, and how.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) check: &'static str,
    pub(crate) detail: String,
}

pub(crate) fn failure(check: &'static str, detail: impl Into<String>) -> Failure {
    Failure { check, detail: detail.into() }
}

pub(crate) fn open(disk: &SimDisk, config: &LogConfig, tail_bytes: u64) -> Result<Log, Failure> {
    let context = LogContext {
        disk: Arc::new(disk.clone()),
        clock: Clock::manual(1_000_000),
        random: Random::seeded(7),
        tail_budget: TailBudget::new(tail_bytes),
    };
    let (log, report) =
        Log::open(context, Path::new(DIR), config.clone()).map_err(|e| failure("it opens", e.to_string()))?;
    // A cut leaves nothing behind for which all batches must be read: only a damaged file does.
    let costly = |path: &&std::path::PathBuf| {
        path.ends_with("leader-epoch-checkpoint") || path.extension().is_some_and(|e| e == "txnindex")
    };
    match report.rebuilt.iter().find(costly) {
        None => Ok(log),
        Some(path) => Err(failure("nothing rebuilt that was whole", path.display().to_string())),
    }
}

/// Everything from the start on.
pub(crate) fn read_all(log: &Log) -> Result<Vec<bytes::Bytes>, Failure> {
    let reader = log.reader();
    let (mut from, mut found) = (reader.start(), Vec::new());
    loop {
        let pieces = reader.read(from, ALL).map_err(|e| failure("it reads", e.to_string()))?;
        if pieces.is_empty() {
            return Ok(found);
        }
        for piece in pieces {
            let mut rest = piece;
            while !rest.is_empty() {
                let header =
                    BatchHeader::parse(&rest).map_err(|e| failure("whole batches", e.to_string()))?;
                if header.size_bytes() > rest.len() {
                    return Err(failure("whole batches", format!("{} is cut short", header.base_offset)));
                }
                from = header.next_offset();
                found.push(rest.split_to(header.size_bytes()));
            }
        }
    }
}

/// Finds the alternative that `log` is in, and checks all that can be asked of it. Returns that state, now durable.
pub(crate) fn check(
    disk: &SimDisk,
    log: &Log,
    alternatives: &[Alternative],
    thorough: bool,
) -> Result<(Alternative, u64), Failure> {
    let found = read_all(log)?;
    let mut first_failure: Option<Failure> = None;
    for alternative in alternatives {
        match check_one(disk, log, &found, alternative, thorough) {
            Ok((state, records)) => return Ok((state, records)),
            Err(e) => match &mut first_failure {
                Some(first) => first.detail += &format!("; or else {}: {}", e.check, e.detail),
                None => first_failure = Some(e),
            },
        }
    }
    Err(first_failure.unwrap())
}

fn check_one(
    disk: &SimDisk,
    log: &Log,
    found: &[bytes::Bytes],
    expected: &Alternative,
    thorough: bool,
) -> Result<(Alternative, u64), Failure> {
    let start = log.start().0;
    if start != expected.start {
        return Err(failure("log start", format!("{start}, expected {}", expected.start)));
    }
    let gone = expected.batches.partition_point(|s| s.next <= start);
    let count = gone
        .max(expected.batches.iter().position(|s| s.base >= log.end().0).unwrap_or(expected.batches.len()));
    let rest = expected.visible(gone..count);
    for (n, bytes) in found.iter().enumerate() {
        match rest.get(n) {
            Some((_, left)) if left.bytes == bytes => {}
            Some((at, _)) => {
                let base = expected.batches[*at].base;
                return Err(failure("no record invented", format!("other bytes than those of {base}")));
            }
            None => {
                return Err(failure(
                    "no record invented",
                    format!("{} batches read, {} known", found.len(), rest.len()),
                ));
            }
        }
    }
    let count = rest.get(found.len()).map_or(count, |(at, _)| *at);
    if count < expected.must {
        let lost = &expected.batches[count];
        return Err(failure(
            "no durable record lost",
            format!("{} to {} are gone", lost.base, expected.end_of(expected.must)),
        ));
    }
    let end = log.end().0;
    if end != expected.end_of(count) {
        return Err(failure("log end", format!("{end}, expected {}", expected.end_of(count))));
    }
    let mut state = Alternative {
        assigned: expected.assigned.filter(|(_, at)| *at == end),
        must: count,
        batches: expected.batches[..count].to_vec(),
        floor: expected.floor,
        ..expected.clone()
    };
    // The epoch of a batch that was lost may have been noted before: it began there all the same.
    let begun = log.reader().leader_epochs().latest().map(|e| (e.epoch.0, e.start_offset.0));
    if expected.batches.get(count).map(|s| (s.epoch, s.base)) == begun && begun.is_some() {
        state.assigned = begun;
    }
    check_rest(disk, log, &state, thorough)?;
    if log.config().key_index {
        check_streams(log, found)?;
    }
    let records = found.len() as u64;
    Ok((state, records))
}

fn check_rest(disk: &SimDisk, log: &Log, state: &Alternative, thorough: bool) -> Result<(), Failure> {
    let (start, end) = (state.start, state.end());
    if log.durable().0 != end {
        return Err(failure("durable", format!("{} of {end} after opening", log.durable())));
    }
    let replayed = replay(state.batches.iter().map(|s| &**s));
    replayed.compare(log.producers()).map_err(|e| failure("producers", e))?;
    let epochs: Vec<_> =
        log.reader().leader_epochs().entries().iter().map(|e| (e.epoch.0, e.start_offset.0)).collect();
    if epochs != state.epochs(state.batches.len()) {
        return Err(failure(
            "leader epochs",
            format!("{epochs:?}, expected {:?}", state.epochs(state.batches.len())),
        ));
    }
    let aborted = log
        .reader()
        .aborted_transactions(Offset(start), Offset(end))
        .map_err(|e| failure("aborted transactions", e.to_string()))?;
    let overlaps = replayed.aborted.iter().filter(|a| {
        let is_left = !state.compacted.has_lost_transaction(a.last_offset.0);
        a.last_offset.0 >= start && a.first_offset.0 < end && is_left
    });
    let expected: Vec<_> = overlaps.copied().collect();
    if aborted != expected {
        return Err(failure("aborted transactions", format!("{aborted:?}, expected {expected:?}")));
    }
    if thorough {
        check_reads(log, state)?;
        check_times(log, state)?;
    }
    let files = disk.list(Path::new(DIR)).map_err(|e| failure("leftovers", e.to_string()))?;
    let leftover = |name: &str| name.ends_with(".tmp") || name.ends_with(".cleaned");
    if let Some(file) = files.iter().find(|f| leftover(&f.name)) {
        return Err(failure("leftovers", file.name.clone()));
    }
    match disk.violations().first() {
        Some(violation) => Err(failure("rules of the disk", violation.clone())),
        None => Ok(()),
    }
}

/// Each key's records are those that a reading of everything finds.
fn check_streams(log: &Log, batches: &[bytes::Bytes]) -> Result<(), Failure> {
    let reader = log.reader();
    let unread = |e: &dyn std::fmt::Display| failure("streams", e.to_string());
    for key in [&b"a"[..], b"b", b"c", b"d"] {
        let mut expected = Vec::new();
        for batch in batches {
            let header = BatchHeader::parse(batch).map_err(|e| unread(&e))?;
            let aborted = reader.aborted_transactions(header.base_offset, header.next_offset());
            let is_aborted = header.attributes.is_transactional()
                && aborted.map_err(|e| unread(&e))?.iter().any(|a| {
                    a.producer_id == header.producer_id
                        && (a.first_offset..=a.last_offset).contains(&header.base_offset)
                });
            let mut scratch = Vec::new();
            let records = Records::open(batch, &DecompressLimits::DEFAULT, &mut scratch);
            for record in records.map_err(|e| unread(&e))? {
                let record = record.map_err(|e| unread(&e))?;
                let counts = !is_aborted && !header.attributes.is_control() && record.offset >= log.start();
                if counts && record.key == Some(key) {
                    expected.push(record.offset);
                }
            }
        }
        let query = StreamQuery {
            key,
            from: Offset::ZERO,
            direction: Direction::Forward,
            below: Offset::MAX,
            max_records: 1_000,
            max_bytes: 1 << 20,
        };
        let read = reader.read_stream(&query).map_err(|e| unread(&e))?;
        let found: Vec<Offset> = read.records.iter().map(|r| r.offset).collect();
        let last = reader.last_of_key(key, Offset::MAX).map_err(|e| unread(&e))?;
        if found != expected || last != expected.last().copied() {
            return Err(failure("streams", format!("{found:?} and {last:?}, expected {expected:?}")));
        }
    }
    Ok(())
}

/// Reading from each offset gives the batch that holds it.
fn check_reads(log: &Log, state: &Alternative) -> Result<(), Failure> {
    let reader = log.reader();
    let visible = state.visible(0..state.batches.len());
    for offset in state.start..state.end() {
        let limits = ReadLimits { max_bytes: 1, below: Offset::MAX };
        let read = reader.read(Offset(offset), limits);
        let read = read.map_err(|e| failure("reads by offset", format!("{offset}: {e}")))?;
        let expected = visible.iter().find(|(at, _)| state.batches[*at].next > offset);
        let expected = expected.map(|(_, left)| &left.bytes[..]);
        if read.first().map(|b| &b[..]) != expected {
            return Err(failure("reads by offset", format!("another batch than that of {offset}")));
        }
    }
    Ok(())
}

fn check_times(log: &Log, state: &Alternative) -> Result<(), Failure> {
    let reader = log.reader();
    let visible = state.visible(0..state.batches.len());
    let records = || {
        let all = visible.iter().flat_map(|(_, left)| left.times.iter().copied());
        all.filter(|(offset, _)| *offset >= state.start)
    };
    let mut times: Vec<i64> = records().map(|(_, time)| time).step_by(3).flat_map(|t| [t, t + 1]).collect();
    times.extend([0, i64::MAX]);
    for time in times {
        let found = reader.first_at_or_after(time);
        let found = found.map_err(|e| failure("reads by time", format!("{time}: {e}")))?;
        let expected = records().find(|(_, t)| *t >= time).map(|(offset, t)| (t, offset));
        if found.map(|f| (f.timestamp, f.offset.0)) != expected {
            return Err(failure("reads by time", format!("{time}: {found:?}, expected {expected:?}")));
        }
    }
    let largest = reader.largest_timestamp().map_err(|e| failure("reads by time", e.to_string()))?;
    let max = records().map(|(_, t)| t).max();
    let expected = records().find(|(_, t)| Some(*t) == max).map(|(offset, t)| (t, offset));
    if largest.map(|f| (f.timestamp, f.offset.0)) != expected {
        return Err(failure("largest timestamp", format!("{largest:?}, expected {expected:?}")));
    }
    Ok(())
}
