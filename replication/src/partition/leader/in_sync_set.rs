//! Whom a leader proposes to be in sync. The cluster decides: one proposal is under way at a time, and until the partition is in another
//! state, whoever any proposal has named is counted as in sync.

use floodmark_proto::ids::{BrokerEpoch, BrokerId, LeaderEpoch, Offset};

use super::{Follower, Leader};
use crate::cluster::CommandError;
use crate::partition::exchange::LogView;

/// After a proposal that came to nothing, how long the next one waits: the image that says why is on its way.
const AGAIN_AFTER_MS: u64 = 500;
/// How long a replica that the cluster would not take in is not proposed again.
const HOLD_OFF_MS: u64 = 2_000;
/// A proposal of which nothing was heard for so long is given up; it may still be agreed to.
const UNHEARD_AFTER_MS: u64 = 30_000;

/// A set that a leader wants to be in sync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProposedIsr {
    /// The leader.
    pub leader: BrokerId,
    /// Its epoch.
    pub leader_epoch: LeaderEpoch,
    /// The state that it decided upon.
    pub partition_epoch: i32,
    /// The set. Who joins does so with the registration in which it fetched; who was in it stays with the one it has.
    pub isr: Vec<(BrokerId, Option<BrokerEpoch>)>,
}

/// What became of proposals in the present state of the partition.
#[derive(Debug, Clone, Default)]
pub(super) struct Proposing {
    /// When the one under way was made.
    under_way_since_ms: Option<u64>,
    last_made_ms: u64,
    not_before_ms: Option<u64>,
    /// The state in which the cluster's answer will be seen; until then there is nothing to propose.
    answered_by: Option<i32>,
}

impl Proposing {
    pub(super) fn on_other_state(&mut self, partition_epoch: i32) {
        self.under_way_since_ms = None;
        self.not_before_ms = None;
        self.answered_by = self.answered_by.filter(|by| *by > partition_epoch);
    }

    fn is_free(&self, now_ms: u64) -> bool {
        let is_unheard = |since: u64| now_ms.saturating_sub(since) >= UNHEARD_AFTER_MS;
        self.under_way_since_ms.is_none_or(is_unheard)
            && self.not_before_ms.is_none_or(|at| now_ms >= at)
            && (self.answered_by.is_none() || is_unheard(self.last_made_ms))
    }
}

/// For how long a follower has not had everything.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lag {
    /// Since when it has not; `None` where it had everything when last looked at.
    behind_since_ms: Option<u64>,
    /// The end of the leader's log at some moment: who has all of it was caught up at that moment.
    mark: Option<(Offset, u64)>,
    /// Not to be proposed before.
    held_off_until_ms: Option<u64>,
}

impl Lag {
    pub(super) fn on_position(&mut self, end: Offset, log_end: Offset, now_ms: u64) {
        if end >= log_end {
            (self.behind_since_ms, self.mark) = (None, None);
            return;
        }
        let mut since = self.behind_since_ms.unwrap_or(now_ms);
        match self.mark {
            // Not moved on before it is reached: under a steady load the end is always ahead.
            Some((mark, _)) if end < mark => {}
            Some((_, at)) => {
                since = since.max(at);
                self.mark = Some((log_end, now_ms));
            }
            None => self.mark = Some((log_end, now_ms)),
        }
        self.behind_since_ms = Some(since);
    }

    /// Looks at a follower that has said nothing new.
    fn look(&mut self, has_all: bool, now_ms: u64) {
        if has_all {
            (self.behind_since_ms, self.mark) = (None, None);
        } else {
            self.behind_since_ms.get_or_insert(now_ms);
        }
    }

    pub(super) fn behind_ms(&self, now_ms: u64) -> u64 {
        self.behind_since_ms.map_or(0, |since| now_ms.saturating_sub(since))
    }
}

