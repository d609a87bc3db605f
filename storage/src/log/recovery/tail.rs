//! The second half of opening: what lies behind the recovery point is read, checked, cut at the first bytes that are no batch,
//! and taken into indexes and producer state.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use floodmark_proto::batch::BatchHeader;
use floodmark_proto::ids::Offset;

use super::Opening;
use crate::config::LogConfig;
use crate::error::LogError;
use crate::fs::{DiskFile, OpenMode};
use crate::index::TimestampOffset;
use crate::index::transaction_index::{self, EntriesFacts};
use crate::log::active::Active;
use crate::log::files;
use crate::log::replay::{Met, Replay, transaction_index_append};
use crate::manifest::SegmentRecord;
use crate::segment::Segment;
use crate::segment::name::FileKind;
use crate::segment::scan::{BatchScan, ScanEnd};

impl Opening {
    /// Reads what lies behind the recovery point, or everything where no manifest says where that is.
    pub(super) fn recover_tail(&mut self, config: &LogConfig) -> Result<(), LogError> {
        let first = match &self.manifest {
            Some(manifest) => manifest.active,
            None => {
                let base = self.found.data.keys().next().copied().unwrap_or(Offset::ZERO);
                SegmentRecord { base_offset: base, end_offset: base, ..SegmentRecord::default() }
            }
        };
        let bases: Vec<Offset> =
            self.found.data.keys().filter(|b| **b > first.base_offset).copied().collect();
        let mut later = bases.into_iter().peekable();
        let mut from = first;
        loop {
            let segment = self.scan_segment(&from, config, later.peek().copied())?;
            let end = segment.end();
            self.segments.push(segment);
            // With a manifest no compaction has touched what follows, so segments meet. Without one, a gap may be compaction's;
            // an overlap may be a merge that was not swept or a flipped bit in an offset, so nothing is removed for it.
            let mut next = None;
            for candidate in later.by_ref() {
                if candidate == end || (candidate > end && self.manifest.is_none()) {
                    next = Some(candidate);
                    break;
                }
                if self.manifest.is_none() {
                    let reason = format!("the segment begins before {end}, the end of the one before it");
                    return Err(LogError::damaged(&self.path(candidate, FileKind::Data), 0, reason));
                }
                let reason = format!("the segment does not follow the log's end at {end}");
                self.take_out(candidate, end, &reason)?;
            }
            let Some(base) = next else { return Ok(()) };
            from = SegmentRecord { base_offset: base, end_offset: base, ..SegmentRecord::default() };
        }
    }

    /// Index files whose batches never came to be, or went first: aborted transactions would be added behind theirs.
    pub(super) fn sweep_indexes(&mut self) -> Result<(), LogError> {
        let kept = |base: &Offset| self.segments.iter().any(|s| s.base == *base && s.bytes() > 0);
        let named = self.found.indexes.keys().chain(self.found.transaction_indexes.keys());
        let gone: BTreeSet<Offset> = named.filter(|base| !kept(base)).copied().collect();
        for base in gone {
            for kind in [FileKind::OffsetIndex, FileKind::TimeIndex, FileKind::TransactionIndex] {
                files::remove(&*self.disk, &self.dir, base, kind)?;
            }
            let removed = self.path(base, FileKind::TransactionIndex);
            self.changed_indexes.retain(|path| *path != removed);
            self.removed = true;
        }
        Ok(())
    }

    /// Key indexes that may tell of other batches than there are: of segments that are gone or were cut, or were being swapped. Left
    /// lying, one could come to fit again once the segment has grown. And all of them, where none is wanted.
    pub(super) fn sweep_key_indexes(&mut self, config: &LogConfig) -> Result<(), LogError> {
        let is_scanned = |base: &Offset| self.scanned.iter().any(|s| s.base == *base);
        let was_cut =
            self.manifest.as_ref().filter(|m| m.truncating_to.is_some()).map(|m| m.active.base_offset);
        let is_right = |base: &Offset| {
            let is_listed = self.segments.iter().any(|s| s.base == *base && s.bytes() > 0);
            let is_in_doubt = is_scanned(base) || was_cut == Some(*base) || self.without_index == Some(*base);
            config.key_index && is_listed && !is_in_doubt
        };
        let gone: Vec<Offset> =
            self.found.key_indexes.iter().filter(|base| !is_right(base)).copied().collect();
        for base in gone {
            files::remove(&*self.disk, &self.dir, base, FileKind::KeyIndex)?;
            self.removed = true;
        }
        Ok(())
    }

