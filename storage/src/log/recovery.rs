//! Opens a log after whatever happened to it. What the manifest calls durable is taken as it is, and reported as damage where
//! it is not there; what lies behind is read, checked, and cut at the first bytes that are no batch.

use std::collections::BTreeSet;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use floodmark_proto::batch::BatchHeader;
use floodmark_proto::ids::Offset;

use super::append::end_marker;
use super::files::{self, Found};
use super::reader::LogShared;
use super::tail_cache::TailWriter;
use super::{EPOCHS_FILE, Log, LogContext, MANIFEST_FILE, Unsynced};
use crate::config::LogConfig;
use crate::error::LogError;
use crate::format_error::FormatError;
use crate::fs::{Disk, OpenMode, SyncPoint, parent, read_small_file, write_all_at};
use crate::index::{AbortedTransaction, TimestampOffset, offset_index, time_index, transaction_index};
use crate::leader_epochs::LeaderEpochs;
use crate::log::active::Active;
use crate::manifest::{Manifest, SegmentRecord};
use crate::producers::ProducerStates;
use crate::segment::name::{FileKind, path_of};
use crate::segment::scan::{BatchScan, ScanEnd};
use crate::segment::walk::HeaderWalk;
use crate::segment::{Segment, SegmentFacts, TRANSACTION_INDEX_BYTES_MAX};

/// A manifest line is some 60 bytes: a million segments.
pub(super) const MANIFEST_BYTES_MAX: u64 = 64 << 20;
const EPOCHS_BYTES_MAX: u64 = 64 << 20;
const SNAPSHOT_BYTES_MAX: u64 = 64 << 20;

/// What opening a log found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// The log was closed, and nothing had to be read.
    pub was_clean: bool,
    /// There was no log here before.
    pub was_new: bool,
    /// Bytes of batches read and checked.
    pub scanned_bytes: u64,
    /// Bytes cut off the tail that were neither batches nor zeros written ahead.
    pub cut_bytes: u64,
    /// Why the tail was cut.
    pub cut_reason: Option<String>,
    /// Offset from which producer state had to be replayed; `None` where a snapshot said it all.
    pub producers_replayed_from: Option<Offset>,
    /// Small files that were missing or damaged and were made anew.
    pub rebuilt: Vec<PathBuf>,
}

impl Log {
    /// Opens the log in `dir`, or makes one where there is none. Recovers it where it was not closed: the cost follows the
    /// bytes behind the recovery point, not the size of the log.
    ///
    /// Fails with [`LogError::Damaged`], and changes nothing, where bytes that were durable are missing or wrong.
    pub fn open(
        context: LogContext,
        dir: &Path,
        config: LogConfig,
    ) -> Result<(Log, RecoveryReport), LogError> {
        let dir: Arc<Path> = Arc::from(dir);
        let disk = Arc::clone(&context.disk);
        match disk.list(&dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                disk.create_dir_all(&dir).map_err(LogError::io("create", &dir))?;
            }
            Err(e) => return Err(LogError::io("list", &dir)(e)),
            Ok(_) => {}
        }
        let mut opening = Opening {
            found: files::look(&*disk, &dir)?,
            disk,
            dir,
            report: RecoveryReport::default(),
            manifest: None,
            segments: Vec::new(),
            snapshots: Vec::new(),
            producers: ProducerStates::default(),
            epochs: LeaderEpochs::new(),
            epochs_read: LeaderEpochs::new(),
            epochs_changed: false,
            scanned: Vec::new(),
            without_index: None,
            changed_indexes: Vec::new(),
            touched: false,
            removed: false,
        };
        opening.read_manifest()?;
        opening.finish_changes()?;
        opening.check_durable_part()?;
        opening.read_epochs()?;
        opening.recover_tail(&config)?;
        opening.complete_epochs();
        opening.sweep_indexes()?;
        opening.report.was_clean = !opening.touched && opening.manifest.as_ref().is_some_and(|m| m.is_closed);
        if !opening.report.was_clean {
            opening.check_indexes(&config)?;
        }
        opening.read_producers()?;
        opening.into_log(context, config)
    }
}

