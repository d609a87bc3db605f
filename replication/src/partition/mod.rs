//! One partition on this broker: the only way to its log. Must never know Kafka messages or connections.
//!
//! - this file: [`PartitionHandle`], what the operations of a broker may ask; `copying`: what the other replicas may
//! - `duty`, `role`, `isr`, `high_watermark`, `pending_acks`: the rules, pure
//! - [`leader`], [`follower`]: the rules of copying, pure; `exchange`: what the two tell each other
//! - `progress`: the rules at work, and who is told
//! - [`DirtySet`]: which of many partitions moved, for whoever copies them
//! - [`FullDisk`]: what is said of appends that find no space; `said`: of a disk that fails
//! - `upkeep`: what keeps a log small and its memory free, for threads that may wait for a disk

mod copying;
mod dirty;
mod duty;
mod error;
mod exchange;
pub mod follower;
mod full_disk;
mod high_watermark;
mod isr;
pub mod leader;
mod pending_acks;
mod progress;
mod role;
mod said;
mod upkeep;

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use floodmark_proto::batch::RecordBatch;
use floodmark_proto::ids::{LeaderEpoch, Offset, TopicId};
use floodmark_storage::group_commit::{DiskThreads, GroupCommit, Owner, Receipt};
use floodmark_storage::index::AbortedTransaction;
use floodmark_storage::log::Log;
use floodmark_storage::log::append::{AppendAs, AppendOutcomes};
use floodmark_storage::log::condition::{Condition, Expected, StreamSeen};
use floodmark_storage::log::reader::{StreamQuery, StreamRead};
use floodmark_storage::producers::{Origin, ProducerState};
use floodmark_storage::{AppendError, LogError, LogReader, ReadLimits};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::task::spawn_blocking;

pub use copying::IsrProposal;
pub use dirty::{DirtyMark, DirtySet};
pub use duty::Duty;
pub use error::PartitionError;
pub use exchange::{Fetched, FollowerPosition, LogView, ReplicaFetch, ReplicaRead};
pub use full_disk::FullDisk;
pub use leader::ReplicaProgress;
pub use progress::RetentionDue;
pub use role::Role;

use crate::cluster::settings::TopicSettings;
use progress::Progress;
use said::Said;

/// A partition; clones are the same one.
#[derive(Debug, Clone)]
pub struct PartitionHandle(Arc<Partition>);

#[derive(Debug)]
struct Partition {
    name: PartitionId,
    log: GroupCommit,
    reader: LogReader,
    progress: Arc<Progress>,
    /// What came from the leader and is not in the log yet, in its order. The leader's answers bound it.
    fetched: Mutex<VecDeque<copying::Incoming>>,
    dir: Arc<Path>,
    said: Arc<Said>,
    /// Nothing more is taken from clients.
    takes_leave: AtomicBool,
}

/// Which partition it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId {
    /// The topic's incarnation.
    pub topic_id: TopicId,
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number.
    pub index: i32,
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.index)
    }
}

/// In which way records are appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendOptions {
    /// The leader epoch that the caller takes for the current one, if it knows any.
    pub expected_epoch: Option<LeaderEpoch>,
    /// Who appends: how much of sequence numbers is checked.
    pub origin: Origin,
    /// The caller will wait for [`PartitionHandle::committed`]: the append is refused where too few replicas are in sync for it.
    pub needs_min_isr: bool,
}

impl AppendOptions {
    /// What a client sent, to be acknowledged by all replicas in sync.
    pub const CLIENT: AppendOptions =
        AppendOptions { expected_epoch: None, origin: Origin::Client, needs_min_isr: true };
    /// What a coordinator of this broker writes.
    pub const COORDINATOR: AppendOptions =
        AppendOptions { expected_epoch: None, origin: Origin::Coordinator, needs_min_isr: true };
}

