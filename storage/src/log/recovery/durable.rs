//! The first half of opening: what the manifest says, changes that a crash interrupted, the part that must be there to the byte.
//! Must not judge what lies behind the recovery point.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use floodmark_proto::ids::Offset;

use super::{EPOCHS_BYTES_MAX, MANIFEST_BYTES_MAX, Opening};
use crate::error::LogError;
use crate::format_error::FormatError;
use crate::fs::{Disk, OpenMode, SyncPoint, parent, read_small_file};
use crate::leader_epochs::LeaderEpochs;
use crate::log::{EPOCHS_FILE, Log, MANIFEST_FILE, files};
use crate::manifest::{Manifest, SegmentRecord};
use crate::segment::Segment;
use crate::segment::name::{FileKind, path_of};
use crate::segment::walk::HeaderWalk;

impl Log {
    /// Whether opening `dir` finds a log, or what is left of one; else it makes a new one. Changes nothing.
    pub fn is_in(disk: &dyn Disk, dir: &Path) -> Result<bool, LogError> {
        match disk.list(dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(LogError::io("list", dir)(e)),
            Ok(_) => {}
        }
        let has_data = !files::look(disk, dir)?.data.is_empty();
        // A newer program's is one, too.
        let is_manifest = |read| matches!(read, Ok(_) | Err(FormatError::NewerVersion { .. }));
        Ok(has_data || manifest_in(disk, dir)?.is_some_and(is_manifest))
    }
}

/// `None` where there is none.
fn manifest_in(disk: &dyn Disk, dir: &Path) -> Result<Option<Result<Manifest, FormatError>>, LogError> {
    let path = dir.join(MANIFEST_FILE);
    let content = read_small_file(disk, &path, MANIFEST_BYTES_MAX).map_err(LogError::io("read", &path))?;
    Ok(content.map(|bytes| Manifest::parse(&bytes)))
}

