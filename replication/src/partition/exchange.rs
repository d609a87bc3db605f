//! What leader and followers of a partition tell each other. Data only; how it travels is not known here.

use bytes::Bytes;
use floodmark_proto::ids::{BrokerEpoch, BrokerId, LeaderEpoch, Offset};
use floodmark_storage::leader_epochs::LeaderEpochs;

/// What a follower says of its log, and what it wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaFetch {
    /// The follower.
    pub replica: BrokerId,
    /// Its registration: another start of that broker may have lost its disk.
    pub broker_epoch: BrokerEpoch,
    /// The leader epoch of which it knows.
    pub leader_epoch: LeaderEpoch,
    /// The state of the partition of which it knows.
    pub partition_epoch: i32,
    /// The end of its log: what it wants begins here.
    pub fetch_offset: Offset,
    /// The epoch of the last record it has; `None` where it has none.
    pub last_fetched_epoch: Option<LeaderEpoch>,
    /// Everything before it is on its disk.
    pub synced_end: Offset,
    /// The first offset it has.
    pub log_start: Offset,
}

/// What the leader has for a follower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaRead {
    /// Whole batches from the one that holds the offset asked for, several of them in a piece perhaps.
    pub batches: Vec<Bytes>,
    /// Up to where the leader knows everything to be committed.
    pub high_watermark: Offset,
    /// The leader's first offset. Above the offset asked for where the follower must begin again there.
    pub log_start: Offset,
    /// The end of the leader's log.
    pub log_end: Offset,
    /// Where the logs part: the last epoch, up to the follower's, that the leader's log knows, and where that ends there.
    pub diverging: Option<(LeaderEpoch, Offset)>,
}

/// What a follower got, with what it had asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Who answered.
    pub leader: BrokerId,
    /// In which epoch.
    pub leader_epoch: LeaderEpoch,
    /// The offset that was asked for.
    pub fetch_offset: Offset,
    /// The epoch of the record before it, by which the leader judged where the logs part.
    pub last_fetched_epoch: Option<LeaderEpoch>,
    /// As in [`ReplicaRead`].
    pub batches: Vec<Bytes>,
    /// As in [`ReplicaRead`].
    pub high_watermark: Offset,
    /// As in [`ReplicaRead`].
    pub log_start: Offset,
    /// As in [`ReplicaRead`].
    pub diverging: Option<(LeaderEpoch, Offset)>,
}

/// Where a follower stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FollowerPosition {
    /// Whom it follows.
    pub leader: BrokerId,
    /// In which epoch.
    pub leader_epoch: LeaderEpoch,
    /// The state of the partition of which it knows.
    pub partition_epoch: i32,
    /// The end of its log: what it wants begins here.
    pub fetch_offset: Offset,
    /// The epoch of the last record it has; `None` where it has none.
    pub last_fetched_epoch: Option<LeaderEpoch>,
    /// Everything before it is on its disk.
    pub synced_end: Offset,
    /// The first offset it has.
    pub log_start: Offset,
}

/// A log at one moment, as far as the rules look at it.
#[derive(Debug, Clone, Copy)]
pub struct LogView<'a> {
    /// First offset.
    pub start: Offset,
    /// Offset of the next record.
    pub end: Offset,
    /// Everything before it is on the disk.
    pub durable: Offset,
    /// Everything before it is committed, as far as this log was told.
    pub high_watermark: Offset,
    /// Which epoch began where.
    pub epochs: &'a LeaderEpochs,
}

impl LogView<'_> {
    /// The epoch of the last record. Not the newest epoch that was noted: a leader that appended nothing has no record.
    #[must_use]
    pub fn last_epoch(&self) -> Option<LeaderEpoch> {
        let last = Offset(self.end.0.saturating_sub(1));
        if last < self.start { None } else { self.epochs.epoch_for_offset(last) }
    }
}

impl FollowerPosition {
    /// What the follower on `replica` says with it.
    #[must_use]
    pub fn said_by(&self, replica: BrokerId, broker_epoch: BrokerEpoch) -> ReplicaFetch {
        ReplicaFetch {
            replica,
            broker_epoch,
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            fetch_offset: self.fetch_offset,
            last_fetched_epoch: self.last_fetched_epoch,
            synced_end: self.synced_end,
            log_start: self.log_start,
        }
    }
}