    /// Checks one segment from its durable part on, and cuts it behind its last good batch.
    pub(super) fn scan_segment(
        &mut self,
        from: &SegmentRecord,
        config: &LogConfig,
        successor: Option<Offset>,
    ) -> Result<Arc<Segment>, LogError> {
        let base = from.base_offset;
        let path = self.path(base, FileKind::Data);
        let Some(&size) = self.found.data.get(&base) else {
            return Ok(self.segment_of(from, false));
        };
        if size == from.size_bytes && successor.is_none() && self.manifest.is_some() {
            let mut record = *from;
            // A truncation does not say what is the largest timestamp of what it leaves.
            if self.manifest.as_ref().is_some_and(|m| m.truncating_to.is_some()) {
                record.largest_timestamp = self.segment_of(from, false).find_largest_timestamp()?;
            }
            // Nothing was appended, or it was cut again, by a truncation or for want of space. A process that was killed has not
            // synced that, and this opening is the last to know: a power cut would bring the batches back.
            let file = self.disk.open(&path, OpenMode::Write).map_err(LogError::io("open", &path))?;
            files::settle_tail(&file, &path)?;
            record.aborted = Some(self.trim_transaction_index(base, from.end_offset)?);
            return Ok(self.segment_of(&record, false));
        }
        self.touched = true;
        let file = self.disk.open(&path, OpenMode::Write).map_err(LogError::io("open", &path))?;
        if self.found.has_failed {
            // First, so that what is checked is what will be on the disk.
            files::write_again(&*file, &path, from.size_bytes..size)?;
        }
        let good = self.good_batches(&file, &path, from, successor)?;
        if good.position < size {
            let is_kept = self.keep_tail(&file, base, good.position, good.next, &good.reason)?;
            if !is_kept && !good.are_zeros_behind {
                self.report.cut_bytes += size - good.position;
                let reason = || format!("{} at byte {}: {}", path.display(), good.position, good.reason);
                self.report.cut_reason.get_or_insert_with(reason);
            }
            // Synced with the rest of the segment, before the manifest says that the log ends here.
            file.set_size(good.position).map_err(LogError::io("cut", &path))?;
        }
        let record = SegmentRecord {
            base_offset: base,
            size_bytes: good.position,
            end_offset: good.next,
            largest_timestamp: good.largest,
            aborted: Some(self.trim_transaction_index(base, from.end_offset)?),
        };
        let segment = self.segment_of(&record, false);
        self.scanned.push(Arc::clone(&segment));
        self.complete_indexes(&segment, config)?;
        Ok(segment)
    }

    /// Walks over the batches behind the durable part, and finds where they end.
    fn good_batches(
        &mut self,
        file: &Arc<dyn DiskFile>,
        path: &Path,
        from: &SegmentRecord,
        successor: Option<Offset>,
    ) -> Result<Good, LogError> {
        let scan = BatchScan::new(Arc::clone(file), path, from.size_bytes, from.end_offset)?;
        let mut scan = scan.of_segment(from.base_offset, successor);
        let mut good = Good {
            position: from.size_bytes,
            next: from.end_offset,
            largest: from.largest_timestamp,
            reason: String::new(),
            are_zeros_behind: false,
        };
        let mut before_gap = None;
        while let Some(batch) = scan.step()? {
            let header = batch.header;
            before_gap = (header.base_offset > good.next).then(|| good.clone());
            note_timestamp(&mut good.largest, &header);
            self.epochs.assign(header.leader_epoch, header.base_offset);
            good.position = batch.position + header.size_bytes() as u64;
            good.next = header.next_offset();
        }
        let end = scan.end();
        self.report.scanned_bytes += good.position - from.size_bytes;
        if self.manifest.is_none() && end != ScanEnd::Complete {
            // Nothing says how far the log was durable, so only what looks like an unfinished write may go.
            let is_gap = successor.is_some_and(|next| end != ScanEnd::Zeros || next != scan.next_offset());
            let is_misplaced = matches!(end, ScanEnd::OutOfRange { .. });
            if is_gap || is_misplaced || scan.good_batch_follows()? {
                return Err(LogError::damaged(path, good.position, end.to_string()));
            }
        }
        good.are_zeros_behind = end == ScanEnd::Zeros;
        good.reason = end.to_string();
        // Offsets lie outside the checksum. Where the next batch would have followed without it, it is this one that has wrong ones.
        if let (ScanEnd::OutOfOrder { base: next, .. }, Some(before)) = (end, before_gap)
            && next >= before.next
        {
            let reason =
                format!("a batch that ends before offset {} where the next one begins at {next}", good.next);
            good = Good { reason, ..before };
            self.epochs.truncate_from_end(good.next);
        }
        Ok(good)
    }

