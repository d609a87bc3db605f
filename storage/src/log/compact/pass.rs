//! The part of a pass that any thread may run: reads sealed segments, writes cleaned ones beside them, changes nothing that a
//! reader or the writer uses.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use floodmark_proto::batch::BatchHeader;
use floodmark_proto::ids::{Offset, TimestampMs};

use super::output::{OUTPUT_BYTES_MAX, Output, index_aside, remove_unfinished};
use super::{CompactionEnd, CompactionReport};
use crate::clock::Stopwatch;
use crate::compaction::choose::{Plan, SealedSegment, group};
use crate::compaction::filter::{BatchFilter, Fate, FilterFacts, KeyMapper, MappedKeys, Standing};
use crate::compaction::offset_map::OffsetMap;
use crate::compaction::rate::Rate;
use crate::compaction::transactions::{AbortedTransactions, LastOfProducers};
use crate::config::{CompactionConfig, LogConfig};
use crate::error::LogError;
use crate::fs::Disk;
use crate::key_index::KeySeed;
use crate::log::active::index_policy;
use crate::log::reader::{LogReader, LogShared};
use crate::segment::name::{FileKind, path_of};
use crate::segment::scan::BatchScan;
use crate::segment::{Segment, SegmentFacts};

/// How a pass is held back and stopped from outside. Clones belong to the same pass.
#[derive(Clone)]
pub struct CompactionControl {
    cancelled: Arc<AtomicBool>,
    pause: Arc<dyn Fn(Duration) + Send + Sync>,
}

impl CompactionControl {
    /// Pauses by calling `pause`, which returns when the time is over.
    #[must_use]
    pub fn new(pause: impl Fn(Duration) + Send + Sync + 'static) -> CompactionControl {
        CompactionControl { cancelled: Arc::default(), pause: Arc::new(pause) }
    }

    /// Asks the pass to stop at the next batch.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }

    /// Whether it was asked to.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }
}

impl Default for CompactionControl {
    /// Pauses put the thread to sleep.
    fn default() -> CompactionControl {
        CompactionControl::new(std::thread::sleep)
    }
}

impl fmt::Debug for CompactionControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompactionControl")
            .field("is_cancelled", &self.is_cancelled())
            .finish_non_exhaustive()
    }
}

/// What a pass starts with.
pub(super) struct Beginning {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: Arc<Path>,
    pub(super) config: LogConfig,
    pub(super) compaction: CompactionConfig,
    pub(super) shared: Arc<LogShared>,
    pub(super) cuts: u64,
    pub(super) segments: Vec<Arc<Segment>>,
    pub(super) views: Vec<SealedSegment>,
    pub(super) plan: Plan,
    pub(super) producers: LastOfProducers,
    pub(super) now_ms: TimestampMs,
    pub(super) hash_keys: (u64, u64),
    pub(super) control: CompactionControl,
    /// The log gives out no second pass while this lives.
    pub(super) alive: Arc<()>,
}

/// One pass over a log. May be dropped at any time; what it left is swept by the next pass or opening.
#[derive(Debug)]
pub struct Compaction {
    disk: Arc<dyn Disk>,
    dir: Arc<Path>,
    config: LogConfig,
    compaction: CompactionConfig,
    shared: Arc<LogShared>,
    cuts: u64,
    segments: Vec<Arc<Segment>>,
    views: Vec<SealedSegment>,
    plan: Plan,
    now_ms: TimestampMs,
    hash_keys: (u64, u64),
    /// With what keys are hashed for the index, where the cleaned segments get one.
    keys: Option<KeySeed>,
    pace: Pace,
    /// Taken by the filter.
    producers: LastOfProducers,
    /// `None` before the keys are mapped.
    filter: Option<BatchFilter>,
    groups: VecDeque<Range<usize>>,
    report: CompactionReport,
    stopped: Option<CompactionEnd>,
    is_complete: bool,
    _alive: Arc<()>,
}

/// A cleaned segment that waits to take its place.
#[derive(Debug)]
pub struct CleanedGroup {
    disk: Arc<dyn Disk>,
    dir: Arc<Path>,
    pub(super) old: Vec<Arc<Segment>>,
    pub(super) facts: SegmentFacts,
    has_transactions: bool,
    has_keys: bool,
}

