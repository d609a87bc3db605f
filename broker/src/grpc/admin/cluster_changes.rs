//! Changes of the cluster: partitions moved, leaders elected, voters changed, brokers removed.

use std::sync::Arc;

use floodmark_proto::ids::BrokerId;
use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::pb::v1 as pb;
use pb::move_partitions_request::Goal;
use tokio::time::Instant;

use super::cluster_status::ids;
use crate::grpc::call::Call;
use crate::grpc::refused::Refused;
use crate::ops::cluster::elections::{self, Elected};
use crate::ops::cluster::moves::{self, Move, Target};
use crate::ops::cluster::{change_voters, remove_broker, set_feature_level};
use crate::ops::error::OpError;

fn deadline(call: &Call, timeout_ms: u32) -> Instant {
    Instant::now() + call.within(timeout_ms)
}

pub(super) async fn move_partitions(
    call: &Call,
    request: pb::MovePartitionsRequest,
) -> Result<pb::MovePartitionsReply, Refused> {
    call.shared.cluster.check_decides()?;
    let image = call.shared.cluster.image();
    let targets = match request.goal {
        Some(Goal::To(to)) => to.targets.into_iter().map(target).collect(),
        Some(Goal::AwayFrom(broker)) => moves::away_from(&image, BrokerId(broker))?,
        Some(Goal::Onto(broker)) => moves::onto(&image, BrokerId(broker))?,
        None => return Err(Refused::invalid("nothing is to move; say what, or away from or onto whom")),
    };
    let deadline = deadline(call, request.timeout_ms);
    let begun = moves::begin(&call.shared, &targets, request.validate_only, deadline).await;
    Ok(pb::MovePartitionsReply { moves: moved(call, begun) })
}

fn target(target: pb::Target) -> Target {
    let replicas = target.replicas.into_iter().map(BrokerId).collect();
    Target { topic: target.topic.into(), partition: target.partition, replicas }
}

fn moved(call: &Call, moves: Vec<(Move, Result<(), OpError>)>) -> Vec<pb::Moved> {
    let told = moves.into_iter().map(|(moved, outcome)| pb::Moved {
        error: outcome.err().map(|e| call.refuse_part(placed(&moved.topic, moved.partition, e))),
        topic: moved.topic.to_string(),
        partition: moved.partition,
        from: ids(&moved.from),
        to: ids(&moved.to),
    });
    told.collect()
}

/// With the name of what there is not: who asked for one partition may show the reason alone.
fn placed(topic: &str, partition: i32, error: OpError) -> OpError {
    let message = match error.code {
        ErrorCode::UnknownTopicOrPartition => format!("{topic}-{partition}: {}", error.message),
        _ => return error,
    };
    OpError::new(error.code, message)
}

pub(super) async fn cancel_moves(
    call: &Call,
    request: pb::CancelMovesRequest,
) -> Result<pb::CancelMovesReply, Refused> {
    call.shared.cluster.check_decides()?;
    let named = names(request.partitions);
    let away_from = request.away_from.map(BrokerId);
    let deadline = deadline(call, request.timeout_ms);
    let cancelled = moves::cancel(&call.shared, &named, away_from, request.validate_only, deadline).await;
    Ok(pb::CancelMovesReply { moves: moved(call, cancelled) })
}

fn names(partitions: Vec<pb::TopicPartition>) -> Vec<(Arc<str>, i32)> {
    partitions.into_iter().map(|partition| (partition.topic.into(), partition.partition)).collect()
}

pub(super) async fn elect_leaders(
    call: &Call,
    request: pb::ElectLeadersRequest,
) -> Result<pb::ElectLeadersReply, Refused> {
    let kind = pb::ElectionKind::try_from(request.kind)
        .map_err(|_| Refused::invalid(format!("there is no election of kind {}", request.kind)))?;
    let deadline = deadline(call, request.timeout_ms);
    let named = names(request.partitions);
    let elected = match kind {
        pb::ElectionKind::ElectionPreferred => {
            elections::preferred(&call.shared, &named, request.validate_only, deadline).await?
        }
        pb::ElectionKind::ElectionUnclean => {
            let accept = request.accept_data_loss && !request.validate_only;
            vec![elections::unclean(&call.shared, &named, accept, deadline).await?]
        }
    };
    let told = |elected: Elected| pb::ElectedLeader {
        error: elected.error.map(|e| call.refuse_part(placed(&elected.topic, elected.partition, e))),
        topic: elected.topic.to_string(),
        partition: elected.partition,
        before: elected.before.map(|id| id.0),
        leader: elected.leader.map(|id| id.0),
        in_sync: ids(&elected.in_sync),
    };
    Ok(pb::ElectLeadersReply { elections: elected.into_iter().map(told).collect() })
}

pub(super) async fn voters(
    call: &Call,
    request: pb::ChangeVotersRequest,
) -> Result<pb::ChangeVotersReply, Refused> {
    let wanted = request.voters.into_iter().map(BrokerId).collect();
    let deadline = deadline(call, request.timeout_ms);
    let (before, voters) = change_voters(&call.shared, wanted, request.validate_only, deadline).await?;
    Ok(pb::ChangeVotersReply { before: ids(&before), voters: ids(&voters) })
}

pub(super) async fn remove(
    call: &Call,
    request: pb::RemoveBrokerRequest,
) -> Result<pb::RemoveBrokerReply, Refused> {
    let pb::RemoveBrokerRequest { broker_id, keep_replicas, validate_only, timeout_ms } = request;
    let deadline = deadline(call, timeout_ms);
    let replicas =
        remove_broker(&call.shared, BrokerId(broker_id), keep_replicas, validate_only, deadline).await?;
    Ok(pb::RemoveBrokerReply { replicas })
}

pub(super) async fn feature_level(
    call: &Call,
    request: pb::SetFeatureLevelRequest,
) -> Result<pb::SetFeatureLevelReply, Refused> {
    set_feature_level(&call.shared, request.level, deadline(call, request.timeout_ms)).await?;
    Ok(pb::SetFeatureLevelReply {})
}