struct Opening {
    disk: Arc<dyn Disk>,
    dir: Arc<Path>,
    found: Found,
    report: RecoveryReport,
    /// `None` where it was missing or damaged: then everything is read.
    manifest: Option<Manifest>,
    segments: Vec<Arc<Segment>>,
    snapshots: Vec<Offset>,
    producers: ProducerStates,
    epochs: LeaderEpochs,
    /// As the file had them, or the durable batches.
    epochs_read: LeaderEpochs,
    epochs_changed: bool,
    /// Segments with bytes that no sync has covered yet.
    scanned: Vec<Arc<Segment>>,
    /// Segment whose indexes were removed, because they may be those of bytes that compaction replaced.
    without_index: Option<Offset>,
    /// Transaction indexes that were changed and not synced yet.
    changed_indexes: Vec<PathBuf>,
    /// Something differs from what the manifest says, so a new one must be written.
    touched: bool,
    /// Files were removed that must not come back.
    removed: bool,
}

impl Opening {
    fn path(&self, base: Offset, kind: FileKind) -> PathBuf {
        path_of(&self.dir, base, kind)
    }

    fn read_manifest(&mut self) -> Result<(), LogError> {
        let path = self.dir.join(MANIFEST_FILE);
        let content =
            read_small_file(&*self.disk, &path, MANIFEST_BYTES_MAX).map_err(LogError::io("read", &path))?;
        self.manifest = match content.map(|bytes| Manifest::parse(&bytes)) {
            Some(Ok(manifest)) => Some(manifest),
            Some(Err(e @ FormatError::NewerVersion { .. })) => {
                return Err(LogError::BadFile { path, source: e });
            }
            Some(Err(_)) => None,
            None => None,
        };
        if self.manifest.is_none() {
            // A process that was killed may have made the directory and never come to this: only a manifest proves it did.
            self.disk
                .sync_dir(parent(&self.dir), SyncPoint::PartitionCreated)
                .map_err(LogError::io("sync", parent(&self.dir)))?;
            self.touched = true;
            self.report.was_new = self.found.data.is_empty();
            if !self.found.data.is_empty() {
                self.report.rebuilt.push(path);
            }
        }
        Ok(())
    }

    /// Finishes what a crash interrupted, and sweeps what it left.
    fn finish_changes(&mut self) -> Result<(), LogError> {
        for name in std::mem::take(&mut self.found.temporary) {
            let path = self.dir.join(name);
            self.disk.remove_file(&path).map_err(LogError::io("remove", &path))?;
        }
        // A killed process may have left names that are not durable, the manifest's among them: were it lost after the
        // segments that it condemns, the one before it would miss them. A log that was closed may have been written since.
        files::settle_names(&*self.disk, &self.dir)?;
        self.finish_swap()?;
        let Some(manifest) = self.manifest.clone() else { return Ok(()) };
        self.touched |= manifest.replacing.is_some() || manifest.truncating_to.is_some();
        let is_listed = |base: &Offset| {
            *base == manifest.active.base_offset || manifest.sealed.iter().any(|s| s.base_offset == *base)
        };
        // Behind a truncation nothing stays; before the recovery point only what the manifest lists.
        let goes = |base: &Offset| {
            !is_listed(base) && (manifest.truncating_to.is_some() || *base < manifest.recovery_point())
        };
        let leftovers: Vec<Offset> = self.found.data.keys().rev().filter(|b| goes(b)).copied().collect();
        for base in leftovers {
            files::remove_segment(&*self.disk, &self.dir, base)?;
            self.found.data.remove(&base);
            self.removed = true;
        }
        if manifest.truncating_to.is_some() {
            self.cut(manifest.active.base_offset, manifest.active.size_bytes)?;
            // Else aborted transactions of batches that are gone would hide those that get their offsets.
            self.trim_transaction_index(manifest.active.base_offset, manifest.active.end_offset)?;
            self.removed = true;
        }
        Ok(())
    }