/// The place of records is fixed, and the leader's log has them.
#[derive(Debug, Clone, PartialEq)]
pub struct Appended {
    /// What became of each batch; where one is refused, the others are not concerned.
    pub batches: AppendOutcomes,
    /// All that were taken are committed once [`PartitionHandle::committed`] of this is.
    pub end: Offset,
    /// In which epoch this broker leads, and they were appended.
    pub epoch: LeaderEpoch,
    /// The log's first offset.
    pub log_start: Offset,
}

/// Which records a reader may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Committed ones.
    Uncommitted,
    /// Those of decided transactions only.
    Committed,
}

/// Batches, and how far the partition was when they were read.
#[derive(Debug, Clone)]
pub struct ReadBatches {
    /// Whole batches, the first of which holds the offset asked for; none where there is nothing to be seen yet.
    pub batches: Vec<Bytes>,
    /// Nothing in `batches` lies at or above it.
    pub high_watermark: Offset,
    /// Nor, for [`Isolation::Committed`], at or above this.
    pub last_stable: Offset,
    /// First offset of the log.
    pub log_start: Offset,
}

/// Keeps a [`Notify`] told; dropped, it is told no more.
#[derive(Debug)]
pub struct Registration {
    progress: Arc<Progress>,
    id: u64,
}

impl PartitionHandle {
    /// Takes the log of a replica, which does as `duty` says from the first moment on.
    #[must_use]
    pub fn new(name: PartitionId, log: Log, disks: &DiskThreads, duty: Duty) -> PartitionHandle {
        PartitionHandle::beside_others(name, log, disks, duty, Arc::default())
    }

    /// The same, of one of several partitions that together tell of want of space.
    #[must_use]
    pub fn beside_others(
        name: PartitionId,
        mut log: Log,
        disks: &DiskThreads,
        duty: Duty,
        full_disk: Arc<FullDisk>,
    ) -> PartitionHandle {
        let (reader, dir, said) = (log.reader(), Arc::<Path>::from(log.dir()), Arc::<Said>::default());
        let progress = Arc::new(Progress::new(&mut log, name.clone(), duty, full_disk));
        let (moving, announcing) = (Arc::clone(&progress), Arc::clone(&progress));
        let of_stop = {
            let (said, name, dir, reader) =
                (Arc::clone(&said), name.clone(), Arc::clone(&dir), reader.clone());
            move || said.of_stop(&name, &dir, &reader)
        };
        let announce = move || {
            of_stop();
            announcing.announce();
        };
        let owner =
            Owner { on_moved: Box::new(move |log| moving.on_moved(log)), announce: Box::new(announce) };
        let log = GroupCommit::new(log, disks, owner);
        // A leader knows at once what of a log that was there before is committed.
        log.nudge();
        let (fetched, takes_leave) = (Mutex::default(), AtomicBool::new(false));
        PartitionHandle(Arc::new(Partition { name, log, reader, progress, fetched, dir, said, takes_leave }))
    }

    /// Which partition it is.
    #[must_use]
    pub fn id(&self) -> &PartitionId {
        &self.0.name
    }

    /// Appends. The call itself fixes the place of the batches, in the order of calls, and waits for nothing; the future tells
    /// offsets, once the batches are in the log, and may be dropped without undoing anything. Sequence numbers are checked here;
    /// what else must hold for a topic's records, the caller has seen to.
    pub fn append(
        &self,
        batches: Vec<RecordBatch>,
        options: AppendOptions,
    ) -> impl Future<Output = Result<Appended, PartitionError>> + Send + use<> {
        let (tell, told) = oneshot::channel();
        match self.admit(options) {
            Err(e) => drop(tell.send(Err(e))),
            Ok(epoch) => {
                let progress = Arc::clone(&self.0.progress);
                let append_as = AppendAs::Leader { epoch, origin: options.origin };
                // Who does not wait any more need not be told.
                let then = move |receipt| drop(tell.send(appended(receipt, epoch, &progress)));
                self.0.log.submit(batches, append_as, then);
            }
        }
        async move { told.await.unwrap_or(Err(PartitionError::Abandoned)) }
    }

