//! Records out: whole batches from each position, at once where there are enough of them, otherwise as soon as there are, or at the
//! deadline. Never enters a partition's mailbox. Must never know wire types.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use floodmark_proto::ids::{BrokerId, LeaderEpoch, Offset};
use floodmark_proto::kafka::ErrorCode;
use floodmark_replication::partition::{Isolation, PartitionError, PartitionHandle, ReadBatches, Role};
use floodmark_storage::index::AbortedTransaction;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use super::error::code_of_partition;
use super::visible::end_of;

/// Where a reader stands in one partition.
#[derive(Debug, Clone)]
pub(crate) struct Position {
    /// The partition, or why there is none.
    pub(crate) partition: Result<PartitionHandle, ErrorCode>,
    pub(crate) from: Offset,
    pub(crate) max_bytes: usize,
    /// The epoch in which the reader believes the leader to be.
    pub(crate) leader_epoch: Option<LeaderEpoch>,
    /// The epoch of the last record that the reader has.
    pub(crate) last_fetched_epoch: Option<LeaderEpoch>,
    /// Who may answer.
    pub(crate) source: ReadFrom,
}

/// Whose records a reader takes. Whoever answers gives committed ones only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadFrom {
    /// The leader's.
    Leader,
    /// Any replica's.
    AnyReplica,
    /// Those of a replica that stands nearer to the reader than this one: it is told so, and reads there.
    Nearer(BrokerId),
}

/// How much is wanted, and how long it is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) min_bytes: usize,
    /// The first batch is returned whole even where it is larger.
    pub(crate) max_bytes: usize,
    pub(crate) max_wait: Duration,
    pub(crate) isolation: Isolation,
}

/// What one partition has to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) error: Option<ErrorCode>,
    pub(crate) high_watermark: Option<Offset>,
    pub(crate) last_stable_offset: Option<Offset>,
    pub(crate) log_start: Option<Offset>,
    /// The end of the newest epoch that reader and log share, where the reader has records that the log has not.
    pub(crate) diverges_at: Option<(LeaderEpoch, Offset)>,
    pub(crate) batches: Vec<Bytes>,
    /// What a reader of committed records must leave out.
    pub(crate) aborted: Vec<AbortedTransaction>,
    /// Where the reader should read instead; then nothing is read here.
    pub(crate) nearer: Option<BrokerId>,
}

impl Part {
    fn failed(error: ErrorCode) -> Part {
        Part { error: Some(error), ..Part::default() }
    }

    pub(crate) fn size_bytes(&self) -> usize {
        self.batches.iter().map(Bytes::len).sum()
    }

    /// Whether there is more than was given.
    fn is_cut_short(&self, from: Offset, isolation: Isolation) -> bool {
        let end = match isolation {
            Isolation::Uncommitted => self.high_watermark,
            Isolation::Committed => self.last_stable_offset,
        };
        end.is_some_and(|end| end_of(&self.batches, from).is_ok_and(|given| given < end))
    }
}

/// Reads from all positions, in their order.
pub(crate) async fn fetch(positions: Vec<Position>, wanted: Wanted) -> Vec<Part> {
    let positions: Arc<[Position]> = positions.into();
    let parts = read_all(&positions, wanted).await;
    if is_enough(&positions, &parts, wanted) || wanted.max_wait.is_zero() {
        return parts;
    }
    let deadline = Instant::now() + wanted.max_wait;
    let progress = Arc::new(Notify::new());
    // Registered before the look that follows, so that nothing that comes in between is slept over.
    let _registrations: Vec<_> = positions
        .iter()
        .filter_map(|p| p.partition.as_ref().ok())
        .map(|partition| partition.on_progress(Arc::clone(&progress)))
        .collect();
    loop {
        let parts = read_all(&positions, wanted).await;
        if is_enough(&positions, &parts, wanted) || timeout_at(deadline, progress.notified()).await.is_err() {
            return parts;
        }
    }
}