impl Opening {
    pub(super) fn read_manifest(&mut self) -> Result<(), LogError> {
        let path = self.dir.join(MANIFEST_FILE);
        self.manifest = match manifest_in(&*self.disk, &self.dir)? {
            Some(Ok(manifest)) => Some(manifest),
            Some(Err(e @ FormatError::NewerVersion { .. })) => {
                return Err(LogError::BadFile { path, source: e });
            }
            Some(Err(_)) => {
                self.start_by_epochs = Some(Offset::ZERO);
                None
            }
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
    pub(super) fn finish_changes(&mut self) -> Result<(), LogError> {
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
        // Before anything is removed: where this is another log's manifest, nothing that it condemns should go.
        self.check_durable_sizes(&manifest)?;
        // Behind a truncation nothing stays; before the recovery point only what the manifest lists.
        let goes = |base: &Offset| {
            !is_listed(base) && (manifest.truncating_to.is_some() || *base < manifest.recovery_point())
        };
        let leftovers: Vec<Offset> = self.found.data.keys().rev().filter(|b| goes(b)).copied().collect();
        let is_change_under_way = manifest.truncating_to.is_some() || manifest.replacing.is_some();
        for base in leftovers {
            if is_change_under_way || base < manifest.log_start {
                files::remove_segment(&*self.disk, &self.dir, base)?;
                self.found.data.remove(&base);
                self.removed = true;
            } else {
                self.take_out(base, manifest.recovery_point(), "the manifest does not list this segment")?;
            }
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
    pub(super) fn finish_swap(&mut self) -> Result<(), LogError> {
        let replacing = self.manifest.as_ref().and_then(|m| m.replacing);
        for (base, bytes) in std::mem::take(&mut self.found.cleaned) {
            if self.settle_copy(base, FileKind::Cleaned, FileKind::Data, replacing)? {
                self.found.data.insert(base, bytes);
            }
        }
        for (base, bytes) in std::mem::take(&mut self.found.cleaned_transactions) {
            let kind = FileKind::CleanedTransactions;
            if self.settle_copy(base, kind, FileKind::TransactionIndex, replacing)? {
                self.found.transaction_indexes.insert(base, bytes);
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
    pub(super) fn settle_copy(
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
    pub(super) fn cut(&mut self, base: Offset, bytes: u64) -> Result<(), LogError> {
        let Some(size) = self.found.data.get_mut(&base) else { return Ok(()) };
        if *size > bytes {
            let path = path_of(&self.dir, base, FileKind::Data);
            let file = self.disk.open(&path, OpenMode::Write).map_err(LogError::io("open", &path))?;
            files::cut_file(&file, &path, bytes)?;
            *size = bytes;
        }
        Ok(())
    }

    /// What the manifest calls durable must be there, to the byte. Changes nothing.
    fn check_durable_sizes(&self, manifest: &Manifest) -> Result<(), LogError> {
        let active = Some(&manifest.active).filter(|active| active.size_bytes > 0);
        for record in manifest.sealed.iter().chain(active) {
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
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Takes the durable segments as they are.
    pub(super) fn take_durable_part(&mut self) -> Result<(), LogError> {
        let Some(manifest) = self.manifest.clone() else { return Ok(()) };
        for record in &manifest.sealed {
            self.trim(record)?;
            self.segments.push(self.segment_of(record, true));
        }
        Ok(())
    }

    /// Cuts off zeros that were to be trimmed when the segment was sealed. Anything else no crash leaves there.
    fn trim(&mut self, record: &SegmentRecord) -> Result<(), LogError> {
        let base = record.base_offset;
        if self.found.data.get(&base).is_some_and(|size| *size > record.size_bytes) {
            let path = self.path(base, FileKind::Data);
            let file = self.disk.open(&path, OpenMode::Read).map_err(LogError::io("open", &path))?;
            let reason = "batches behind the segment's end";
            self.touched |= self.keep_tail(&file, base, record.size_bytes, record.end_offset, reason)?;
        }
        self.cut(base, record.size_bytes)
    }

    pub(super) fn read_epochs(&mut self) -> Result<(), LogError> {
        let path = self.dir.join(EPOCHS_FILE);
        let content =
            read_small_file(&*self.disk, &path, EPOCHS_BYTES_MAX).map_err(LogError::io("read", &path))?;
        match content.map(|bytes| LeaderEpochs::parse(&bytes)) {
            Some(Ok(epochs)) if self.knows(&epochs) => self.epochs = epochs,
            Some(Ok(changed)) => {
                self.rebuild_epochs(path)?;
                // Those that may have no batch yet are in no durable one.
                for entry in changed.entries() {
                    if entry.start_offset >= self.recovery_point()
                        && self.epochs.latest().is_none_or(|latest| latest.epoch < entry.epoch)
                    {
                        self.epochs.assign(entry.epoch, entry.start_offset);
                    }
                }
            }
            Some(Err(_)) => self.rebuild_epochs(path)?,
            None if self.has_durable_batches() => self.rebuild_epochs(path)?,
            None => {}
        }
        self.epochs_read = self.epochs.clone();
        self.start_by_epochs = self.start_by_epochs.and(self.epochs.earliest().map(|e| e.start_offset));
        if self.was_reset() {
            self.epochs = LeaderEpochs::new();
        }
        if let Some(manifest) = &self.manifest {
            // Entries of a tail that may be gone; the scan brings back those that are not. Where a truncation ends the log,
            // what began there is gone for certain.
            let point = manifest.recovery_point().max(manifest.log_start);
            self.epochs.truncate_from_end(if manifest.truncating_to.is_some() {
                point
            } else {
                point.next()
            });
        }
        Ok(())
    }

    /// True where the epochs are those that the manifest vouches for, or it does not say.
    fn knows(&self, epochs: &LeaderEpochs) -> bool {
        self.manifest.as_ref().is_none_or(|m| {
            m.epochs.is_none_or(|crc| epochs.checksum_within(m.log_start, m.recovery_point()) == crc)
        })
    }

    pub(super) fn recovery_point(&self) -> Offset {
        self.manifest.as_ref().map_or(Offset::ZERO, Manifest::recovery_point)
    }

    /// The crash came while everything was removed: nothing that was known before counts.
    pub(super) fn was_reset(&self) -> bool {
        let emptied = |m: &Manifest| m.sealed.is_empty() && m.truncating_to == Some(m.active.base_offset);
        self.manifest.as_ref().is_some_and(emptied)
    }

    pub(super) fn has_durable_batches(&self) -> bool {
        self.manifest.as_ref().is_some_and(|m| m.active.size_bytes > 0)
            || self.segments.iter().any(|s| s.bytes() > 0)
    }

    /// The first epoch in the file begins where the log did. Where the manifest is damaged and the batches know of epochs before that,
    /// their records were deleted, and shall not come back; and the rest of the file must be as the batches say, for it has no
    /// checksum.
    pub(super) fn settle_start_by_epochs(&mut self) {
        let end = self.segments.last().map_or(Offset::ZERO, |s| s.end());
        self.start_by_epochs = self.start_by_epochs.filter(|start| {
            let mut of_batches = self.epochs.clone();
            let is_later = of_batches.truncate_from_start(*start);
            let mut of_file = self.epochs_read.clone();
            of_file.truncate_from_end(end);
            // Those of the newest batches may not have been saved.
            is_later && *start <= end && of_batches.entries().starts_with(of_file.entries())
        });
    }

    /// An epoch that began at the log's end has no batch that could have brought it back, and one that began before the
    /// log's start begins there now.
    pub(super) fn complete_epochs(&mut self) {
        let end = self.segments.last().map_or(Offset::ZERO, |s| s.end());
        let was_cut = self.manifest.as_ref().is_some_and(|m| m.truncating_to.is_some());
        let begun = self.epochs_read.latest().filter(|e| e.start_offset == end && !was_cut);
        if let Some(begun) = begun
            && self.epochs.latest().is_none_or(|latest| latest.epoch < begun.epoch)
        {
            self.epochs.assign(begun.epoch, begun.start_offset);
        }
        let first = self.segments.first().map_or(Offset::ZERO, |s| s.base);
        let start = self.manifest.as_ref().map_or(self.start_by_epochs, |m| Some(m.log_start));
        self.epochs.truncate_from_start(start.unwrap_or(first).max(first));
        // An entry that is dropped in memory alone would be believed again once the log has grown to its offset.
        self.epochs_changed |= self.epochs != self.epochs_read;
        self.touched |= self.epochs_changed;
    }

    /// The segments as far as they are durable, the one that was being written as well.
    pub(super) fn durable_segments(&self) -> Vec<Arc<Segment>> {
        let mut durable = self.segments.clone();
        durable.extend(self.manifest.as_ref().map(|m| self.segment_of(&m.active, false)));
        durable
    }

    /// From the durable batches; those behind the recovery point are met by the scan.
    pub(super) fn rebuild_epochs(&mut self, path: PathBuf) -> Result<(), LogError> {
        self.report.rebuilt.push(path);
        self.epochs_changed = true;
        self.touched = true;
        for segment in self.durable_segments().iter().filter(|s| s.bytes() > 0) {
            let source = segment.source_for_now()?;
            let path = segment.path(FileKind::Data);
            let mut walk =
                HeaderWalk::new(&source, &path, 0, segment.bytes()).within(segment.base..segment.end());
            while let Some((_, header)) = walk.step()? {
                self.epochs.assign(header.leader_epoch, header.base_offset);
            }
        }
        Ok(())
    }
}