    /// Gives the compacted copies that the manifest speaks of their names; others were never finished.
    fn finish_swap(&mut self) -> Result<(), LogError> {
        let replacing = self.manifest.as_ref().and_then(|m| m.replacing);
        for (base, bytes) in std::mem::take(&mut self.found.cleaned) {
            if self.settle_copy(base, FileKind::Cleaned, FileKind::Data, replacing)? {
                self.found.data.insert(base, bytes);
            }
        }
        for base in std::mem::take(&mut self.found.cleaned_transactions) {
            let kind = FileKind::CleanedTransactions;
            if self.settle_copy(base, kind, FileKind::TransactionIndex, replacing)?
                && !self.found.transaction_indexes.contains(&base)
            {
                self.found.transaction_indexes.push(base);
            }
        }
        let Some(base) = replacing else { return Ok(()) };
        // Whether these are of the old bytes or of the new nobody can tell: their entries would be in order either way.
        for kind in [FileKind::OffsetIndex, FileKind::TimeIndex] {
            files::remove(&*self.disk, &self.dir, base, kind)?;
        }
        self.found.indexes.remove(&base);
        self.without_index = Some(base);
        self.removed = true;
        Ok(())
    }

    /// True where the copy took its place, false where it was swept.
    fn settle_copy(
        &self,
        base: Offset,
        kind: FileKind,
        place: FileKind,
        replacing: Option<Offset>,
    ) -> Result<bool, LogError> {
        let aside = self.path(base, kind);
        if replacing == Some(base) {
            let path = self.path(base, place);
            self.disk.rename(&aside, &path).map_err(LogError::io("rename", &aside))?;
        } else {
            self.disk.remove_file(&aside).map_err(LogError::io("remove", &aside))?;
        }
        Ok(replacing == Some(base))
    }

    /// Cuts the data file of a segment, where it has more than `bytes`.
    fn cut(&mut self, base: Offset, bytes: u64) -> Result<(), LogError> {
        let Some(size) = self.found.data.get_mut(&base) else { return Ok(()) };
        if *size > bytes {
            let path = path_of(&self.dir, base, FileKind::Data);
            let file = self.disk.open(&path, OpenMode::Write).map_err(LogError::io("open", &path))?;
            files::cut_file(&file, &path, bytes)?;
            *size = bytes;
        }
        Ok(())
    }

    /// What the manifest calls durable must be there, to the byte.
    fn check_durable_part(&mut self) -> Result<(), LogError> {
        let Some(manifest) = self.manifest.clone() else { return Ok(()) };
        for record in &manifest.sealed {
            let path = self.path(record.base_offset, FileKind::Data);
            match self.found.data.get(&record.base_offset) {
                None => {
                    let reason = format!("the segment is missing; it held {} bytes", record.size_bytes);
                    return Err(LogError::damaged(&path, 0, reason));
                }
                Some(size) if *size < record.size_bytes => {
                    let reason = format!("the file ends here, but {} bytes were durable", record.size_bytes);
                    return Err(LogError::damaged(&path, *size, reason));
                }
                // Zeros that were to be trimmed when the segment was sealed.
                Some(_) => self.cut(record.base_offset, record.size_bytes)?,
            }
            self.segments.push(self.segment_of(record, true));
        }
        let active = manifest.active;
        let size = self.found.data.get(&active.base_offset).copied().unwrap_or(0);
        if size < active.size_bytes {
            let path = self.path(active.base_offset, FileKind::Data);
            let reason = format!("the file ends here, but {} bytes were durable", active.size_bytes);
            return Err(LogError::damaged(&path, size, reason));
        }
        Ok(())
    }

    fn segment_of(&self, record: &SegmentRecord, settled: bool) -> Arc<Segment> {
        let indexes = self.found.indexes.get(&record.base_offset).copied().unwrap_or_default();
        let facts = SegmentFacts {
            base: record.base_offset,
            end: record.end_offset,
            bytes: record.size_bytes,
            largest_timestamp: record.largest_timestamp,
            offset_entries: (indexes.offset / offset_index::ENTRY_LEN as u64) as u32,
            time_entries: (indexes.time / time_index::ENTRY_LEN as u64) as u32,
            settled,
        };
        Arc::new(Segment::new(Arc::clone(&self.disk), Arc::clone(&self.dir), facts))
    }

