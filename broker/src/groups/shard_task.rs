//! A shard at work: what it decides is appended to its partition in that order, what the log has taken is told back to it in
//! that order, and time is told to it. One task a shard; the requests themselves run wherever they came in.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use floodmark_proto::batch::{
    Attributes, BatchBuilder, BatchError, BatchHeader, EndTransactionMarker, NewRecord, RecordBatch,
    TransactionResult,
};
use floodmark_proto::ids::{LeaderEpoch, Offset};
use floodmark_replication::partition::{AppendOptions, Isolation, PartitionError, PartitionHandle, Role};
use floodmark_storage::AppendError;
use floodmark_storage::clock::{Clock, Stopwatch};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::budget::Budget;
use super::error::GroupError;
use super::records::KeyValue;
use super::replay::Replay;
use super::settings::GroupSettings;
use super::shard::{Batch, Now, ShardState, Status, Then, Write};

/// Bytes that may be on their way into the log of one shard before further requests are turned away.
const IN_FLIGHT_BYTES_MAX: usize = 64 << 20;
const REPLAY_READ_BYTES: usize = 4 << 20;
/// A log that cannot be read, or written, may be so for long.
const LOAD_RETRY: Duration = Duration::from_secs(1);
const SLEEP_MAX_MS: u64 = 60_000;

/// Both clocks of a coordinator.
#[derive(Debug)]
pub(super) struct Time {
    clock: Clock,
    started: Stopwatch,
}

impl Time {
    pub(super) fn new(clock: Clock) -> Time {
        Time { clock, started: Stopwatch::start() }
    }

    pub(super) fn now(&self) -> Now {
        let wall_ms = self.clock.now_ms();
        let steady_ms = match self.clock {
            Clock::System => i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX),
            // A test that moves the one means the other too.
            Clock::Manual(_) => wall_ms,
        };
        Now { steady_ms, wall_ms }
    }
}

/// One partition of `__consumer_offsets` for as long as this broker leads it in one epoch.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) epoch: LeaderEpoch,
    partition: PartitionHandle,
    budget: Arc<Budget>,
    time: Arc<Time>,
    inner: Mutex<Inner>,
    wake: Notify,
}

#[derive(Debug)]
struct Inner {
    state: ShardState,
    /// Writes in the order of their appends.
    queue: VecDeque<InFlight>,
    in_flight_bytes: usize,
    expire_at: i64,
}

struct InFlight {
    written: Pin<Box<dyn Future<Output = Result<Offset, WriteError>> + Send>>,
    then: Then,
    bytes: usize,
}

impl std::fmt::Debug for InFlight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InFlight").field("then", &self.then).finish_non_exhaustive()
    }
}