impl CleanedGroup {
    /// Files that are renamed before the data, whose rename decides.
    pub(super) fn aside_and_place(&self, dir: &Path) -> Vec<(PathBuf, PathBuf)> {
        let base = self.facts.base;
        let mut pairs: Vec<(PathBuf, PathBuf)> = [FileKind::OffsetIndex, FileKind::TimeIndex]
            .map(|kind| (index_aside(dir, base, kind), path_of(dir, base, kind)))
            .to_vec();
        if self.has_keys {
            let kind = FileKind::KeyIndex;
            pairs.push((index_aside(dir, base, kind), path_of(dir, base, kind)));
        }
        if self.has_transactions {
            let aside = path_of(dir, base, FileKind::CleanedTransactions);
            pairs.push((aside, path_of(dir, base, FileKind::TransactionIndex)));
        }
        pairs
    }

    pub(super) fn discard(self) -> Result<(), LogError> {
        remove_unfinished(&*self.disk, &self.dir, self.facts.base)
    }
}

impl Compaction {
    pub(super) fn new(beginning: Beginning) -> Compaction {
        let Beginning { plan, config, compaction, control, .. } = beginning;
        let rate = compaction.bytes_per_second;
        let report = CompactionReport {
            first_dirty: plan.first_dirty,
            covered: plan.first_dirty,
            reset_from: plan.reset_from,
            dirty_ratio: plan.dirty_ratio,
            ..CompactionReport::default()
        };
        Compaction {
            disk: beginning.disk,
            dir: beginning.dir,
            config,
            compaction,
            shared: Arc::clone(&beginning.shared),
            cuts: beginning.cuts,
            segments: beginning.segments,
            views: beginning.views,
            plan,
            now_ms: beginning.now_ms,
            hash_keys: beginning.hash_keys,
            keys: beginning.shared.keys.seed(),
            pace: Pace { rate: Rate::new(rate), since: Stopwatch::start(), control },
            producers: beginning.producers,
            filter: None,
            groups: VecDeque::new(),
            report,
            stopped: None,
            is_complete: false,
            _alive: beginning.alive,
        }
    }

    /// Cleans the next group of segments; `None` where nothing is left to do, or the pass was stopped. Blocks on the disk, and
    /// pauses as the byte rate demands.
    ///
    /// An error ends the pass and harms nothing: the log is as it was. An error that comes of the log being cut at the same
    /// time is none.
    pub fn clean_next(&mut self) -> Result<Option<CleanedGroup>, LogError> {
        match self.try_clean_next() {
            Err(_) if self.is_superseded() => {
                self.stop(CompactionEnd::Superseded);
                Ok(None)
            }
            Err(e) => {
                self.stop(CompactionEnd::Stopped);
                Err(e)
            }
            other => other,
        }
    }

    /// What was done so far.
    #[must_use]
    pub fn progress(&self) -> &CompactionReport {
        &self.report
    }

    fn try_clean_next(&mut self) -> Result<Option<CleanedGroup>, LogError> {
        while self.stopped.is_none() {
            if self.is_superseded() {
                self.stop(CompactionEnd::Superseded);
                break;
            }
            let Some(mut filter) = self.filter.take() else {
                self.map_keys()?;
                continue;
            };
            let Some(range) = self.groups.pop_front() else {
                self.is_complete = true;
                break;
            };
            let cleaned = self.clean_group(range, &mut filter);
            self.report.counts = filter.counts();
            self.filter = Some(filter);
            if let Some(group) = cleaned? {
                return Ok(Some(group));
            }
        }
        Ok(None)
    }

