//! Which replica a consumer should read from: one that stands in its rack and has what it asks for (KIP-392). Must never know wire types.

use floodmark_proto::ids::{BrokerId, Offset};
use floodmark_replication::cluster::ClusterImage;
use floodmark_replication::partition::{PartitionHandle, ReplicaProgress, Role};

use super::leaders::endpoint;

/// The replica to read from instead of this broker, the leader; `None` where none is nearer to a reader in `rack`, or none that is has
/// the record at `from`. Only replicas in sync that can be reached by `listener` are told of.
pub(crate) fn nearest(
    image: &ClusterImage,
    partition: &PartitionHandle,
    listener: &str,
    rack: &str,
    from: Offset,
) -> Option<BrokerId> {
    let duty = partition.duty();
    let stands_in = |broker: BrokerId| image.broker(broker).is_some_and(|b| b.rack.as_deref() == Some(rack));
    let is_leader = matches!(duty.role, Role::Leader { .. });
    // Most readers have a replica in their rack at once or never; neither asks the leader's lock.
    if !is_leader || stands_in(duty.node) || !duty.isr.iter().any(|id| stands_in(*id)) {
        return None;
    }
    if from < partition.log_start() {
        return None;
    }
    let can_be_reached = |id: BrokerId| {
        image.broker(id).is_some_and(|broker| !broker.fenced && endpoint(broker, listener).is_some())
    };
    // The time only dates how far behind they are, which does not count here.
    let progress = partition.replicas_progress(0);
    furthest(progress.iter().filter(|p| stands_in(p.broker) && can_be_reached(p.broker)), from)
}

/// Of those in sync that have everything before `from`, the one that has most; of several, the first.
fn furthest<'a>(progress: impl Iterator<Item = &'a ReplicaProgress>, from: Offset) -> Option<BrokerId> {
    let able = progress.filter(|p| p.is_in_sync && p.log_end >= Some(from));
    able.max_by_key(|p| (p.log_end, std::cmp::Reverse(p.broker))).map(|p| p.broker)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(broker: i32, log_end: i64, is_in_sync: bool) -> ReplicaProgress {
        let end = Some(Offset(log_end));
        let broker = BrokerId(broker);
        ReplicaProgress { broker, synced_end: end, log_end: end, caught_up_ms_ago: 0, is_in_sync }
    }

    #[test]
    fn a_replica_that_has_not_got_that_far_is_not_read_from() {
        let replicas = [replica(2, 5, true), replica(3, 9, true), replica(4, 9, true), replica(5, 20, false)];
        for (from, expected) in [(0, Some(3)), (9, Some(3)), (10, None)] {
            assert_eq!(furthest(replicas.iter(), Offset(from)), expected.map(BrokerId), "{from}");
        }
        assert_eq!(furthest(replicas[..1].iter(), Offset(5)), Some(BrokerId(2)));
        assert_eq!(furthest(replicas[3..].iter(), Offset(0)), None, "it is not in sync");
    }
}
