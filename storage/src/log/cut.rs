//! The tail off (a follower that diverged), the head off (retention, deleted records), or everything (a follower too far
//! behind). Each is durable as a decision before the first file changes, so a crash in between is finished at opening.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use floodmark_proto::ids::Offset;

use super::pace::Stretch;
use super::replay::Replay;
use super::{Log, files, record_of};
use crate::error::LogError;
use crate::fs::{OpenMode, SyncPoint, read_full_at, with_suffix, write_all_at};
use crate::index::transaction_index::{self, EntriesFacts};
use crate::manifest::{Manifest, SegmentRecord};
use crate::segment::name::FileKind;
use crate::segment::{Segment, SegmentFacts};

/// Bytes copied at a time from a segment that is shortened.
const COPY_BYTES: usize = 1 << 20;

/// Where a log is to end: in which segment, and how much of it stays.
pub(super) struct Cut {
    segment: Arc<Segment>,
    bytes: u64,
    end: Offset,
}

impl Log {
    /// Removes every batch that holds an offset at or after `end`; returns where the log ends now, which is lower than
    /// `end` where a batch straddles it. Durable when it returns.
    pub fn truncate_to(&mut self, end: Offset) -> Result<Offset, LogError> {
        self.check_open()?;
        let end = end.max(Offset::ZERO);
        if end >= self.next {
            return Ok(self.next);
        }
        self.end_staging()?;
        let first_base = self.segments().first().map_or(Offset::ZERO, |s| s.base);
        if end <= first_base {
            self.reset_to(end)?;
            return Ok(end);
        }
        let cut = self.find_cut(end)?;
        if cut.end <= first_base {
            self.reset_to(cut.end)?;
            return Ok(cut.end);
        }
        // The transaction index is cut by what it says, so that must be right before anything is changed.
        cut.segment.aborted_transactions()?;
        // What stays must be durable before the manifest says so.
        self.checkpoint()?;
        let active = SegmentRecord {
            base_offset: cut.segment.base,
            size_bytes: cut.bytes,
            end_offset: cut.end,
            largest_timestamp: None,
            aborted: None,
        };
        let sealed =
            self.manifest.sealed.iter().filter(|s| s.base_offset < cut.segment.base).copied().collect();
        let under_way = Manifest {
            // A batch that straddles the log's start goes whole, and the start with it.
            log_start: self.manifest.log_start.min(cut.end),
            truncating_to: Some(cut.end),
            first_dirty: self.manifest.first_dirty.min(cut.end),
            sealed,
            active,
            ..self.manifest.clone()
        };
        self.commit_manifest(under_way)?;
        self.shared.start.fetch_min(cut.end.0, Ordering::AcqRel);
        self.cut_tail(&cut).map_err(|e| self.poison(e))?;
        self.epochs_unsaved |= self.epochs.truncate_from_end(cut.end);
        self.save_epochs().map_err(|e| self.poison(e))?;
        let done = Manifest {
            truncating_to: None,
            active: record_of(&self.active.segment),
            ..self.manifest.clone()
        };
        self.commit_manifest(done)?;
        Ok(self.next)
    }

    /// Removes everything; the log goes on at `offset`. Durable when it returns.
    pub fn reset_to(&mut self, offset: Offset) -> Result<(), LogError> {
        self.check_open()?;
        self.end_staging()?;
        let offset = offset.max(Offset::ZERO);
        let active = SegmentRecord { base_offset: offset, end_offset: offset, ..SegmentRecord::default() };
        let under_way = Manifest {
            log_start: offset,
            first_dirty: offset,
            truncating_to: Some(offset),
            sealed: Vec::new(),
            active,
            ..Manifest::default()
        };
        self.commit_manifest(under_way)?;
        let outcome = self.cutting(|log| log.begin_again_at(offset));
        outcome.map_err(|e| self.poison(e))?;
        let done = Manifest { truncating_to: None, ..self.manifest.clone() };
        self.commit_manifest(done)
    }

