//! One partition's log and its only writer. Decides nothing about who may write or what counts as committed.
//!
//! - this file: [`Log`], its parts, and what of it is published to readers
//! - `append`: batches in; `staging`, `stage`: where they wait in a flood; `sync`: the recovery point forward; `cut`: the tail off, the head off; `retain`: what is too old
//! - `compact`: superseded records out
//! - `keys`: which records carry which key; `condition`: appends that depend on it
//! - `recovery`: opening after whatever happened (`durable`, then `tail`; `replay` for producers); `salvage`: giving up what is damaged; `set_aside`: where that goes; `files`, `members`: what lies in the directory
//! - `reader`: the other side, without locks; `tail_cache`: the newest batches in memory

mod active;
pub mod append;
pub mod compact;
pub mod condition;
mod cut;
pub(crate) mod files;
mod keys;
pub(crate) mod members;
mod pace;
mod prewrite;
pub mod reader;
pub mod recovery;
mod replay;
mod retain;
pub mod salvage;
mod set_aside;
mod spare;
mod stage;
mod staging;
mod sync;
pub mod tail_cache;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use floodmark_proto::ids::{LeaderEpoch, Offset};

use crate::clock::{Clock, Stopwatch};
use crate::config::LogConfig;
use crate::error::LogError;
use crate::fs::{Disk, ReplaceSyncs, SyncPoint, is_out_of_descriptors, replace_file};
use crate::leader_epochs::LeaderEpochs;
use crate::manifest::{Manifest, SegmentRecord};
use crate::producers::ProducerStates;
use crate::random::Random;
use crate::segment::{Segment, SegmentFacts};
use active::Active;
pub use compact::{Compaction, CompactionControl, CompactionEnd, CompactionReport};
pub use keys::KeyIndexJob;
use pace::{Pace, Stretch};
pub use prewrite::PrewriteJob;
use reader::{LogReader, LogShared};
use spare::{Spare, SpareNeed};
use staging::Staging;
pub use sync::SyncJob;
use tail_cache::{TailBatch, TailBudget, TailWriter};

/// File names that belong to a log as a whole.
pub(crate) const MANIFEST_FILE: &str = "log.manifest";
pub(crate) const EPOCHS_FILE: &str = "leader-epoch-checkpoint";

/// What a log needs from the process around it.
#[derive(Debug, Clone)]
pub struct LogContext {
    /// Where its files are.
    pub disk: Arc<dyn Disk>,
    /// What time it is.
    pub clock: Clock,
    /// For roll jitter.
    pub random: Random,
    /// Memory shared by the tails of all logs.
    pub tail_budget: TailBudget,
}

/// A log and the right to write it. One thread at a time; every call may block on the disk.
#[derive(Debug)]
pub struct Log {
    context: LogContext,
    config: LogConfig,
    shared: Arc<LogShared>,
    tail: TailWriter,
    active: Active,
    spare: Spare,
    pace: Pace,
    stretch: Stretch,
    producers: ProducerStates,
    epochs: LeaderEpochs,
    epochs_unsaved: bool,
    /// Leaders of epochs before it append nothing any more.
    first_leader: LeaderEpoch,
    /// Offset of the next batch, counting accepted batches that are not written yet.
    next: Offset,
    /// Accepted, to be written by the next write call.
    accepted: Vec<TailBatch>,
    unsynced: Unsynced,
    manifest: Manifest,
    /// Producer snapshots in the directory, by the offset they belong to, rising.
    snapshots: Vec<Offset>,
    /// Counts changes of the manifest and of the tail; a sync that began before one may not speak for the log after it.
    generation: u64,
    bytes_since_checkpoint: u64,
    /// What is appended is old to everybody else.
    is_behind: bool,
    staging: Staging,
    /// Alive while a compaction pass is.
    compacting: Weak<()>,
    /// Segments whose key index is to be written, or was not looked at since the log was opened; oldest first.
    to_index: Vec<Arc<Segment>>,
}

/// What no finished sync has covered. Several syncs may run at one time, so nothing leaves here when a sync begins, only when
/// one that covered it has ended well.
#[derive(Debug, Default)]
struct Unsynced {
    /// Rolled since, oldest first.
    sealed: Vec<Arc<Segment>>,
    active: Covered,
    directory: Covered,
    /// Changed transaction indexes, each with the change that came last.
    transaction_indexes: Vec<(PathBuf, u64)>,
    records: u64,
    bytes: u64,
    since: Option<Stopwatch>,
}

/// Changes counted against changes that a sync has covered.
#[derive(Debug, Clone, Copy, Default)]
struct Covered {
    changes: u64,
    synced: u64,
}

