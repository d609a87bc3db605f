//! What can go wrong with a partition, told so that the caller can act: retry here, look for the leader, or give up.

use floodmark_proto::ids::{BrokerId, LeaderEpoch, Offset};
use floodmark_storage::LogError;

/// A call on a partition failed as a whole.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PartitionError {
    /// Another broker leads the partition, or none does.
    #[error("this broker does not lead the partition in epoch {epoch}")]
    NotLeader {
        /// The epoch of which this broker knows.
        epoch: LeaderEpoch,
    },
    /// The caller means a leader of the past.
    #[error("leader epoch {expected} has ended; it is {current} now")]
    FencedEpoch {
        /// The caller's.
        expected: LeaderEpoch,
        /// This broker's.
        current: LeaderEpoch,
    },
    /// The caller knows of a leader that this broker has not heard of yet.
    #[error("leader epoch {expected} is not known here yet; it is {current}")]
    UnknownEpoch {
        /// The caller's.
        expected: LeaderEpoch,
        /// This broker's.
        current: LeaderEpoch,
    },
    /// Nothing was appended, because too few replicas are in sync.
    #[error("{in_sync} replicas are in sync, fewer than min.insync.replicas, which is {min}")]
    NotEnoughReplicas {
        /// How many are.
        in_sync: u32,
        /// How many must be.
        min: u32,
    },
    /// The records are in the log, and committed, but on fewer replicas than they should be.
    #[error("appended, but {in_sync} replicas are in sync, fewer than min.insync.replicas, which is {min}")]
    NotEnoughReplicasAfterAppend {
        /// How many are.
        in_sync: u32,
        /// How many must be.
        min: u32,
    },
    /// The disk is full, or too many files are open. Nothing was appended; the call may be made again once that has changed.
    #[error(transparent)]
    Full(LogError),
    /// The log takes no more writes: its disk failed. Reading may go on; what was acknowledged is kept.
    #[error("the partition is offline: {0}")]
    Offline(LogError),
    /// The partition was closed or deleted.
    #[error("the partition is closed")]
    Closed,
    /// Nobody can say any more what became of the records: they may be in the log.
    #[error("the append was abandoned before its outcome was known")]
    Abandoned,
    /// An offset outside the log, or above what the caller may read.
    #[error("offset {asked} is outside {start} to {end}")]
    OutOfRange {
        /// The offset asked for.
        asked: Offset,
        /// The first that may be read.
        start: Offset,
        /// The end of what may be read, exclusive.
        end: Offset,
    },
    /// A broker asks as a replica that holds no part of the partition, by what is known here, or in the name of a start of it that is over.
    #[error("broker {broker} holds no replica of the partition that is known here")]
    UnknownReplica {
        /// The broker.
        broker: BrokerId,
    },
    /// What a leader sent does not begin where this replica's log ends: it answers what was asked before.
    #[error("fetched for offset {found}, but the log ends at {expected}")]
    NotTheNext {
        /// Where the log ends.
        expected: Offset,
        /// What the answer is for.
        found: Offset,
    },
    /// What a leader sent cannot be copied. Nothing from there on was.
    #[error("a batch from the leader cannot be copied: {reason}")]
    BadCopy {
        /// Why.
        reason: String,
    },
    /// Reading failed, or a file is damaged.
    #[error(transparent)]
    Storage(LogError),
}

impl From<LogError> for PartitionError {
    fn from(e: LogError) -> PartitionError {
        match e {
            LogError::Full { .. } | LogError::NoDescriptor { .. } => PartitionError::Full(e),
            LogError::Poisoned(_) => PartitionError::Offline(e),
            LogError::Closed => PartitionError::Closed,
            LogError::Abandoned => PartitionError::Abandoned,
            LogError::OutOfRange { asked, start, end } => PartitionError::OutOfRange { asked, start, end },
            other => PartitionError::Storage(other),
        }
    }
}
