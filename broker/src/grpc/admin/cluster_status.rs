//! How the cluster is: brokers, quorum, partitions, and moves that are under way.

use std::collections::BTreeMap;
use std::time::Duration;

use floodmark_proto::ids::BrokerId;
use floodmark_proto::pb::v1 as pb;
use floodmark_replication::quorum::LocalStatus;
use floodmark_replication::registry::OutOfOrder;
use floodmark_replication::rpc::BROKER_LISTENER;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::cluster::brokers;
use crate::grpc::call::{Api, Call};
use crate::grpc::forward;
use crate::grpc::refused::Refused;
use crate::ops::cluster::{self, Status, moves};

/// Each looks at nothing but its memory.
const OTHERS_ANSWER_WITHIN: Duration = Duration::from_secs(2);

pub(super) async fn status(
    call: &Call,
    _request: pb::ClusterStatusRequest,
) -> Result<pb::ClusterStatusReply, Refused> {
    // Whoever passes the question on has asked the quorum itself.
    let within = if call.forwarded.is_some() { Duration::ZERO } else { call.within(0) };
    let asked = cluster::status(&call.shared, Instant::now() + within);
    let (status, mut failed) = tokio::join!(asked, failed_elsewhere(call));
    failed.insert(call.shared.cluster.node_id(), call.shared.cluster.registry().out_of_order());
    Ok(pb::ClusterStatusReply {
        cluster_id: status.image.cluster_id().to_string(),
        feature_level: u32::from(status.image.feature_level()),
        metadata_version: status.image.version(),
        brokers: broker_statuses(&status, &failed),
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

/// What the others, each of which knows its own disks alone, say of them. Who does not answer in time is left out.
async fn failed_elsewhere(call: &Call) -> BTreeMap<BrokerId, OutOfOrder> {
    let deadline = Instant::now() + OTHERS_ANSWER_WITHIN;
    let mut asked = JoinSet::new();
    for broker in forward::all_others(call) {
        let call = call.clone();
        asked.spawn(async move {
            let told = timeout_at(deadline, failed_there(&call, broker)).await;
            Some((broker, told.ok()??))
        });
    }
    asked.join_all().await.into_iter().flatten().collect()
}

async fn failed_there(call: &Call, broker: BrokerId) -> Option<OutOfOrder> {
    let question = pb::ClusterStatusRequest {};
    let told: pb::ClusterStatusReply =
        forward::unary(call, broker, Api::ClusterStatus, question).await.ok()?;
    let own =
        told.brokers.into_iter().find(|of| of.broker.as_ref().is_some_and(|b| b.broker_id == broker.0))?;
    let count = usize::try_from(own.replicas_failed?).unwrap_or(usize::MAX);
    Some(OutOfOrder { count, first: own.failure })
}

fn broker_statuses(status: &Status, failed: &BTreeMap<BrokerId, OutOfOrder>) -> Vec<pb::BrokerStatus> {
    let told = status.image.brokers().zip(brokers(&status.image)).map(|(broker, told)| {
        let load = status.load.get(&broker.id).copied().unwrap_or_default();
        let endpoint = broker.endpoints.iter().find(|endpoint| endpoint.listener == BROKER_LISTENER);
        let (lowest, highest) = broker.feature_levels;
        let failed = failed.get(&broker.id);
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
            replicas_failed: failed.map(|found| u32::try_from(found.count).unwrap_or(u32::MAX)),
            failure: failed.map_or_else(String::new, |found| found.first.clone()),
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
        topic: moved.topic.to_string(),
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