impl Leader {
    /// The set to propose now, if any: without those who have not had everything for `lag_ms_max`, with those who have caught up. Who
    /// gets one owes an answer, [`Leader::on_isr_answer`] or [`Leader::on_isr_unanswered`].
    pub fn isr_proposal(&mut self, log: &LogView<'_>, now_ms: u64, lag_ms_max: u64) -> Option<ProposedIsr> {
        let sync = self.sync;
        for follower in &mut self.followers {
            let has_all = follower.said.is_some_and(|said| said.end(sync) >= log.end);
            follower.lag.look(has_all, now_ms);
        }
        if !self.proposing.is_free(now_ms) {
            return None;
        }
        let wanted = |f: &&Follower| match f.is_in_sync {
            true => f.lag.behind_ms(now_ms) < lag_ms_max,
            false => self.may_join(f, now_ms),
        };
        let joins_with =
            |f: &Follower| if f.is_in_sync { None } else { f.said.map(|said| said.broker_epoch) };
        let others: Vec<_> =
            self.followers.iter().filter(wanted).map(|f| (f.broker, joins_with(f))).collect();
        let is_wanted = |f: &Follower| others.iter().any(|(broker, _)| *broker == f.broker);
        // A set that is as agreed is proposed all the same where another one may still be agreed to: it puts an end to that.
        if self.followers.iter().all(|f| is_wanted(f) == f.is_in_sync && f.is_counted == f.is_in_sync) {
            return None;
        }
        for follower in &mut self.followers {
            follower.is_counted |= others.iter().any(|(broker, _)| *broker == follower.broker);
        }
        self.proposing.under_way_since_ms = Some(now_ms);
        self.proposing.last_made_ms = now_ms;
        self.proposing.answered_by = None;
        let isr = std::iter::once((self.node, None)).chain(others).collect();
        Some(ProposedIsr {
            leader: self.node,
            leader_epoch: self.epoch,
            partition_epoch: self.partition_epoch,
            isr,
        })
    }

    fn may_join(&self, follower: &Follower, now_ms: u64) -> bool {
        self.has_committed(follower) && follower.lag.held_off_until_ms.is_none_or(|until| now_ms >= until)
    }

    /// It has all that is committed by this leader, and all that may have been committed by those before (R7); and what it said holds
    /// for the present state of the partition, in which it may have been given the partition anew.
    pub(super) fn has_committed(&self, follower: &Follower) -> bool {
        follower.said.is_some_and(|said| {
            said.partition_epoch >= self.partition_epoch
                && said.end(self.sync) >= self.high_watermark.max(self.epoch_start)
        })
    }

    /// The cluster's answer to the proposal under way. What it agreed to counts once the image says so.
    pub fn on_isr_answer(&mut self, answer: &Result<i32, CommandError>) {
        if self.proposing.under_way_since_ms.take().is_none() {
            return;
        }
        let made_ms = self.proposing.last_made_ms;
        match answer {
            Ok(partition_epoch) => {
                self.proposing.answered_by =
                    Some(*partition_epoch).filter(|answered| *answered > self.partition_epoch);
            }
            Err(CommandError::IneligibleReplica { broker, .. }) => {
                if let Some(follower) = self.followers.iter_mut().find(|f| f.broker == *broker) {
                    follower.lag.held_off_until_ms = Some(made_ms.saturating_add(HOLD_OFF_MS));
                }
            }
            Err(_) => self.proposing.not_before_ms = Some(made_ms.saturating_add(AGAIN_AFTER_MS)),
        }
    }

    /// Nobody knows what became of the proposal under way.
    pub fn on_isr_unanswered(&mut self) {
        if self.proposing.under_way_since_ms.take().is_some() {
            let again_ms = self.proposing.last_made_ms.saturating_add(AGAIN_AFTER_MS);
            self.proposing.not_before_ms = Some(again_ms);
        }
    }

    /// True where time alone can make [`Leader::isr_proposal`] say something: who watches must ask again. What followers say shows of
    /// itself, see [`Leader::on_position`].
    #[must_use]
    pub fn needs_isr_watch(&self, log_end: Offset) -> bool {
        let is_waited_for = |f: &Follower| match f.is_in_sync {
            true => f.said.is_none_or(|said| said.end(self.sync) < log_end),
            false => self.has_committed(f),
        };
        self.followers.iter().any(|f| f.is_counted != f.is_in_sync || is_waited_for(f))
    }

    /// How many replicas count for the high watermark, this one among them.
    #[must_use]
    pub fn counted(&self) -> usize {
        1 + self.followers.iter().filter(|f| f.is_counted).count()
    }
}