    /// Reads the dirty part for its keys, and makes the filter that the groups are put through.
    fn map_keys(&mut self) -> Result<(), LogError> {
        let first = self.segments.first().map_or(Offset::ZERO, |s| s.base);
        // From the entries of all segments on: a transaction may end in one that is not cleaned.
        let reader = LogReader::new(Arc::clone(&self.shared));
        let aborted = AbortedTransactions::new(reader.aborted_transactions(first, self.plan.end)?);
        let Some(keys) = self.map_dirty_part(&aborted)? else { return Ok(()) };
        self.report.keys = keys.map.len() as u64;
        self.report.covered = keys.covered;
        let touched = self.segments.partition_point(|s| s.base < keys.covered);
        self.groups = group(&self.views[..touched], &self.config).into();
        self.filter = Some(BatchFilter::new(FilterFacts {
            keys,
            aborted,
            producers: std::mem::take(&mut self.producers),
            now_ms: self.now_ms,
            delete_retention_ms: self.compaction.delete_retention_ms,
        }));
        Ok(())
    }

    fn map_dirty_part(&mut self, aborted: &AbortedTransactions) -> Result<Option<MappedKeys>, LogError> {
        let keys_max = u64::try_from(self.plan.end - self.plan.first_dirty).unwrap_or(0);
        let map = OffsetMap::new(self.compaction.map_bytes, keys_max, self.hash_keys);
        let mut mapper = KeyMapper::new(map, self.plan.first_dirty, aborted);
        for segment in self.segments.iter().filter(|s| s.end() > self.plan.first_dirty) {
            let path = segment.path(FileKind::Data);
            let mut scan = BatchScan::of(segment.source_for_now()?, &path, 0, segment.base)?;
            while let Some(batch) = next_batch(&mut scan, segment, &path)? {
                self.report.bytes_read += batch.bytes.len() as u64;
                let bytes = batch.bytes.len() as u64;
                let is_dirty = batch.header.last_offset() >= self.plan.first_dirty;
                if is_dirty && mapper.add(batch.bytes, &batch.header).is_err() {
                    // Nothing is read behind this batch that would tell whether it could be.
                    scan.check()?;
                    return Ok(Some(mapper.finish()));
                }
                if self.pace.moved(bytes) {
                    self.stop(CompactionEnd::Stopped);
                    return Ok(None);
                }
            }
        }
        // Whatever gap the last segments end with, it is covered too.
        Ok(Some(MappedKeys { covered: self.plan.end, ..mapper.finish() }))
    }

    /// `None` where the segments stay as they are, or the pass was cancelled.
    fn clean_group(
        &mut self,
        range: Range<usize>,
        filter: &mut BatchFilter,
    ) -> Result<Option<CleanedGroup>, LogError> {
        let old = self.segments[range].to_vec();
        let Some(base) = old.first().map(|s| s.base) else { return Ok(None) };
        let written = self.write_group(&old, base, filter);
        if !matches!(written, Ok(Some(_))) {
            // Swept at the next opening, if not now.
            let _ = remove_unfinished(&*self.disk, &self.dir, base);
        }
        let Some((facts, has_transactions)) = written? else { return Ok(None) };
        let (disk, dir) = (Arc::clone(&self.disk), Arc::clone(&self.dir));
        let has_keys = self.keys.is_some() && facts.bytes > 0;
        Ok(Some(CleanedGroup { disk, dir, old, facts, has_transactions, has_keys }))
    }

    fn write_group(
        &mut self,
        old: &[Arc<Segment>],
        base: Offset,
        filter: &mut BatchFilter,
    ) -> Result<Option<(SegmentFacts, bool)>, LogError> {
        let mut has_transactions = false;
        for segment in old {
            has_transactions |= !segment.aborted_transactions()?.is_empty();
        }
        let policy = index_policy(&self.config);
        let (disk, dir) = (Arc::clone(&self.disk), Arc::clone(&self.dir));
        let mut output = Output::create(disk, dir, base, policy, self.keys)?;
        let mut unread: u64 = old.iter().map(|s| s.bytes()).sum();
        let last_full = old.iter().rposition(|s| s.bytes() > 0);
        let mut is_changed = old.len() > 1;
        for (n, segment) in old.iter().enumerate() {
            let path = segment.path(FileKind::Data);
            let mut scan = BatchScan::of(segment.source_for_now()?, &path, 0, segment.base)?;
            while let Some(batch) = next_batch(&mut scan, segment, &path)? {
                let (header, size) = (&batch.header, batch.bytes.len() as u64);
                unread -= size;
                let is_last_of_segment = Some(n) == last_full && batch.position + size == segment.bytes();
                let may_grow = output.position() + unread + grown_bytes_max(header) <= OUTPUT_BYTES_MAX;
                let fate = filter.judge(batch.bytes, header, Standing { is_last_of_segment, may_grow });
                let before = output.position();
                match &fate {
                    Fate::Keep => output.push(header, batch.bytes)?,
                    Fate::Replace(header, bytes) => output.push(header, bytes)?,
                    Fate::Drop => {}
                }
                is_changed |= !matches!(fate, Fate::Keep);
                let moved = size + (output.position() - before);
                self.report.bytes_read += size;
                self.report.bytes_written += moved - size;
                if self.pace.moved(moved) {
                    self.stop(CompactionEnd::Stopped);
                    return Ok(None);
                }
            }
        }
        self.report.segments_in += old.len() as u64;
        let aborted = filter.take_aborted();
        if !is_changed {
            return Ok(None);
        }
        let end = old.last().map_or(base, |s| s.end());
        let facts = output.finish(end, has_transactions.then_some(&aborted))?;
        Ok(Some((facts, has_transactions)))
    }

