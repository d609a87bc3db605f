//! Up to where a partition's records are committed. Pure.

use floodmark_proto::ids::Offset;

use crate::cluster::settings::SyncPolicy;

/// How far the leader's own log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LeaderLog {
    /// End of what is appended.
    pub(super) end: Offset,
    /// End of what is on its disk.
    pub(super) durable: Offset,
}

/// The high watermark after `current`: what every replica in sync has, to the degree that the topic asks for. Never goes back,
/// whatever a setting or a replica does: consumers have read up to `current`.
///
/// `followers` are the ends that the other replicas in sync have reported, by the same measure.
#[must_use]
pub(super) fn advance(
    current: Offset,
    sync: SyncPolicy,
    leader: LeaderLog,
    followers: impl IntoIterator<Item = Offset>,
) -> Offset {
    let own = match sync {
        SyncPolicy::Ack => leader.durable.min(leader.end),
        SyncPolicy::Interval | SyncPolicy::None => leader.end,
    };
    followers.into_iter().fold(own, Offset::min).max(current)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_replica_in_sync_has_is_committed() {
        use SyncPolicy::{Ack, Interval, None};
        for (current, sync, (end, durable), followers, expected) in [
            // Alone: what is durable, or what is there.
            (0, Ack, (10, 0), vec![], 0),
            (0, Ack, (10, 7), vec![], 7),
            (0, Ack, (10, 10), vec![], 10),
            (0, None, (10, 0), vec![], 10),
            (0, Interval, (10, 3), vec![], 10),
            // With followers: the slowest one counts, also where it is ahead of nobody but us.
            (0, Ack, (10, 7), vec![5, 9], 5),
            (0, Ack, (10, 4), vec![5, 9], 4),
            (0, None, (10, 0), vec![5, 9], 5),
            (0, None, (10, 0), vec![10, 10], 10),
            // It never goes back: not when a topic turns to synced acknowledgements, nor when a slow replica joins.
            (10, Ack, (12, 4), vec![], 10),
            (10, Ack, (12, 12), vec![3], 10),
            (10, None, (10, 10), vec![], 10),
            // A durable end beyond the log's end is a log that was cut just now.
            (2, Ack, (3, 9), vec![], 3),
        ] {
            let leader = LeaderLog { end: Offset(end), durable: Offset(durable) };
            let found = advance(Offset(current), sync, leader, followers.iter().map(|f| Offset(*f)));
            assert_eq!(found, Offset(expected), "{current} {sync:?} {leader:?} {followers:?}");
        }
    }
}
