//! The part of a leader: from what followers say of their logs to what is committed, who is in sync, and what is answered. Decides only.
//! Must know nothing of files or connections.
//!
//! - this file: [`Leader`], how it takes office and what followers tell it; `in_sync_set`: whom it proposes to be in sync

mod in_sync_set;

use floodmark_proto::ids::{BrokerEpoch, BrokerId, LeaderEpoch, Offset};

pub use in_sync_set::ProposedIsr;

use super::error::PartitionError;
use super::exchange::{LogView, ReplicaFetch};
use super::high_watermark::{LeaderLog, advance};
use super::role::check_epoch;
use crate::cluster::settings::SyncPolicy;

/// The leader of a partition in one epoch.
#[derive(Debug, Clone)]
pub struct Leader {
    node: BrokerId,
    epoch: LeaderEpoch,
    /// The end of the log when this leader began: what lies before it may be committed, whatever the watermark said then.
    epoch_start: Offset,
    partition_epoch: i32,
    sync: SyncPolicy,
    high_watermark: Offset,
    followers: Vec<Follower>,
    proposing: in_sync_set::Proposing,
}

/// What an image says of a partition, as far as its leader must know.
#[derive(Debug, Clone, Copy)]
pub struct LeaderDuty<'a> {
    /// The broker that leads.
    pub node: BrokerId,
    /// Its epoch.
    pub epoch: LeaderEpoch,
    /// The brokers that hold the partition.
    pub replicas: &'a [BrokerId],
    /// Those in sync.
    pub isr: &'a [BrokerId],
    /// Which state of the partition this is.
    pub partition_epoch: i32,
    /// What counts as a copy.
    pub sync: SyncPolicy,
}

/// Another replica, as this leader knows it.
#[derive(Debug, Clone)]
struct Follower {
    broker: BrokerId,
    /// The cluster has agreed that it is in sync.
    is_in_sync: bool,
    /// It is in sync, or may be: a proposal that names it may be agreed to at any moment, also one that was answered with a refusal
    /// (a copy of it may be under way), until the partition's state is another.
    is_counted: bool,
    /// What it said last, in this epoch.
    said: Option<Said>,
    lag: in_sync_set::Lag,
}

#[derive(Debug, Clone, Copy)]
struct Said {
    broker_epoch: BrokerEpoch,
    partition_epoch: i32,
    log_end: Offset,
    synced_end: Offset,
}

impl Said {
    /// How far its copy counts.
    fn end(&self, sync: SyncPolicy) -> Offset {
        match sync {
            SyncPolicy::Ack => self.synced_end,
            SyncPolicy::Interval | SyncPolicy::None => self.log_end,
        }
    }
}

/// How a follower is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaProgress {
    /// The follower.
    pub broker: BrokerId,
    /// Everything before it is on its disk; `None` where it has said nothing in this epoch.
    pub synced_end: Option<Offset>,
    /// The end of its log; `None` where it has said nothing in this epoch.
    pub log_end: Option<Offset>,
    /// For how long it has not had all that the leader has, at least: an earlier leader may have waited for it before. 0 where it has.
    pub caught_up_ms_ago: u64,
    /// The cluster has agreed that it is in sync.
    pub is_in_sync: bool,
}

/// What a leader's log says of a follower's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agreement {
    /// The follower's log is a part of this one.
    Agrees,
    /// It is not: the last epoch, up to the follower's, that this log knows, and where that ends.
    PartsAt(LeaderEpoch, Offset),
    /// The follower's log ends before this one starts.
    EndsBeforeStart,
}

/// What a follower's word changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Heard {
    /// The high watermark may rise by it.
    pub moves_watermark: bool,
    /// The follower is not in sync, and could be.
    pub could_join: bool,
}

impl Leader {
    /// Takes office: every follower is unknown until it has spoken in this epoch. `high_watermark` is what the log was told before.
    #[must_use]
    pub fn new(duty: &LeaderDuty<'_>, log: &LogView<'_>) -> Leader {
        let mut leader = Leader {
            node: duty.node,
            epoch: duty.epoch,
            epoch_start: log.end,
            partition_epoch: duty.partition_epoch,
            sync: duty.sync,
            high_watermark: log.high_watermark,
            followers: Vec::new(),
            proposing: in_sync_set::Proposing::default(),
        };
        leader.follow(duty);
        leader
    }

    /// Takes up another state of the partition under the same epoch. One that was overtaken changes nothing.
    pub fn on_duty(&mut self, duty: &LeaderDuty<'_>) {
        if duty.epoch == self.epoch && duty.partition_epoch >= self.partition_epoch {
            self.sync = duty.sync;
            self.follow(duty);
        }
    }

    fn follow(&mut self, duty: &LeaderDuty<'_>) {
        let is_other_state = duty.partition_epoch > self.partition_epoch;
        self.partition_epoch = duty.partition_epoch;
        let others = duty.replicas.iter().filter(|r| **r != duty.node);
        let follower = |broker: &BrokerId| {
            let before = self.followers.iter().find(|f| f.broker == *broker).cloned();
            let mut follower = before.unwrap_or_else(|| Follower::unknown(*broker));
            follower.is_in_sync = duty.isr.contains(broker);
            // Only what was proposed in an earlier state cannot be agreed to any more.
            follower.is_counted = follower.is_in_sync || (follower.is_counted && !is_other_state);
            follower
        };
        self.followers = others.map(follower).collect();
        if is_other_state {
            self.proposing.on_other_state(duty.partition_epoch);
        }
    }