    /// [`PartitionHandle::append`] of one batch, taken only where `condition` holds of what is appended by then, if there is one. The
    /// call waits for nothing, but may read files where the condition was not given a look at its stream
    /// ([`PartitionHandle::look_at_stream`]).
    pub fn append_one(
        &self,
        batch: RecordBatch,
        condition: Option<Condition>,
        options: AppendOptions,
    ) -> impl Future<Output = Result<Appended, PartitionError>> + Send + use<> {
        let (tell, told) = oneshot::channel();
        match self.admit(options) {
            Err(e) => drop(tell.send(Err(e))),
            Ok(epoch) => {
                let progress = Arc::clone(&self.0.progress);
                let append_as = AppendAs::Leader { epoch, origin: options.origin };
                let then = move |receipt| drop(tell.send(appended(receipt, epoch, &progress)));
                match condition {
                    None => self.0.log.submit(vec![batch], append_as, then),
                    Some(condition) => self.0.log.submit_if(batch, condition, append_as, then),
                }
            }
        }
        async move { told.await.unwrap_or(Err(PartitionError::Abandoned)) }
    }

    /// How a stream is now, for an append that depends on it. May wait for a disk, and for long where an index must be built.
    pub fn look_at_stream(
        &self,
        key: &[u8],
        expected: Expected,
        append_id: Option<&[u8]>,
    ) -> Result<StreamSeen, PartitionError> {
        Ok(self.0.reader.look_at_stream(key, expected, append_id)?)
    }

    /// Committed records of one stream, and how far the partition was when they were read. Of `query.below` the lower one counts. May
    /// wait for a disk, as [`PartitionHandle::look_at_stream`].
    pub fn read_stream(
        &self,
        query: &StreamQuery<'_>,
        isolation: Isolation,
    ) -> Result<(StreamRead, ReadBatches), PartitionError> {
        let seen = self.seen();
        let below = seen.limits(query.max_bytes, isolation).below.min(query.below);
        let read = self.0.reader.read_stream(&StreamQuery { below, ..*query });
        let read = self.say(query.from, read)?;
        Ok((read, seen))
    }

    fn admit(&self, options: AppendOptions) -> Result<LeaderEpoch, PartitionError> {
        let duty = self.0.progress.duty.load();
        let epoch = duty.role.under(self.0.progress.heard()).lead(options.expected_epoch)?;
        if options.origin == Origin::Client && self.0.takes_leave.load(Ordering::Acquire) {
            return Err(PartitionError::NotLeader { epoch });
        }
        if options.needs_min_isr {
            duty.in_sync().check_before_append()?;
        }
        Ok(epoch)
    }

    /// Where this broker leads and another could: takes nothing more from clients, who are told that it does not lead, because it is about
    /// to go. What is on its way when a leadership ends is told to come again though it may be kept, and lies there twice then where its
    /// producer is not idempotent. Says whether it is so. There is no way back.
    #[must_use]
    pub fn take_leave(&self) -> bool {
        let duty = self.0.progress.duty.load();
        let can_go = matches!(duty.role, Role::Leader { .. }) && duty.isr.len() > 1;
        if can_go {
            self.0.takes_leave.store(true, Ordering::Release);
        }
        can_go
    }

    /// Done once everything before `end` is committed on enough replicas; fails where this broker does not lead in `epoch`
    /// any more: what is committed at those offsets later may be something else.
    pub fn committed(
        &self,
        end: Offset,
        epoch: LeaderEpoch,
    ) -> impl Future<Output = Result<(), PartitionError>> + Send + use<> {
        let (tell, told) = oneshot::channel();
        self.0.progress.when_committed(end, epoch, tell);
        async move { told.await.unwrap_or(Err(PartitionError::Abandoned)) }
    }

    /// Committed batches from the one that holds `from`. May wait for a disk: not for threads that run tasks.
    pub fn read(
        &self,
        from: Offset,
        max_bytes: usize,
        isolation: Isolation,
    ) -> Result<ReadBatches, PartitionError> {
        let seen = self.seen();
        let batches = self.say(from, self.0.reader.read(from, seen.limits(max_bytes, isolation)))?;
        Ok(ReadBatches { batches, ..seen })
    }

