//! The one table from what operations refuse to what gRPC clients are told: a status with a reason for programs, whether a retry can
//! help, and words for people.

use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::pb::v1 as pb;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::groups::GroupError;
use crate::ops::error::OpError;

/// Whose reasons these are.
pub(super) const DOMAIN: &str = "floodmark";

/// Why a call, or one part of it, was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// A name for programs.
    pub(super) reason: &'static str,
    pub(super) code: ErrorCode,
    pub(super) status: Code,
    pub(super) message: String,
    /// What else programs need to know.
    pub(super) facts: Vec<(&'static str, String)>,
    /// Who leads the partition instead.
    pub(super) leader: Option<LeaderHint>,
}

/// Whom to ask instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LeaderHint {
    pub(super) id: i32,
    pub(super) epoch: i32,
    /// Where its gRPC door is, if it has one.
    pub(super) address: Option<(String, u16)>,
}

impl Refused {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Refused {
        Refused {
            reason: code.name(),
            code,
            status: status_code(code),
            message: message.into(),
            facts: Vec::new(),
            leader: None,
        }
    }

    /// A request that can never succeed.
    pub(super) fn invalid(message: impl Into<String>) -> Refused {
        Refused::new(ErrorCode::InvalidRequest, message)
    }

    pub(super) fn stopping() -> Refused {
        Refused::new(ErrorCode::BrokerNotAvailable, "the broker stops; go on with another one")
    }

    pub(super) fn too_late() -> Refused {
        Refused::new(ErrorCode::RequestTimedOut, "the deadline of the call has passed")
    }

    /// The same in other words.
    pub(super) fn saying(self, message: String) -> Refused {
        Refused { message, ..self }
    }

    /// The same with one more fact.
    pub(super) fn with(mut self, name: &'static str, value: impl ToString) -> Refused {
        self.facts.push((name, value.to_string()));
        self
    }

    pub(super) fn is_retryable(&self) -> bool {
        // Kafka's clients never get this one from a broker that goes.
        self.code.is_retriable() || self.code == ErrorCode::BrokerNotAvailable
    }

    /// Of a part of a request.
    pub(super) fn to_part(&self) -> pb::Error {
        pb::Error {
            reason: self.reason.to_owned(),
            code: i32::from(self.code.code()),
            message: self.message.clone(),
            retryable: self.is_retryable(),
            leader: self.leader.as_ref().map(LeaderHint::to_pb),
        }
    }

    /// Of a call as a whole.
    pub(super) fn to_status(&self) -> Status {
        let hint = self.leader.iter().flat_map(LeaderHint::facts);
        let facts = self.facts.iter().cloned().chain(hint).map(|(name, value)| (name.to_owned(), value));
        let always = [
            ("code".to_owned(), self.code.code().to_string()),
            ("retryable".to_owned(), self.is_retryable().to_string()),
        ];
        let details = ErrorDetails::with_error_info(
            self.reason,
            DOMAIN,
            always.into_iter().chain(facts).collect::<std::collections::HashMap<_, _>>(),
        );
        Status::with_error_details(self.status, self.message.clone(), details)
    }
}

impl LeaderHint {
    fn to_pb(&self) -> pb::PartitionLeader {
        let (host, port) = self.address.clone().unwrap_or_default();
        pb::PartitionLeader { broker_id: self.id, leader_epoch: self.epoch, host, port: u32::from(port) }
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = vec![("leader", self.id.to_string()), ("leader_epoch", self.epoch.to_string())];
        facts.extend(self.address.as_ref().map(|(host, port)| {
            let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
            ("leader_address", format!("{host}:{port}"))
        }));
        facts
    }
}

impl From<OpError> for Refused {
    fn from(error: OpError) -> Refused {
        Refused::new(error.code, error.message)
    }
}

impl From<ErrorCode> for Refused {
    fn from(code: ErrorCode) -> Refused {
        Refused::new(code, words(code))
    }
}

impl From<GroupError> for Refused {
    fn from(error: GroupError) -> Refused {
        Refused::new(error.code(), error.to_string())
    }
}

/// What happened, where nobody said it better.
fn words(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::UnknownTopicOrPartition => "there is no such topic or partition",
        ErrorCode::InvalidTopicException => {
            "brokers keep their own state in this topic; only they write to it"
        }
        ErrorCode::UnknownTopicId => "there is no topic with this id; it was deleted",
        ErrorCode::NotLeaderOrFollower => "this broker does not lead the partition; describe the topic again",
        ErrorCode::KafkaStorageError => {
            "the partition cannot be used here: its disk failed or its files are damaged"
        }
        ErrorCode::OffsetOutOfRange => "the offset is not in the partition",
        ErrorCode::PolicyViolation => "the settings of the topic forbid it",
        ErrorCode::CoordinatorNotAvailable => "who decides is not available; try again",
        ErrorCode::RequestTimedOut => "it was not done in time; it may still be",
        ErrorCode::UnknownServerError => "the broker failed; its log says why",
        other => other.name(),
    }
}