/// Why a write was not acknowledged.
#[derive(Debug)]
enum WriteError {
    /// It is not in the log.
    Refused(GroupError),
    /// This broker does not lead the partition any more.
    Deposed,
    /// It may be in the log. What is known here may be wrong, so the log is read again.
    Unknown(PartitionError),
}

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error(transparent)]
    Partition(#[from] PartitionError),
    #[error(transparent)]
    Batch(#[from] BatchError),
}

/// Why serving ended.
enum Ended {
    Gone,
    Reload,
}

impl Shard {
    pub(super) fn new(
        partition: PartitionHandle,
        epoch: LeaderEpoch,
        settings: Arc<GroupSettings>,
        budget: Arc<Budget>,
        time: Arc<Time>,
    ) -> Shard {
        let expire_at = time.now().steady_ms.saturating_add(settings.expiry_interval_ms);
        let state = ShardState::new(settings, Arc::clone(&budget));
        let inner = Inner { state, queue: VecDeque::new(), in_flight_bytes: 0, expire_at };
        Shard { epoch, partition, budget, time, inner: Mutex::new(inner), wake: Notify::new() }
    }

    /// False once a later leader of its partition is known of: what is known here may be old, though nobody has given the shard up yet.
    pub(super) fn leads(&self) -> bool {
        self.partition.role() == Role::Leader { epoch: self.epoch }
    }

    /// A request that may write. Its writes are in the log's queue when this is over.
    pub(super) fn write<R>(
        &self,
        decide: impl FnOnce(&mut ShardState, Now) -> Result<R, GroupError>,
    ) -> Result<R, GroupError> {
        let mut inner = self.inner.lock();
        if inner.in_flight_bytes > IN_FLIGHT_BYTES_MAX {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        self.with(&mut inner, decide)
    }

    /// A request that changes nothing.
    pub(super) fn look<R>(&self, look: impl FnOnce(&ShardState) -> R) -> R {
        look(&self.inner.lock().state)
    }

    /// A request that writes little or nothing, or must not wait until there is room.
    pub(super) fn act<R>(&self, act: impl FnOnce(&mut ShardState, Now) -> R) -> R {
        self.with(&mut self.inner.lock(), act)
    }

    fn with<R>(&self, inner: &mut Inner, decide: impl FnOnce(&mut ShardState, Now) -> R) -> R {
        let (now, deadline) = (self.time.now(), inner.state.deadline());
        let result = decide(&mut inner.state, now);
        let has_writes = !inner.state.outbox.is_empty();
        self.append_all(inner, now);
        if has_writes || inner.state.deadline() != deadline {
            self.wake.notify_one();
        }
        result
    }

    /// The order of appends is the order of decisions, since both happen under the lock. Appending waits for nothing.
    fn append_all(&self, inner: &mut Inner, now: Now) {
        while !inner.state.outbox.is_empty() {
            for Write { batch, then } in std::mem::take(&mut inner.state.outbox) {
                match self.encode(&batch, &then, now) {
                    Ok(encoded) => {
                        let bytes = encoded.size_bytes();
                        inner.in_flight_bytes += bytes;
                        inner.queue.push_back(InFlight { written: self.append(encoded), then, bytes });
                    }
                    Err(error) => inner.state.on_written(then, Err(error), now),
                }
            }
        }
    }

    fn encode(&self, batch: &Batch, then: &Then, now: Now) -> Result<RecordBatch, GroupError> {
        let limit = usize::try_from(self.partition.settings().log.max_batch_bytes).unwrap_or(usize::MAX);
        let encoded = encode(batch, now.wall_ms).map_err(|_| GroupError::RecordTooLarge)?;
        if encoded.size_bytes() > limit {
            self.budget.tell_of_large_record(then.group(), encoded.size_bytes(), limit);
            return Err(GroupError::RecordTooLarge);
        }
        Ok(encoded)
    }

    fn append(&self, batch: RecordBatch) -> Pin<Box<dyn Future<Output = Result<Offset, WriteError>> + Send>> {
        let options = AppendOptions { expected_epoch: Some(self.epoch), ..AppendOptions::COORDINATOR };
        let appended = self.partition.append(vec![batch], options);
        let partition = self.partition.clone();
        Box::pin(async move {
            let appended = appended.await.map_err(WriteError::from)?;
            let base = match appended.batches.into_iter().next() {
                Some(Ok(taken)) => taken.base_offset,
                Some(Err(error)) => return Err(WriteError::Refused(refusal(&error))),
                None => return Err(WriteError::Unknown(PartitionError::Abandoned)),
            };
            // Whatever fails from here on, the record is in the log.
            partition.committed(appended.end, appended.epoch).await.map_err(WriteError::Unknown)?;
            Ok(base)
        })
    }

    /// Ends the shard, wherever it is in its work.
    pub(super) fn unload(&self, error: GroupError) {
        let mut inner = self.inner.lock();
        self.reset(&mut inner, Status::Gone, error);
    }

    fn reset(&self, inner: &mut Inner, status: Status, error: GroupError) {
        inner.state.unload(status, error, self.time.now());
        // Whoever waits for one of these learns from its reply, which is dropped, that nobody can say what became of it.
        inner.queue.clear();
        inner.in_flight_bytes = 0;
        self.wake.notify_one();
    }

    /// Has the task look at the time.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    fn is_gone(&self) -> bool {
        self.inner.lock().state.status == Status::Gone
    }

    /// Loads and serves until the shard is unloaded.
    pub(super) async fn run(self: Arc<Shard>) {
        while !self.is_gone() {
            match Arc::clone(&self).load().await {
                Ok(replay) => {
                    self.begin(replay);
                    if matches!(self.serve().await, Ended::Gone) {
                        return;
                    }
                }
                Err(error) => {
                    tracing::error!(partition = self.partition.id().index, %error, "groups cannot be loaded");
                }
            }
            tokio::time::sleep(LOAD_RETRY).await;
        }
    }

    /// Reads the whole log. All of it will be committed, since this broker leads; what is not yet is waited for.
    async fn load(self: Arc<Shard>) -> Result<Replay, LoadError> {
        let end = self.partition.log_end();
        match self.partition.committed(end, self.epoch).await {
            // Too few replicas for a new commit do not make those there are any older.
            Ok(()) | Err(PartitionError::NotEnoughReplicasAfterAppend { .. }) => {}
            Err(e) => return Err(e.into()),
        }
        let read = move || self.read_up_to(end);
        tokio::task::spawn_blocking(read).await.unwrap_or(Err(PartitionError::Abandoned.into()))
    }

    fn read_up_to(&self, end: Offset) -> Result<Replay, LoadError> {
        let mut replay = Replay::default();
        let mut next = self.partition.log_start();
        while next < end && !self.is_gone() {
            let read = self.partition.read(next, REPLAY_READ_BYTES, Isolation::Uncommitted)?;
            let before = next;
            for bytes in &read.batches {
                next = replay_batches(&mut replay, bytes, next)?;
            }
            if next == before {
                // Compaction may leave nothing behind at the end of a log.
                break;
            }
        }
        Ok(replay)
    }

    fn begin(&self, replay: Replay) {
        let counts = replay.counts;
        let mut inner = self.inner.lock();
        if inner.state.status != Status::Loading {
            return;
        }
        let groups = replay.finish(&inner.state.settings);
        let (partition, group_count) = (self.partition.id().index, groups.len());
        self.with(&mut inner, |state, now| state.loaded(groups, now));
        tracing::debug!(partition, groups = group_count, records = counts.records, "groups are loaded");
        if counts.of_other_kinds + counts.unreadable > 0 {
            let (other_kinds, unreadable) = (counts.of_other_kinds, counts.unreadable);
            tracing::warn!(partition, other_kinds, unreadable, "records of groups that are not kept here");
        }
    }

    async fn serve(&self) -> Ended {
        let mut current: Option<InFlight> = None;
        loop {
            if current.is_none() {
                current = self.inner.lock().queue.pop_front();
            }
            let sleep_ms = self.sleep_ms();
            tokio::select! {
                result = written(&mut current) => {
                    if let Some(done) = current.take()
                        && let Some(ended) = self.on_written(done, result)
                    {
                        return ended;
                    }
                }
                () = self.wake.notified() => {}
                () = tokio::time::sleep(Duration::from_millis(sleep_ms)) => {}
            }
            if self.is_gone() {
                return Ended::Gone;
            }
            self.on_time();
        }
    }

    fn on_written(&self, done: InFlight, result: Result<Offset, WriteError>) -> Option<Ended> {
        let mut inner = self.inner.lock();
        if inner.state.status == Status::Gone {
            return Some(Ended::Gone);
        }
        inner.in_flight_bytes -= done.bytes;
        let partition = self.partition.id().index;
        let result = match result {
            Ok(base) => Ok(base),
            Err(WriteError::Refused(error)) => Err(error),
            Err(WriteError::Deposed) => {
                tracing::info!(partition, "groups are led elsewhere");
                self.reset(&mut inner, Status::Gone, GroupError::NotCoordinator);
                return Some(Ended::Gone);
            }
            Err(WriteError::Unknown(error)) => {
                tracing::error!(partition, %error, "nobody knows what was written of groups; they are loaded again");
                self.reset(&mut inner, Status::Loading, GroupError::CoordinatorNotAvailable);
                return Some(Ended::Reload);
            }
        };
        self.with(&mut inner, |state, now| state.on_written(done.then, result, now));
        None
    }

    fn sleep_ms(&self) -> u64 {
        let inner = self.inner.lock();
        let until = inner.state.deadline().unwrap_or(i64::MAX).min(inner.expire_at);
        let left_ms = until.saturating_sub(self.time.now().steady_ms);
        u64::try_from(left_ms).unwrap_or(0).min(SLEEP_MAX_MS)
    }

    fn on_time(&self) {
        let mut inner = self.inner.lock();
        let now = self.time.now();
        if inner.state.deadline().is_some_and(|at| at <= now.steady_ms) {
            self.with(&mut inner, |state, now| state.on_timer(now));
        }
        if inner.expire_at <= now.steady_ms {
            inner.expire_at = now.steady_ms.saturating_add(inner.state.settings.expiry_interval_ms);
            self.with(&mut inner, |state, now| state.expire(now));
        }
    }
}

/// Waits for the write; for ever where there is none.
async fn written(current: &mut Option<InFlight>) -> Result<Offset, WriteError> {
    match current {
        Some(in_flight) => in_flight.written.as_mut().await,
        None => std::future::pending().await,
    }
}

fn replay_batches(replay: &mut Replay, mut bytes: &[u8], mut next: Offset) -> Result<Offset, BatchError> {
    while !bytes.is_empty() {
        let header = BatchHeader::parse(bytes)?;
        replay.batch(&header, bytes)?;
        next = header.last_offset().next();
        bytes = bytes.get(header.size_bytes()..).unwrap_or_default();
    }
    Ok(next)
}

pub(super) fn encode(batch: &Batch, wall_ms: i64) -> Result<RecordBatch, BatchError> {
    let mut builder = BatchBuilder::new();
    let records: &[KeyValue] = match batch {
        Batch::Plain(records) => records,
        Batch::Transactional { producer, epoch, records } => {
            builder = builder.transactional(true).producer(*producer, *epoch, -1);
            records
        }
        Batch::EndTransaction { producer, epoch, coordinator_epoch, is_commit } => {
            let result = if *is_commit { TransactionResult::Commit } else { TransactionResult::Abort };
            let marker = EndTransactionMarker { result, coordinator_epoch: *coordinator_epoch };
            builder = builder.attributes(Attributes::default()).producer(*producer, *epoch, -1);
            builder.push_marker(wall_ms, &marker)?;
            return builder.build();
        }
    };
    for KeyValue { key, value } in records {
        let record = NewRecord { timestamp: wall_ms, key: Some(key), value: value.as_deref(), headers: &[] };
        builder.push(&record)?;
    }
    builder.build()
}

/// Why the log itself does not take a batch.
fn refusal(error: &AppendError) -> GroupError {
    match error {
        AppendError::Producer(_) => GroupError::InvalidProducerEpoch,
        AppendError::Batch(_) | AppendError::LargerThanSegment { .. } => GroupError::RecordTooLarge,
        _ => GroupError::CoordinatorNotAvailable,
    }
}

impl From<PartitionError> for WriteError {
    fn from(error: PartitionError) -> WriteError {
        match error {
            PartitionError::NotLeader { .. }
            | PartitionError::FencedEpoch { .. }
            | PartitionError::UnknownEpoch { .. }
            | PartitionError::Closed => WriteError::Deposed,
            // Nothing was appended.
            PartitionError::NotEnoughReplicas { .. } | PartitionError::Full(_) => {
                WriteError::Refused(GroupError::CoordinatorNotAvailable)
            }
            other => WriteError::Unknown(other),
        }
    }
}

#[cfg(test)]
mod tests;
