//! What readers of a log hold: an immutable list of segments, published ends, and the tail in memory. A reader takes no lock
//! that the writer waits for. Must never change anything.

mod stream;

use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering, fence};

use arc_swap::ArcSwap;
use bytes::Bytes;
use floodmark_proto::batch::{BatchHeader, DecompressLimits, Records};
use floodmark_proto::ids::{LeaderEpoch, Offset, TimestampMs};
use parking_lot::Mutex;

pub use stream::{LANDED_RECORDS_MAX, StreamQuery, StreamRead, StreamRecord};

use super::files;
use super::keys::LogKeys;
use super::tail_cache::Tail;
use crate::error::{LogError, Poison};
use crate::fs::Disk;
use crate::index::{AbortedTransaction, transaction_index};
use crate::leader_epochs::LeaderEpochs;
use crate::segment::{ReadLimits, Segment};

/// Published by the writer, read by everyone.
#[derive(Debug)]
pub(crate) struct LogShared {
    pub(crate) dir: Arc<Path>,
    /// Oldest first; the last one is being written.
    pub(crate) segments: ArcSwap<Vec<Arc<Segment>>>,
    pub(crate) epochs: ArcSwap<LeaderEpochs>,
    pub(crate) start: AtomicI64,
    pub(crate) end: AtomicI64,
    pub(crate) durable: AtomicI64,
    pub(crate) high_watermark: AtomicI64,
    /// First offset that a `read_committed` reader may not see; `i64::MAX` where no transaction is open.
    pub(crate) first_unstable: AtomicI64,
    /// Odd while the tail is being cut, and different after: a read that overlaps a cut is made again.
    pub(crate) cuts: AtomicU64,
    /// Odd while a compacted segment takes the place of others, and different after: a read that overlaps may have opened the
    /// new file under the old name, and is made again.
    pub(crate) swaps: AtomicU64,
    pub(crate) tail: Arc<Tail>,
    pub(crate) keys: LogKeys,
    /// Somebody has asked files for batches since the writer last looked, also where the system had them in memory.
    pub(crate) was_read_from_files: AtomicBool,
    pub(crate) poison: OnceLock<Poison>,
    /// The log takes no more writes, because it was told so.
    pub(crate) closed: AtomicBool,
    /// Held while data is synced. A system tells an open file once of what it lost: of two syncs at one time, one would hear
    /// nothing of the other's failure.
    pub(crate) syncing: Mutex<()>,
}

impl LogShared {
    /// Fails where the log takes no more writes.
    pub(crate) fn check_open(&self) -> Result<(), LogError> {
        match self.poison.get() {
            Some(poison) => Err(LogError::Poisoned(poison.clone())),
            None if self.closed.load(Ordering::Acquire) => Err(LogError::Closed),
            None => Ok(()),
        }
    }

    /// How often files that were there before have changed, tails and others; odd while they do.
    pub(crate) fn changes(&self) -> (u64, u64) {
        (self.cuts.load(Ordering::Acquire), self.swaps.load(Ordering::Acquire))
    }

    /// True where what was read since [`LogShared::changes`] gave `before` was read beside no change.
    pub(crate) fn is_undisturbed_since(&self, before: (u64, u64)) -> bool {
        // An acquiring load keeps what follows it from being done earlier, not what precedes it from being done later: without the fence a
        // processor that orders loads weakly (aarch64) may look at the counters first and read after that. It pairs with the one in
        // `begin_change`: whoever has read something of a change sees its odd number.
        fence(Ordering::Acquire);
        before.0.is_multiple_of(2) && before.1.is_multiple_of(2) && self.changes() == before
    }

    /// One of the counters becomes odd, before anything of the change can be seen.
    pub(crate) fn begin_change(&self, counter: &AtomicU64) {
        self.keys.before_change(|| {
            counter.fetch_add(1, Ordering::AcqRel);
        });
        // What is written next may otherwise become visible before the number does.
        fence(Ordering::Release);
    }

    /// It becomes even, after everything of the change.
    pub(crate) fn end_change(&self, counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::AcqRel);
    }

    /// Stops the log for good: after a failed write or sync nobody can say what the disk holds. Whoever opens it next is told.
    pub(crate) fn poison(&self, disk: &dyn Disk, error: LogError) -> LogError {
        if self.poison.get().is_none() {
            files::note_failure(disk, &self.dir);
        }
        let poison = match error {
            LogError::Io { action, path, source } => Poison { action, path, source },
            LogError::Poisoned(poison) => poison,
            other => Poison {
                action: "change",
                path: self.dir.to_path_buf(),
                source: Arc::new(std::io::Error::other(other.to_string())),
            },
        };
        LogError::Poisoned(self.poison.get_or_init(|| poison).clone())
    }
}