    fn read_epochs(&mut self) -> Result<(), LogError> {
        let path = self.dir.join(EPOCHS_FILE);
        let content =
            read_small_file(&*self.disk, &path, EPOCHS_BYTES_MAX).map_err(LogError::io("read", &path))?;
        match content.map(|bytes| LeaderEpochs::parse(&bytes)) {
            Some(Ok(epochs)) => self.epochs = epochs,
            Some(Err(_)) => self.rebuild_epochs(path)?,
            None if self.has_durable_batches() => self.rebuild_epochs(path)?,
            None => {}
        }
        self.epochs_read = self.epochs.clone();
        if self.was_reset() {
            self.epochs = LeaderEpochs::new();
        }
        if let Some(manifest) = &self.manifest {
            // Entries of a tail that may be gone; the scan brings back those that are not. Where a truncation ends the log,
            // what began there is gone for certain.
            let point = manifest.recovery_point();
            self.epochs.truncate_from_end(if manifest.truncating_to.is_some() {
                point
            } else {
                point.next()
            });
        }
        Ok(())
    }

    /// The crash came while everything was removed: nothing that was known before counts.
    fn was_reset(&self) -> bool {
        let emptied = |m: &Manifest| m.sealed.is_empty() && m.truncating_to == Some(m.active.base_offset);
        self.manifest.as_ref().is_some_and(emptied)
    }

    fn has_durable_batches(&self) -> bool {
        self.manifest.as_ref().is_some_and(|m| m.active.size_bytes > 0)
            || self.segments.iter().any(|s| s.bytes() > 0)
    }

    /// An epoch that began at the log's end has no batch that could have brought it back, and one that began before the
    /// log's start begins there now.
    fn complete_epochs(&mut self) {
        let end = self.segments.last().map_or(Offset::ZERO, |s| s.end());
        let was_cut = self.manifest.as_ref().is_some_and(|m| m.truncating_to.is_some());
        let begun = self.epochs_read.latest().filter(|e| e.start_offset == end && !was_cut);
        if let Some(begun) = begun
            && self.epochs.latest().is_none_or(|latest| latest.epoch < begun.epoch)
        {
            self.epochs.assign(begun.epoch, begun.start_offset);
        }
        let first = self.segments.first().map_or(Offset::ZERO, |s| s.base);
        let start = self.manifest.as_ref().map_or(first, |m| m.log_start.max(first));
        self.epochs.truncate_from_start(start);
        // An entry that is dropped in memory alone would be believed again once the log has grown to its offset.
        self.epochs_changed |= self.epochs != self.epochs_read;
        self.touched |= self.epochs_changed;
    }

    /// From the durable batches; those behind the recovery point are met by the scan.
    fn rebuild_epochs(&mut self, path: PathBuf) -> Result<(), LogError> {
        self.report.rebuilt.push(path);
        self.epochs_changed = true;
        self.touched = true;
        let mut durable = self.segments.clone();
        if let Some(manifest) = &self.manifest {
            durable.push(self.segment_of(&manifest.active, false));
        }
        for segment in durable.iter().filter(|s| s.bytes() > 0) {
            let source = segment.source()?;
            let path = segment.path(FileKind::Data);
            let mut walk = HeaderWalk::new(&source, &path, 0, segment.bytes());
            while let Some((_, header)) = walk.step()? {
                self.epochs.assign(header.leader_epoch, header.base_offset);
            }
        }
        Ok(())
    }

