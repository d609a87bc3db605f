//! Where reading ends, partition by partition.

use std::collections::BTreeMap;

/// Partitions that have not been read to their end, each with the offset before which it ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Stops {
    left: BTreeMap<i32, i64>,
}

impl Stops {
    pub(super) fn new(stops: impl IntoIterator<Item = (i32, i64)>) -> Stops {
        Stops { left: stops.into_iter().collect() }
    }

    /// Whether the record lies before the end of its partition.
    pub(super) fn is_before(&self, partition: i32, offset: i64) -> bool {
        self.left.get(&partition).is_some_and(|stop| offset < *stop)
    }

    /// Everything before `position` has been read; tells whether this was the rest of the partition.
    pub(super) fn on_position(&mut self, partition: i32, position: i64) -> bool {
        let is_end = self.left.get(&partition).is_some_and(|stop| position >= *stop);
        if is_end {
            self.left.remove(&partition);
        }
        is_end
    }

    pub(super) fn is_everything_read(&self) -> bool {
        self.left.is_empty()
    }

    pub(super) fn partitions(&self) -> Vec<i32> {
        self.left.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partition_ends_by_itself() {
        let mut stops = Stops::new([(0, 10), (3, 5)]);
        assert!(stops.is_before(0, 9) && !stops.is_before(0, 10) && !stops.is_before(1, 0));
        assert!(!stops.on_position(0, 9) && !stops.on_position(7, 100));
        assert!(stops.on_position(0, 10), "that was the rest");
        assert!(!stops.on_position(0, 11) && !stops.is_before(0, 9), "it is over");
        assert_eq!(stops.partitions(), [3]);
        // Offsets at the end need not have records.
        assert!(stops.on_position(3, 8) && stops.is_everything_read());
    }
}