    /// Entries of batches that are about to be met again would else stand there twice. Says what is left.
    pub(super) fn trim_transaction_index(
        &mut self,
        base: Offset,
        end: Offset,
    ) -> Result<EntriesFacts, LogError> {
        if !self.found.transaction_indexes.contains_key(&base) {
            return Ok(EntriesFacts::default());
        }
        let path = self.path(base, FileKind::TransactionIndex);
        let content = self.read_transaction_index(base)?;
        let whole = transaction_index::valid_prefix(&content) * transaction_index::ENTRY_LEN;
        let entries = transaction_index::parse(&content[..whole])
            .map_err(|source| LogError::BadFile { path: path.clone(), source })?;
        let kept = transaction_index::entries_before(&entries, end) * transaction_index::ENTRY_LEN;
        if self.found.has_failed {
            let file = self.disk.open(&path, OpenMode::Write).map_err(LogError::io("open", &path))?;
            files::write_again(&*file, &path, 0..kept as u64)?;
        }
        if kept < content.len() {
            let file = self.disk.open(&path, OpenMode::Write).map_err(LogError::io("open", &path))?;
            file.set_size(kept as u64).map_err(LogError::io("cut", &path))?;
            self.touched = true;
        }
        self.found.transaction_indexes.insert(base, kept as u64);
        // Even where nothing is cut now: what a killed process cut or wrote may not be durable.
        self.changed_indexes.push(path);
        Ok(EntriesFacts::of(&content[..kept]))
    }

    /// Keeps of the indexes what is right and writes the rest from the batches.
    pub(super) fn complete_indexes(
        &self,
        segment: &Arc<Segment>,
        config: &LogConfig,
    ) -> Result<(), LogError> {
        let mut writer = Active::new(Arc::clone(&self.disk), Arc::clone(segment), config, 0, 0);
        writer.wake(config)?;
        writer.seal()
    }

    /// Indexes are not synced, so a power cut may have taken the end of one whose segment is durable. After a clean shutdown only a
    /// file that is missing is made anew: nothing is opened.
    pub(super) fn check_indexes(&mut self, config: &LogConfig) -> Result<(), LogError> {
        let was_clean = self.report.was_clean;
        let sealed = self.manifest.as_ref().map_or(0, |m| m.sealed.len());
        for segment in self.segments.iter().take(sealed).cloned().collect::<Vec<_>>() {
            let have = self.found.indexes.get(&segment.base).copied().unwrap_or_default();
            let is_missing = self.without_index == Some(segment.base);
            let look_whole = match (have.offset, have.time) {
                (Some(offset), Some(time)) => was_clean || segment.indexes_look_whole(offset, time),
                _ => segment.bytes() == 0,
            };
            if is_missing || !look_whole {
                self.report.was_clean = false;
                self.report.rebuilt.push(segment.path(FileKind::OffsetIndex));
                self.complete_indexes(&segment, config)?;
            }
        }
        Ok(())
    }

    /// The newest snapshot that is whole, and the batches behind it.
    pub(super) fn read_producers(&mut self) -> Result<(), LogError> {
        let end = self.segments.last().map_or(Offset::ZERO, |s| s.end());
        let recovery_point = self.recovery_point();
        let first = self.segments.first().map_or(Offset::ZERO, |s| s.base);
        self.note_later_snapshot(end);
        // One behind the recovery point may tell of a history that is no more, and would keep the replay from the aborted
        // transactions that are to be written again.
        let trusted = if self.was_reset() { Offset(-1) } else { recovery_point.max(first) };
        let (kept, gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.found.snapshots).into_iter().partition(|s| *s <= trusted);
        for offset in gone {
            files::remove(&*self.disk, &self.dir, offset, FileKind::Snapshot)?;
            self.removed = true;
        }
        self.snapshots = kept;
        let mut aborted = Vec::new();
        let replay = Replay { disk: &*self.disk, dir: &self.dir, segments: &self.segments, end };
        let mut behind = Vec::new();
        let (producers, from) = replay.run(&mut self.snapshots, |segment, met| match met {
            // Whether it lay behind the recovery point, or at it and was not synced.
            Met::Begin(states) => behind.push((segment.base, states.to_snapshot())),
            Met::Aborted(entry) if entry.last_offset >= recovery_point => {
                aborted.push((segment.base, entry));
            }
            _ => {}
        })?;
        for (base, snapshot) in behind {
            files::write_snapshot(&*self.disk, &self.dir, base, &snapshot)?;
            self.snapshots.push(base);
            self.touched = true;
        }
        self.producers = producers;
        if from < recovery_point {
            self.report.producers_replayed_from = Some(from);
        }
        for (base, entry) in aborted {
            let path = self.path(base, FileKind::TransactionIndex);
            transaction_index_append(&*self.disk, &path, &entry)?;
            if let Some(segment) = self.segments.iter().find(|s| s.base == base) {
                segment.publish_aborted(segment.aborted().and(&entry.encode()));
            }
            self.changed_indexes.push(path);
            self.touched = true;
        }
        Ok(())
    }
}

/// Batches behind the durable part of a segment, and what ends them.
#[derive(Clone)]
struct Good {
    position: u64,
    next: Offset,
    largest: Option<TimestampOffset>,
    reason: String,
    are_zeros_behind: bool,
}

fn note_timestamp(largest: &mut Option<TimestampOffset>, header: &BatchHeader) {
    if header.record_count > 0 && header.max_timestamp > largest.map_or(-1, |l| l.timestamp) {
        *largest = Some(TimestampOffset { timestamp: header.max_timestamp, offset: header.last_offset() });
    }
}