/// True where waiting longer would bring nothing that is asked for: an error is told at once, and so is a partition that has given
/// all that it may give.
fn is_enough(positions: &[Position], parts: &[Part], wanted: Wanted) -> bool {
    let mut bytes = 0;
    for (position, part) in positions.iter().zip(parts) {
        let has = part.size_bytes();
        let is_final = part.error.is_some() || part.diverges_at.is_some() || part.nearer.is_some();
        if is_final || (has > 0 && has >= position.max_bytes) {
            return true;
        }
        bytes += has;
    }
    // Batches are whole, and a read ends with its segment: what is there may be enough, and what is given never be.
    let is_cut_short =
        |(position, part): (&Position, &Part)| part.is_cut_short(position.from, wanted.isolation);
    bytes >= wanted.min_bytes || (bytes > 0 && positions.iter().zip(parts).any(is_cut_short))
}

/// Memory answers on the spot; from the first position on that needs a disk, another thread does.
async fn read_all(positions: &Arc<[Position]>, wanted: Wanted) -> Vec<Part> {
    let mut round = Round { parts: Vec::with_capacity(positions.len()), bytes: 0, wanted };
    for position in &**positions {
        if !round.read_memory(position) {
            break;
        }
    }
    if round.parts.len() == positions.len() {
        return round.parts;
    }
    let count = positions.len();
    let positions = Arc::clone(positions);
    let rest = spawn_blocking(move || {
        for position in positions.iter().skip(round.parts.len()).cloned().collect::<Vec<_>>() {
            round.read_anywhere(&position);
        }
        round.parts
    });
    // The thread ends early only where a read panicked: that is ours to repair, and the reader may try again.
    rest.await.unwrap_or_else(|_| vec![Part::failed(ErrorCode::UnknownServerError); count])
}

/// What is known of a position before anything is read from it.
enum Begun<'a> {
    /// So many bytes may be read from this partition.
    Read(&'a PartitionHandle, Part, usize),
    /// Nothing will be.
    Answered(Part),
}

/// One look at all positions, under one budget of bytes.
struct Round {
    parts: Vec<Part>,
    bytes: usize,
    wanted: Wanted,
}

impl Round {
    /// False where only the disk can tell.
    fn read_memory(&mut self, position: &Position) -> bool {
        let (partition, part, max_bytes) = match self.begin(position) {
            Begun::Read(partition, part, max_bytes) => (partition, part, max_bytes),
            Begun::Answered(part) => {
                self.parts.push(part);
                return true;
            }
        };
        match partition.read_in_memory(position.from, max_bytes, self.wanted.isolation) {
            // Which transactions were aborted is written in files.
            Ok(Some(read)) if read.batches.is_empty() || !self.must_look_for_aborted(partition, position) => {
                self.take(part, read);
            }
            Ok(_) => return false,
            Err(error) => {
                let error = Some(code_of_read(partition, position.from, &error));
                self.parts.push(Part { error, ..part });
            }
        }
        true
    }

    fn must_look_for_aborted(&self, partition: &PartitionHandle, position: &Position) -> bool {
        self.wanted.isolation == Isolation::Committed
            && partition.reader().has_aborted_transactions(position.from)
    }

    fn read_anywhere(&mut self, position: &Position) {
        let (partition, part, max_bytes) = match self.begin(position) {
            Begun::Read(partition, part, max_bytes) => (partition, part, max_bytes),
            Begun::Answered(part) => return self.parts.push(part),
        };
        let read = match partition.read(position.from, max_bytes, self.wanted.isolation) {
            Ok(read) => read,
            Err(error) => {
                let error = Some(code_of_read(partition, position.from, &error));
                return self.parts.push(Part { error, ..part });
            }
        };
        let mut aborted = Vec::new();
        if !read.batches.is_empty() && self.must_look_for_aborted(partition, position) {
            aborted = match partition.reader().aborted_transactions(position.from, read.last_stable) {
                Ok(aborted) => aborted,
                Err(_) => return self.parts.push(Part { error: Some(ErrorCode::KafkaStorageError), ..part }),
            };
        }
        self.take(Part { aborted, ..part }, read);
    }

