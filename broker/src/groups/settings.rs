//! What an operator may set about groups, with Kafka's defaults where Kafka has the setting.

/// Bounds and delays of groups and of their offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSettings {
    /// `group.min.session.timeout.ms`: a member may not ask for less.
    pub session_timeout_ms_min: i32,
    /// `group.max.session.timeout.ms`: a member may not ask for more.
    pub session_timeout_ms_max: i32,
    /// `group.initial.rebalance.delay.ms`: how long the first member of an empty group waits for others.
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size`: members of one group, and as many more that have been given an id and have not joined yet.
    pub members_max: usize,
    /// `offset.metadata.max.bytes`: what a client may attach to an offset.
    pub offset_metadata_bytes_max: usize,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`.
    pub expiry_interval_ms: i64,
    /// Groups on this broker.
    pub groups_max: usize,
    /// Bytes that the members of one group may bring: their protocols and assignments.
    pub group_bytes_max: usize,
}

/// How long a new member's join may wait. Such a member sends no heartbeats, so its session cannot tell that it has gone.
pub(super) const NEW_MEMBER_JOIN_TIMEOUT_MS: i64 = 5 * 60 * 1000;

impl Default for GroupSettings {
    fn default() -> GroupSettings {
        GroupSettings {
            session_timeout_ms_min: 6_000,
            session_timeout_ms_max: 30 * 60 * 1000,
            initial_rebalance_delay_ms: 3_000,
            members_max: 10_000,
            offset_metadata_bytes_max: 4_096,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1000,
            expiry_interval_ms: 10 * 60 * 1000,
            groups_max: 100_000,
            group_bytes_max: 32 << 20,
        }
    }
}
