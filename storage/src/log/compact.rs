//! Superseded records out. A pass is begun and finished by the writer, which also puts each cleaned segment in its place; any
//! thread cleans in between, so that appends go on. What is newest, and what stays, [`crate::compaction`] decides.

mod output;
mod pass;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use floodmark_proto::ids::Offset;

use super::{Log, files, record_of};
use crate::compaction::choose::{CompactWhen, LogView, Plan, SealedSegment, choose};
use crate::compaction::filter::FilterCounts;
use crate::compaction::transactions::LastOfProducers;
use crate::config::CompactionConfig;
use crate::error::LogError;
use crate::fs::SyncPoint;
use crate::manifest::Manifest;
use crate::segment::Segment;
use crate::segment::name::{FileKind, path_of};
pub use pass::{CleanedGroup, Compaction, CompactionControl};

/// How a pass ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CompactionEnd {
    /// All that was planned is done, or as much as the memory for keys allowed.
    #[default]
    Complete,
    /// It was cancelled, or failed; segments that had taken their places stay.
    Stopped,
    /// The log was cut, or lost its head, while the pass ran: what was not in its place by then was discarded.
    Superseded,
}

/// What a pass did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CompactionReport {
    /// How it ended.
    pub end: CompactionEnd,
    /// Where mapping began.
    pub first_dirty: Offset,
    /// Where the next pass begins, if this one is complete.
    pub covered: Offset,
    /// Offset in the manifest that could not be, so that mapping began at the log's start (R23).
    pub reset_from: Option<Offset>,
    /// Uncleaned over cleanable bytes at the beginning.
    pub dirty_ratio: f64,
    /// Keys in the map.
    pub keys: u64,
    /// Segments that were read, and those that took their places.
    pub segments_in: u64,
    /// See `segments_in`.
    pub segments_out: u64,
    /// Bytes read, to map and to clean.
    pub bytes_read: u64,
    /// Bytes of cleaned segments written.
    pub bytes_written: u64,
    /// Bytes by which the log became smaller.
    pub bytes_saved: i64,
    /// Records and batches.
    pub counts: FilterCounts,
}

impl Log {
    /// A pass over this log, where one is due and none is under way: run [`Compaction::clean_next`] on any thread until it gives
    /// nothing, hand each group to [`Log::install_cleaned`], and the pass to [`Log::finish_compaction`].
    ///
    /// `None` also where the log is not compacted at all. Reads at most a header of each segment.
    pub fn begin_compaction(
        &mut self,
        when: CompactWhen,
        control: CompactionControl,
    ) -> Result<Option<Compaction>, LogError> {
        self.check_open()?;
        let Some(config) = self.config.compaction.clone() else { return Ok(None) };
        if self.compacting.strong_count() > 0 {
            return Ok(None);
        }
        let segments = self.segments().clone();
        let wants_times = config.max_lag_ms < i64::MAX;
        let sealed = &segments[..segments.len().saturating_sub(1)];
        let views: Vec<SealedSegment> =
            sealed.iter().map(|s| view_of(s, wants_times)).collect::<Result<_, _>>()?;
        let view = LogView {
            sealed: &views,
            log_start: self.start(),
            log_end: self.next,
            first_dirty: self.manifest.first_dirty,
            settled: self.manifest.active.base_offset.min(self.reader().last_stable_offset()),
            now_ms: self.context.clock.now_ms(),
        };
        let Some(plan) = choose(&view, &config, when) else { return Ok(None) };
        let alive = Arc::new(());
        self.compacting = Arc::downgrade(&alive);
        Ok(Some(self.pass(config, plan, views, control, alive)))
    }

    fn pass(
        &self,
        compaction: CompactionConfig,
        plan: Plan,
        mut views: Vec<SealedSegment>,
        control: CompactionControl,
        alive: Arc<()>,
    ) -> Compaction {
        views.truncate(plan.segments);
        let random = &self.context.random;
        Compaction::new(pass::Beginning {
            disk: Arc::clone(&self.context.disk),
            dir: Arc::clone(&self.shared.dir),
            config: self.config.clone(),
            compaction,
            shared: Arc::clone(&self.shared),
            cuts: self.shared.cuts.load(Ordering::Acquire),
            segments: self.segments()[..plan.segments].to_vec(),
            views,
            plan,
            producers: LastOfProducers::new(&self.producers),
            now_ms: self.context.clock.now_ms(),
            hash_keys: (random.next_u64(), random.next_u64()),
            control,
            alive,
        })
    }

    /// Makes a whole pass on this thread, where one is due. Blocks on the disk for as long as it takes.
    pub fn compact(
        &mut self,
        when: CompactWhen,
        control: CompactionControl,
    ) -> Result<Option<CompactionReport>, LogError> {
        let Some(mut pass) = self.begin_compaction(when, control)? else { return Ok(None) };
        while let Some(group) = pass.clean_next()? {
            self.install_cleaned(&mut pass, group)?;
        }
        self.finish_compaction(pass).map(Some)
    }

