//! What the cluster wants of one replica, as an image says it. Pure.

use std::sync::Arc;

use floodmark_proto::ids::BrokerId;

use super::isr::InSync;
use super::role::Role;
use crate::cluster::settings::TopicSettings;

/// What the cluster wants of this replica.
#[derive(Debug, Clone)]
pub struct Duty {
    /// The broker that this replica is on.
    pub node: BrokerId,
    /// The part it plays.
    pub role: Role,
    /// The brokers that hold the partition.
    pub replicas: Arc<[BrokerId]>,
    /// Those of them that are in sync, by what the cluster has agreed on.
    pub isr: Arc<[BrokerId]>,
    /// Which state of the partition this is.
    pub partition_epoch: i32,
    /// The topic's.
    pub settings: Arc<TopicSettings>,
}

impl Duty {
    pub(super) fn in_sync(&self) -> InSync {
        let replicas = u32::try_from(self.isr.len()).unwrap_or(u32::MAX);
        InSync { replicas, min: self.settings.min_insync_replicas }
    }

    /// True where no other broker holds the partition: then nobody else's log counts.
    pub(super) fn is_alone(&self) -> bool {
        *self.replicas == [self.node] && *self.isr == [self.node]
    }

    /// True where this was overtaken by `present`: by another leader, or by another state under the same one.
    pub(super) fn is_older_than(&self, present: &Duty) -> bool {
        let rank = |duty: &Duty| (duty.role.epoch(), duty.partition_epoch);
        rank(self) < rank(present)
    }
}