/// Reads one log; cheap to clone, usable from any thread. Calls that touch files block on the disk.
#[derive(Debug, Clone)]
pub struct LogReader {
    shared: Arc<LogShared>,
}

/// A record found by its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundByTime {
    /// The record's timestamp.
    pub timestamp: TimestampMs,
    /// Its offset.
    pub offset: Offset,
    /// The epoch in which it was appended.
    pub leader_epoch: LeaderEpoch,
}

/// Records of a batch looked into for a timestamp; a batch that needs more was not written through this log.
const LOOK_INTO: DecompressLimits = DecompressLimits { max_bytes: 1 << 30, max_ratio: 1 << 20 };

impl LogReader {
    pub(crate) fn new(shared: Arc<LogShared>) -> LogReader {
        LogReader { shared }
    }

    /// First offset that may be read.
    #[must_use]
    pub fn start(&self) -> Offset {
        Offset(self.shared.start.load(Ordering::Acquire))
    }

    /// First offset not yet written.
    #[must_use]
    pub fn end(&self) -> Offset {
        Offset(self.shared.end.load(Ordering::Acquire))
    }

    /// First offset that a power cut here could take.
    #[must_use]
    pub fn durable(&self) -> Offset {
        Offset(self.shared.durable.load(Ordering::Acquire))
    }