impl Covered {
    fn change(&mut self) {
        self.changes += 1;
    }

    fn is_due(self) -> bool {
        self.changes > self.synced
    }

    /// A sync that began when there were this many changes has ended well.
    fn cover(&mut self, changes: u64) {
        self.synced = self.synced.max(changes);
    }
}

impl Log {
    /// A reader of this log.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        LogReader::new(Arc::clone(&self.shared))
    }

    /// Settings in force.
    #[must_use]
    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Changes the settings; they count from the next append on.
    pub fn set_config(&mut self, config: LogConfig) {
        let (was_on, is_on) = (self.config.key_index, config.key_index);
        if is_on && !was_on {
            // Its first look is at what is written. A failure is kept in the log, where the next append finds it.
            let _ = self.end_staging();
        }
        self.config = config;
        if was_on != is_on {
            self.switch_key_index(is_on);
        }
    }

    /// The directory of the log.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// First offset that may be read.
    #[must_use]
    pub fn start(&self) -> Offset {
        Offset(self.shared.start.load(Ordering::Acquire))
    }

    /// Offset that the next batch gets.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.next
    }

    /// First offset that a power cut here could take.
    #[must_use]
    pub fn durable(&self) -> Offset {
        Offset(self.shared.durable.load(Ordering::Acquire))
    }

    /// Everything before it need not be looked at after a crash.
    #[must_use]
    pub fn recovery_point(&self) -> Offset {
        self.manifest.recovery_point()
    }

    /// What the log knows of its producers.
    #[must_use]
    pub fn producers(&self) -> &ProducerStates {
        &self.producers
    }

    /// Tells the log that batches before `offset` are committed. Only rises; a lower one is ignored.
    pub fn on_high_watermark(&mut self, offset: Offset) {
        let offset = offset.min(self.next);
        self.shared.high_watermark.fetch_max(offset.0, Ordering::AcqRel);
        self.producers.on_high_watermark(offset);
        self.publish_first_unstable();
    }

    /// Tells a replica's log that what is appended from now on is old to everybody else, or is not any more. Nobody reads such batches in the
    /// moments after, so neither log nor system keep them in memory, and no synced append waits for the file to grow, so no zeros are written
    /// ahead.
    pub fn set_behind(&mut self, is_behind: bool) {
        if is_behind && !self.is_behind {
            // What is in memory must end where the log does.
            self.tail.clear();
        }
        self.is_behind = is_behind;
    }

    /// True where [`Log::set_behind`] has said so last.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Bytes that were appended since a sync was begun last.
    #[must_use]
    pub fn bytes_to_sync(&self) -> u64 {
        self.unsynced.bytes
    }

    /// Forgets producers that have been silent for the configured time; returns how many.
    pub fn expire_producers(&mut self) -> usize {
        let now_ms = self.context.clock.now_ms();
        self.producers.expire(now_ms, self.config.producer_expiration_ms)
    }

    /// Notes that a leader begins at the log's end, durably, before it appends anything.
    pub fn assign_epoch(&mut self, epoch: LeaderEpoch) -> Result<(), LogError> {
        self.check_open()?;
        // Saved also where an earlier call noted it and found no space.
        self.epochs_unsaved |= self.epochs.assign(epoch, self.next);
        self.save_epochs()
    }

    /// Notes that a leader begins at the log's end, and that those before it append nothing more. Written to the disk by the next
    /// checkpoint: what is lost before that had no batch, and batches say their epochs themselves.
    pub fn begin_epoch(&mut self, epoch: LeaderEpoch) {
        self.end_epochs_before(epoch);
        if self.epochs.assign(epoch, self.next) {
            self.publish_epochs();
        }
    }

    /// Another broker leads since `epoch`: what leaders before it still want appended here is refused, and what was noted of leaders
    /// that appended nothing is forgotten, for batches of an older epoch may come to lie where they would have begun.
    pub fn follow_epoch(&mut self, epoch: LeaderEpoch) {
        // Nobody leads here in that epoch itself.
        self.end_epochs_before(LeaderEpoch(epoch.0.saturating_add(1)));
        if self.epochs.truncate_from_end(self.next) {
            self.publish_epochs();
        }
    }

    fn end_epochs_before(&mut self, epoch: LeaderEpoch) {
        self.first_leader = self.first_leader.max(epoch);
    }

    fn publish_epochs(&mut self) {
        self.epochs_unsaved = true;
        self.shared.epochs.store(Arc::new(self.epochs.clone()));
    }

    /// Closes files that nobody needs now: an idle log costs some memory and nothing else.
    pub fn release_idle(&mut self) {
        self.release_stage();
        if self.check_open().is_ok()
            && self.active.is_awake()
            && !self.is_staging()
            && !self.unsynced.active.is_due()
            && self.active.flush_indexes(false).is_ok()
        {
            self.active.sleep();
            self.give_up_spare();
        }
        // A handle through which unsynced bytes were written is the one that learns of their loss.
        if !self.active.is_awake() && !self.unsynced.active.is_due() {
            self.active.segment.close_if_idle();
        }
        self.reader().release_idle();
    }

    /// Stops the log because a call on it panicked: what that call has left undone nobody knows.
    pub(crate) fn poison_by_panic(&self) {
        self.poison(LogError::Abandoned);
    }

    /// A call on a poisoned log fails with the first reason, one on a closed log for that.
    fn check_open(&self) -> Result<(), LogError> {
        self.shared.check_open()
    }

    fn poison(&self, error: LogError) -> LogError {
        self.shared.poison(&*self.context.disk, error)
    }

    /// Answers an error of a call that may be made again once there is space, or descriptors, where want of them is all that it was.
    fn full_or_poison(&self, error: LogError) -> LogError {
        match error {
            LogError::Io { path, source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                LogError::Full { path }
            }
            LogError::Io { path, source, .. } if is_out_of_descriptors(&source) => {
                LogError::NoDescriptor { path }
            }
            passing if passing.is_retryable() => passing,
            other => self.poison(other),
        }
    }

    fn give_up_spare(&mut self) {
        self.spare.give_up(&*self.context.disk, &self.shared.dir);
    }

    fn file(&self, name: &str) -> PathBuf {
        self.shared.dir.join(name)
    }

    fn segments(&self) -> arc_swap::Guard<Arc<Vec<Arc<Segment>>>> {
        self.shared.segments.load()
    }

    fn publish_first_unstable(&self) {
        let first = self.producers.first_unstable_offset().unwrap_or(Offset::MAX);
        self.shared.first_unstable.store(first.0, Ordering::Release);
    }

    /// Makes `manifest` the durable truth, with the checksum of the epochs as far as it reaches.
    fn commit_manifest(&mut self, manifest: Manifest) -> Result<(), LogError> {
        let epochs = self.epochs.checksum_within(manifest.log_start, manifest.recovery_point());
        let manifest = Manifest { epochs: Some(epochs), ..manifest };
        files::replace_manifest(&*self.context.disk, &self.shared.dir, &manifest).map_err(|e| {
            match self.manifest.truncating_to.or(self.manifest.replacing) {
                // Were appends to go on, the change that this manifest was to end would be carried out upon them.
                Some(_) => self.poison(e),
                None => self.full_or_poison(e),
            }
        })?;
        self.manifest = manifest;
        self.generation += 1;
        Ok(())
    }

    fn save_epochs(&mut self) -> Result<(), LogError> {
        if !self.epochs_unsaved {
            return Ok(());
        }
        let path = self.file(EPOCHS_FILE);
        let syncs = ReplaceSyncs { data: SyncPoint::EpochsData, rename: SyncPoint::EpochsRenamed };
        replace_file(&*self.context.disk, &path, self.epochs.format().as_bytes(), syncs)
            .map_err(LogError::io("replace", &path))
            .map_err(|e| self.full_or_poison(e))?;
        self.epochs_unsaved = false;
        self.shared.epochs.store(Arc::new(self.epochs.clone()));
        Ok(())
    }

    fn new_active(&self, segment: Arc<Segment>) -> Active {
        let jitter_ms = match u64::try_from(self.config.segment_jitter_ms) {
            Ok(jitter) if jitter > 0 => (self.context.random.next_u64() % jitter) as i64,
            _ => 0,
        };
        // A segment must be sealed before it can be compacted.
        let max_lag_ms = self.config.compaction.as_ref().map_or(i64::MAX, |c| c.max_lag_ms);
        let roll_after_ms = self.config.segment_ms.saturating_sub(jitter_ms).min(max_lag_ms);
        let disk = Arc::clone(&self.context.disk);
        Active::new(disk, segment, &self.config, self.context.clock.now_ms(), roll_after_ms)
    }

    fn new_segment(&self, facts: SegmentFacts) -> Arc<Segment> {
        Arc::new(Segment::new(Arc::clone(&self.context.disk), Arc::clone(&self.shared.dir), facts))
    }
}

/// What the manifest says of a segment as it is published now.
fn record_of(segment: &Segment) -> SegmentRecord {
    SegmentRecord {
        base_offset: segment.base,
        size_bytes: segment.bytes(),
        end_offset: segment.end(),
        largest_timestamp: segment.largest_timestamp(),
        aborted: Some(segment.aborted()),
    }
}

#[cfg(test)]
mod tests;
