//! Records out: whole batches from each position, at once where there are enough of them, otherwise as soon as there are, or at the
//! deadline. Never enters a partition's mailbox. Must never know wire types.

mod memory;
mod seen;

use std::sync::Arc;

use bytes::Bytes;
use floodmark_proto::ids::{BrokerId, LeaderEpoch, Offset};
use floodmark_proto::kafka::ErrorCode;
use floodmark_replication::partition::{Isolation, PartitionError, PartitionHandle, ReadBatches, Role};
use floodmark_storage::index::AbortedTransaction;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;

use super::deadline::Deadline;
use super::error::code_of_partition;
use super::visible::end_of;
pub(crate) use memory::AnswerMemory;
use seen::Seen;

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

/// How much is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) min_bytes: usize,
    /// The first batch is returned whole even where it is larger.
    pub(crate) max_bytes: usize,
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

/// Reads from all positions, in their order, what is there now. Whoever calls bounds what becomes of it.
pub(crate) async fn read(positions: Vec<Position>, wanted: Wanted) -> Vec<Part> {
    read_all(&positions.into(), wanted, None).await
}

/// The same out of one memory for all who fetch; waits until the deadline for as much as is wanted.
pub(crate) async fn fetch(
    positions: Vec<Position>,
    wanted: Wanted,
    deadline: &Deadline,
    memory: &Arc<AnswerMemory>,
) -> Vec<Part> {
    let memory = Some(memory);
    let positions: Arc<[Position]> = positions.into();
    let mut seen: Option<Seen> = None;
    // Who stands at the end of everything will most likely wait, and needs no look before it is registered.
    let stands_at_end = |p: &Position| p.partition.as_ref().is_ok_and(|at| at.high_watermark() <= p.from);
    if deadline.has_come() || !positions.iter().all(stands_at_end) {
        let parts = read_all(&positions, wanted, memory).await;
        if is_enough(&positions, &parts, wanted) || deadline.has_come() {
            return parts;
        }
        seen = Seen::after(&positions, &parts, wanted);
    }
    let progress = Arc::new(Notify::new());
    // Registered before the look that follows, so that nothing that comes in between is slept over.
    let _registrations: Vec<_> = positions
        .iter()
        .filter_map(|p| p.partition.as_ref().ok())
        .map(|partition| partition.on_progress(Arc::clone(&progress)))
        .collect();
    loop {
        let is_all_to_be_read = match &mut seen {
            Some(seen) => seen.is_enough_by_now(memory).await,
            None => true,
        };
        if is_all_to_be_read {
            let parts = read_all(&positions, wanted, memory).await;
            if is_enough(&positions, &parts, wanted) {
                return parts;
            }
            seen = Seen::after(&positions, &parts, wanted);
        }
        if deadline.bound(progress.notified()).await.is_none() {
            return read_all(&positions, wanted, memory).await;
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
    let is_full = || bytes >= wanted.max_bytes || positions.iter().zip(parts).any(is_cut_short);
    bytes >= wanted.min_bytes || (bytes > 0 && is_full())
}

/// Bytes of files that one look copies on the spot: to hand them to another thread takes as long, and others of this one wait no longer
/// than for as much that is sent.
const AT_HAND_BYTES_MAX: usize = 1 << 20;

/// Memory answers on the spot, the system's too; from the first position on that needs a disk, another thread does.
async fn read_all(
    positions: &Arc<[Position]>,
    wanted: Wanted,
    memory: Option<&Arc<AnswerMemory>>,
) -> Vec<Part> {
    let parts = Vec::with_capacity(positions.len());
    let mut round = Round { parts, bytes: 0, at_hand_bytes: 0, wanted };
    for position in &**positions {
        if !round.read_memory(position) {
            break;
        }
    }
    if round.parts.len() == positions.len() {
        return round.parts;
    }
    let (count, from_files) = (positions.len(), round.parts.len());
    // No more than can come, or others would get less for nothing.
    let asked = positions[from_files..].iter().fold(0, |sum: usize, p| sum.saturating_add(p.max_bytes));
    let share = memory.map(|memory| memory.take(asked.min(wanted.max_bytes.saturating_sub(round.bytes))));
    if let Some(share) = &share {
        round.wanted.max_bytes = wanted.max_bytes.min(round.bytes.saturating_add(share.bytes()));
    }
    let positions = Arc::clone(positions);
    let rest = spawn_blocking(move || {
        for position in positions.iter().skip(round.parts.len()).cloned().collect::<Vec<_>>() {
            round.read_anywhere(&position);
        }
        round.parts
    });
    // The thread ends early only where a read panicked: that is ours to repair, and the reader may try again.
    let Ok(mut parts) = rest.await else { return vec![Part::failed(ErrorCode::UnknownServerError); count] };
    if let Some(share) = share {
        share.attach(&mut parts[from_files..]);
    }
    parts
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
    /// Copied out of files.
    at_hand_bytes: usize,
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
        let read = match partition.read_in_memory(position.from, max_bytes, self.wanted.isolation) {
            Ok(None) => Ok(self.read_at_hand(partition, position, max_bytes)),
            told => told,
        };
        match read {
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

    fn read_at_hand(
        &mut self,
        partition: &PartitionHandle,
        position: &Position,
        max_bytes: usize,
    ) -> Option<ReadBatches> {
        let is_much = self.at_hand_bytes.saturating_add(max_bytes) > AT_HAND_BYTES_MAX;
        if is_much || self.must_look_for_aborted(partition, position) {
            return None;
        }
        let read = partition.read_at_hand(position.from, max_bytes, self.wanted.isolation)?;
        // So much may have been copied, whatever of it may be given.
        self.at_hand_bytes += max_bytes;
        Some(read)
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
            aborted = match partition.aborted_transactions(position.from, read.last_stable) {
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
        if !may_read(partition.role(), position.source) {
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
    let is_follower = matches!(partition.role(), Role::Follower { .. });
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

#[cfg(test)]
mod tests;