    /// What the log was last told of the high watermark.
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        Offset(self.shared.high_watermark.load(Ordering::Acquire))
    }

    /// First offset that belongs to an undecided transaction, at most the high watermark.
    #[must_use]
    pub fn last_stable_offset(&self) -> Offset {
        // In this order: of what lies below the high watermark that was read, each open transaction has been published. The
        // other way round one could begin and pass below the watermark between the two (R14).
        let high_watermark = self.high_watermark();
        high_watermark.min(Offset(self.shared.first_unstable.load(Ordering::Acquire)))
    }

    /// Why the log takes no more writes, if it does not.
    #[must_use]
    pub fn poison(&self) -> Option<&Poison> {
        self.shared.poison.get()
    }

    /// What an append would fail with, if the log takes no more: it failed, or was closed.
    #[must_use]
    pub fn stopped(&self) -> Option<LogError> {
        self.shared.check_open().err()
    }

    /// Whole batches from the one that holds `from`, contiguous and in order; empty at the end of the log or of the limit.
    ///
    /// A batch is returned whole even where `from` lies inside it, and the first one even where it exceeds `max_bytes`.
    pub fn read(&self, from: Offset, limits: ReadLimits) -> Result<Vec<Bytes>, LogError> {
        self.undisturbed(|| self.read_once(from, limits))
    }

    /// The same from memory alone, without waiting for a disk; `None` where that does not reach back to `from`.
    pub fn read_in_memory(&self, from: Offset, limits: ReadLimits) -> Result<Option<Vec<Bytes>>, LogError> {
        let cuts = self.shared.cuts.load(Ordering::Acquire);
        let (start, end) = (self.start(), self.end());
        let found = if from < start || from > end {
            Err(LogError::OutOfRange { asked: from, start, end })
        } else if from >= limits.below.min(end) {
            self.shared.tail.note_asked();
            Ok(Some(Vec::new()))
        } else {
            Ok(self.shared.tail.read(from, limits))
        };
        // As in `is_undisturbed_since`; what is in memory no swap changes.
        fence(Ordering::Acquire);
        // During a cut, which takes its time, only the reader that waits knows better.
        let is_undisturbed = cuts.is_multiple_of(2) && self.shared.cuts.load(Ordering::Acquire) == cuts;
        if is_undisturbed { found } else { Ok(None) }
    }

    /// The same of what the system has in memory, without waiting for a disk, for a reader that goes on where a read of these files
    /// left off: at once, where they are mapped, else at the price of a copy. `None` where [`LogReader::read`] must be asked.
    #[must_use]
    pub fn read_at_hand(&self, from: Offset, limits: ReadLimits) -> Option<Bytes> {
        let before = self.shared.changes();
        if !before.0.is_multiple_of(2) || !before.1.is_multiple_of(2) || from < self.start() {
            return None;
        }
        let limits = ReadLimits { below: limits.below.min(self.end()), ..limits };
        let segments = self.shared.segments.load();
        self.note_file_read(&segments, from);
        let segment = &segments[segments.partition_point(|s| s.base <= from).checked_sub(1)?];
        let batches = segment.read_at_hand(from, limits)?;
        self.shared.is_undisturbed_since(before).then_some(batches)
    }

    /// Whoever reads from files is better off where what is written now stays in memory until he comes to it; and whoever has come to the
    /// segment that is being written will soon want what is newest.
    fn note_file_read(&self, segments: &[Arc<Segment>], from: Offset) {
        // A look costs readers and the writer less than to write each time.
        if !self.shared.was_read_from_files.load(Ordering::Relaxed) {
            self.shared.was_read_from_files.store(true, Ordering::Relaxed);
        }
        if segments.last().is_some_and(|active| active.base <= from) {
            self.shared.tail.note_asked();
        }
    }

    /// Makes the call again where it overlapped a change of the files that were there before.
    fn undisturbed<T>(&self, call: impl Fn() -> Result<T, LogError>) -> Result<T, LogError> {
        loop {
            let before = self.shared.changes();
            if before.0.is_multiple_of(2) && before.1.is_multiple_of(2) {
                let outcome = call();
                if self.shared.is_undisturbed_since(before) {
                    return outcome;
                }
            }
            std::thread::yield_now();
        }
    }

    fn read_once(&self, from: Offset, limits: ReadLimits) -> Result<Vec<Bytes>, LogError> {
        let (start, end) = (self.start(), self.end());
        if from < start || from > end {
            return Err(LogError::OutOfRange { asked: from, start, end });
        }
        // Memory and files have batches a moment before their end is published; till then they may still be taken back.
        let limits = ReadLimits { below: limits.below.min(end), ..limits };
        if from >= limits.below {
            self.shared.tail.note_asked();
            return Ok(Vec::new());
        }
        if let Some(batches) = self.shared.tail.read(from, limits) {
            return Ok(batches);
        }
        let segments = self.shared.segments.load();
        self.note_file_read(&segments, from);
        let first = segments.partition_point(|s| s.base <= from).saturating_sub(1);
        // Compaction may have emptied what is left of a segment after `from`: then the next one has the next batch.
        for segment in &segments[first..] {
            if segment.base >= limits.below {
                break;
            }
            if let Some(batches) = segment.read(from, limits)? {
                return Ok(if batches.is_empty() { Vec::new() } else { vec![batches] });
            }
        }
        Ok(Vec::new())
    }

    /// The first record at or after `target` in time, among those from the log's start on. Timestamps need not rise.
    pub fn first_at_or_after(&self, target: TimestampMs) -> Result<Option<FoundByTime>, LogError> {
        self.undisturbed(|| self.first_at_or_after_once(target))
    }

    fn first_at_or_after_once(&self, target: TimestampMs) -> Result<Option<FoundByTime>, LogError> {
        let start = self.start();
        let segments = self.shared.segments.load();
        for segment in segments.iter() {
            if segment.end() <= start || segment.largest_timestamp().is_none_or(|l| l.timestamp < target) {
                continue;
            }
            let mut from = start.max(segment.base);
            while let Some((position, header)) = segment.first_batch_reaching(target, from)? {
                let batch = segment.read_batch(position, &header)?;
                let wanted = |r: (TimestampMs, Offset)| r.0 >= target && r.1 >= start;
                if let Some(found) = first_record(&batch, &header, wanted)? {
                    return Ok(Some(found));
                }
                from = header.next_offset();
            }
        }
        Ok(None)
    }

    /// The record with the largest timestamp, the first of them where several have it.
    pub fn largest_timestamp(&self) -> Result<Option<FoundByTime>, LogError> {
        self.undisturbed(|| self.largest_timestamp_once())
    }

    fn largest_timestamp_once(&self) -> Result<Option<FoundByTime>, LogError> {
        let segments = self.shared.segments.load();
        let start = self.start();
        let known = |s: &Arc<Segment>| s.largest_timestamp().map_or(-1, |l| l.timestamp);
        let mut largest = segments.iter().filter(|s| s.base >= start).map(known).max().unwrap_or(-1);
        // Of the segment that the log's start lies in, the largest may lie before it.
        if let Some(cut) = segments.iter().find(|s| s.base < start && s.end() > start)
            && known(cut) > largest
        {
            largest = largest_from(cut, start, largest)?;
        }
        if largest < 0 { Ok(None) } else { self.first_at_or_after_once(largest) }
    }

    /// The aborted transactions that a reader of `from` up to `end` must know.
    pub fn aborted_transactions(
        &self,
        from: Offset,
        end: Offset,
    ) -> Result<Vec<AbortedTransaction>, LogError> {
        self.undisturbed(|| self.aborted_transactions_once(from, end))
    }

    /// True where some transaction that ended at or after `from` was aborted. Looks at no file.
    #[must_use]
    pub fn has_aborted_transactions(&self, from: Offset) -> bool {
        let segments = self.shared.segments.load();
        let first = segments.partition_point(|s| s.base <= from).saturating_sub(1);
        segments[first..].iter().any(|segment| segment.aborted().entries > 0)
    }

    fn aborted_transactions_once(
        &self,
        from: Offset,
        end: Offset,
    ) -> Result<Vec<AbortedTransaction>, LogError> {
        let segments = self.shared.segments.load();
        let first = segments.partition_point(|s| s.base <= from).saturating_sub(1);
        let mut aborted = Vec::new();
        for segment in &segments[first..] {
            let mut found = transaction_index::collect(&segment.aborted_transactions()?, from, end);
            aborted.append(&mut found.aborted);
            if found.is_complete {
                break;
            }
        }
        Ok(aborted)
    }

    /// The epochs of the log.
    #[must_use]
    pub fn leader_epochs(&self) -> Arc<LeaderEpochs> {
        self.shared.epochs.load_full()
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.shared.segments.load().iter().map(|s| s.bytes()).sum()
    }

    /// Bytes of the batches from the one that holds `from` to the end. What cannot be told, because a file cannot be read or changes
    /// meanwhile, is taken for a whole segment: a figure for people. May wait for a disk.
    #[must_use]
    pub fn bytes_from(&self, from: Offset) -> u64 {
        let segments = self.shared.segments.load();
        let first = segments.partition_point(|s| s.base <= from).saturating_sub(1);
        let behind = |segment: &Segment| match segment.bytes() {
            0 => 0,
            bytes => bytes.saturating_sub(segment.position_of(from)),
        };
        let mut segments = segments[first..].iter();
        let in_first = segments.next().map_or(0, |segment| behind(segment));
        in_first + segments.map(|segment| segment.bytes()).sum::<u64>()
    }

    /// Closes files and maps that nobody used since the last call; to be called now and then.
    pub fn release_idle(&self) {
        for segment in self.shared.segments.load().iter() {
            segment.release_if_idle();
        }
    }
}

