//! The kinds of broken promises, named as design's section on promises names them.

use serde::Serialize;

use super::{Partition, Value};

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Anomaly {
    /// acked-is-kept: acknowledged at this offset and not there in the end.
    LostAcked {
        /// Where.
        partition: Partition,
        /// What.
        value: Value,
        /// The offset that was told.
        acked_at: i64,
    },
    /// committed-only: a consumer was given it, and it is not there in the end.
    LostRead {
        /// Where.
        partition: Partition,
        /// What.
        value: Value,
        /// Where it was seen.
        read_at: i64,
    },
    /// exactly-once-append: at more offsets than it was sent times; for an idempotent producer, at more than one.
    Duplicate {
        /// Where.
        partition: Partition,
        /// What.
        value: Value,
        /// All of its places.
        offsets: Vec<i64>,
    },
    /// order: in the log behind what its producer sent after it.
    Reordered {
        /// Where.
        partition: Partition,
        /// What.
        value: Value,
        /// What it should lie before.
        behind: Value,
    },
    /// order: appended after something else had been acknowledged, and yet before it in the log.
    WentBack {
        /// Where.
        partition: Partition,
        /// What.
        value: Value,
        /// Its place.
        at: i64,
        /// The highest offset acknowledged when it was sent.
        acked_before: i64,
    },
    /// order: one offset, two values, as acknowledged, as read or as a replica has it, at whatever time.
    TwoValues {
        /// Where.
        partition: Partition,
        /// The offset.
        offset: i64,
        /// The one seen first, the other.
        values: (Value, Value),
    },
    /// no-invention: nobody sent it.
    Invented {
        /// Where.
        partition: Partition,
        /// What.
        value: Value,
        /// Its place.
        offset: i64,
    },
    /// order: offsets of the whole partition are not dense.
    Gap {
        /// Where.
        partition: Partition,
        /// The next one.
        expected: i64,
        /// The one that came.
        found: i64,
    },
    /// order: a consumer was given something else than what follows its position.
    Skipped {
        /// Who.
        reader: u32,
        /// Where.
        partition: Partition,
        /// Its position.
        expected: i64,
        /// What it was given.
        found: i64,
    },
    /// order: a consumer's position went back without its will.
    PositionWentBack {
        /// Who.
        reader: u32,
        /// Where.
        partition: Partition,
        /// Its position.
        position: i64,
        /// Where it read next.
        from: i64,
    },
    /// offsets-stay: a group was told an older offset than one that had been acknowledged, or none.
    CommitWentBack {
        /// Which.
        group: String,
        /// Where.
        partition: Partition,
        /// The highest that had been acknowledged.
        acked: i64,
        /// What it was told.
        told: Option<i64>,
    },
    /// no-invention: a group was told an offset that nobody had committed.
    CommitInvented {
        /// Which.
        group: String,
        /// Where.
        partition: Partition,
        /// What it was told.
        told: i64,
    },
    /// Two members of one generation with the same partition.
    TwoOwners {
        /// Which.
        group: String,
        /// Of which generation.
        generation: i32,
        /// The partition.
        partition: Partition,
    },
    /// acked-is-kept: replicas of a partition end at different offsets though all is quiet.
    UnevenReplicas {
        /// Where.
        partition: Partition,
        /// The replica read first, and its end.
        first: (u32, i64),
        /// Another one.
        other: (u32, i64),
    },
    /// Something was sent to the partition, and it was never read to its end: nothing is shown.
    Unread {
        /// Where.
        partition: Partition,
    },
}

impl Anomaly {
    /// The kind, for counting.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Anomaly::LostAcked { .. } => "lost_acked",
            Anomaly::LostRead { .. } => "lost_read",
            Anomaly::Duplicate { .. } => "duplicate",
            Anomaly::Reordered { .. } => "reordered",
            Anomaly::WentBack { .. } => "went_back",
            Anomaly::TwoValues { .. } => "two_values",
            Anomaly::Invented { .. } => "invented",
            Anomaly::Gap { .. } => "gap",
            Anomaly::Skipped { .. } => "skipped",
            Anomaly::PositionWentBack { .. } => "position_went_back",
            Anomaly::CommitWentBack { .. } => "commit_went_back",
            Anomaly::CommitInvented { .. } => "commit_invented",
            Anomaly::TwoOwners { .. } => "two_owners",
            Anomaly::UnevenReplicas { .. } => "uneven_replicas",
            Anomaly::Unread { .. } => "unread",
        }
    }
}
