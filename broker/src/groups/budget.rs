//! What the groups of a broker share, all shards together: how many there may be, how many bytes their members may bring, and what an
//! operator hears where that was too little. Must never know what a group is.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::error::GroupError;
use super::settings::GroupSettings;
use crate::log_rate::LogRate;

/// Whoever brings more than this finds half of the bytes taken already: a few large members must not keep all others out.
const SMALL_BYTES_MAX: usize = 64 << 10;

/// Counts of all shards. What a shard's log brings counts and is not refused, so there may be more than there may be.
#[derive(Debug)]
pub(super) struct Budget {
    groups: AtomicUsize,
    bytes: AtomicUsize,
    groups_refused: AtomicU64,
    bytes_refused: AtomicU64,
    told_of_groups: LogRate,
    told_of_bytes: LogRate,
    told_of_records: LogRate,
}

/// What an operator may want to see of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shared {
    /// Bytes that members have brought.
    pub bytes: usize,
    /// Requests that found as many groups as there may be.
    pub groups_refused: u64,
    /// Requests for whose bytes there was no room.
    pub bytes_refused: u64,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget {
            groups: AtomicUsize::default(),
            bytes: AtomicUsize::default(),
            groups_refused: AtomicU64::default(),
            bytes_refused: AtomicU64::default(),
            told_of_groups: LogRate::seldom(),
            told_of_bytes: LogRate::seldom(),
            told_of_records: LogRate::seldom(),
        }
    }
}

impl Budget {
    pub(super) fn add_groups(&self, count: usize) {
        self.groups.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn remove_groups(&self, count: usize) {
        self.groups.fetch_sub(count, Ordering::Relaxed);
    }

    /// What was counted as `before` is `after` by now.
    pub(super) fn change_bytes(&self, before: usize, after: usize) {
        if after >= before {
            self.bytes.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.bytes.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    /// One group more, where there may be.
    pub(super) fn take_group(&self, settings: &GroupSettings) -> Result<(), GroupError> {
        let limit = settings.groups_max;
        if self.groups.load(Ordering::Relaxed) >= limit {
            self.groups_refused.fetch_add(1, Ordering::Relaxed);
            self.told_of_groups.say(|left_out| {
                tracing::warn!(limit, left_out, "a group was refused: this broker coordinates as many as it may; delete groups that nobody uses, or spread them over more brokers");
            });
            return Err(GroupError::TooManyGroups);
        }
        self.add_groups(1);
        Ok(())
    }

    /// Whether there is room for so many bytes more.
    pub(super) fn check_bytes(&self, more: usize, settings: &GroupSettings) -> Result<(), GroupError> {
        let all = settings.groups_bytes_max;
        let limit = if more > SMALL_BYTES_MAX { all / 2 } else { all };
        let taken = self.bytes.load(Ordering::Relaxed);
        if more == 0 || taken.saturating_add(more) <= limit {
            return Ok(());
        }
        self.bytes_refused.fetch_add(1, Ordering::Relaxed);
        self.told_of_bytes.say(|left_out| {
            tracing::warn!(bytes = more, taken, limit, left_out, "a member was refused: members of groups on this broker have brought as many bytes as they may; spread groups over more brokers, or have members bring less");
        });
        Err(GroupError::GroupFull)
    }

    /// A record of a group is larger than the log takes.
    pub(super) fn tell_of_large_record(&self, group: Option<&str>, bytes: usize, limit: usize) {
        self.told_of_records.say(|left_out| {
            tracing::warn!(group, bytes, limit, left_out, "what is to be kept of a group does not fit into one batch, so its members get no assignment, or offsets are not committed; raise max.message.bytes of the topic __consumer_offsets");
        });
    }

    pub(super) fn shared(&self) -> Shared {
        Shared {
            bytes: self.bytes.load(Ordering::Relaxed),
            groups_refused: self.groups_refused.load(Ordering::Relaxed),
            bytes_refused: self.bytes_refused.load(Ordering::Relaxed),
        }
    }

    #[cfg(test)]
    pub(super) fn groups(&self) -> usize {
        self.groups.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_bounded_over_all_groups_and_the_large_do_not_keep_the_small_out() {
        let settings = GroupSettings { groups_bytes_max: 1 << 20, ..GroupSettings::default() };
        let budget = Budget::default();
        let large = SMALL_BYTES_MAX + 1;
        assert_eq!(budget.check_bytes(large, &settings), Ok(()));
        budget.change_bytes(0, 1 << 19);
        assert_eq!(budget.check_bytes(large, &settings), Err(GroupError::GroupFull));
        assert_eq!(budget.check_bytes(SMALL_BYTES_MAX, &settings), Ok(()));
        budget.change_bytes(1 << 19, 1 << 20);
        assert_eq!(budget.check_bytes(1, &settings), Err(GroupError::GroupFull));
        // Who brings nothing more stays.
        assert_eq!(budget.check_bytes(0, &settings), Ok(()));
        budget.change_bytes(1 << 20, 0);
        assert_eq!(budget.shared(), Shared { bytes: 0, groups_refused: 0, bytes_refused: 2 });
    }
}
