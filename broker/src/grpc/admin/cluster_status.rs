//! How the cluster is: brokers, quorum, partitions, and moves that are under way.

use floodmark_proto::ids::BrokerId;
use floodmark_proto::pb::v1 as pb;
use floodmark_replication::quorum::LocalStatus;
use floodmark_replication::rpc::BROKER_LISTENER;
use tokio::time::Instant;

use super::cluster::brokers;
use crate::grpc::call::Call;
use crate::grpc::refused::Refused;
use crate::ops::cluster::{self, Status, moves};

pub(super) async fn status(
    call: &Call,
    _request: pb::ClusterStatusRequest,
) -> Result<pb::ClusterStatusReply, Refused> {
    let status = cluster::status(&call.shared, Instant::now() + call.within(0)).await;
    Ok(pb::ClusterStatusReply {
        cluster_id: status.image.cluster_id().to_string(),
        feature_level: u32::from(status.image.feature_level()),
        metadata_version: status.image.version(),
        brokers: broker_statuses(&status),
        quorum: Some(quorum(&status.quorum)),
        partitions: Some(pb::PartitionCounts {
            all: status.health.partitions,
            offline: status.health.offline,
            under_replicated: status.health.under_replicated,
            below_minimum: status.health.below_minimum,
            moving: status.health.moving,
        }),
        broker_id: call.shared.cluster.node_id().0,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

fn broker_statuses(status: &Status) -> Vec<pb::BrokerStatus> {
    let told = status.image.brokers().zip(brokers(&status.image)).map(|(broker, told)| {
        let load = status.load.get(&broker.id).copied().unwrap_or_default();
        let endpoint = broker.endpoints.iter().find(|endpoint| endpoint.listener == BROKER_LISTENER);
        let (lowest, highest) = broker.feature_levels;
        pb::BrokerStatus {
            broker: Some(told),
            is_stopping: broker.stopping,
            leaders: load.leaders,
            replicas: load.replicas,
            replicas_behind: load.behind,
            cluster_host: endpoint.map_or_else(String::new, |endpoint| endpoint.host.clone()),
            cluster_port: endpoint.map_or(0, |endpoint| u32::from(endpoint.port)),
            lowest_level: u32::from(lowest),
            highest_level: u32::from(highest),
        }
    });
    told.collect()
}

fn quorum(status: &LocalStatus) -> pb::QuorumState {
    let members = status.nodes.iter().map(|node| pb::QuorumMember {
        broker_id: node.broker.0,
        is_voter: node.is_voter,
        matched_index: node.matched_index,
    });
    pb::QuorumState {
        leader: status.leader.map(|leader| leader.0),
        term: status.term,
        last_index: status.last_log_index,
        applied_index: status.applied_index,
        members: members.collect(),
    }
}

pub(super) async fn moves(
    call: &Call,
    _request: pb::ListMovesRequest,
) -> Result<pb::ListMovesReply, Refused> {
    let image = call.shared.cluster.image();
    let moves = moves::under_way(&image).map(|(moved, partition)| pb::MoveUnderWay {
        topic: moved.topic,
        partition: moved.partition,
        from: ids(&moved.from),
        to: ids(&moved.to),
        in_sync: ids(&partition.isr),
        leader: partition.leader.map(|leader| leader.0),
    });
    Ok(pb::ListMovesReply { moves: moves.collect() })
}

pub(super) fn ids(brokers: &[BrokerId]) -> Vec<i32> {
    brokers.iter().map(|id| id.0).collect()
}
