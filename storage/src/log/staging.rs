//! When batches wait in the log's own memory, to be written past the system's by the sync that makes them durable, and how that ends (adr/0020).
//! Nobody may be told of such a batch before it is durable: who kills the process takes it along.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use floodmark_proto::ids::Offset;

use super::Log;
use super::stage::{Piece, Reach, Stage, is_no_way};
use crate::error::LogError;
use crate::fs::Blocks;

/// What a log has of it.
#[derive(Debug, Default)]
pub(super) struct Staging {
    stage: Option<Stage>,
    /// Of the stages before.
    free: Vec<Blocks>,
    /// Nobody reads or copies what is appended before it is durable.
    is_hidden: bool,
    /// There is no way past the system's memory to the log's files.
    is_refused: bool,
    /// Somebody may have read or copied what waits, in spite of all: who copies came, or what is durable counts no more.
    was_seen: bool,
    /// Until somebody asks: the least that the log was cut to, and why what waited was taken back.
    cut_to: Option<Offset>,
    lost_for: Option<LogError>,
}

impl Log {
    /// Tells the log whether somebody wants what is appended before it is durable, as who copies it does. Until told, it may be so.
    pub fn set_hidden_until_durable(&mut self, is_hidden: bool) {
        self.staging.is_hidden = is_hidden;
        self.staging.was_seen |= !is_hidden && self.has_staged();
    }

    /// Has what is appended from here on wait in memory of the log for the next sync, which writes it past the memory that the system keeps of
    /// files; says whether it will. Readers do not find it before, and a process that is killed takes it along: nobody is to be told of it before
    /// it is durable. It ends by itself where a segment does.
    ///
    /// Where something is written and not synced, that is done first.
    pub fn begin_staging(&mut self) -> Result<bool, LogError> {
        self.check_open()?;
        if self.staging.stage.is_some() {
            return Ok(true);
        }
        if self.is_behind || self.config.key_index || self.staging.is_refused {
            return Ok(false);
        }
        self.wake_active()?;
        if self.unsynced.active.is_due() {
            self.sync()?;
        }
        let free = std::mem::take(&mut self.staging.free);
        self.staging.stage = match self.active.stage(free) {
            Ok(stage) => stage,
            Err(e) => {
                // Whatever else is wrong with the file, the next write by the other way meets it, too.
                self.staging.is_refused = is_no_way(&e);
                None
            }
        };
        Ok(self.staging.stage.is_some())
    }

    /// Has what waits written, and what comes next written as ever. Waits for the disk. An error of [`LogError::Full`] means that what waited is
    /// not in the log any more.
    pub fn end_staging(&mut self) -> Result<(), LogError> {
        let Some(stage) = &mut self.staging.stage else { return Ok(()) };
        let pieces = stage.take();
        let outcome = {
            let shared = Arc::clone(&self.shared);
            let _alone = shared.syncing.lock();
            self.check_open()?;
            let written = pieces.iter().try_for_each(|piece| piece.write());
            written.map_err(|e| if e.is_retryable() { e } else { self.poison(e) })
        };
        match outcome {
            Ok(()) => self.finish_pieces(pieces),
            Err(full) if full.is_retryable() => {
                self.take_back(full.clone());
                return Err(full);
            }
            poisoned => return poisoned,
        }
        self.close_stage();
        Ok(())
    }

    /// What waits is not written by who has the log.
    pub(super) fn close_stage(&mut self) {
        if let Some(stage) = self.staging.stage.take() {
            self.staging.free = stage.into_free();
        }
        self.staging.was_seen = false;
    }

    /// True where what is appended now waits ([`Log::begin_staging`]).
    #[must_use]
    pub fn is_staging(&self) -> bool {
        self.staging.stage.is_some()
    }

    /// True where something waits for a sync, or for one to be finished.
    pub(crate) fn has_staged(&self) -> bool {
        self.staging.stage.as_ref().is_some_and(Stage::holds_any)
    }

    /// Bytes that may be appended now: by who may wait for the disk, or without.
    pub(crate) fn room(&self, may_wait: bool) -> usize {
        let left = u64::from(self.config.segment_bytes).saturating_sub(self.active.position);
        match &self.staging.stage {
            None => usize::MAX,
            // Who tries is told why.
            Some(_) if self.check_open().is_err() => usize::MAX,
            // The next sync takes what is there; a batch that is too large for any is written as ever.
            Some(stage) if may_wait && !stage.has_new() => usize::MAX,
            Some(stage) if may_wait => stage.room(),
            Some(stage) => stage.room().min(usize::try_from(left).unwrap_or(usize::MAX)),
        }
    }

