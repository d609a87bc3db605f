//! Who leads a partition and where that broker is reached: what a client is told that came to the wrong one. Must never know wire types.

use floodmark_proto::ids::{BrokerId, LeaderEpoch};
use floodmark_proto::kafka::ErrorCode;
use floodmark_replication::cluster::ClusterImage;
use floodmark_replication::cluster::image::{Broker, Endpoint};

use super::topics::{TopicKey, find};

/// Who leads a partition by the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) id: BrokerId,
    pub(crate) epoch: LeaderEpoch,
}

/// The leader of a partition, where it has one.
pub(crate) fn leader_of(image: &ClusterImage, topic: TopicKey<'_>, index: i32) -> Option<Leader> {
    let partition = find(image, topic).ok()?.partition(u32::try_from(index).ok()?)?;
    Some(Leader { id: partition.leader?, epoch: partition.leader_epoch })
}

/// Whether a refusal is one after which another broker should be asked.
pub(crate) fn is_misdirected(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch)
}

/// Where a broker is reached by whoever uses that listener; `None` where it has none such.
pub(crate) fn endpoint<'a>(broker: &'a Broker, listener: &str) -> Option<&'a Endpoint> {
    broker.endpoints.iter().find(|endpoint| endpoint.listener == listener)
}