    /// Checks a position; says how many bytes may be read from it.
    fn begin<'a>(&self, position: &'a Position) -> Begun<'a> {
        let partition = match &position.partition {
            Ok(partition) => partition,
            Err(code) => return Begun::Answered(Part::failed(*code)),
        };
        // The topic went while the reader waited: nothing will come any more, and a new one of its name is not this one.
        if matches!(partition.stopped(), Some(PartitionError::Closed)) {
            return Begun::Answered(Part::failed(ErrorCode::NotLeaderOrFollower));
        }
        let mut part = Part {
            high_watermark: Some(partition.high_watermark()),
            last_stable_offset: Some(partition.last_stable_offset()),
            log_start: Some(partition.log_start()),
            ..Part::default()
        };
        if let Err(code) = check_epoch(position.leader_epoch, partition.leader_epoch()) {
            return Begun::Answered(Part { error: Some(code), ..part });
        }
        if !may_read(partition.duty().role, position.source) {
            return Begun::Answered(Part::failed(ErrorCode::NotLeaderOrFollower));
        }
        if let ReadFrom::Nearer(broker) = position.source {
            return Begun::Answered(Part { nearer: Some(broker), ..part });
        }
        if let Some(epoch) = position.last_fetched_epoch {
            match partition.end_of_epoch(epoch) {
                Some((known, end)) if known < epoch || end < position.from => {
                    part.diverges_at = Some((known, end));
                    return Begun::Answered(part);
                }
                Some(_) => {}
                None => return Begun::Answered(Part { error: Some(ErrorCode::OffsetOutOfRange), ..part }),
            }
        }
        let left = self.wanted.max_bytes.saturating_sub(self.bytes);
        Begun::Read(partition, part, position.max_bytes.min(left))
    }

    /// A batch larger than what is left is given only where nothing else is: somebody must come forward.
    fn take(&mut self, mut part: Part, read: ReadBatches) {
        let bytes: usize = read.batches.iter().map(Bytes::len).sum();
        if self.bytes == 0 || self.bytes + bytes <= self.wanted.max_bytes {
            self.bytes += bytes;
            part.batches = read.batches;
        }
        // As they were when the batches were read: a client must not be given records above what it is told.
        part.high_watermark = Some(read.high_watermark);
        part.last_stable_offset = Some(read.last_stable);
        part.log_start = Some(read.log_start);
        self.parts.push(part);
    }
}

/// What a read's refusal is told as. What a follower does not have may be there all the same: who was told that it is out of range
/// would go elsewhere, and miss records or get them again.
fn code_of_read(partition: &PartitionHandle, from: Offset, error: &PartitionError) -> ErrorCode {
    let is_follower = matches!(partition.duty().role, Role::Follower { .. });
    match code_of_partition(error) {
        ErrorCode::OffsetOutOfRange if is_follower && from >= partition.log_start() => {
            ErrorCode::OffsetNotAvailable
        }
        code => code,
    }
}

/// Whether a replica in that role answers such a reader.
pub(crate) fn may_read(role: Role, source: ReadFrom) -> bool {
    match (role, source) {
        (Role::Leader { .. }, _) => true,
        (Role::Follower { .. }, source) => source != ReadFrom::Leader,
        (Role::NotLeader { .. }, _) => false,
    }
}

/// Refuses who believes in another leader than there is.
pub(crate) fn check_epoch(believed: Option<LeaderEpoch>, current: LeaderEpoch) -> Result<(), ErrorCode> {
    match believed {
        Some(epoch) if epoch < current => Err(ErrorCode::FencedLeaderEpoch),
        Some(epoch) if epoch > current => Err(ErrorCode::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}