/// gRPC's code for each of Kafka's that an operation answers.
fn status_code(code: ErrorCode) -> Code {
    use ErrorCode as E;
    match code {
        E::None => Code::Ok,
        E::OffsetOutOfRange => Code::OutOfRange,
        E::UnknownTopicOrPartition
        | E::UnknownTopicId
        | E::GroupIdNotFound
        | E::ResourceNotFound
        | E::BrokerIdNotRegistered => Code::NotFound,
        E::TopicAlreadyExists | E::DuplicateResource => Code::AlreadyExists,
        E::CorruptMessage
        | E::InvalidFetchSize
        | E::MessageTooLarge
        | E::OffsetMetadataTooLarge
        | E::InvalidTopicException
        | E::RecordListTooLarge
        | E::InvalidRequiredAcks
        | E::InconsistentGroupProtocol
        | E::InvalidGroupId
        | E::InvalidSessionTimeout
        | E::InvalidCommitOffsetSize
        | E::InvalidTimestamp
        | E::InvalidPartitions
        | E::InvalidReplicationFactor
        | E::InvalidReplicaAssignment
        | E::InvalidConfig
        | E::InvalidRequest
        | E::InvalidRecord
        | E::InvalidUpdateVersion
        | E::UnsupportedCompressionType => Code::InvalidArgument,
        E::LeaderNotAvailable
        | E::NotLeaderOrFollower
        | E::BrokerNotAvailable
        | E::ReplicaNotAvailable
        | E::PreferredLeaderNotAvailable
        | E::EligibleLeadersNotAvailable
        | E::CoordinatorLoadInProgress
        | E::CoordinatorNotAvailable
        | E::NotCoordinator
        | E::NotController
        | E::NotEnoughReplicas
        | E::NotEnoughReplicasAfterAppend
        | E::KafkaStorageError
        | E::FencedLeaderEpoch
        | E::OffsetNotAvailable
        | E::UnknownLeaderEpoch
        | E::NetworkException => Code::Unavailable,
        E::RequestTimedOut => Code::DeadlineExceeded,
        E::RebalanceInProgress | E::ConcurrentTransactions | E::UnstableOffsetCommit => Code::Aborted,
        E::IllegalGeneration
        | E::UnknownMemberId
        | E::MemberIdRequired
        | E::FencedInstanceId
        | E::NonEmptyGroup
        | E::GroupSubscribedToTopic
        | E::OutOfOrderSequenceNumber
        | E::InvalidProducerEpoch
        | E::InvalidTxnState
        | E::TransactionCoordinatorFenced
        | E::ElectionNotNeeded
        | E::NoReassignmentInProgress
        | E::FeatureUpdateFailed => Code::FailedPrecondition,
        E::PolicyViolation | E::GroupMaxSizeReached | E::ThrottlingQuotaExceeded => Code::ResourceExhausted,
        E::TopicAuthorizationFailed | E::GroupAuthorizationFailed | E::ClusterAuthorizationFailed => {
            Code::PermissionDenied
        }
        E::SaslAuthenticationFailed => Code::Unauthenticated,
        E::UnsupportedVersion => Code::Unimplemented,
        _ => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_reason_code_and_whether_to_retry() {
        let status = Refused::from(ErrorCode::NotLeaderOrFollower).with("broker", 3).to_status();
        assert_eq!(status.code(), Code::Unavailable);
        let info = status.get_error_details().error_info().unwrap().clone();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("NOT_LEADER_OR_FOLLOWER", "floodmark"));
        for (name, value) in [("code", "6"), ("retryable", "true"), ("broker", "3")] {
            assert_eq!(info.metadata.get(name).map(String::as_str), Some(value));
        }
    }

    #[test]
    fn who_leads_is_told_in_a_status_and_in_a_part() {
        let leader = LeaderHint { id: 3, epoch: 7, address: Some(("::1".to_owned(), 9093)) };
        let refused = Refused { leader: Some(leader), ..Refused::from(ErrorCode::NotLeaderOrFollower) };
        let info = refused.to_status().get_error_details().error_info().unwrap().clone();
        for (name, value) in [("leader", "3"), ("leader_epoch", "7"), ("leader_address", "[::1]:9093")] {
            assert_eq!(info.metadata.get(name).map(String::as_str), Some(value));
        }
        let expected =
            pb::PartitionLeader { broker_id: 3, leader_epoch: 7, host: "::1".to_owned(), port: 9093 };
        assert_eq!(refused.to_part().leader, Some(expected));
    }

    /// A client that acts on the status alone must not give up where a retry helps.
    #[test]
    fn what_passes_is_told_by_codes_that_clients_retry() {
        for code in [ErrorCode::NotLeaderOrFollower, ErrorCode::NotCoordinator, ErrorCode::BrokerNotAvailable]
        {
            let refused = Refused::from(code);
            assert!(refused.is_retryable());
            assert_eq!(refused.to_status().code(), Code::Unavailable);
        }
        assert!(!Refused::invalid("no").is_retryable());
    }
}
