//! The recovery point forward. A sync is begun and finished by the writer and run by any thread in between, so that appends
//! go on while the disk works.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use floodmark_proto::ids::Offset;

use super::reader::LogShared;
use super::stage::Piece;
use super::{Log, PrewriteJob, SpareNeed, Unsynced, record_of};
use crate::error::LogError;
use crate::fs::{Disk, DiskFile, OpenMode, SyncPoint};
use crate::manifest::Manifest;
use crate::segment::Segment;
use crate::segment::name::{FileKind, path_of};

/// Files to sync, and what may be said once they are.
#[derive(Debug)]
pub struct SyncJob {
    disk: Arc<dyn Disk>,
    shared: Arc<LogShared>,
    directory: bool,
    sealed: Vec<Arc<Segment>>,
    active: Option<(Arc<dyn DiskFile>, PathBuf)>,
    pieces: Vec<Arc<Piece>>,
    /// Base and written bytes of the active segment.
    reaches: (Offset, u64),
    /// How many changes of the active segment and of the directory it covers.
    covers: (u64, u64),
    up_to: Offset,
    cuts: u64,
    checkpoint: Option<Checkpoint>,
}

/// A durable part of a file that nobody is thought to read.
#[derive(Debug)]
pub(crate) struct LetGoJob {
    file: Arc<dyn DiskFile>,
    range: Range<u64>,
}

impl LetGoJob {
    pub(crate) fn run(self) {
        self.file.let_go(self.range);
    }
}

#[derive(Debug)]
struct Checkpoint {
    transaction_indexes: Vec<PathBuf>,
    /// Those behind the last recovery point: of each segment begun since, where truncation may have to start when what lies
    /// before it is deleted, and of the new point.
    snapshots: Vec<PathBuf>,
    manifest: Manifest,
    generation: u64,
    /// What had been appended since the recovery point last moved.
    bytes: u64,
}

/// A recovery reads no more than so many times what is configured.
pub(super) const CHECKPOINT_INTERVALS_MAX: u64 = 8;

impl SyncJob {
    /// Everything appended before this is durable once the job has run.
    #[must_use]
    pub fn up_to(&self) -> Offset {
        self.up_to
    }

    /// Syncs, oldest bytes first. Blocks on the disk. Its outcome goes to [`Log::finish_sync`], whatever it is.
    pub fn run(&self) -> Result<(), LogError> {
        {
            let _alone = self.shared.syncing.lock();
            // What a failed sync has lost, one that succeeds after it does not bring back.
            if let Some(poison) = self.shared.poison.get() {
                return Err(LogError::Poisoned(poison.clone()));
            }
            self.sync_batches().map_err(|e| self.shared.poison(&*self.disk, e))?;
            // Somebody else may have these files by then.
            if !self.pieces.is_empty() && self.shared.closed.load(Ordering::Acquire) {
                return Err(LogError::Closed);
            }
            // What found no space is as if it had never come.
            let pass = |e: LogError| if e.is_retryable() { e } else { self.shared.poison(&*self.disk, e) };
            self.pieces.iter().try_for_each(|piece| piece.write()).map_err(pass)?;
        }
        let Some(checkpoint) = &self.checkpoint else { return Ok(()) };
        let sync = |path: &PathBuf, point| match self.disk.open(path, OpenMode::Write) {
            Ok(file) => file.sync(point).map_err(LogError::io("sync", path)),
            // A later checkpoint, or a cut, has removed it meanwhile. Its manifest stands then, and this one is not taken.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(LogError::io("open", path)(e)),
        };
        for path in &checkpoint.transaction_indexes {
            sync(path, SyncPoint::TransactionIndex)?;
        }
        checkpoint.snapshots.iter().try_for_each(|path| sync(path, SyncPoint::ProducerSnapshot))
    }

    fn sync_batches(&self) -> Result<(), LogError> {
        // Settled meanwhile means synced by another job, and perhaps removed since.
        for segment in self.sealed.iter().filter(|s| !s.is_settled()) {
            let path = segment.path(FileKind::Data);
            segment.data_file()?.sync(SyncPoint::SealedData).map_err(LogError::io("sync", &path))?;
        }
        if self.directory {
            let dir = &self.shared.dir;
            self.disk.sync_dir(dir, SyncPoint::SegmentCreated).map_err(LogError::io("sync", dir))?;
        }
        if let Some((file, path)) = &self.active {
            file.sync(SyncPoint::AppendData).map_err(LogError::io("sync", path))?;
        }
        Ok(())
    }
}

