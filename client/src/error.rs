//! What can go wrong for a caller, and whether trying again can help.

use std::time::Duration;

use floodmark_proto::batch::BatchError;
use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::pb::v1 as pb;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// What this crate's calls return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed. Cheap to clone: one failure may be told to many records.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A broker has looked at the request and refused it.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// A record of a stream was not appended: its last record is another than the expected one.
    #[error("the stream's last offset is {}, which is not what was expected: read the stream and decide again", shown(*last_offset))]
    Conflict {
        /// What the last offset is; none where the stream is empty.
        last_offset: Option<i64>,
    },
    /// No broker could be reached, or the connection was lost; a request under way may have been carried out.
    #[error("no answer from {address}: {reason}")]
    Unreachable {
        /// Who was asked.
        address: String,
        /// The transport's words.
        reason: String,
    },
    /// No answer in time; the request may have been carried out.
    #[error("{what} took longer than {} ms{}", limit.as_millis(), because(last))]
    Deadline {
        /// What was waited for.
        what: &'static str,
        /// How long.
        limit: Duration,
        /// Why the last attempt failed, where there was one.
        last: Option<Box<Error>>,
    },
    /// A record is larger than a batch or the buffer may be.
    #[error(
        "a record of {size_bytes} bytes passes the limit of {limit_bytes}: send it in parts, or raise the limit"
    )]
    TooLarge {
        /// The record, encoded.
        size_bytes: usize,
        /// What is allowed.
        limit_bytes: usize,
    },
    /// The buffer has no room, and the caller does not want to wait.
    #[error("{buffered_bytes} bytes wait to be acknowledged already: wait, or raise the limit of the buffer")]
    BufferFull {
        /// Bytes buffered.
        buffered_bytes: usize,
    },
    /// A setting or an argument that makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The producer or the consumer has been closed.
    #[error("{0} is closed")]
    Closed(&'static str),
    /// A consumer has no place to begin at: nothing is committed, or the offset is gone, and no reset is allowed.
    #[error("{topic}-{partition} has no position: {reason}; seek, or choose where to begin")]
    NoPosition {
        /// Of the partition.
        topic: String,
        /// Its number.
        partition: i32,
        /// Why.
        reason: String,
    },
    /// The leader of a partition has failed to read on in it for so long. Of a consumer: the partition is tried on, others are not concerned.
    #[error("{topic}-{partition} could not be read from offset {offset} on for {} ms: {last}", limit.as_millis())]
    Unreadable {
        /// Of the partition.
        topic: String,
        /// Its number.
        partition: i32,
        /// Everything before it was read.
        offset: i64,
        /// For how long it was tried.
        limit: Duration,
        /// What the leader says.
        last: Box<Error>,
    },
    /// Records that a broker sent are not what was written once.
    #[error(
        "{topic}-{partition} is damaged at offset {offset}: {reason}; read on behind it, or take the leader's replica from another broker"
    )]
    Damaged {
        /// Of the partition.
        topic: String,
        /// Its number.
        partition: i32,
        /// The first record of the batch; of one whose offset cannot be read, the offset that was asked for.
        offset: i64,
        /// What is wrong.
        reason: Box<Error>,
    },
    /// The topic of this name is another than the one that was meant: offsets of that one are of no use any more.
    #[error(
        "topic {topic} was deleted and made anew, so that its offsets are those of other records: begin anew"
    )]
    MadeAnew {
        /// Its name.
        topic: String,
    },
    /// Records could not be encoded or decoded.
    #[error("{0}")]
    Batch(#[from] BatchError),
    /// A broker said what no broker says.
    #[error("an answer makes no sense: {0}")]
    Protocol(String),
    /// What user code said, where it runs inside a pattern or a projection.
    #[error("{0}")]
    Handler(String),
}

/// A broker's refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({reason})")]
pub struct Refusal {
    /// A name for programs; Kafka's where Kafka has one, such as `UNKNOWN_TOPIC_OR_PARTITION`.
    pub reason: String,
    /// Kafka's code, where it has one.
    pub code: Option<ErrorCode>,
    /// What happened, to what, and what to do.
    pub message: String,
    /// The same request may succeed later.
    pub is_retryable: bool,
    /// What else the broker said about it, by name.
    pub details: Vec<(String, String)>,
}