    /// The epoch in which it leads.
    #[must_use]
    pub fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// Whether the follower's log is a part of this one. Remembers nothing of what it says.
    pub fn judge(&self, from: &ReplicaFetch, log: &LogView<'_>) -> Result<Agreement, PartitionError> {
        check_epoch(from.leader_epoch, self.epoch)?;
        let broker = from.replica;
        let Some(follower) = self.followers.iter().find(|f| f.broker == broker) else {
            return Err(PartitionError::UnknownReplica { broker });
        };
        if follower.said.is_some_and(|said| from.broker_epoch < said.broker_epoch) {
            return Err(PartitionError::UnknownReplica { broker });
        }
        let agreement = agreement(from, log);
        // An empty log has no record to be judged by. Where it starts was committed when this leader was elected, unless that gave up what others
        // had committed: then what this leader has written since lies before that start.
        let is_blank = from.last_fetched_epoch.is_none() && from.fetch_offset > log.start;
        if agreement == Agreement::Agrees
            && is_blank
            && from.fetch_offset > self.epoch_start
            && !follower.is_counted
        {
            return Ok(Agreement::PartsAt(LeaderEpoch::UNKNOWN, log.start));
        }
        Ok(agreement)
    }

    /// A follower says where it is. Believed where its log is a part of this one, and where it has not said something newer before.
    pub fn on_position(
        &mut self,
        from: &ReplicaFetch,
        log: &LogView<'_>,
        now_ms: u64,
    ) -> Result<Heard, PartitionError> {
        if self.judge(from, log)? != Agreement::Agrees {
            return Ok(Heard::default());
        }
        let sync = self.sync;
        let Some(follower) = self.followers.iter_mut().find(|f| f.broker == from.replica) else {
            return Ok(Heard::default());
        };
        let mut said = Said {
            broker_epoch: from.broker_epoch,
            partition_epoch: from.partition_epoch,
            log_end: from.fetch_offset,
            synced_end: from.synced_end.min(from.fetch_offset),
        };
        match follower.said {
            // Another start of the broker: nothing that the one before has said holds.
            Some(before) if before.broker_epoch < said.broker_epoch => {
                *follower = Follower { said: None, lag: in_sync_set::Lag::default(), ..follower.clone() };
            }
            Some(before) if before.partition_epoch > said.partition_epoch => return Ok(Heard::default()),
            // Under one leader and in one state of the partition a log that agrees only grows, so what comes late says less.
            Some(before) if before.partition_epoch == said.partition_epoch => {
                said.log_end = said.log_end.max(before.log_end);
                said.synced_end = said.synced_end.max(before.synced_end);
            }
            _ => {}
        }
        follower.said = Some(said);
        follower.lag.on_position(said.end(sync), log.end, now_ms);
        let (is_counted, broker) = (follower.is_counted, follower.broker);
        let could_join = |f: &Follower| f.broker == broker && !f.is_in_sync && self.has_committed(f);
        Ok(Heard {
            moves_watermark: is_counted && self.committed(log) > self.high_watermark,
            could_join: self.followers.iter().any(could_join),
        })
    }

    /// The high watermark now, remembered: what every replica in sync has, and every one that may be.
    pub fn advance(&mut self, log: &LogView<'_>) -> Offset {
        // The log was told by others too, while nobody else held the partition.
        self.high_watermark = self.committed(log).max(log.high_watermark);
        self.high_watermark
    }

    fn committed(&self, log: &LogView<'_>) -> Offset {
        let own = LeaderLog { end: log.end, durable: log.durable };
        let counted = self.followers.iter().filter(|f| f.is_counted);
        // Who has said nothing may have nothing.
        let ends = counted.map(|f| f.said.map_or(Offset::ZERO, |said| said.end(self.sync)));
        advance(self.high_watermark, self.sync, own, ends)
    }

    /// How the followers are doing.
    #[must_use]
    pub fn progress(&self, log: &LogView<'_>, now_ms: u64) -> Vec<ReplicaProgress> {
        let progress = |follower: &Follower| {
            let said = follower.said;
            let has_all = said.is_some_and(|said| said.end(self.sync) >= log.end);
            ReplicaProgress {
                broker: follower.broker,
                synced_end: said.map(|said| said.synced_end),
                log_end: said.map(|said| said.log_end),
                caught_up_ms_ago: if has_all { 0 } else { follower.lag.behind_ms(now_ms) },
                is_in_sync: follower.is_in_sync,
            }
        };
        self.followers.iter().map(progress).collect()
    }
}

impl Follower {
    fn unknown(broker: BrokerId) -> Follower {
        Follower {
            broker,
            is_in_sync: false,
            is_counted: false,
            said: None,
            lag: in_sync_set::Lag::default(),
        }
    }
}

/// Whether a log that ends at `fetch_offset` with a record of `last_fetched_epoch` is a part of `log`: two logs that have a record of
/// the same epoch at the same offset are the same up to there (R4).
fn agreement(from: &ReplicaFetch, log: &LogView<'_>) -> Agreement {
    if from.fetch_offset < log.start {
        return Agreement::EndsBeforeStart;
    }
    let parts_at_end = |epoch: Option<LeaderEpoch>| {
        Agreement::PartsAt(epoch.unwrap_or(LeaderEpoch::UNKNOWN), log.end.min(from.fetch_offset))
    };
    let Some(last) = from.last_fetched_epoch else {
        // It has no record that could be another than here; it just may not go on behind this log's end.
        let is_within = from.fetch_offset <= log.end;
        return if is_within { Agreement::Agrees } else { parts_at_end(log.last_epoch()) };
    };
    match log.epochs.end_offset_for(last, log.end) {
        Some(here) if here.epoch < last || here.end_offset < from.fetch_offset => {
            Agreement::PartsAt(here.epoch, here.end_offset)
        }
        Some(_) => Agreement::Agrees,
        // An epoch above all that this log knows: no record of it is here.
        None => parts_at_end(log.last_epoch()),
    }
}

#[cfg(test)]
mod tests;