impl Log {
    /// Makes everything appended so far durable.
    pub fn sync(&mut self) -> Result<(), LogError> {
        let job = self.begin_sync()?;
        let outcome = job.run();
        self.finish_sync(job, outcome)
    }

    /// True where the flush policy demands a sync now.
    #[must_use]
    pub fn is_flush_due(&self) -> bool {
        let age = self.unsynced.since.map(|since| since.elapsed()).unwrap_or_default();
        self.config.flush.is_due(self.unsynced.records, age)
    }

    /// True where so much was appended since the recovery point last moved that a crash would cost more than it should.
    #[must_use]
    pub fn is_checkpoint_due(&self) -> bool {
        self.bytes_since_checkpoint >= self.checkpoint_due_bytes()
    }

    fn checkpoint_due_bytes(&self) -> u64 {
        let configured = self.config.checkpoint_interval_bytes;
        configured.max(self.pace.moment_bytes().min(configured.saturating_mul(CHECKPOINT_INTERVALS_MAX)))
    }

    /// True where more than configured was appended since the recovery point last moved, it was left to come in one go with what might
    /// follow, and all of it is durable.
    #[must_use]
    pub fn is_checkpoint_left(&self) -> bool {
        self.bytes_since_checkpoint >= self.config.checkpoint_interval_bytes
            && !self.unsynced.active.is_due()
            && !self.has_staged()
    }

    /// True where the recovery point should move, zeros be written ahead, a key index be written, or memory be let go of.
    pub(crate) fn is_tending_due(&mut self) -> bool {
        self.is_checkpoint_due()
            || self.is_prewrite_due()
            || self.is_key_index_due()
            || self.is_letting_go_due()
    }

    /// Who looks for keys reads the newest records from files, too.
    fn is_letting_go_due(&self) -> bool {
        let is_here = self.stretch.base == self.active.segment.base;
        is_here
            && !self.is_staging()
            && self.stretch.is_due()
            && self.pace.outruns_memory()
            && !self.config.key_index
    }

    /// What the system need not keep in memory any more; to be run on a thread that may wait.
    pub(crate) fn let_go_job(&mut self) -> Option<LetGoJob> {
        if !self.is_letting_go_due() {
            return None;
        }
        let file = self.active.segment.data_file().ok()?;
        Some(LetGoJob { file, range: self.stretch.take() })
    }

    fn is_prewrite_due(&mut self) -> bool {
        let need = self.spare_need();
        self.may_prewrite() && (self.are_zeros_due_here() || self.spare.due(need).is_some())
    }

    fn may_prewrite(&self) -> bool {
        self.config.prewrite_bytes > 0
            && !self.is_behind
            && !self.is_staging()
            && self.pace.has_small_syncs()
            && self.check_open().is_ok()
            && self.active.is_awake()
    }

    fn are_zeros_due_here(&mut self) -> bool {
        let ahead = self.active.zeros_ahead(u64::from(self.config.prewrite_bytes));
        let limit = u64::from(self.config.segment_bytes);
        self.active.prewrite.is_due(self.active.position, ahead, limit)
    }

    pub(super) fn spare_need(&self) -> SpareNeed {
        SpareNeed {
            position: self.active.position,
            piece_bytes: u64::from(self.config.prewrite_bytes),
            limit: u64::from(self.config.segment_bytes),
            was_spare: self.active.was_spare,
        }
    }

    /// True where segments were rolled since the recovery point last moved. They are not compacted before it has passed them.
    #[must_use]
    pub fn has_segments_past_recovery_point(&self) -> bool {
        self.manifest.active.base_offset < self.active.segment.base
    }

