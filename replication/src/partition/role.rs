//! What this replica may do, by what the image says of it. Pure.

use std::cmp::Ordering;

use floodmark_proto::ids::{BrokerId, LeaderEpoch};

use super::error::PartitionError;

/// The part that a replica plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes writes, and stamps them with its epoch.
    Leader {
        /// Which leader it is.
        epoch: LeaderEpoch,
    },
    /// Copies another broker, which leads.
    Follower {
        /// Which leader that is.
        epoch: LeaderEpoch,
        /// The broker.
        leader: BrokerId,
    },
    /// Nobody leads.
    NotLeader {
        /// The epoch of which it knows.
        epoch: LeaderEpoch,
    },
}

impl Role {
    /// The leader epoch of which the replica knows.
    #[must_use]
    pub fn epoch(self) -> LeaderEpoch {
        match self {
            Role::Leader { epoch } | Role::Follower { epoch, .. } | Role::NotLeader { epoch } => epoch,
        }
    }

    /// What is left of it where a leader of epoch `heard` is known of, while this replica does not do as the metadata says yet: whoever led
    /// before answers nobody any more. What copies goes on until it is told whom it copies.
    #[must_use]
    pub fn under(self, heard: LeaderEpoch) -> Role {
        match self {
            Role::Leader { epoch } if heard > epoch => Role::NotLeader { epoch: heard },
            Role::Leader { .. } | Role::Follower { .. } | Role::NotLeader { .. } => self,
        }
    }

    /// The epoch that a write is stamped with, from one who takes the leader to be of epoch `expected`.
    pub fn lead(self, expected: Option<LeaderEpoch>) -> Result<LeaderEpoch, PartitionError> {
        // First the epochs, as in Kafka: who knows an older leader must learn of the newer one, whoever that is.
        expected.map_or(Ok(()), |expected| check_epoch(expected, self.epoch()))?;
        match self {
            Role::Leader { epoch } => Ok(epoch),
            Role::Follower { epoch, .. } | Role::NotLeader { epoch } => {
                Err(PartitionError::NotLeader { epoch })
            }
        }
    }
}

/// Refuses who speaks of another leader epoch than the current one (R3).
pub(super) fn check_epoch(expected: LeaderEpoch, current: LeaderEpoch) -> Result<(), PartitionError> {
    match expected.cmp(&current) {
        Ordering::Less => Err(PartitionError::FencedEpoch { expected, current }),
        Ordering::Greater => Err(PartitionError::UnknownEpoch { expected, current }),
        Ordering::Equal => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_leads_until_a_later_one_is_known_of() {
        let leader = Role::Leader { epoch: LeaderEpoch(5) };
        let follower = Role::Follower { epoch: LeaderEpoch(5), leader: BrokerId(2) };
        let nobody = Role::NotLeader { epoch: LeaderEpoch(5) };
        for (role, heard, left) in [
            (leader, -1, leader),
            (leader, 4, leader),
            (leader, 5, leader),
            (leader, 6, Role::NotLeader { epoch: LeaderEpoch(6) }),
            (follower, 4, follower),
            (follower, 6, follower),
            (nobody, 4, nobody),
            (nobody, 6, nobody),
        ] {
            assert_eq!(role.under(LeaderEpoch(heard)), left, "{role:?} {heard}");
        }
    }

    #[test]
    fn only_the_leader_of_the_epoch_that_is_meant_takes_a_write() {
        let leader = Role::Leader { epoch: LeaderEpoch(5) };
        let other = Role::NotLeader { epoch: LeaderEpoch(5) };
        let follower = Role::Follower { epoch: LeaderEpoch(5), leader: BrokerId(2) };
        let epoch = |n: i32| LeaderEpoch(n);
        let fenced = PartitionError::FencedEpoch { expected: epoch(4), current: epoch(5) };
        let unknown = PartitionError::UnknownEpoch { expected: epoch(6), current: epoch(5) };
        let not_leader = PartitionError::NotLeader { epoch: epoch(5) };
        for (role, expected, answer) in [
            (leader, None, Ok(epoch(5))),
            (leader, Some(5), Ok(epoch(5))),
            (leader, Some(4), Err(fenced.clone())),
            (leader, Some(6), Err(unknown.clone())),
            (other, None, Err(not_leader.clone())),
            (other, Some(5), Err(not_leader)),
            (other, Some(4), Err(fenced)),
            (other, Some(6), Err(unknown.clone())),
            (follower, None, Err(PartitionError::NotLeader { epoch: epoch(5) })),
            (follower, Some(6), Err(unknown)),
        ] {
            let found = role.lead(expected.map(LeaderEpoch));
            assert_eq!(format!("{found:?}"), format!("{answer:?}"), "{role:?} {expected:?}");
        }
    }
}