    /// Reads what lies behind the recovery point, or everything where no manifest says where that is.
    fn recover_tail(&mut self, config: &LogConfig) -> Result<(), LogError> {
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
            // With a manifest no compaction has touched what follows, so segments meet. Without one, what begins before
            // the end of its neighbour is left over from a merge, and a gap may be compaction's.
            let mut next = None;
            for candidate in later.by_ref() {
                if candidate == end || (candidate > end && self.manifest.is_none()) {
                    next = Some(candidate);
                    break;
                }
                self.drop_segment(candidate, end)?;
            }
            let Some(base) = next else { return Ok(()) };
            from = SegmentRecord { base_offset: base, end_offset: base, ..SegmentRecord::default() };
        }
    }

    /// Index files whose batches never came to be, or went first: aborted transactions would be added behind theirs.
    fn sweep_indexes(&mut self) -> Result<(), LogError> {
        let kept = |base: &Offset| self.segments.iter().any(|s| s.base == *base && s.bytes() > 0);
        let named = self.found.indexes.keys().chain(&self.found.transaction_indexes);
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

    fn drop_segment(&mut self, base: Offset, end: Offset) -> Result<(), LogError> {
        self.report.cut_bytes += self.found.data.remove(&base).unwrap_or(0);
        let reason = || format!("the segment at offset {base} does not follow the log's end at {end}");
        self.report.cut_reason.get_or_insert_with(reason);
        self.touched = true;
        self.removed = true;
        files::remove_segment(&*self.disk, &self.dir, base)
    }

    /// Checks one segment from its durable part on, and cuts it behind its last good batch.
    fn scan_segment(
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
            if self.manifest.as_ref().is_some_and(|m| m.truncating_to.is_some()) {
                record.largest_timestamp = self.largest_timestamp_of(from)?;
            }
            // Nothing was appended, or it was cut again: after a kill the cut may not be durable.
            let file = self.disk.open(&path, OpenMode::Write).map_err(LogError::io("open", &path))?;
            files::settle_tail(&file, &path)?;
            self.trim_transaction_index(base, from.end_offset)?;
            return Ok(self.segment_of(&record, false));
        }
        self.touched = true;
        let file = self.disk.open(&path, OpenMode::Write).map_err(LogError::io("open", &path))?;
        let mut scan = BatchScan::new(Arc::clone(&file), &path, from.size_bytes, from.end_offset)?;
        let mut largest = from.largest_timestamp;
        while let Some(batch) = scan.step()? {
            note_timestamp(&mut largest, &batch.header);
            self.epochs.assign(batch.header.leader_epoch, batch.header.base_offset);
        }
        let (end, position) = (scan.end(), scan.position());
        self.report.scanned_bytes += position - from.size_bytes;
        if self.manifest.is_none() && end != ScanEnd::Complete {
            // Nothing says how far the log was durable, so only what looks like an unfinished write may go.
            let is_gap = successor.is_some_and(|next| end != ScanEnd::Zeros || next != scan.next_offset());
            if is_gap || scan.good_batch_follows()? {
                return Err(LogError::damaged(&path, position, end.to_string()));
            }
        }
        if position < size {
            if end != ScanEnd::Zeros {
                self.report.cut_bytes += size - position;
                let reason = || format!("{} at byte {position}: {end}", path.display());
                self.report.cut_reason.get_or_insert_with(reason);
            }
            files::cut_file(&file, &path, position)?;
        }
        let record = SegmentRecord {
            base_offset: base,
            size_bytes: position,
            end_offset: scan.next_offset(),
            largest_timestamp: largest,
        };
        self.trim_transaction_index(base, from.end_offset)?;
        let segment = self.segment_of(&record, false);
        self.scanned.push(Arc::clone(&segment));
        self.complete_indexes(&segment, config)?;
        Ok(segment)
    }

    /// A truncation does not say what is the largest timestamp of what it leaves.
    fn largest_timestamp_of(&self, record: &SegmentRecord) -> Result<Option<TimestampOffset>, LogError> {
        let segment = self.segment_of(record, false);
        let source = segment.source()?;
        let path = segment.path(FileKind::Data);
        let mut walk = HeaderWalk::new(&source, &path, 0, segment.bytes());
        let mut largest = None;
        while let Some((_, header)) = walk.step()? {
            note_timestamp(&mut largest, &header);
        }
        Ok(largest)
    }

    /// Entries of batches that are about to be met again would else stand there twice.
    fn trim_transaction_index(&mut self, base: Offset, end: Offset) -> Result<(), LogError> {
        if !self.found.transaction_indexes.contains(&base) {
            return Ok(());
        }
        let path = self.path(base, FileKind::TransactionIndex);
        let content = read_small_file(&*self.disk, &path, TRANSACTION_INDEX_BYTES_MAX)
            .map_err(LogError::io("read", &path))?
            .unwrap_or_default();
        let whole = transaction_index::valid_prefix(&content) * transaction_index::ENTRY_LEN;
        let entries = transaction_index::parse(&content[..whole])
            .map_err(|source| LogError::BadFile { path: path.clone(), source })?;
        let kept = transaction_index::entries_before(&entries, end) * transaction_index::ENTRY_LEN;
        if kept < content.len() {
            let file = self.disk.open(&path, OpenMode::Write).map_err(LogError::io("open", &path))?;
            file.set_size(kept as u64).map_err(LogError::io("cut", &path))?;
            self.touched = true;
        }
        // Even where nothing is cut now: what a killed process cut or wrote may not be durable.
        self.changed_indexes.push(path);
        Ok(())
    }

    /// Keeps of the indexes what is right and writes the rest from the batches.
    fn complete_indexes(&self, segment: &Arc<Segment>, config: &LogConfig) -> Result<(), LogError> {
        let mut writer = Active::new(Arc::clone(&self.disk), Arc::clone(segment), config, 0, 0);
        writer.wake(config)?;
        writer.seal()
    }

    /// Indexes are not synced, so a power cut may have taken the end of one whose segment is durable.
    fn check_indexes(&mut self, config: &LogConfig) -> Result<(), LogError> {
        let sealed = self.manifest.as_ref().map_or(0, |m| m.sealed.len());
        for segment in self.segments.iter().take(sealed).cloned().collect::<Vec<_>>() {
            let have = self.found.indexes.get(&segment.base).copied().unwrap_or_default();
            let is_missing = self.without_index == Some(segment.base);
            if is_missing || !segment.indexes_look_whole(have.offset, have.time) {
                self.report.rebuilt.push(segment.path(FileKind::OffsetIndex));
                self.complete_indexes(&segment, config)?;
            }
        }
        Ok(())
    }

    /// The newest snapshot that is whole, and the batches behind it.
    fn read_producers(&mut self) -> Result<(), LogError> {
        let end = self.segments.last().map_or(Offset::ZERO, |s| s.end());
        let recovery_point = self.manifest.as_ref().map_or(Offset::ZERO, Manifest::recovery_point);
        let first = self.segments.first().map_or(Offset::ZERO, |s| s.base);
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
            Met::Begin(states) if segment.base > trusted => behind.push((segment.base, states.to_snapshot())),
            Met::Aborted(entry) if entry.last_offset >= recovery_point => {
                aborted.push((segment.path(FileKind::TransactionIndex), entry));
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
        for (path, entry) in aborted {
            transaction_index_append(&*self.disk, &path, &entry)?;
            self.changed_indexes.push(path);
            self.touched = true;
        }
        Ok(())
    }

    fn into_log(mut self, context: LogContext, config: LogConfig) -> Result<(Log, RecoveryReport), LogError> {
        if self.removed {
            files::settle_names(&*self.disk, &self.dir)?;
        }
        let manifest = self.manifest.take().unwrap_or_default();
        let Some(active) = self.segments.last().cloned() else {
            return Err(LogError::damaged(&self.dir, 0, "no segment was found or made"));
        };
        let first_base = self.segments.first().map_or(Offset::ZERO, |s| s.base);
        let start = manifest.log_start.max(first_base);
        let end = active.end();
        let tail = TailWriter::new(context.tail_budget.clone());
        let durable = if self.touched { manifest.recovery_point().min(end) } else { end };
        let shared = Arc::new(LogShared {
            dir: Arc::clone(&self.dir),
            segments: ArcSwap::from_pointee(self.segments),
            epochs: ArcSwap::from_pointee(self.epochs.clone()),
            start: AtomicI64::new(start.0),
            end: AtomicI64::new(end.0),
            durable: AtomicI64::new(durable.0),
            high_watermark: AtomicI64::new(start.0),
            first_unstable: AtomicI64::new(i64::MAX),
            cuts: AtomicU64::new(0),
            swaps: AtomicU64::new(0),
            tail: tail.readers(),
            poison: std::sync::OnceLock::new(),
        });
        let writer = Active::new(
            Arc::clone(&context.disk),
            Arc::clone(&active),
            &config,
            context.clock.now_ms(),
            config.segment_ms,
        );
        let (scanned_active, scanned_sealed) =
            self.scanned.into_iter().partition::<Vec<_>, _>(|s| s.base == active.base);
        let mut log = Log {
            context,
            config,
            shared,
            tail,
            active: writer,
            producers: self.producers,
            epochs: self.epochs,
            epochs_unsaved: self.epochs_changed,
            next: end,
            accepted: Vec::new(),
            unsynced: Unsynced { sealed: scanned_sealed, ..Unsynced::default() },
            manifest: Manifest { log_start: start, truncating_to: None, replacing: None, ..manifest },
            snapshots: self.snapshots,
            generation: 0,
            compacting: Weak::new(),
            bytes_since_checkpoint: 0,
        };
        if !scanned_active.is_empty() {
            log.unsynced.active.change();
        }
        if self.touched {
            // Names that the crash left may not be durable either.
            log.unsynced.directory.change();
        }
        for path in self.changed_indexes {
            log.unsynced.transaction_index(path);
        }
        log.publish_first_unstable();
        if self.touched {
            log.checkpoint()?;
        }
        Ok((log, self.report))
    }
}

