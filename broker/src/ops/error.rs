//! Why an operation was not carried out, for whichever door asked. Each door has one table from here to its own codes; Kafka's is the
//! number itself, because it tells more of them apart than any other.

use std::fmt;

use floodmark_proto::kafka::ErrorCode;
use floodmark_replication::cluster::CommandError;
use floodmark_replication::cluster::placement::PlacementError;
use floodmark_replication::cluster::settings::SettingError;
use floodmark_replication::partition::PartitionError;
use floodmark_replication::quorum::ProposeError;
use floodmark_storage::LogError;

/// One refused part of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpError {
    /// What kind of refusal it is.
    pub(crate) code: ErrorCode,
    /// What happened, to what, and what to do; for people.
    pub(crate) message: String,
}

impl OpError {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> OpError {
        OpError { code, message: message.into() }
    }
}

impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.message)
    }
}

impl std::error::Error for OpError {}

impl From<CommandError> for OpError {
    fn from(error: CommandError) -> OpError {
        use CommandError as E;
        let code = match &error {
            E::TopicExists { .. } => ErrorCode::TopicAlreadyExists,
            E::InvalidTopicName { .. } | E::TopicNameCollides { .. } => ErrorCode::InvalidTopicException,
            E::UnknownTopic { .. } => ErrorCode::UnknownTopicId,
            E::UnknownPartition { .. } => ErrorCode::UnknownTopicOrPartition,
            E::NoPartitions | E::PartitionCountDiffers { .. } => ErrorCode::InvalidPartitions,
            E::InvalidAssignment { .. } => ErrorCode::InvalidReplicaAssignment,
            E::LimitExceeded { .. } => ErrorCode::PolicyViolation,
            E::DuplicateConfig { .. } => ErrorCode::InvalidRequest,
            // Somebody else was quicker; the same request made again is judged anew.
            E::ConfigChanged { .. } => ErrorCode::UnknownServerError,
            E::ElectionNotNeeded => ErrorCode::ElectionNotNeeded,
            E::PreferredLeaderNotAvailable { .. } => ErrorCode::PreferredLeaderNotAvailable,
            E::NoEligibleLeader => ErrorCode::EligibleLeadersNotAvailable,
            E::StaleBrokerEpoch { .. } => ErrorCode::StaleBrokerEpoch,
            E::NoMove { .. } => ErrorCode::NoReassignmentInProgress,
            E::LosesInSync { .. } => ErrorCode::InvalidReplicaAssignment,
            E::UnknownBroker { .. } => ErrorCode::BrokerIdNotRegistered,
            E::NeedsFeatureLevel { .. } => ErrorCode::UnsupportedVersion,
            E::BrokerNotFenced { .. } | E::BrokerHoldsReplicas { .. } => ErrorCode::InvalidRequest,
            E::FeatureLevelMayNotFall { .. } => ErrorCode::InvalidUpdateVersion,
            E::UnsupportedFeatureLevel { .. } => ErrorCode::FeatureUpdateFailed,
            _ => ErrorCode::UnknownServerError,
        };
        OpError::new(code, error.to_string())
    }
}

impl From<PlacementError> for OpError {
    fn from(error: PlacementError) -> OpError {
        OpError::new(ErrorCode::InvalidReplicationFactor, error.to_string())
    }
}

impl From<SettingError> for OpError {
    fn from(error: SettingError) -> OpError {
        OpError::new(ErrorCode::InvalidConfig, error.to_string())
    }
}

impl From<ProposeError> for OpError {
    fn from(error: ProposeError) -> OpError {
        let code = match error {
            ProposeError::Refused(refused) => return refused.into(),
            ProposeError::NotLeader { .. } | ProposeError::Stopped { .. } => ErrorCode::NotController,
            ProposeError::Overloaded => ErrorCode::ThrottlingQuotaExceeded,
            ProposeError::DiskFull => ErrorCode::KafkaStorageError,
            ProposeError::TooLarge { .. } => ErrorCode::PolicyViolation,
            _ => ErrorCode::RequestTimedOut,
        };
        OpError::new(code, error.to_string())
    }
}

/// What a partition's refusal is told as.
pub(crate) fn code_of_partition(error: &PartitionError) -> ErrorCode {
    match error {
        PartitionError::NotLeader { .. } | PartitionError::Closed => ErrorCode::NotLeaderOrFollower,
        PartitionError::FencedEpoch { .. } => ErrorCode::FencedLeaderEpoch,
        PartitionError::UnknownEpoch { .. } => ErrorCode::UnknownLeaderEpoch,
        PartitionError::NotEnoughReplicas { .. } => ErrorCode::NotEnoughReplicas,
        PartitionError::NotEnoughReplicasAfterAppend { .. } => ErrorCode::NotEnoughReplicasAfterAppend,
        PartitionError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        PartitionError::Storage(error) => code_of_log(error),
        _ => ErrorCode::KafkaStorageError,
    }
}

/// What a log's refusal is told as.
pub(crate) fn code_of_log(error: &LogError) -> ErrorCode {
    match error {
        LogError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        _ => ErrorCode::KafkaStorageError,
    }
}
