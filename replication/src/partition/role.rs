//! What this replica may do, by what the image says of it. Pure.

use floodmark_proto::ids::LeaderEpoch;

use super::error::PartitionError;

/// The part that a replica plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes writes, and stamps them with its epoch.
    Leader {
        /// Which leader it is.
        epoch: LeaderEpoch,
    },
    /// Takes none: another broker leads, or none does.
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
            Role::Leader { epoch } | Role::NotLeader { epoch } => epoch,
        }
    }

    /// The epoch that a write is stamped with, from one who takes the leader to be of epoch `expected`.
    pub fn lead(self, expected: Option<LeaderEpoch>) -> Result<LeaderEpoch, PartitionError> {
        let current = self.epoch();
        // First the epochs, as in Kafka: who knows an older leader must learn of the newer one, whoever that is.
        match expected {
            Some(expected) if expected < current => {
                return Err(PartitionError::FencedEpoch { expected, current });
            }
            Some(expected) if expected > current => {
                return Err(PartitionError::UnknownEpoch { expected, current });
            }
            _ => {}
        }
        match self {
            Role::Leader { epoch } => Ok(epoch),
            Role::NotLeader { epoch } => Err(PartitionError::NotLeader { epoch }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_leader_of_the_epoch_that_is_meant_takes_a_write() {
        let leader = Role::Leader { epoch: LeaderEpoch(5) };
        let other = Role::NotLeader { epoch: LeaderEpoch(5) };
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
            (other, Some(6), Err(unknown)),
        ] {
            let found = role.lead(expected.map(LeaderEpoch));
            assert_eq!(format!("{found:?}"), format!("{answer:?}"), "{role:?} {expected:?}");
        }
    }
}