impl Error {
    /// Whether the same call may succeed later, without anybody doing anything about it.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Refused(refusal) => refusal.is_retryable,
            Error::Unreachable { .. }
            | Error::Deadline { .. }
            | Error::BufferFull { .. }
            | Error::Unreadable { .. } => true,
            _ => false,
        }
    }

    /// Whether nobody knows if the request was carried out.
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        match self {
            Error::Unreachable { .. } | Error::Deadline { .. } => true,
            Error::Refused(refusal) => matches!(
                refusal.code,
                Some(
                    ErrorCode::RequestTimedOut
                        | ErrorCode::NotEnoughReplicasAfterAppend
                        | ErrorCode::NetworkException
                        | ErrorCode::UnknownServerError
                )
            ),
            _ => false,
        }
    }

    /// Whether records that this was said of may be in the log all the same: a leader that is replaced, or whose disk fails, says so of
    /// what it did not take and of what it took and was waiting to see committed.
    pub(crate) fn may_be_of_kept(&self) -> bool {
        self.is_ambiguous()
            || matches!(
                self.code(),
                Some(
                    ErrorCode::NotLeaderOrFollower
                        | ErrorCode::FencedLeaderEpoch
                        | ErrorCode::KafkaStorageError
                )
            )
    }

    /// Kafka's code of a refusal.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Error::Refused(refusal) => refusal.code,
            Error::Unreadable { last, .. } => last.code(),
            _ => None,
        }
    }

    /// Whether the caller should look anew for who leads a partition or coordinates a group.
    pub(crate) fn is_misdirected(&self) -> bool {
        match self {
            Error::Unreachable { .. } | Error::Deadline { .. } => true,
            Error::Refused(refusal) => matches!(
                refusal.code,
                Some(
                    ErrorCode::NotLeaderOrFollower
                        | ErrorCode::LeaderNotAvailable
                        | ErrorCode::FencedLeaderEpoch
                        | ErrorCode::UnknownLeaderEpoch
                        | ErrorCode::UnknownTopicOrPartition
                        | ErrorCode::UnknownTopicId
                        | ErrorCode::KafkaStorageError
                        | ErrorCode::NotCoordinator
                        | ErrorCode::CoordinatorNotAvailable
                        // It stops, did not reach whom it asked, or waited in vain for others: one of them may lead by now.
                        | ErrorCode::BrokerNotAvailable
                        | ErrorCode::NetworkException
                        | ErrorCode::RequestTimedOut
                )
            ),
            _ => false,
        }
    }

    /// A leader is well, but its disk is not: nobody knows whether that passes, so whoever reads goes on trying and says so after a while.
    pub(crate) fn is_of_storage(&self) -> bool {
        self.is_retryable() && self.code() == Some(ErrorCode::KafkaStorageError)
    }

    /// A call that ended with a status.
    pub(crate) fn from_status(address: &str, status: &Status) -> Error {
        let details = status.get_error_details();
        let info = details.error_info();
        if let Some(info) = info.filter(|info| info.domain == "floodmark") {
            let retryable = info.metadata.get("retryable").is_some_and(|text| text == "true");
            let code = info.metadata.get("code").and_then(|code| code.parse().ok());
            let mut details: Vec<(String, String)> =
                info.metadata.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
            details.sort();
            if info.reason == "STREAM_CONFLICT" {
                let last_offset = info.metadata.get("last_offset").and_then(|offset| offset.parse().ok());
                return Error::Conflict { last_offset };
            }
            return Error::Refused(Box::new(Refusal {
                reason: info.reason.clone(),
                code: code.and_then(ErrorCode::from_code),
                message: status.message().to_owned(),
                is_retryable: retryable,
                details,
            }));
        }
        // Without the broker's own words it was the transport, or something between, that answered.
        match status.code() {
            Code::Unavailable | Code::Cancelled | Code::Unknown | Code::Internal | Code::DeadlineExceeded => {
                Error::Unreachable { address: address.to_owned(), reason: words(status) }
            }
            code => Error::Refused(Box::new(Refusal {
                reason: format!("{code:?}"),
                code: None,
                message: words(status),
                is_retryable: matches!(code, Code::Aborted | Code::ResourceExhausted),
                details: Vec::new(),
            })),
        }
    }
}

impl From<&pb::Error> for Error {
    fn from(error: &pb::Error) -> Error {
        let code = i16::try_from(error.code).ok().and_then(ErrorCode::from_code);
        Error::Refused(Box::new(Refusal {
            reason: error.reason.clone(),
            code: code.filter(|code| *code != ErrorCode::None),
            message: error.message.clone(),
            is_retryable: error.retryable,
            details: Vec::new(),
        }))
    }
}

/// Ok where the broker has said nothing against it.
pub(crate) fn outcome(error: Option<&pb::Error>) -> Result<()> {
    error.map_or(Ok(()), |error| Err(error.into()))
}

fn words(status: &Status) -> String {
    // The transport's status says "transport error" and keeps the reason behind it.
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    if text.is_empty() { format!("{:?}", status.code()) } else { text }
}

fn shown(offset: Option<i64>) -> String {
    offset.map_or_else(|| "none".to_owned(), |offset| offset.to_string())
}

fn because(last: &Option<Box<Error>>) -> String {
    last.as_ref().map_or_else(String::new, |last| format!("; the last attempt: {last}"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn a_status_with_details_is_a_refusal() {
        let metadata = [("retryable", "true"), ("code", "6")];
        let metadata: HashMap<String, String> =
            metadata.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let details = ErrorDetails::with_error_info("NOT_LEADER_OR_FOLLOWER", "floodmark", metadata);
        let status = Status::with_error_details(Code::Unavailable, "broker 2 leads it", details);
        let error = Error::from_status("a:1", &status);
        assert!(error.is_retryable() && error.is_misdirected() && !error.is_ambiguous());
        assert_eq!(error.code(), Some(ErrorCode::NotLeaderOrFollower));
        assert_eq!(error.to_string(), "broker 2 leads it (NOT_LEADER_OR_FOLLOWER)");
    }

    #[test]
    fn a_status_without_details_is_judged_by_its_code() {
        for (code, retryable, ambiguous) in [
            (Code::Unavailable, true, true),
            (Code::DeadlineExceeded, true, true),
            (Code::Aborted, true, false),
            (Code::InvalidArgument, false, false),
            (Code::Unimplemented, false, false),
        ] {
            let error = Error::from_status("a:1", &Status::new(code, "no"));
            assert_eq!((error.is_retryable(), error.is_ambiguous()), (retryable, ambiguous), "{code:?}");
        }
    }
}