    fn begin_again_at(&mut self, offset: Offset) -> Result<(), LogError> {
        self.note_cut(Offset::ZERO);
        self.active.sleep();
        let (disk, dir) = (Arc::clone(&self.context.disk), Arc::clone(&self.shared.dir));
        for segment in self.segments().iter().rev() {
            files::remove_segment(&*disk, &dir, segment.base)?;
        }
        for snapshot in std::mem::take(&mut self.snapshots) {
            files::remove(&*disk, &dir, snapshot, FileKind::Snapshot)?;
        }
        let segment = self.new_segment(SegmentFacts::empty(offset));
        self.active = self.new_active(Arc::clone(&segment));
        self.stretch = Stretch::new(segment.base);
        self.active.create_files()?;
        self.to_index.clear();
        self.begin_keys(None);
        files::settle_names(&*disk, &dir)?;
        self.unsynced = super::Unsynced::default();
        self.producers = crate::producers::ProducerStates::new(offset);
        self.epochs = crate::leader_epochs::LeaderEpochs::new();
        self.epochs_unsaved = true;
        self.save_epochs()?;
        self.shared.segments.store(Arc::new(vec![segment]));
        self.shared.start.store(offset.0, Ordering::Release);
        self.publish_shorter(offset);
        // There is nothing before it that a disk could lack.
        self.shared.durable.store(offset.0, Ordering::Release);
        Ok(())
    }

    /// The batch boundary at or before `end`, or `end` itself where no batch straddles it.
    pub(super) fn find_cut(&self, end: Offset) -> Result<Cut, LogError> {
        let segments = self.segments();
        let at = segments.partition_point(|s| s.base <= end).saturating_sub(1);
        let segment = Arc::clone(&segments[at]);
        if segment.bytes() == 0 || segment.base == end {
            return Ok(Cut { segment, bytes: 0, end });
        }
        let source = segment.source()?;
        let (bytes, end) = match segment.locate(&source, end)? {
            Some((position, header)) => (position, header.base_offset.min(end)),
            None => (segment.bytes(), end),
        };
        Ok(Cut { segment, bytes, end })
    }

    /// Cuts files and memory back. Needs no word in the manifest where what goes was never acknowledged.
    pub(super) fn cut_tail(&mut self, cut: &Cut) -> Result<(), LogError> {
        self.cutting(|log| log.cut_files_and_memory(cut))
    }

    /// Readers wait while `cut` runs, and go on whatever became of it.
    fn cutting(&mut self, cut: impl FnOnce(&mut Log) -> Result<(), LogError>) -> Result<(), LogError> {
        self.shared.begin_change(&self.shared.cuts);
        let outcome = cut(self);
        self.shared.end_change(&self.shared.cuts);
        outcome
    }