    /// Begins or ends staging, as it pays: where so much comes that the system's memory would not keep it until somebody reads it, and nobody
    /// wants to see it before it is durable. Waits for the disk.
    pub(crate) fn look_after_staging(&mut self) -> Result<(), LogError> {
        let pays = self.staging.is_hidden && self.pace.outruns_memory();
        let may = !self.is_behind && !self.config.key_index && !self.staging.is_refused;
        match (pays && may, self.is_staging()) {
            (true, false) if self.active.is_awake() && self.check_open().is_ok() => {
                self.begin_staging().map(|_| ())
            }
            (false, true) => {
                let ended = self.end_staging();
                self.staging.free = Vec::new();
                ended
            }
            (false, false) => {
                self.staging.free = Vec::new();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Ends staging where nothing waits, without a look at the disk.
    pub(super) fn release_stage(&mut self) {
        if !self.has_staged() {
            self.close_stage();
            self.staging.free = Vec::new();
        }
    }

    /// Puts accepted batches where they wait, where that is wanted and there is room.
    pub(super) fn stage_accepted(&mut self, bytes: u64) -> Result<bool, LogError> {
        match &mut self.staging.stage {
            None => return Ok(false),
            Some(stage) if bytes <= stage.room() as u64 => {
                let reach = self.active.reach(self.accepted.last().map_or(self.next, |batch| batch.next));
                stage.push(&self.accepted, reach);
            }
            Some(_) => {
                self.end_staging()?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn take_pieces(&mut self) -> Vec<Arc<Piece>> {
        self.staging.stage.as_mut().map(Stage::take).unwrap_or_default()
    }

    /// The log's end with what waits, which is on the disk where a sync begun now has ended.
    pub(super) fn staged_reach(&self) -> Option<Reach> {
        self.staging.stage.as_ref().filter(|stage| stage.holds_any()).map(|_| self.active.reach(self.next))
    }

    /// A sync has written `pieces`: readers find them now.
    pub(super) fn finish_pieces(&mut self, pieces: Vec<Arc<Piece>>) {
        for piece in pieces {
            let Some(stage) = &mut self.staging.stage else { return };
            let (reach, was_refused) = (piece.reach, piece.was_refused());
            if stage.finish(piece) {
                self.active.publish(reach);
                self.staging.is_refused |= was_refused;
            }
        }
    }

    /// A sync has found no space for one of `pieces`. Says whether that is still so: another sync may have written it since.
    pub(super) fn take_back_any(&mut self, pieces: &[Arc<Piece>], full: &LogError) {
        let waits = |stage: &Stage| pieces.iter().any(|piece| stage.holds(piece));
        if self.staging.stage.as_ref().is_some_and(waits) {
            self.take_back(full.clone());
        }
    }

    /// What was not written is not in the log any more. Nobody has heard that it was.
    fn take_back(&mut self, full: LogError) {
        let Some(stage) = &mut self.staging.stage else { return };
        let pieces = stage.take();
        let shared = Arc::clone(&self.shared);
        {
            let _alone = shared.syncing.lock();
            // Those that are written are the first ones.
            let written = pieces.iter().filter(|piece| !piece.give_up()).count();
            self.finish_pieces(pieces[..written].to_vec());
        }
        drop(pieces);
        if self.staging.was_seen {
            // Under their offsets, and in the same epoch, others would come to lie, and who has copied them would never learn of it.
            self.poison(full);
            return;
        }
        self.close_stage();
        let end = self.end_written();
        // Of another flood it can be tried again.
        self.pace.forget_flood();
        match self.find_cut(end).and_then(|cut| self.cut_tail(&cut)) {
            Ok(()) => {
                // One that begins at the end itself may be a leader's that has appended nothing else.
                if self.epochs.truncate_from_end(Offset(end.0.saturating_add(1))) {
                    self.publish_epochs();
                }
                self.staging.lost_for = Some(full);
            }
            Err(e) => {
                self.poison(e);
            }
        }
    }

    /// The log was cut there, or begun anew.
    pub(super) fn note_cut(&mut self, end: Offset) {
        self.staging.cut_to = Some(self.staging.cut_to.map_or(end, |before| before.min(end)));
    }

    /// The least that the log was cut to since this was last asked, and why, where batches that waited found no space.
    pub(crate) fn take_cut(&mut self) -> Option<(Offset, Option<LogError>)> {
        let lost_for = self.staging.lost_for.take();
        self.staging.cut_to.take().map(|end| (end, lost_for))
    }

    /// What an append would fail with, where the log takes no more.
    pub(crate) fn stopped(&self) -> Option<LogError> {
        self.check_open().err()
    }

    /// How often the log's tail was cut; odd while it is.
    pub(super) fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests;
