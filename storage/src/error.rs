//! What can go wrong with a log, told so that the caller can act: refuse one batch, retry, take the replica offline, or stop.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use floodmark_proto::batch::BatchError;
use floodmark_proto::ids::{LeaderEpoch, Offset};

use crate::format_error::FormatError;
use crate::log::condition::Expected;
use crate::producers::ProducerError;

/// A call on a log failed as a whole.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The operating system refused; nothing was damaged.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's words.
        source: Arc<io::Error>,
    },
    /// The disk is full. The log is as before the call; the call may be made again once there is space.
    #[error("no space left to append to {}; free space or raise retention, then try again", path.display())]
    Full {
        /// The segment that could not grow.
        path: PathBuf,
    },
    /// As many files are open as may be. The log is as before the call; the call may be made again once others were closed.
    #[error(
        "no descriptor is left to open {}; raise the limit of open files (ulimit -n), or try again when idle partitions have closed theirs",
        path.display()
    )]
    NoDescriptor {
        /// The file that could not be opened.
        path: PathBuf,
    },
    /// An earlier write or sync failed; the log takes no more writes until it is opened anew.
    #[error("the log stopped taking writes: {0}")]
    Poisoned(Poison),
    /// Bytes that were durable are missing or wrong. Nothing was changed; the replica needs its data from elsewhere.
    #[error("{} is damaged at byte {position}: {reason}; take the replica from another broker, or run `floodmark log recover`", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        position: u64,
        /// What is wrong there.
        reason: String,
    },
    /// One of our small files cannot be read.
    #[error("{}: {source}", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: FormatError,
    },
    /// The thread that was to write the batches failed before it could say what became of them: they may be in the log.
    #[error(
        "the append was abandoned before its outcome was known; read the log's end to learn whether it took place"
    )]
    Abandoned,
    /// The log was closed; it takes no more writes until it is opened anew.
    #[error("the log is closed")]
    Closed,
    /// The system gave no thread.
    #[error("cannot start a thread that waits for the disk: {source}")]
    NoThread {
        /// The system's words.
        source: Arc<io::Error>,
    },
    /// A read starts outside the log.
    #[error("offset {asked} is outside the log, which holds {start} to {end}")]
    OutOfRange {
        /// The offset asked for.
        asked: Offset,
        /// First offset of the log.
        start: Offset,
        /// End of the log, exclusive.
        end: Offset,
    },
    /// The directory belongs to something else, or to a newer Floodmark.
    #[error("{}: {reason}", path.display())]
    Refused {
        /// The directory.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Why a log stopped: the first failure, kept for all who ask later.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{action} {} failed: {source}", path.display())]
pub struct Poison {
    /// What was tried.
    pub action: &'static str,
    /// On which file.
    pub path: PathBuf,
    /// The system's words.
    pub source: Arc<io::Error>,
}

/// One batch of a group was refused; the others are not concerned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The batch itself is wrong.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The producer's sequence or epoch is wrong.
    #[error(transparent)]
    Producer(#[from] ProducerError),
    /// A replica's batch does not follow the log's end.
    #[error("batch begins at offset {base}, before the log's end {end}")]
    OffsetBehindEnd {
        /// First offset of the batch.
        base: Offset,
        /// End of the log.
        end: Offset,
    },
    /// The batch comes from, or in the name of, a leader older than the log's last.
    #[error("batch of leader epoch {epoch} after epoch {latest} was seen")]
    EpochBehind {
        /// The batch's.
        epoch: LeaderEpoch,
        /// The log's last.
        latest: LeaderEpoch,
    },
    /// Larger than a segment may be.
    #[error("batch of {size_bytes} bytes does not fit a segment of {segment_bytes} bytes")]
    LargerThanSegment {
        /// The batch.
        size_bytes: usize,
        /// The limit.
        segment_bytes: u32,
    },
    /// The stream of one of its records does not end as that record expects; nothing of the batch was appended.
    #[error("{}", conflict(*record, *expected, *actual))]
    Conflict {
        /// The record: its distance to the batch's first offset.
        record: i32,
        /// What it expects.
        expected: Expected,
        /// The stream's last offset; `None` where it has no record.
        actual: Option<Offset>,
    },
    /// Where one of its streams ends could not be read; nothing of the batch was appended.
    #[error("where the stream ends cannot be read: {reason}")]
    StreamUnread {
        /// The system's words, or what is damaged.
        reason: String,
    },
    /// A condition on a log that does not know where its streams end.
    #[error("the topic has no key index, which appends under a condition need: set floodmark.key.index=true")]
    NoKeyIndex,
    /// The log has no offsets left.
    #[error("the log has reached the largest offset")]
    OffsetsExhausted,
}

fn conflict(record: i32, expected: Expected, actual: Option<Offset>) -> String {
    let expected = match expected {
        Expected::Any => "anything".to_owned(),
        Expected::NoStream => "no stream".to_owned(),
        Expected::StreamExists => "a stream".to_owned(),
        Expected::Exactly(offset) => format!("a stream that ends at offset {offset}"),
    };
    let actual = actual.map_or_else(|| "there is none".to_owned(), |at| format!("its last offset is {at}"));
    format!("record {record} of the batch expects {expected}, but {actual}")
}

impl LogError {
    /// An operating-system error with what was tried on which file.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogError {
        move |source| LogError::Io { action, path: path.to_owned(), source: Arc::new(source) }
    }

    /// Damage of a file at a position.
    pub(crate) fn damaged(path: &Path, position: u64, reason: impl Into<String>) -> LogError {
        LogError::Damaged { path: path.to_owned(), position, reason: reason.into() }
    }

    /// True where the same call may succeed later without anybody repairing the log.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, LogError::Full { .. } | LogError::NoDescriptor { .. })
    }
}