    fn cut_files_and_memory(&mut self, cut: &Cut) -> Result<(), LogError> {
        self.tail.clear();
        self.active.sleep();
        let (disk, dir) = (Arc::clone(&self.context.disk), Arc::clone(&self.shared.dir));
        let segments = self.segments().clone();
        let kept = segments.partition_point(|s| s.base < cut.segment.base);
        for segment in segments[kept + 1..].iter().rev() {
            files::remove_segment(&*disk, &dir, segment.base)?;
        }
        let (stay, go): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.snapshots).into_iter().partition(|s| *s <= cut.end);
        self.snapshots = stay;
        for snapshot in go {
            files::remove(&*disk, &dir, snapshot, FileKind::Snapshot)?;
        }
        let aborted = self.shorten(cut)?;
        let facts = SegmentFacts { end: cut.end, bytes: cut.bytes, ..SegmentFacts::empty(cut.segment.base) };
        let largest = if cut.bytes == cut.segment.bytes() {
            cut.segment.largest_timestamp()
        } else {
            self.new_segment(facts).find_largest_timestamp()?
        };
        let segment = self.new_segment(SegmentFacts { largest_timestamp: largest, aborted, ..facts });
        self.inherit_keys(&cut.segment, &segment)?;
        files::settle_names(&*disk, &dir)?;
        let mut list = segments[..kept].to_vec();
        list.push(Arc::clone(&segment));
        self.unsynced.sealed.retain(|s| s.base < segment.base);
        self.unsynced.active.change();
        self.stretch = Stretch::new(segment.base);
        self.active = self.new_active(segment);
        self.begin_keys(None);
        self.wake_active()?;
        let replay = Replay { disk: &*disk, dir: &dir, segments: &list, end: cut.end };
        self.producers = replay.run(&mut self.snapshots, |_, _| {})?.0;
        self.shared.segments.store(Arc::new(list));
        self.publish_shorter(cut.end);
        Ok(())
    }

    /// Makes the data file and the transaction index of the cut segment as short as they must be; says what is left of the
    /// latter.
    fn shorten(&mut self, cut: &Cut) -> Result<EntriesFacts, LogError> {
        let disk = Arc::clone(&self.context.disk);
        let path = cut.segment.path(FileKind::Data);
        if cut.bytes == 0 {
            // Readers may have it mapped, so it is not emptied but made anew when the next batch comes.
            files::remove_segment(&*disk, &self.shared.dir, cut.segment.base)?;
            cut.segment.release();
            return Ok(EntriesFacts::default());
        }
        if cut.segment.is_settled() {
            self.shorten_copy(cut)?;
        } else {
            let file = disk.open(&path, OpenMode::Write).map_err(LogError::io("open", &path))?;
            files::cut_file(&file, &path, cut.bytes)?;
        }
        cut.segment.release();
        let path = cut.segment.path(FileKind::TransactionIndex);
        // Behind the published entries, a write that found no space may have left others, or part of one.
        let aborted = cut.segment.aborted_transactions()?;
        let kept = transaction_index::entries_before(&aborted, cut.end);
        let file = match disk.open(&path, OpenMode::Write) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && kept == 0 => return Ok(EntriesFacts::default()),
            other => other.map_err(LogError::io("open", &path))?,
        };
        let kept_bytes = (kept * transaction_index::ENTRY_LEN) as u64;
        if kept_bytes < file.size().map_err(LogError::io("look at", &path))? {
            file.set_size(kept_bytes).map_err(LogError::io("cut", &path))?;
            self.unsynced.transaction_index(path);
        }
        let kept: Vec<u8> = aborted[..kept].iter().flat_map(|entry| entry.encode()).collect();
        Ok(EntriesFacts::of(&kept))
    }

    /// A sealed segment may be mapped by readers, so its file is not touched: a shorter copy takes its name.
    fn shorten_copy(&self, cut: &Cut) -> Result<(), LogError> {
        let disk = &self.context.disk;
        let path = cut.segment.path(FileKind::Data);
        // Not the name of a compacted copy: a pass may be writing that one at this moment.
        let aside = with_suffix(&path, files::TEMPORARY);
        let from = cut.segment.data_file()?;
        let to = disk.open(&aside, OpenMode::Create).map_err(LogError::io("create", &aside))?;
        let mut piece = vec![0; COPY_BYTES];
        let mut at = 0;
        while at < cut.bytes {
            let wanted = COPY_BYTES.min((cut.bytes - at) as usize);
            let read = read_full_at(&*from, &mut piece[..wanted], at).map_err(LogError::io("read", &path))?;
            if read == 0 {
                return Err(LogError::damaged(&path, at, "the file is shorter than its batches"));
            }
            write_all_at(&*to, &mut [IoSlice::new(&piece[..read])], at)
                .map_err(LogError::io("write", &aside))?;
            at += read as u64;
        }
        to.sync(SyncPoint::TruncateCopy).map_err(LogError::io("sync", &aside))?;
        disk.rename(&aside, &path).map_err(LogError::io("rename", &aside))
    }

    fn publish_shorter(&mut self, end: Offset) {
        self.note_cut(end);
        self.accepted.clear();
        self.tail.clear();
        self.next = end;
        self.generation += 1;
        self.bytes_since_checkpoint = 0;
        self.shared.durable.fetch_min(end.0, Ordering::AcqRel);
        self.shared.high_watermark.fetch_min(end.0, Ordering::AcqRel);
        self.shared.end.store(end.0, Ordering::Release);
        self.publish_first_unstable();
    }

    /// Moves the log's start to `offset`, which must be committed, and removes the segments before it. Durable when it
    /// returns; readers that hold bytes of a removed segment keep them.
    ///
    /// On a full disk the indexes of what is to go make room for the manifest that says so. Where that is not enough, or
    /// nothing goes, this fails with [`LogError::Full`] and the log starts where it did.
    pub fn delete_before(&mut self, offset: Offset) -> Result<(), LogError> {
        self.check_open()?;
        if offset <= self.start() {
            return Ok(());
        }
        let committed = Offset(self.shared.high_watermark.load(Ordering::Acquire));
        if offset > committed {
            return Err(LogError::OutOfRange { asked: offset, start: self.start(), end: committed });
        }
        if self.active.position > 0 && offset >= self.next {
            self.wake_active()?;
            self.roll().map_err(|e| self.full_or_poison(e))?;
        }
        // What lies before the start may be unsynced, and a log must not end before it starts.
        if offset > self.durable() {
            self.sync()?;
        }
        self.move_start(offset)
    }

    /// Removes segments that lie wholly before the log's start already.
    pub(super) fn drop_before_start(&mut self) -> Result<(), LogError> {
        self.move_start(self.start())
    }

    fn move_start(&mut self, offset: Offset) -> Result<(), LogError> {
        match self.try_move_start(offset) {
            Err(LogError::Full { .. }) if self.drop_indexes_before(offset)? => self.try_move_start(offset),
            other => other,
        }
    }

    /// Gives up the offset and time indexes of segments that lie wholly before `offset`; true where there were any. Should the
    /// segments stay all the same, reading them takes longer, and an opening that is not clean makes the indexes anew.
    fn drop_indexes_before(&self, offset: Offset) -> Result<bool, LogError> {
        let found = files::look(&*self.context.disk, &self.shared.dir)?;
        let mut dropped = false;
        for segment in self.segments().iter().filter(|s| s.is_settled() && s.end() <= offset) {
            dropped |=
                found.indexes.get(&segment.base).is_some_and(|i| i.offset > Some(0) || i.time > Some(0));
            segment.release();
            for kind in [FileKind::OffsetIndex, FileKind::TimeIndex] {
                files::remove(&*self.context.disk, &self.shared.dir, segment.base, kind)?;
            }
        }
        Ok(dropped)
    }

    fn try_move_start(&mut self, offset: Offset) -> Result<(), LogError> {
        let segments = self.segments().clone();
        let (_, sealed) = segments.split_last().map_or((None, &[][..]), |(a, s)| (Some(a), s));
        let gone = sealed.partition_point(|s| s.end() <= offset);
        if sealed[..gone].iter().any(|s| s.base >= self.manifest.active.base_offset) {
            self.checkpoint()?;
        }
        let mut manifest = Manifest { log_start: offset, is_closed: false, ..self.manifest.clone() };
        manifest.first_dirty = manifest.first_dirty.max(offset);
        manifest.sealed.retain(|s| s.end_offset > offset);
        self.commit_manifest(manifest)?;
        self.shared.start.store(offset.0, Ordering::Release);
        self.shared.segments.store(Arc::new(segments[gone..].to_vec()));
        self.tail.forget_before(offset);
        self.producers.on_log_start(offset);
        self.publish_first_unstable();
        for segment in &segments[..gone] {
            files::remove_segment(&*self.context.disk, &self.shared.dir, segment.base)?;
        }
        let first_kept = segments[gone].base;
        let newest = self.snapshots.last().copied();
        let (kept, old): (Vec<_>, Vec<_>) = std::mem::take(&mut self.snapshots)
            .into_iter()
            .partition(|s| *s >= first_kept || Some(*s) == newest);
        self.snapshots = kept;
        for snapshot in old {
            files::remove(&*self.context.disk, &self.shared.dir, snapshot, FileKind::Snapshot)?;
        }
        self.epochs_unsaved |= self.epochs.truncate_from_start(offset);
        match self.save_epochs() {
            // The start has moved; until they are saved, opening lets them begin there.
            Err(LogError::Full { .. }) => Ok(()),
            other => other,
        }
    }
}
