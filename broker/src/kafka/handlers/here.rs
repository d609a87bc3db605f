//! What no image tells: the partitions that this broker cannot have on its disks. It leads none of them, whatever the image says. Must know
//! no message.

use std::collections::BTreeSet;

use floodmark_proto::ids::{BrokerId, TopicId};
use floodmark_proto::kafka::ErrorCode;
use floodmark_replication::cluster::{ClusterImage, Partition};

use crate::kafka::request::RequestContext;

/// This broker, and what it cannot have.
pub(super) struct Here {
    broker: BrokerId,
    unusable: BTreeSet<(TopicId, i32)>,
}

/// A partition as clients are told of it.
pub(super) struct Seen {
    leader: Option<BrokerId>,
    pub(super) offline_replicas: Vec<i32>,
}

impl Here {
    pub(super) fn look(ctx: &RequestContext) -> Here {
        let cluster = &ctx.shared().cluster;
        let unusable = cluster.registry().all_unusable().into_keys().map(|id| (id.topic_id, id.index));
        Here { broker: cluster.node_id(), unusable: unusable.collect() }
    }

    pub(super) fn seen(
        &self,
        image: &ClusterImage,
        topic: TopicId,
        index: u32,
        partition: &Partition,
    ) -> Seen {
        let lacks = self.unusable.contains(&(topic, index as i32)).then_some(self.broker);
        let is_offline = |id: &&BrokerId| !image.is_live(**id) || Some(**id) == lacks;
        Seen {
            leader: partition.leader.filter(|leader| Some(*leader) != lacks),
            offline_replicas: partition.replicas.iter().filter(is_offline).map(|id| id.0).collect(),
        }
    }
}

impl Seen {
    pub(super) fn leader_id(&self) -> i32 {
        self.leader.map_or(-1, |id| id.0)
    }

    pub(super) fn error_code(&self) -> i16 {
        if self.leader.is_some() { 0 } else { ErrorCode::LeaderNotAvailable.code() }
    }
}
