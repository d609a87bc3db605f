//! Batches in: each is judged, given its offset, and written with its neighbours in one call.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use floodmark_proto::batch::{
    BatchHeader, DecompressLimits, EndTransactionMarker, RecordBatch, Records, TransactionResult,
};
use floodmark_proto::ids::{LeaderEpoch, Offset, TimestampMs};

use super::Log;
use super::condition::{Condition, Decision};
use super::tail_cache::TailBatch;
use crate::clock::Stopwatch;
use crate::error::{AppendError, LogError};
use crate::index::fits;
use crate::key_index::BatchKeys;
use crate::leader_epochs::LeaderEpochs;
use crate::producers::{EndMarker, Origin, Verdict};
use crate::segment::SegmentFacts;
use crate::segment::name::FileKind;

/// In whose name batches are appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendAs {
    /// The partition's leader: offsets and this epoch are assigned.
    Leader {
        /// The leader's epoch.
        epoch: LeaderEpoch,
        /// Who sent the batches; decides how much of their sequence numbers is checked.
        origin: Origin,
    },
    /// A replica that copies the leader: offsets and epochs are kept, and must fit.
    Replica,
}

/// A batch that is to be appended, with what its sender knows of it.
#[derive(Debug)]
pub struct ToAppend {
    /// The batch.
    pub batch: RecordBatch,
    /// Its keys, where they are hashed already; a log with a key index hashes them itself otherwise.
    pub keys: Option<BatchKeys>,
    /// What must hold for it to be appended.
    pub condition: Option<Box<Condition>>,
}

impl From<RecordBatch> for ToAppend {
    fn from(batch: RecordBatch) -> ToAppend {
        ToAppend { batch, keys: None, condition: None }
    }
}

/// Where a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Offset of its last record.
    pub last_offset: Offset,
    /// Its largest timestamp, or the broker's clock where the topic asks for that.
    pub timestamp: TimestampMs,
    /// True where it was there already, from an earlier try of its producer.
    pub is_duplicate: bool,
}

/// What became of each batch of a group, in their order.
pub type AppendOutcomes = Vec<Result<Appended, AppendError>>;

/// What a group that fails brings back.
struct Before {
    end: Offset,
    epochs: Arc<LeaderEpochs>,
    cuts: u64,
}

/// Less than this is written into the page cache also by who is far behind. To pass it by waits for the disk, for its queue and for the block in
/// which the write before has ended; who brings so little may be a thread that may not wait.
const PASSING_BYTES_MIN: u64 = 256 << 10;
/// A control record is a handful of bytes, whatever its codec.
const CONTROL_RECORD: DecompressLimits = DecompressLimits { max_bytes: 64 << 10, max_ratio: 1024 };

impl Log {
    /// Appends a group of batches with as few write calls as the segments allow; syncs nothing.
    ///
    /// A batch of a leader that is refused leaves the others alone; one of a replica ends the group, for what comes behind it would leave
    /// a hole. An error of the whole call means that none of the group is in the
    /// log: after [`LogError::Full`] and [`LogError::NoDescriptor`] it may be tried again, after any other the log takes no more writes.
    pub fn append(
        &mut self,
        batches: impl IntoIterator<Item = impl Into<ToAppend>>,
        append_as: AppendAs,
    ) -> Result<AppendOutcomes, LogError> {
        self.check_open()?;
        let before = Before { end: self.next, epochs: self.shared.epochs.load_full(), cuts: self.cuts() };
        let outcomes = self.try_append(batches, append_as);
        outcomes.map_err(|e| self.undo(before, e))
    }

    fn try_append(
        &mut self,
        batches: impl IntoIterator<Item = impl Into<ToAppend>>,
        append_as: AppendAs,
    ) -> Result<AppendOutcomes, LogError> {
        self.wake_active()?;
        let batches = batches.into_iter();
        let mut outcomes = Vec::with_capacity(batches.size_hint().0);
        for batch in batches {
            let outcome = self.accept(batch.into(), append_as)?;
            let leaves_a_hole = outcome.is_err() && append_as == AppendAs::Replica;
            outcomes.push(outcome);
            if leaves_a_hole {
                break;
            }
        }
        self.write_accepted()?;
        self.publish_end();
        Ok(outcomes)
    }

    /// Once for a group: where a part of it is written and the rest is not, all of it is taken back, and other batches come to lie there
    /// under the same epoch. Whoever had read the part, a follower above all, would never learn of it.
    fn publish_end(&mut self) {
        // In this order one that sees a transaction's data has seen its first offset as unstable.
        self.publish_first_unstable();
        self.shared.end.store(self.next.0, Ordering::Release);
    }

