//! Whether enough replicas are in sync. Pure.

use super::error::PartitionError;

/// How many replicas are in sync, and how many must be for a write that asks for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InSync {
    /// The leader among them.
    pub(super) replicas: u32,
    /// `min.insync.replicas`.
    pub(super) min: u32,
}

impl InSync {
    fn is_enough(self) -> bool {
        self.replicas >= self.min
    }

    /// Asked before an append that wants all replicas: later it could only be taken and then not acknowledged.
    pub(super) fn check_before_append(self) -> Result<(), PartitionError> {
        match self.is_enough() {
            true => Ok(()),
            false => Err(PartitionError::NotEnoughReplicas { in_sync: self.replicas, min: self.min }),
        }
    }

    /// Asked again once the high watermark has passed the records: the set may have shrunk since, and a watermark over fewer
    /// replicas than asked for acknowledges nothing.
    pub(super) fn check_before_acknowledgement(self) -> Result<(), PartitionError> {
        match self.is_enough() {
            true => Ok(()),
            false => {
                Err(PartitionError::NotEnoughReplicasAfterAppend { in_sync: self.replicas, min: self.min })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_the_minimum_are_enough() {
        for (replicas, min, enough) in
            [(1, 1, true), (1, 2, false), (2, 2, true), (3, 2, true), (0, 1, false)]
        {
            let in_sync = InSync { replicas, min };
            assert_eq!(in_sync.check_before_append().is_ok(), enough, "{in_sync:?}");
            assert_eq!(in_sync.check_before_acknowledgement().is_ok(), enough, "{in_sync:?}");
        }
        let too_few = InSync { replicas: 1, min: 2 };
        assert!(matches!(
            (too_few.check_before_append(), too_few.check_before_acknowledgement()),
            (
                Err(PartitionError::NotEnoughReplicas { in_sync: 1, min: 2 }),
                Err(PartitionError::NotEnoughReplicasAfterAppend { in_sync: 1, min: 2 })
            )
        ));
    }
}