    /// The same from memory alone, for any thread; `None` where [`PartitionHandle::read`] must be asked.
    pub fn read_in_memory(
        &self,
        from: Offset,
        max_bytes: usize,
        isolation: Isolation,
    ) -> Result<Option<ReadBatches>, PartitionError> {
        let seen = self.seen();
        let found = self.0.reader.read_in_memory(from, seen.limits(max_bytes, isolation))?;
        Ok(found.map(|batches| ReadBatches { batches, ..seen }))
    }

    /// The same of what the system has in memory, as [`LogReader::read_at_hand`]: for any thread, at the price of a copy of at most
    /// `max_bytes`.
    #[must_use]
    pub fn read_at_hand(&self, from: Offset, max_bytes: usize, isolation: Isolation) -> Option<ReadBatches> {
        let seen = self.seen();
        let batches = self.0.reader.read_at_hand(from, seen.limits(max_bytes, isolation))?;
        Some(ReadBatches { batches: vec![batches], ..seen })
    }

    /// Aborted transactions that concern a reader of `from..to`. May wait for a disk.
    pub fn aborted_transactions(
        &self,
        from: Offset,
        to: Offset,
    ) -> Result<Vec<AbortedTransaction>, PartitionError> {
        Ok(self.say(from, self.0.reader.aborted_transactions(from, to))?)
    }

    /// A read from there that failed is told in the log too: its reader learns a code at most.
    fn say<T>(&self, from: Offset, read: Result<T, LogError>) -> Result<T, LogError> {
        read.inspect_err(|error| self.0.said.of_read(&self.0.name, &self.0.dir, from, error))
    }

    /// How far the partition is now. What is read afterwards is held against this, whatever moves meanwhile (R13).
    fn seen(&self) -> ReadBatches {
        let last_stable = self.0.reader.last_stable_offset();
        ReadBatches {
            batches: Vec::new(),
            // Read after the other, so that it is no lower.
            high_watermark: self.0.reader.high_watermark(),
            last_stable,
            log_start: self.0.reader.start(),
        }
    }

