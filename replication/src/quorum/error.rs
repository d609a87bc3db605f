//! What can go wrong with the quorum, told so that the caller can act.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use floodmark_proto::ids::BrokerId;
use floodmark_storage::LogError;

use super::sealed_file::SealError;
use crate::cluster::CommandError;
use crate::cluster::wire::WireError;

/// The quorum could not start, or had to stop.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum QuorumError {
    /// The operating system refused.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's words.
        source: Arc<io::Error>,
    },
    /// The log of metadata cannot be used.
    #[error("metadata log: {}{}", .0, advice(.0))]
    Log(#[from] LogError),
    /// A file beside the log cannot be read.
    #[error("{}: {source}; restore it from a copy of the whole directory, or let the broker join anew", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with its frame.
        source: SealError,
    },
    /// A message in a file cannot be read.
    #[error("{}: {source}", path.display())]
    BadMessage {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: WireError,
    },
    /// An entry of the log is not what was written.
    #[error("metadata log: entry {index}: {reason}")]
    BadEntry {
        /// Its place.
        index: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// Something that was durable is gone. A voter that forgot what it promised must not vote again under its id.
    #[error("{}: {reason}; restore the directory, or give the broker another node id and an empty directory", path.display())]
    Lost {
        /// The directory.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// The directory is another broker's or another cluster's.
    #[error("{}: {what} is {found}, not {expected}: this directory belongs to another broker or cluster", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// What the directory says.
        found: String,
        /// What the broker is.
        expected: String,
    },
    /// Node ids are counted from 0.
    #[error("node id {0} is negative")]
    NegativeNodeId(BrokerId),
    /// What was agreed on needs a newer program.
    #[error(
        "the cluster works at feature level {level}, and this program knows levels {lowest} to {highest}; start a program that knows it"
    )]
    FeatureLevel {
        /// The cluster's.
        level: u16,
        /// The lowest known here.
        lowest: u16,
        /// The highest known here.
        highest: u16,
    },
    /// The only voter did not become leader in time.
    #[error("no leader within {0:?}")]
    NoLeader(Duration),
    /// The cluster does not take this broker, or is not the one that is wanted.
    #[error("{reason}")]
    Refused {
        /// Why, and what to do.
        reason: String,
    },
    /// Raft stopped, and will not go on in this process.
    #[error("the metadata quorum has stopped: {reason}")]
    Stopped {
        /// Its first failure.
        reason: String,
    },
}

/// What to do about it, where that is nowhere else said.
fn advice(error: &LogError) -> &'static str {
    match error {
        LogError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
            "; a broker needs some megabytes of space to start: make the disk larger, or remove what is no data of the broker's from it, then start again. What retention removes it removes once it runs"
        }
        _ => "",
    }
}

/// A command was not carried out, or it is not known whether it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// The cluster refused it; nothing has changed.
    #[error(transparent)]
    Refused(#[from] CommandError),
    /// Another broker leads the quorum; nothing was proposed here.
    #[error("this broker does not lead the metadata quorum")]
    NotLeader {
        /// Who does, where that is known.
        leader: Option<BrokerId>,
    },
    /// Too much waits already; nothing was proposed.
    #[error("the metadata quorum has more to do than it can queue; try again")]
    Overloaded,
    /// The disk of the metadata log is full; nothing was proposed.
    #[error("the disk of the metadata log is full; free space, then try again")]
    DiskFull,
    /// The command is larger than a log entry may be; nothing was proposed.
    #[error("a command of {bytes} bytes exceeds the limit of {limit} bytes")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The deadline has passed. The command may have been carried out, or may still be.
    #[error("no answer within {0:?}; the change may or may not take place")]
    TimedOut(Duration),
    /// This broker was removed from the cluster; nothing was proposed.
    #[error("this broker was removed from the cluster; to come back it needs an empty directory")]
    Removed,
    /// The quorum has stopped. Whether the command was carried out shows when it runs again.
    #[error("the metadata quorum has stopped: {reason}")]
    Stopped {
        /// Its first failure.
        reason: String,
    },
}

/// The members of the quorum are not as was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MembershipError {
    /// It cannot be so.
    #[error("{reason}")]
    Refused {
        /// Why.
        reason: String,
    },
    /// It is not so yet, or it is not known whether it is. It may be asked for again.
    #[error("the members of the quorum are not changed: {0}")]
    NotChanged(ProposeError),
}

impl ProposeError {
    /// True where the same command may succeed later, here or at the leader.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        !matches!(
            self,
            ProposeError::Refused(_)
                | ProposeError::TooLarge { .. }
                | ProposeError::Removed
                | ProposeError::Stopped { .. }
        )
    }
}

impl QuorumError {
    /// An operating-system error with what was tried on which file.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> QuorumError {
        move |source| QuorumError::Io { action, path: path.to_owned(), source: Arc::new(source) }
    }

    /// True where the same call may succeed once there is space, or a descriptor.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            QuorumError::Io { source, .. } => source.kind() == io::ErrorKind::StorageFull,
            QuorumError::Log(e) => e.is_retryable(),
            _ => false,
        }
    }
}
