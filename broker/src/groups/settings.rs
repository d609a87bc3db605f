//! What an operator may set about groups, with Kafka's defaults where Kafka has the setting.

use std::time::Duration;

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
    /// `offsets.commit.timeout.ms`: how long whoever commits or deletes waits for the log.
    pub commit_timeout: Duration,
    /// `offset.metadata.max.bytes`: what a client may attach to an offset.
    pub offset_metadata_bytes_max: usize,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`.
    pub expiry_interval_ms: i64,
    /// Groups on this broker that have a member, an offset or a record.
    pub groups_max: usize,
    /// Bytes that the members of one group may bring: their protocols, assignments and names.
    pub group_bytes_max: usize,
    /// The same of all groups on this broker.
    pub groups_bytes_max: usize,
}

/// How long an id may wait for its member, which comes back with it at once: nobody has to be there for it, so it costs who asked for it
/// nothing.
pub(super) const PENDING_JOIN_MS_MAX: i64 = 60 * 1000;
/// Ids of one group that wait for their members; for one more the oldest goes, whose member then asks again.
pub(super) const PENDING_JOINS_MAX: usize = 1_000;
/// Groups of one shard of which nothing is there but ids that wait; for one more the oldest goes.
pub(super) const PENDING_GROUPS_MAX: usize = 1_000;

/// How long a new member's join may wait. Such a member sends no heartbeats, so its session cannot tell that it has gone.
pub(super) const NEW_MEMBER_JOIN_TIMEOUT_MS: i64 = 5 * 60 * 1000;

impl Default for GroupSettings {
    fn default() -> GroupSettings {
        GroupSettings {
            session_timeout_ms_min: 6_000,
            session_timeout_ms_max: 30 * 60 * 1000,
            initial_rebalance_delay_ms: 3_000,
            members_max: 10_000,
            commit_timeout: Duration::from_secs(5),
            offset_metadata_bytes_max: 4_096,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1000,
            expiry_interval_ms: 10 * 60 * 1000,
            groups_max: 100_000,
            group_bytes_max: 32 << 20,
            groups_bytes_max: 256 << 20,
        }
    }
}