    pub(super) fn cuts(&self) -> u64 {
        self.cuts
    }

    pub(super) fn installed(&mut self, group: &CleanedGroup) {
        self.report.segments_out += 1;
        let before: u64 = group.old.iter().map(|s| s.bytes()).sum();
        self.report.bytes_saved += before as i64 - group.facts.bytes as i64;
    }

    pub(super) fn stop(&mut self, end: CompactionEnd) {
        self.stopped.get_or_insert(end);
    }

    /// The report of a pass that is over; `otherwise` is how it ended where it did not say so itself.
    pub(super) fn into_report(self, otherwise: CompactionEnd) -> CompactionReport {
        let end = match (self.stopped, otherwise) {
            (Some(end), _) => end,
            (None, CompactionEnd::Superseded) => CompactionEnd::Superseded,
            (None, _) if self.is_complete => CompactionEnd::Complete,
            (None, otherwise) => otherwise,
        };
        CompactionReport { end, ..self.report }
    }

    /// True where the log was cut, or segments left it, since the pass began.
    fn is_superseded(&self) -> bool {
        if self.shared.cuts.load(Ordering::Acquire) != self.cuts {
            return true;
        }
        // Segments leave from the head only, and those that take others' places keep the first one's base.
        let now = self.shared.segments.load();
        self.segments.first().zip(now.first()).is_none_or(|(first, now)| now.base > first.base)
    }
}

/// The next batch of a sealed segment, whose checksum holds. Nothing but its end may end it.
fn next_batch<'s>(
    scan: &'s mut BatchScan<'_>,
    segment: &Segment,
    path: &Path,
) -> Result<Option<crate::segment::scan::Scanned<'s>>, LogError> {
    if scan.position() >= segment.bytes() {
        // The last batch is not trusted before this.
        scan.check()?;
        return Ok(None);
    }
    let (position, expected) = (scan.position(), scan.next_offset());
    match scan.step()? {
        Some(batch) => Ok(Some(batch)),
        None => {
            let reason = format!("the bytes from offset {expected} on are no batch that follows");
            Err(LogError::damaged(path, position, reason))
        }
    }
}

/// The most that a batch may take once its records' times are told as distances to a horizon. A codec may do a little worse
/// than the one that packed it before.
fn grown_bytes_max(header: &BatchHeader) -> u64 {
    const DELTA_BYTES_MAX: u64 = 12;
    2 * header.size_bytes() as u64 + header.record_count.max(0) as u64 * DELTA_BYTES_MAX
}

/// Counts bytes, pauses, and tells when to stop.
#[derive(Debug)]
struct Pace {
    rate: Rate,
    since: Stopwatch,
    control: CompactionControl,
}

impl Pace {
    /// True where the pass was cancelled.
    fn moved(&mut self, bytes: u64) -> bool {
        if let Some(pause) = self.rate.after(bytes, self.since.elapsed()) {
            (self.control.pause)(pause);
            self.since = Stopwatch::start();
        }
        self.control.is_cancelled()
    }
}
