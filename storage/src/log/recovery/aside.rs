//! What opening does where an unfinished write does not explain the end of the log: good batches lie behind bytes that are none. A
//! power cut can leave that, of writes that no sync had covered, and so can a disk that changes a bit in what was acknowledged. Nobody
//! can tell these apart, so the log ends before the first bad byte, as after any crash, and what lies behind goes aside.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use floodmark_proto::ids::Offset;

use super::Opening;
use crate::error::LogError;
use crate::fs::{DiskFile, OpenMode};
use crate::log::files;
use crate::log::set_aside::{self, SetAside};
use crate::segment::name::FileKind;
use crate::segment::survey::{Piece, Survey};

/// Says of a good batch whether it proves that the log had been made durable beyond an offset.
pub type Proves = fn(Offset, &[u8]) -> bool;

/// Something behind the recovery point that is not as any single unfinished write leaves it. Records may be lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TailDamage {
    /// The file that is damaged, or missing.
    pub path: PathBuf,
    /// Where in it.
    pub position: u64,
    /// Where the log ends for it; lower, where it ends before that for something else.
    pub end: Offset,
    /// What is wrong.
    pub reason: String,
    /// Bytes that hold good batches and were kept; `None` where there was nothing to keep.
    pub set_aside: Option<SetAside>,
}

impl std::fmt::Display for TailDamage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at byte {}: {}", self.path.display(), self.position, self.reason)?;
        match &self.set_aside {
            Some(part) => write!(
                f,
                "; the log ends at offset {}; {} bytes with good batches, from byte {} on, are kept in {}",
                self.end,
                part.bytes,
                part.from_byte,
                part.to.display()
            ),
            None => write!(f, "; the log ends at offset {}", self.end),
        }
    }
}

impl Opening {
    /// Keeps what lies in a file from `position` on, where a batch may be among it; true where it did. The caller cuts it off.
    pub(super) fn keep_tail(
        &mut self,
        file: &Arc<dyn DiskFile>,
        base: Offset,
        position: u64,
        end: Offset,
        reason: &str,
    ) -> Result<bool, LogError> {
        let path = self.path(base, FileKind::Data);
        if !self.may_hold_batch(file, &path, base, position)? {
            return Ok(false);
        }
        self.refuse_proven_loss((file, &path), base, position, end, reason)?;
        let size = file.size().map_err(LogError::io("look at", &path))?;
        let part = set_aside::set_tail_aside(
            &*self.disk,
            &self.dir,
            &path,
            position,
            size.saturating_sub(position),
        )?;
        self.report.damage.push(TailDamage {
            path,
            position,
            end,
            reason: reason.to_owned(),
            set_aside: Some(part),
        });
        Ok(true)
    }

    /// Takes a segment that does not follow out of the log: its data goes aside where it may hold a batch, and away where not.
    pub(super) fn take_out(&mut self, base: Offset, end: Offset, reason: &str) -> Result<(), LogError> {
        let bytes = self.found.data.remove(&base).unwrap_or(0);
        let path = self.path(base, FileKind::Data);
        self.touched = true;
        self.removed = true;
        if bytes > 0 {
            let file = self.disk.open(&path, OpenMode::Read).map_err(LogError::io("open", &path))?;
            if self.may_hold_batch(&file, &path, base, 0)? {
                self.refuse_proven_loss((&file, &path), base, 0, end, reason)?;
                let part = set_aside::set_file_aside(&*self.disk, &self.dir, &path, bytes)?;
                self.report.damage.push(TailDamage {
                    path,
                    position: 0,
                    end,
                    reason: reason.to_owned(),
                    set_aside: Some(part),
                });
                return files::remove_segment(&*self.disk, &self.dir, base);
            }
        }
        self.report.cut_bytes += bytes;
        self.report.cut_reason.get_or_insert_with(|| reason.to_owned());
        files::remove_segment(&*self.disk, &self.dir, base)
    }

    /// Notes data files that are gone though an index is there.
    pub(super) fn note_missing_files(&mut self) {
        let end = self.recovery_point();
        for base in self.found.missing_data(self.manifest.as_ref()) {
            let reason = "the file is missing, though its index is there".to_owned();
            let path = self.path(base, FileKind::Data);
            let end = base.max(end);
            self.report.damage.push(TailDamage { path, position: 0, end, reason, set_aside: None });
        }
    }

    /// Producer state was saved at an offset that the log does not reach: it had been longer.
    pub(super) fn note_later_snapshot(&mut self, end: Offset) {
        let is_cut = self.manifest.as_ref().is_none_or(|m| m.truncating_to.is_some());
        let later = self.found.snapshots.iter().copied().max().filter(|at| *at > end);
        if let Some(at) = later.filter(|_| !is_cut && self.report.damage.is_empty()) {
            let reason = format!("the log had reached offset {at} when this was written");
            let path = self.path(at, FileKind::Snapshot);
            self.report.damage.push(TailDamage { path, position: 0, end, reason, set_aside: None });
        }
    }

    fn may_hold_batch(
        &self,
        file: &Arc<dyn DiskFile>,
        path: &Path,
        base: Offset,
        position: u64,
    ) -> Result<bool, LogError> {
        Survey::new(Arc::clone(file), path, base)?.from(position).may_hold_batch()
    }

    /// Fails, with everything as it was, where a good batch behind the bad bytes says that what is lost had been durable.
    fn refuse_proven_loss(
        &self,
        (file, path): (&Arc<dyn DiskFile>, &Path),
        base: Offset,
        position: u64,
        end: Offset,
        reason: &str,
    ) -> Result<(), LogError> {
        let Some(proves) = self.proves else { return Ok(()) };
        let mut survey = Survey::new(Arc::clone(file), path, base)?.from(position);
        while let Some(piece) = survey.step()? {
            if let Piece::Batch(batch) = piece
                && proves(end, batch.bytes)
            {
                let at = batch.header.base_offset;
                let reason =
                    format!("{reason}; what stood there was durable, as the batch at offset {at} says");
                return Err(LogError::damaged(path, position, reason));
            }
        }
        Ok(())
    }
}