    /// The sync of everything appended so far that no finished one has covered. Must be handed back to
    /// [`Log::finish_sync`]; others may begin and finish meanwhile.
    pub fn begin_sync(&mut self) -> Result<SyncJob, LogError> {
        self.check_open()?;
        let active = if self.unsynced.active.is_due() {
            Some((self.active.segment.data_file()?, self.active.segment.path(FileKind::Data)))
        } else {
            None
        };
        let was_read = self.shared.was_read_from_files.swap(false, Ordering::Relaxed);
        self.pace.on_sync(self.unsynced.bytes, was_read, self.context.clock.steady_ms());
        self.unsynced.records = 0;
        self.unsynced.bytes = 0;
        self.unsynced.since = None;
        Ok(SyncJob {
            disk: Arc::clone(&self.context.disk),
            shared: Arc::clone(&self.shared),
            directory: self.unsynced.directory.is_due(),
            sealed: self.unsynced.sealed.clone(),
            active,
            pieces: self.take_pieces(),
            reaches: (self.active.segment.base, self.active.segment.bytes()),
            covers: (self.unsynced.active.changes, self.unsynced.directory.changes),
            up_to: self.next,
            cuts: self.shared.cuts.load(Ordering::Acquire),
            checkpoint: None,
        })
    }

    /// Takes the outcome of a job that has run. A failed sync poisons the log: what it left on the disk nobody knows. But where staged batches
    /// ([`Log::begin_staging`]) found no space, [`LogError::Full`], they are not in the log any more, and it goes on.
    pub fn finish_sync(&mut self, job: SyncJob, outcome: Result<(), LogError>) -> Result<(), LogError> {
        match outcome {
            Err(full) if full.is_retryable() => {
                self.take_back_any(&job.pieces, &full);
                return Err(full);
            }
            Err(LogError::Closed) => return Err(LogError::Closed),
            other => other.map_err(|e| self.poison(e))?,
        }
        for segment in &job.sealed {
            segment.settle();
        }
        self.unsynced.sealed.retain(|s| !s.is_settled());
        // After a cut the job's file is not the one that is written now, or not in the state that was synced.
        if self.shared.cuts.load(Ordering::Acquire) != job.cuts {
            return Ok(());
        }
        self.finish_pieces(job.pieces);
        self.stretch.on_durable(job.reaches.0, job.reaches.1);
        self.unsynced.active.cover(job.covers.0);
        self.unsynced.directory.cover(job.covers.1);
        self.shared.durable.fetch_max(job.up_to.0, Ordering::AcqRel);
        let Some(checkpoint) = job.checkpoint else { return Ok(()) };
        // The files of a closed log may be gone, and another's be in their place.
        self.check_open()?;
        // The manifest was changed since the job began: what it wants to say may no longer hold.
        if checkpoint.generation != self.generation {
            let bytes = self.bytes_since_checkpoint + checkpoint.bytes;
            self.bytes_since_checkpoint = bytes.max(self.checkpoint_due_bytes());
            return Ok(());
        }
        self.unsynced.transaction_indexes.retain(|(_, change)| *change > job.covers.0);
        self.commit_manifest(checkpoint.manifest)?;
        self.prune_snapshots()
    }

    /// Moves the recovery point to the end of the log.
    pub fn checkpoint(&mut self) -> Result<(), LogError> {
        let job = self.begin_checkpoint()?;
        let outcome = job.run();
        self.finish_sync(job, outcome)
    }

    /// The sync that moves the recovery point to the end of what is appended. Must be handed to [`Log::finish_sync`].
    pub fn begin_checkpoint(&mut self) -> Result<SyncJob, LogError> {
        self.check_open()?;
        self.active.flush_indexes(false).map_err(|e| self.full_or_poison(e))?;
        self.save_snapshot(self.next.max(self.end_written())).map_err(|e| self.full_or_poison(e))?;
        self.save_epochs()?;
        let staged = self.staged_reach();
        let mut job = self.begin_sync()?;
        let active_record =
            |active: &Segment| staged.map_or_else(|| record_of(active), |reach| self.active.record(reach));
        let (active, sealed) = match self.segments().split_last() {
            Some((active, sealed)) => (active_record(active), sealed.iter().map(|s| record_of(s)).collect()),
            None => (self.manifest.active, Vec::new()),
        };
        let manifest = Manifest { is_closed: false, sealed, active, ..self.manifest.clone() };
        job.checkpoint = Some(Checkpoint {
            transaction_indexes: self
                .unsynced
                .transaction_indexes
                .iter()
                .map(|(path, _)| path.clone())
                .collect(),
            snapshots: self
                .snapshots
                .iter()
                .filter(|s| **s >= self.recovery_point())
                .map(|s| path_of(&self.shared.dir, *s, FileKind::Snapshot))
                .collect(),
            manifest,
            generation: self.generation,
            bytes: std::mem::take(&mut self.bytes_since_checkpoint),
        });
        Ok(job)
    }