    /// The outer result is the log's, the inner one this batch's.
    fn accept(
        &mut self,
        ToAppend { mut batch, keys, condition }: ToAppend,
        append_as: AppendAs,
    ) -> Result<Result<Appended, AppendError>, LogError> {
        let marker = match end_marker(batch.as_bytes(), batch.header()) {
            Ok(marker) => marker,
            Err(e) => return Ok(Err(e)),
        };
        match self.judge(batch.header(), marker.as_ref(), append_as) {
            Ok(Verdict::Append) => {}
            Ok(Verdict::Duplicate { base_offset, last_offset, timestamp }) => {
                return Ok(Ok(Appended { base_offset, last_offset, timestamp, is_duplicate: true }));
            }
            Err(e) => return Ok(Err(e)),
        }
        let mut hashed = BatchKeys::default();
        let keys = match self.keys_of(&batch, keys.as_ref(), &mut hashed, append_as) {
            Ok(keys) => keys,
            Err(e) => return Ok(Err(e)),
        };
        // After the producer's check: a retry of what is in the log already is no second append, whatever came behind it.
        if let Some(condition) = condition {
            match self.decide(&condition)? {
                Decision::Append => {}
                Decision::Landed(landed) => return Ok(Ok(landed)),
                Decision::Refuse(e) => return Ok(Err(e)),
            }
        }
        if let AppendAs::Leader { epoch, .. } = append_as {
            batch.stamp(self.next, epoch);
        }
        let header = *batch.header();
        if self.active.must_roll(&header, &self.config, self.context.clock.now_ms()) {
            self.write_accepted()?;
            self.roll_for(&header)?;
        }
        if self.epochs.assign(header.leader_epoch, header.base_offset) {
            self.epochs_unsaved = true;
            self.shared.epochs.store(Arc::new(self.epochs.clone()));
        }
        if let Err(e) = self.active.accept(&header, keys) {
            let path = self.active.segment.path(FileKind::Data);
            return Err(LogError::BadFile { path, source: e });
        }
        if let Some(aborted) = self.producers.record(&header, marker.as_ref()).and_then(|t| t.index_entry()) {
            self.active.accept_abort(&aborted);
        }
        self.next = header.next_offset();
        self.unsynced.records += header.record_count.max(0) as u64;
        self.accepted.push(TailBatch { base: header.base_offset, next: self.next, bytes: batch.freeze() });
        Ok(Ok(Appended {
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            timestamp: header.max_timestamp,
            is_duplicate: false,
        }))
    }