/// The largest timestamp of the records of `segment` from `start` on, or `known` where none is larger.
fn largest_from(segment: &Segment, start: Offset, known: TimestampMs) -> Result<TimestampMs, LogError> {
    let (mut largest, mut from) = (known, start);
    while let Some((position, header)) = segment.first_batch_reaching(largest.saturating_add(1), from)? {
        if header.base_offset >= start {
            largest = header.max_timestamp;
        } else {
            let batch = segment.read_batch(position, &header)?;
            while let Some(found) = first_record(&batch, &header, |(time, at)| at >= start && time > largest)?
            {
                largest = found.timestamp;
            }
        }
        from = header.next_offset();
    }
    Ok(largest)
}

fn first_record(
    batch: &[u8],
    header: &BatchHeader,
    wanted: impl Fn((TimestampMs, Offset)) -> bool,
) -> Result<Option<FoundByTime>, LogError> {
    let damaged = |e: floodmark_proto::batch::BatchError| LogError::Refused {
        path: format!("batch at offset {}", header.base_offset).into(),
        reason: e.to_string(),
    };
    let mut scratch = Vec::new();
    for record in Records::open(batch, &LOOK_INTO, &mut scratch).map_err(damaged)? {
        let record = record.map_err(damaged)?;
        if wanted((record.timestamp, record.offset)) {
            let found = FoundByTime {
                timestamp: record.timestamp,
                offset: record.offset,
                leader_epoch: header.leader_epoch,
            };
            return Ok(Some(found));
        }
    }
    Ok(None)
}