    /// The log's reader, for what [`PartitionHandle::read`] does not give; it does not know who may see what.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        self.0.reader.clone()
    }

    /// What the cluster wants of this replica, as far as it does so already.
    #[must_use]
    pub fn duty(&self) -> Arc<Duty> {
        self.0.progress.duty.load_full()
    }

    /// The topic's settings.
    #[must_use]
    pub fn settings(&self) -> Arc<TopicSettings> {
        Arc::clone(&self.0.progress.duty.load().settings)
    }

    /// What this replica may do. A leader that was replaced leads no more from the moment at which that was heard of
    /// ([`PartitionHandle::hear_of_leader`]), though its duty says so until it has the log.
    #[must_use]
    pub fn role(&self) -> Role {
        self.0.progress.role()
    }

    /// The leader epoch of which this replica knows.
    #[must_use]
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.role().epoch()
    }

    /// The metadata has a leader of this epoch. From here on nothing is taken, told or answered in the name of an earlier one. Waits for
    /// nobody, also where the log is not to be had.
    pub fn hear_of_leader(&self, epoch: LeaderEpoch) {
        self.0.progress.hear_of(epoch);
    }

    /// Everything before it is committed.
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        self.0.reader.high_watermark()
    }

    /// Everything before it is committed and belongs to no open transaction.
    #[must_use]
    pub fn last_stable_offset(&self) -> Offset {
        self.0.reader.last_stable_offset()
    }

    /// First offset of the log.
    #[must_use]
    pub fn log_start(&self) -> Offset {
        self.0.reader.start()
    }

    /// Offset that the next record gets.
    #[must_use]
    pub fn log_end(&self) -> Offset {
        self.0.reader.end()
    }

    /// Where the records of epoch `requested` end: the last epoch up to it that the log knows, and the offset behind its records.
    /// `None` where there is no such epoch.
    #[must_use]
    pub fn end_of_epoch(&self, requested: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let end = self.log_end();
        let (epochs, current) = (self.0.reader.leader_epochs(), self.duty().role.epoch());
        if requested == current {
            return Some((requested, end));
        }
        let found = epochs.end_offset_for(requested, end).map(|found| (found.epoch, found.end_offset));
        // Leaders that appended nothing are not in the log.
        let unseen = || {
            let last = epochs.latest().map_or(requested, |latest| latest.epoch);
            (requested.0 >= 0 && requested < current).then_some((last, end))
        };
        found.or_else(unseen)
    }

    /// Bytes of its segments.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.0.reader.size_bytes()
    }

    /// Where its files are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// Why it takes no more writes, if so.
    #[must_use]
    pub fn stopped(&self) -> Option<PartitionError> {
        self.0.reader.stopped().map(PartitionError::from)
    }

    /// Has `notify` told once ([`Notify::notify_one`]) whenever the high watermark, the last stable offset or the log's start
    /// moves, leadership changes, or the log stops. Who registers first and looks then misses nothing.
    #[must_use]
    pub fn on_progress(&self, notify: Arc<Notify>) -> Registration {
        let progress = Arc::clone(&self.0.progress);
        Registration { id: progress.watch(notify), progress }
    }

    /// Whether somebody has registered by [`PartitionHandle::on_progress`]: readers that wait for more.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.0.progress.is_watched()
    }

    /// Moves the log's start to `before`, which must be committed, and gives it back; the high watermark where there is none.
    /// Durable when done.
    pub fn delete_before(
        &self,
        before: Option<Offset>,
    ) -> impl Future<Output = Result<Offset, PartitionError>> + Send + use<> {
        let this = self.clone();
        let delete = move || {
            let before = before.unwrap_or_else(|| this.high_watermark());
            let outcome = this.0.log.with_log(|log| log.delete_before(before));
            outcome.map(|()| this.log_start()).map_err(PartitionError::from)
        };
        async move { spawn_blocking(delete).await.unwrap_or(Err(PartitionError::Abandoned)) }
    }

    /// What the log knows of its producers.
    pub fn describe_producers(
        &self,
    ) -> impl Future<Output = Result<Vec<ProducerState>, PartitionError>> + Send + use<> {
        let this = self.clone();
        let look = move || this.0.log.with_log(|log| log.producers().iter().cloned().collect());
        async move { spawn_blocking(look).await.map_err(|_| PartitionError::Abandoned) }
    }
}

#[cfg(test)]
impl PartitionHandle {
    /// What a disk that hangs looks like: the log is taken until `until` returns. Blocks.
    pub(crate) fn hold_log(&self, until: impl FnOnce()) {
        self.0.log.with_log(|_| until());
    }
}

impl ReadBatches {
    fn limits(&self, max_bytes: usize, isolation: Isolation) -> ReadLimits {
        let below = match isolation {
            Isolation::Uncommitted => self.high_watermark,
            Isolation::Committed => self.last_stable,
        };
        ReadLimits { max_bytes, below }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.progress.unwatch(self.id);
    }
}

fn appended(
    receipt: Result<Receipt, LogError>,
    epoch: LeaderEpoch,
    progress: &Progress,
) -> Result<Appended, PartitionError> {
    progress.note_space(&receipt);
    let Receipt { outcomes, end } = receipt?;
    // The log knows of a newer leader than the one that admitted the batches; it refuses all of them alike.
    if let Some(Err(AppendError::EpochBehind { latest, .. })) = outcomes.first() {
        return Err(PartitionError::FencedEpoch { expected: epoch, current: *latest });
    }
    // They are in the log. But whoever leads now has another, and this one is cut: the producer must come again, and to that one.
    progress.check_leads(epoch)?;
    Ok(Appended { batches: outcomes, end, epoch, log_start: progress.log_start() })
}

#[cfg(test)]
mod tests;