    /// What of a batch goes into the key index, where there is one: what came with the batch, or is put into `hashed`, which is empty.
    /// Moved about they would cost more than they do to make.
    fn keys_of<'k>(
        &self,
        batch: &RecordBatch,
        given: Option<&'k BatchKeys>,
        hashed: &'k mut BatchKeys,
        append_as: AppendAs,
    ) -> Result<Option<&'k BatchKeys>, AppendError> {
        let Some(seed) = self.shared.keys.seed() else { return Ok(None) };
        if given.is_some() {
            return Ok(given);
        }
        match hashed.gather(batch.as_bytes(), batch.header(), seed) {
            Err(e) if append_as != AppendAs::Replica => Err(e.into()),
            // The leader took it; a replica has no choice, and what was gathered before the error counts.
            _ => Ok(Some(hashed)),
        }
    }

    fn judge(
        &self,
        header: &BatchHeader,
        marker: Option<&EndMarker>,
        append_as: AppendAs,
    ) -> Result<Verdict, AppendError> {
        match append_as {
            AppendAs::Leader { epoch, origin } => {
                // A replica has no choice: the leader took it, perhaps when its segments were larger.
                if header.size_bytes() > self.config.segment_bytes as usize {
                    return Err(AppendError::LargerThanSegment {
                        size_bytes: header.size_bytes(),
                        segment_bytes: self.config.segment_bytes,
                    });
                }
                if epoch < self.first_leader {
                    return Err(AppendError::EpochBehind { epoch, latest: self.first_leader });
                }
                if self.next.0.checked_add(i64::from(header.last_offset_delta) + 1).is_none() {
                    return Err(AppendError::OffsetsExhausted);
                }
                match self.epochs.latest() {
                    // A leader was followed by another one while this batch waited.
                    Some(latest) if epoch < latest.epoch => {
                        Err(AppendError::EpochBehind { epoch, latest: latest.epoch })
                    }
                    _ => Ok(self.producers.check(header, marker, origin)?),
                }
            }
            AppendAs::Replica => {
                if header.base_offset < self.next {
                    return Err(AppendError::OffsetBehindEnd { base: header.base_offset, end: self.next });
                }
                if header.last_offset().0 == i64::MAX {
                    return Err(AppendError::OffsetsExhausted);
                }
                match self.epochs.latest() {
                    Some(latest) if header.leader_epoch.0 >= 0 && header.leader_epoch < latest.epoch => {
                        Err(AppendError::EpochBehind { epoch: header.leader_epoch, latest: latest.epoch })
                    }
                    _ => Ok(Verdict::Append),
                }
            }
        }
    }

    /// Writes what is accepted. Who reads does not see it before the whole group is there.
    pub(super) fn write_accepted(&mut self) -> Result<(), LogError> {
        if self.accepted.is_empty() {
            return Ok(());
        }
        let bytes: u64 = self.accepted.iter().map(|b| b.bytes.len() as u64).sum();
        let is_staged = self.stage_accepted(bytes)?;
        let aborts = if is_staged {
            self.active.flush_gathered()?
        } else {
            self.active.write(&self.accepted, self.is_behind && bytes >= PASSING_BYTES_MIN)?
        };
        if aborts {
            self.unsynced.directory.change();
            self.unsynced.transaction_index(self.active.segment.path(FileKind::TransactionIndex));
        }
        self.bytes_since_checkpoint += bytes;
        self.unsynced.bytes += bytes;
        if !is_staged {
            self.unsynced.active.change();
        }
        self.unsynced.since.get_or_insert_with(Stopwatch::start);
        if self.is_behind {
            self.accepted.clear();
        } else {
            self.tail.push(&mut self.accepted);
        }
        Ok(())
    }

    pub(super) fn wake_active(&mut self) -> Result<(), LogError> {
        if self.active.wake(&self.config)? {
            self.unsynced.directory.change();
        }
        Ok(())
    }

    /// Begins a segment that can hold `header`: at the log's end, or at the batch where a replica's log has a gap too wide
    /// for an index. Recovery takes segments that do not meet for a loss unless the manifest knows better, so then it must.
    fn roll_for(&mut self, header: &BatchHeader) -> Result<(), LogError> {
        self.end_staging()?;
        if fits(self.end_written(), header.last_offset()) {
            return self.roll();
        }
        self.roll_at(header.base_offset)?;
        self.checkpoint()
    }

    /// Ends the active segment and begins the next one at the log's end.
    pub(super) fn roll(&mut self) -> Result<(), LogError> {
        self.end_staging()?;
        self.roll_at(self.end_written())
    }

    fn roll_at(&mut self, base: Offset) -> Result<(), LogError> {
        self.active.seal()?;
        // Under the new base, which may lie behind a gap: truncation looks for it there once the head is gone.
        self.save_snapshot(base)?;
        let segment = self.new_segment(SegmentFacts::empty(base));
        let mut next = self.new_active(Arc::clone(&segment));
        let place = segment.path(FileKind::Data);
        match self.spare.take(&*self.context.disk, &self.shared.dir, &place)? {
            Some(data) => next.adopt_spare(data, &self.config)?,
            None => next.create_files()?,
        }
        next.follow(&self.active);
        let sealed = std::mem::replace(&mut self.active, next).segment;
        self.begin_keys(Some(&sealed));
        self.freeze_keys(&sealed);
        self.unsynced.sealed.push(sealed);
        // From here on its bytes are the sealed segment's; a sync that is under way may cover more than it must.
        self.unsynced.active.cover(self.unsynced.active.changes);
        self.unsynced.directory.change();
        let mut segments = Vec::clone(&self.segments());
        segments.push(segment);
        self.shared.segments.store(Arc::new(segments));
        Ok(())
    }

    /// End of what is written: what is accepted only, or waits for a sync, does not count.
    pub(super) fn end_written(&self) -> Offset {
        self.active.segment.end()
    }

    /// Brings the log back to where it was before a failed group, or poisons it where that cannot be done.
    fn undo(&mut self, before: Before, error: LogError) -> LogError {
        self.accepted.clear();
        let passing = match self.full_or_poison(error.clone()) {
            passing if passing.is_retryable() => passing,
            poisoned => {
                self.next = Offset(self.shared.end.load(Ordering::Acquire));
                return poisoned;
            }
        };
        // What waited before the group may have found no space either, and is gone with it then.
        let ended = self.end_staging();
        if self.cuts() != before.cuts {
            return ended.err().unwrap_or(passing);
        }
        let Before { end, epochs, .. } = before;
        match ended.and_then(|()| self.find_cut(end)).and_then(|cut| self.cut_tail(&cut)) {
            Ok(()) => {
                // Also what began at the end without a batch, and what the group replaced.
                self.epochs = LeaderEpochs::clone(&epochs);
                self.shared.epochs.store(epochs);
                passing
            }
            // Where even cutting fails, the disk's state is unknown: the first reason is what the operator must see.
            Err(_) => self.poison(error),
        }
    }
}

/// The transaction marker in a control batch. Data batches, and control batches that compaction emptied, have none.
pub(crate) fn end_marker(batch: &[u8], header: &BatchHeader) -> Result<Option<EndMarker>, AppendError> {
    if !header.attributes.is_control() || header.record_count == 0 {
        return Ok(None);
    }
    let mut scratch = Vec::new();
    let Some(record) = Records::open(batch, &CONTROL_RECORD, &mut scratch)?.next() else { return Ok(None) };
    let record = record?;
    let marker = EndTransactionMarker::decode(record.key, record.value)?;
    Ok(marker.map(|m| EndMarker {
        is_abort: m.result == TransactionResult::Abort,
        coordinator_epoch: m.coordinator_epoch,
    }))
}
