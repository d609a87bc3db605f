//! The part of a follower: from what a leader answered to what becomes of the own log. Decides only; whoever holds the log does it.
//! Must know nothing of files or connections.

use floodmark_proto::ids::{BrokerId, LeaderEpoch, Offset};

use super::error::PartitionError;
use super::exchange::{Fetched, FollowerPosition, LogView};
use super::role::check_epoch;

/// Whom a replica follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Following {
    /// The leader.
    pub leader: BrokerId,
    /// In which epoch.
    pub epoch: LeaderEpoch,
    /// The state of the partition of which the replica knows.
    pub partition_epoch: i32,
}

/// What is to be done with the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Cut everything from there on, and nothing else of the answer: what the leader says of watermark and start holds for a log
    /// that agrees with its own (R6).
    Cut {
        /// The new end.
        to: Offset,
    },
    /// Give up everything and go on there. What lies before it is committed, and gone from the leader.
    Reset {
        /// The new start and end, and the high watermark too (R12).
        at: Offset,
    },
    /// Append what was sent, then [`Following::high_watermark_after`] and [`Following::start_after`].
    Append {
        /// Give up the empty log first and begin there: the leader's log starts inside of its first batch, which comes as a whole.
        begin_at: Option<Offset>,
    },
}

impl Following {
    /// Where the replica stands.
    #[must_use]
    pub fn position(&self, log: &LogView<'_>) -> FollowerPosition {
        FollowerPosition {
            leader: self.leader,
            leader_epoch: self.epoch,
            partition_epoch: self.partition_epoch,
            fetch_offset: log.end,
            last_fetched_epoch: log.last_epoch(),
            // What the disk has, not what was appended: the leader acknowledges by it (R39).
            synced_end: log.durable.min(log.end),
            log_start: log.start,
        }
    }

    /// What an answer asks for. `first_base` is where the first batch begins that came with it, if any did.
    ///
    /// Refuses what another leader said, and what was said of a log that has changed since: such an answer cuts nothing (R3, R5).
    pub fn step(
        &self,
        fetched: &Fetched,
        first_base: Option<Offset>,
        log: &LogView<'_>,
    ) -> Result<Step, PartitionError> {
        check_epoch(fetched.leader_epoch, self.epoch)?;
        let is_of_this_log =
            fetched.fetch_offset == log.end && fetched.last_fetched_epoch == log.last_epoch();
        if fetched.leader != self.leader || !is_of_this_log {
            return Err(PartitionError::NotTheNext { expected: log.end, found: fetched.fetch_offset });
        }
        if fetched.log_start > log.end {
            return Ok(Step::Reset { at: fetched.log_start });
        }
        if let Some(diverging) = fetched.diverging {
            return Ok(Step::Cut { to: cut_for(diverging, log) });
        }
        let is_straddling = first_base.is_some_and(|base| base < log.end) && log.start == log.end;
        Ok(Step::Append { begin_at: first_base.filter(|_| is_straddling) })
    }

    /// The high watermark once what was sent is in the log, which ends at `end` then. What is not here is not committed here.
    #[must_use]
    pub fn high_watermark_after(&self, fetched: &Fetched, end: Offset) -> Offset {
        fetched.high_watermark.min(end)
    }

    /// Whether the replica, once its log ends at `end`, still lacks what is committed. Then it is in no set that counts, and what it syncs
    /// moves no watermark and lets it join nothing: nobody waits for that.
    #[must_use]
    pub fn is_behind(fetched: &Fetched, end: Offset) -> bool {
        end < fetched.high_watermark
    }

    /// Where the log starts after that, given its high watermark: never above what is known to be committed.
    #[must_use]
    pub fn start_after(&self, fetched: &Fetched, high_watermark: Offset) -> Offset {
        fetched.log_start.min(high_watermark)
    }
}

/// Where the log is cut, by the epoch and the end that the leader names: where both logs have that epoch, the shorter one ends it;
/// where this one does not have it, at the end of what this one has before it. The next answer goes on from there (R1, R2).
fn cut_for((epoch, leader_end): (LeaderEpoch, Offset), log: &LogView<'_>) -> Offset {
    match log.epochs.end_offset_for(epoch, log.end) {
        Some(own) => own.end_offset.min(leader_end),
        None => leader_end,
    }
}

#[cfg(test)]
mod tests;