    /// Ends the log cleanly: everything durable, indexes complete, nothing left to recover. A log that is dropped without
    /// it is recovered when it is opened again.
    pub fn close(mut self) -> Result<(), LogError> {
        self.end_cleanly()
    }

    /// [`Log::close`] for a log that others hold: later writes are refused with [`LogError::Closed`], reading goes on.
    pub(crate) fn end_cleanly(&mut self) -> Result<(), LogError> {
        self.check_open()?;
        self.end_staging()?;
        self.give_up_spare();
        if !self.has_nothing_to_save() {
            self.active.seal().map_err(|e| self.full_or_poison(e))?;
            // Trimming changed the file, even where no batch was added.
            self.unsynced.active.change();
            self.checkpoint()?;
        }
        if !self.manifest.is_closed {
            let manifest = Manifest { is_closed: true, ..self.manifest.clone() };
            self.commit_manifest(manifest)?;
        }
        self.end_abruptly();
        Ok(())
    }

    /// Ends the log as it is. Nothing is written any more, also no zeros.
    pub fn end_abruptly(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        self.close_stage();
        self.active.sleep();
        self.spare.stop();
    }

    fn has_nothing_to_save(&self) -> bool {
        let clean = self.unsynced.sealed.is_empty()
            && !self.unsynced.active.is_due()
            && !self.unsynced.directory.is_due();
        clean && self.recovery_point() == self.next && !self.active.is_awake()
    }

    /// Zeros to write ahead of the log's end, or into the next segment's file, where it pays; to be run on a thread that may wait
    /// for the disk.
    pub fn prewrite_job(&mut self) -> Option<PrewriteJob> {
        if !self.may_prewrite() {
            return None;
        }
        if !self.are_zeros_due_here() {
            let need = self.spare_need();
            return self.spare.begin(&*self.context.disk, &self.shared.dir, need);
        }
        let path = self.active.segment.path(FileKind::Data);
        // A handle of its own: a system tells each handle once of a failed sync, and the appends' must learn of it too.
        let file = self.context.disk.open(&path, OpenMode::Write).ok()?;
        let (position, limit) = (self.active.position, u64::from(self.config.segment_bytes));
        let ahead = self.active.zeros_ahead(u64::from(self.config.prewrite_bytes));
        self.active.prewrite.begin(position, ahead, limit, file, path)
    }

    /// Writes the producer state that belongs to `offset`, the end of what is recorded. Not synced here. Nothing that is acknowledged needs its
    /// name: the manifest's own sync makes it durable before older ones are removed, and without it a recovery begins at one of those.
    pub(super) fn save_snapshot(&mut self, offset: Offset) -> Result<(), LogError> {
        if self.snapshots.last() == Some(&offset) {
            return Ok(());
        }
        let snapshot = self.producers.to_snapshot();
        super::files::write_snapshot(&*self.context.disk, &self.shared.dir, offset, &snapshot)?;
        self.snapshots.push(offset);
        Ok(())
    }

    /// Keeps the newest snapshot, and one at each segment's base for truncation to start from.
    fn prune_snapshots(&mut self) -> Result<(), LogError> {
        let bases: Vec<Offset> = self.segments().iter().map(|s| s.base).collect();
        let newest = self.snapshots.last().copied();
        let (kept, gone) = std::mem::take(&mut self.snapshots)
            .into_iter()
            .partition(|s| Some(*s) == newest || bases.binary_search(s).is_ok());
        self.snapshots = kept;
        for offset in gone {
            super::files::remove(&*self.context.disk, &self.shared.dir, offset, FileKind::Snapshot)?;
        }
        Ok(())
    }
}

impl Unsynced {
    /// Notes an index file whose entries must be durable before the recovery point passes them.
    pub(super) fn transaction_index(&mut self, path: PathBuf) {
        self.active.change();
        let change = self.active.changes;
        self.transaction_indexes.retain(|(known, _)| *known != path);
        self.transaction_indexes.push((path, change));
    }
}
