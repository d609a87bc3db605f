//! Elections and changes of in-sync sets, counted as this broker's image of the cluster changes. Each is counted by one broker: the one
//! that leads the partition afterwards. So the sum over all brokers is what the cluster did.

use std::sync::Arc;

use floodmark_proto::ids::BrokerId;
use floodmark_replication::cluster::delta::TopicDelta;
use floodmark_replication::cluster::{ClusterDelta, ClusterImage, Partition};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

/// What became of the partitions that a broker leads.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClusterChanges {
    elections: Counter,
    unclean_elections: Counter,
    shrinks: Counter,
    expansions: Counter,
}

impl ClusterChanges {
    pub(super) fn register(registry: &mut Registry) -> ClusterChanges {
        let changes = ClusterChanges::default();
        registry.register("leader_elections", "Times this broker became a leader", changes.elections.clone());
        registry.register(
            "unclean_leader_elections",
            "Leaders without all that was committed, elected by order of an operator whom this broker answered",
            changes.unclean_elections.clone(),
        );
        registry.register(
            "isr_shrinks",
            "Replicas that left the in-sync sets of partitions led here",
            changes.shrinks.clone(),
        );
        registry.register(
            "isr_expansions",
            "Replicas that came into the in-sync sets of partitions led here",
            changes.expansions.clone(),
        );
        changes
    }

    /// Counts until the sender of images is gone. What was so at the beginning is not counted.
    pub(crate) async fn follow(self, broker: BrokerId, mut images: watch::Receiver<Arc<ClusterImage>>) {
        let mut seen = Arc::clone(&images.borrow_and_update());
        while images.changed().await.is_ok() {
            let image = Arc::clone(&images.borrow_and_update());
            self.on_image(broker, &seen, &image);
            seen = image;
        }
    }

    /// An operator had a leader elected that lacks something. Two images do not tell: a leader may come into the in-sync set and be elected
    /// between them.
    pub(crate) fn on_unclean_election(&self) {
        self.unclean_elections.inc();
    }

    fn on_image(&self, broker: BrokerId, old: &ClusterImage, new: &ClusterImage) {
        for topic in &ClusterDelta::between(old, new).topics {
            let TopicDelta::Changed { old, new } = topic else { continue };
            for index in topic.partitions() {
                if let (Some(old), Some(new)) = (old.partition(index), new.partition(index)) {
                    self.on_partition(broker, old, new);
                }
            }
        }
    }

    fn on_partition(&self, broker: BrokerId, old: &Partition, new: &Partition) {
        if new.leader != Some(broker) {
            return;
        }
        if new.leader_epoch > old.leader_epoch {
            self.elections.inc();
        }
        let missing = |from: &[BrokerId], of: &[BrokerId]| of.iter().filter(|id| !from.contains(id)).count();
        self.shrinks.inc_by(missing(&new.isr, &old.isr) as u64);
        self.expansions.inc_by(missing(&old.isr, &new.isr) as u64);
    }
}

#[cfg(test)]
mod tests {
    use floodmark_proto::ids::LeaderEpoch;

    use super::*;

    fn counts(old: (Option<i32>, i32, &[i32]), new: (Option<i32>, i32, &[i32])) -> [u64; 3] {
        let partition = |(leader, epoch, isr): (Option<i32>, i32, &[i32])| {
            let mut partition = crate::metrics::cluster::tests::partition(&[1, 2, 3], isr);
            partition.leader = leader.map(BrokerId);
            partition.leader_epoch = LeaderEpoch(epoch);
            partition
        };
        let changes = ClusterChanges::default();
        changes.on_partition(BrokerId(1), &partition(old), &partition(new));
        [&changes.elections, &changes.shrinks, &changes.expansions].map(|c| c.get())
    }

    #[test]
    fn the_broker_that_leads_afterwards_counts() {
        let all: &[i32] = &[1, 2, 3];
        for (old, new, expected) in [
            ((Some(1), 4, all), (Some(1), 4, all), [0, 0, 0]),
            ((Some(2), 4, all), (Some(1), 5, &[1, 3][..]), [1, 1, 0]),
            ((Some(1), 4, &[1][..]), (Some(1), 4, all), [0, 0, 2]),
            ((Some(1), 4, all), (Some(1), 4, &[1][..]), [0, 2, 0]),
            ((None, 4, &[2][..]), (Some(1), 5, &[1][..]), [1, 1, 1]),
            // Another broker counts these.
            ((Some(1), 4, all), (Some(2), 5, &[2, 3][..]), [0, 0, 0]),
            ((Some(1), 4, &[1][..]), (None, 5, &[1][..]), [0, 0, 0]),
        ] {
            assert_eq!(counts(old, new), expected, "{old:?} {new:?}");
        }
    }
}