    /// Puts a cleaned segment in the place of those it was made of. Durable when it returns; a crash in between is finished at
    /// opening. Readers that hold bytes of the old segments keep them.
    ///
    /// Where the log was cut or lost its head since the pass began, the group is discarded and the pass stops.
    pub fn install_cleaned(&mut self, pass: &mut Compaction, group: CleanedGroup) -> Result<(), LogError> {
        self.check_open()?;
        let segments = self.segments().clone();
        let Some(at) = self.place_of(pass, &group, &segments) else {
            pass.stop(CompactionEnd::Superseded);
            return group.discard();
        };
        let segment = self.new_segment(group.facts);
        let mut manifest = Manifest { replacing: Some(segment.base), ..self.manifest.clone() };
        manifest.sealed.splice(at..at + group.old.len(), [record_of(&segment)]);
        self.commit_manifest(manifest)?;
        let mut list = Vec::clone(&segments);
        list.splice(at..at + group.old.len(), [segment]);
        self.shared.begin_change(&self.shared.swaps);
        let swapped = self.take_places(&group);
        if swapped.is_ok() {
            self.shared.segments.store(Arc::new(list));
            // Memory would go on to serve aborted records that the transaction index no longer tells of.
            self.tail.forget_before(group.facts.end);
        }
        self.shared.end_change(&self.shared.swaps);
        swapped.and_then(|()| self.remove_replaced(&group)).map_err(|e| self.poison(e))?;
        let done = Manifest { replacing: None, ..self.manifest.clone() };
        self.commit_manifest(done)?;
        pass.installed(&group);
        Ok(())
    }

    /// Where the old segments of a group stand, if all of them still do, as neighbours, durable and untouched.
    fn place_of(&self, pass: &Compaction, group: &CleanedGroup, now: &[Arc<Segment>]) -> Option<usize> {
        if self.shared.cuts.load(Ordering::Acquire) != pass.cuts() {
            return None;
        }
        let first = group.old.first()?;
        let at = now.iter().position(|s| Arc::ptr_eq(s, first))?;
        let standing = now.get(at..at + group.old.len())?;
        let listed = self.manifest.sealed.get(at..at + group.old.len())?;
        let same = standing.iter().zip(&group.old).all(|(a, b)| Arc::ptr_eq(a, b));
        (same && listed.iter().zip(standing).all(|(l, s)| l.base_offset == s.base)).then_some(at)
    }

    fn take_places(&self, group: &CleanedGroup) -> Result<(), LogError> {
        let (disk, dir, base) = (&*self.context.disk, &*self.shared.dir, group.facts.base);
        // The old one may be there where the new has none: the topic may not want one any more.
        files::remove(disk, dir, base, FileKind::KeyIndex)?;
        for (aside, place) in group.aside_and_place(dir) {
            disk.rename(&aside, &place).map_err(LogError::io("rename", &aside))?;
        }
        let aside = path_of(dir, base, FileKind::Cleaned);
        disk.rename(&aside, &path_of(dir, base, FileKind::Data)).map_err(LogError::io("rename", &aside))
    }

    fn remove_replaced(&self, group: &CleanedGroup) -> Result<(), LogError> {
        let (disk, dir) = (&*self.context.disk, &self.shared.dir);
        for old in group.old.iter().skip(1) {
            files::remove_segment(disk, dir, old.base)?;
        }
        disk.sync_dir(dir, SyncPoint::CompactedRenamed).map_err(LogError::io("sync", dir))
    }

    /// Ends a pass, whatever became of it, and notes how far it came. Durable when it returns.
    pub fn finish_compaction(&mut self, pass: Compaction) -> Result<CompactionReport, LogError> {
        self.check_open()?;
        if self.shared.cuts.load(Ordering::Acquire) != pass.cuts() {
            return Ok(pass.into_report(CompactionEnd::Superseded));
        }
        let report = pass.into_report(CompactionEnd::Stopped);
        if report.end == CompactionEnd::Complete {
            let first_dirty = match report.reset_from {
                Some(_) => report.covered.max(self.start()),
                None => report.covered.max(self.manifest.first_dirty),
            };
            if first_dirty != self.manifest.first_dirty {
                let manifest = Manifest { first_dirty, ..self.manifest.clone() };
                self.commit_manifest(manifest)?;
            }
        }
        Ok(report)
    }
}

fn view_of(segment: &Arc<Segment>, wants_time: bool) -> Result<SealedSegment, LogError> {
    let first_timestamp = if wants_time { segment.first_timestamp()? } else { None };
    Ok(SealedSegment {
        base: segment.base,
        end: segment.end(),
        bytes: segment.bytes(),
        largest_timestamp: segment.largest_timestamp().map(|l| l.timestamp),
        first_timestamp,
        index_entries: segment.index_entries(),
    })
}

#[cfg(test)]
mod tests;