/// What a replay comes by.
pub(super) enum Met<'a> {
    /// The segment, with the state that belongs to its base.
    Begin(&'a ProducerStates),
    /// The end of a transaction that was aborted.
    Aborted(AbortedTransaction),
}

/// Producer state as of the end of a log, from the newest snapshot and the batches behind it.
pub(super) struct Replay<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) dir: &'a Path,
    pub(super) segments: &'a [Arc<Segment>],
    pub(super) end: Offset,
}

impl Replay<'_> {
    /// Returns the state and the offset from which batches were read. Snapshots that are damaged are removed, and leave
    /// `snapshots`. Tells `on` what is met behind the snapshot.
    pub(super) fn run(
        &self,
        snapshots: &mut Vec<Offset>,
        mut on: impl FnMut(&Segment, Met<'_>),
    ) -> Result<(ProducerStates, Offset), LogError> {
        let start = self.segments.first().map_or(Offset::ZERO, |s| s.base);
        let mut producers = None;
        while let Some(&offset) = snapshots.last() {
            let path = path_of(self.dir, offset, FileKind::Snapshot);
            let content =
                read_small_file(self.disk, &path, SNAPSHOT_BYTES_MAX).map_err(LogError::io("read", &path))?;
            if let Some(Ok(states)) = content.map(|bytes| ProducerStates::from_snapshot(&bytes, offset)) {
                producers = Some((states, offset));
                break;
            }
            files::remove(self.disk, self.dir, offset, FileKind::Snapshot)?;
            snapshots.pop();
        }
        let (mut producers, from) = producers.unwrap_or_else(|| (ProducerStates::new(start), start));
        for segment in self.segments.iter().filter(|s| s.end() > from || s.base > from) {
            if segment.base >= from {
                on(segment, Met::Begin(&producers));
            }
            if segment.bytes() == 0 {
                continue;
            }
            let source = segment.source()?;
            let Some((position, _)) = segment.locate(&source, from.max(segment.base))? else { continue };
            let path = segment.path(FileKind::Data);
            let mut walk = HeaderWalk::new(&source, &path, position, segment.bytes());
            while let Some((position, header)) = walk.step()? {
                let marker = if header.attributes.is_control() {
                    let batch = segment.read_batch(position, &header)?;
                    end_marker(&batch, &header)
                        .map_err(|e| LogError::damaged(&path, position, e.to_string()))?
                } else {
                    None
                };
                if let Some(entry) = producers.record(&header, marker.as_ref()).and_then(|t| t.index_entry())
                {
                    on(segment, Met::Aborted(entry));
                }
            }
        }
        debug_assert!(producers.end_offset() <= self.end);
        Ok((producers, from))
    }
}

fn transaction_index_append(
    disk: &dyn Disk,
    path: &Path,
    entry: &AbortedTransaction,
) -> Result<(), LogError> {
    let file = match disk.open(path, OpenMode::Write) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => disk.open(path, OpenMode::Create),
        other => other,
    }
    .map_err(LogError::io("open", path))?;
    let end = file.size().map_err(LogError::io("look at", path))?;
    write_all_at(&*file, &mut [IoSlice::new(&entry.encode())], end).map_err(LogError::io("append to", path))
}

fn note_timestamp(largest: &mut Option<TimestampOffset>, header: &BatchHeader) {
    if header.record_count > 0 && header.max_timestamp > largest.map_or(-1, |l| l.timestamp) {
        *largest = Some(TimestampOffset { timestamp: header.max_timestamp, offset: header.last_offset() });
    }
}
