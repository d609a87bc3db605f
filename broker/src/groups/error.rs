//! What a coordinator refuses, and the one table from that to Kafka's codes.

use floodmark_proto::kafka::ErrorCode;

/// Why a request about a group was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum GroupError {
    /// The coordinator is somewhere else.
    #[error("this broker does not coordinate the group")]
    NotCoordinator,
    /// The coordinator is here and still reads its log.
    #[error("the coordinator is loading")]
    CoordinatorLoading,
    /// The coordinator cannot answer now; it is worth trying again.
    #[error("the coordinator is not available")]
    CoordinatorNotAvailable,
    /// The group id is empty where it must not be.
    #[error("the group id is not valid")]
    InvalidGroupId,
    /// There is no such group.
    #[error("no such group")]
    GroupNotFound,
    /// The group has members, and what was asked needs one without.
    #[error("the group has members")]
    NonEmptyGroup,
    /// A member of the group reads the topic.
    #[error("a member of the group subscribes to the topic")]
    SubscribedToTopic,
    /// The group has no such member.
    #[error("unknown member")]
    UnknownMemberId,
    /// The member is to join again under the id it has been given.
    #[error("the member is to join again under the id it was given")]
    MemberIdRequired,
    /// Another process has joined with the same instance id.
    #[error("another member has taken the instance id")]
    FencedInstanceId,
    /// The request is of another generation of the group.
    #[error("not the current generation")]
    IllegalGeneration,
    /// The group is rebalancing; the member is to join again.
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    /// Protocol type or names do not go with those of the other members.
    #[error("the protocols do not go with those of the group")]
    InconsistentProtocol,
    /// The session timeout is out of bounds.
    #[error("the session timeout is out of bounds")]
    InvalidSessionTimeout,
    /// The group has as many members, or as many bytes of them, as it may.
    #[error("the group is full")]
    GroupFull,
    /// There are as many groups as there may be.
    #[error("too many groups")]
    TooManyGroups,
    /// The metadata of an offset is longer than it may be.
    #[error("the metadata of the offset is too long")]
    OffsetMetadataTooLarge,
    /// The offset is part of a transaction that has not ended.
    #[error("the offset is part of an open transaction")]
    UnstableOffset,
    /// The producer has been replaced by one of a newer epoch.
    #[error("the producer's epoch is old")]
    InvalidProducerEpoch,
    /// The record that would have to be written is larger than one may be.
    #[error("the record is too large to be written")]
    RecordTooLarge,
    /// Fields of the request contradict each other.
    #[error("the request contradicts itself")]
    InvalidRequest,
}

impl GroupError {
    /// Kafka's code.
    #[must_use]
    pub fn code(self) -> ErrorCode {
        match self {
            GroupError::NotCoordinator => ErrorCode::NotCoordinator,
            GroupError::CoordinatorLoading => ErrorCode::CoordinatorLoadInProgress,
            GroupError::CoordinatorNotAvailable => ErrorCode::CoordinatorNotAvailable,
            GroupError::InvalidGroupId => ErrorCode::InvalidGroupId,
            GroupError::GroupNotFound => ErrorCode::GroupIdNotFound,
            GroupError::NonEmptyGroup => ErrorCode::NonEmptyGroup,
            GroupError::SubscribedToTopic => ErrorCode::GroupSubscribedToTopic,
            GroupError::UnknownMemberId => ErrorCode::UnknownMemberId,
            GroupError::MemberIdRequired => ErrorCode::MemberIdRequired,
            GroupError::FencedInstanceId => ErrorCode::FencedInstanceId,
            GroupError::IllegalGeneration => ErrorCode::IllegalGeneration,
            GroupError::RebalanceInProgress => ErrorCode::RebalanceInProgress,
            GroupError::InconsistentProtocol => ErrorCode::InconsistentGroupProtocol,
            GroupError::InvalidSessionTimeout => ErrorCode::InvalidSessionTimeout,
            GroupError::GroupFull => ErrorCode::GroupMaxSizeReached,
            GroupError::TooManyGroups => ErrorCode::PolicyViolation,
            GroupError::OffsetMetadataTooLarge => ErrorCode::OffsetMetadataTooLarge,
            GroupError::UnstableOffset => ErrorCode::UnstableOffsetCommit,
            GroupError::InvalidProducerEpoch => ErrorCode::InvalidProducerEpoch,
            // No code of its own reaches the members of a group.
            GroupError::RecordTooLarge => ErrorCode::UnknownServerError,
            GroupError::InvalidRequest => ErrorCode::InvalidRequest,
        }
    }
}
