//! The next segment's file, filled with zeros before its turn. Nobody syncs it until then, so zeros in it hold up no append, as
//! those behind the log's end do, for which every sync of that file waits. Must know nothing of batches.
//!
//! A log has one only while it fills its segments: one that is idle, small, or short of disk gives it up. Its name is one that
//! opening sweeps, so whatever a crash leaves of it is never read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::TEMPORARY;
use super::prewrite::{Prewrite, PrewriteJob};
use crate::error::LogError;
use crate::fs::{Disk, DiskFile, OpenMode, remove_if_present};

const SPARE_NAME: &str = "next-segment";

/// How far the segment before it has come, and what it may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct SpareNeed {
    /// Where the log's next byte goes.
    pub(super) position: u64,
    /// `prewrite_bytes`: what is written in one go.
    pub(super) piece_bytes: u64,
    /// `segment_bytes`.
    pub(super) limit: u64,
    /// The segment being written was a spare: zeros are needed for the next one only.
    pub(super) was_spare: bool,
}

/// There may be none.
#[derive(Debug, Default)]
pub(super) struct Spare {
    zeros: Option<Prewrite>,
    /// Not looked at again before the log is here: there was no room.
    rests_until: u64,
}

impl Spare {
    /// End of the zeros that are to be written now, if any.
    pub(super) fn due(&mut self, need: SpareNeed) -> Option<(u64, u64)> {
        let SpareNeed { position, piece_bytes, limit, was_spare } = need;
        if position < self.rests_until {
            return None;
        }
        let filled = match &mut self.zeros {
            Some(zeros) => zeros.filled_to()?,
            None => 0,
        };
        // As many zeros as bytes are appended. A segment that needs zeros of its own as well leaves them to its second half: most
        // logs never come to it.
        let wanted = if was_spare { position + piece_bytes } else { (2 * position).saturating_sub(limit) };
        let to = wanted.min(limit).min(filled + piece_bytes);
        let is_worth_it = to == limit || to >= filled + piece_bytes / 2;
        (to > filled && is_worth_it && !(filled == 0 && position < piece_bytes)).then_some((filled, to))
    }

    /// The zeros that are due, to be written on any thread; none where the disk has not room for them and a segment beside.
    pub(super) fn begin(&mut self, disk: &dyn Disk, dir: &Path, need: SpareNeed) -> Option<PrewriteJob> {
        let (from, to) = self.due(need)?;
        let has_failed = self.zeros.as_ref().is_some_and(Prewrite::has_failed);
        let has_room = disk.available_bytes(dir).is_ok_and(|bytes| bytes >= to - from + need.limit);
        let opened = if has_failed || !has_room {
            None
        } else {
            let mode = if self.zeros.is_some() { OpenMode::Write } else { OpenMode::Create };
            disk.open(&path(dir), mode).ok()
        };
        let Some(file) = opened else {
            self.give_up(disk, dir);
            self.rests_until = need.position + need.piece_bytes;
            return None;
        };
        let zeros = self.zeros.get_or_insert_with(|| Prewrite::new(0));
        Some(zeros.fill(from, to, file, path(dir)))
    }

    /// Gives the file the name `place`, with what zeros it has, and opens it; `None` where there is none of use.
    pub(super) fn take(
        &mut self,
        disk: &dyn Disk,
        dir: &Path,
        place: &Path,
    ) -> Result<Option<Arc<dyn DiskFile>>, LogError> {
        self.rests_until = 0;
        let Some(mut zeros) = self.zeros.take() else { return Ok(None) };
        zeros.stop();
        if zeros.has_failed() {
            remove_if_present(disk, &path(dir)).map_err(LogError::io("remove", &path(dir)))?;
            return Ok(None);
        }
        disk.rename(&path(dir), place).map_err(LogError::io("rename", &path(dir)))?;
        disk.open(place, OpenMode::Write).map(Some).map_err(LogError::io("open", place))
    }

    /// Returns once no more zeros will be written.
    pub(super) fn stop(&mut self) {
        if let Some(zeros) = &mut self.zeros {
            zeros.stop();
        }
    }

    /// Gives the space back. A file that cannot be removed is swept at the next opening.
    pub(super) fn give_up(&mut self, disk: &dyn Disk, dir: &Path) {
        if let Some(mut zeros) = self.zeros.take() {
            zeros.stop();
            let _ = remove_if_present(disk, &path(dir));
        }
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join(format!("{SPARE_NAME}{TEMPORARY}"))
}

#[cfg(test)]
mod tests;
