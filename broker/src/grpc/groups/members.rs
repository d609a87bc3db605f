//! Members: where their group is, and how they come, stay and go.

use std::sync::Arc;

use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::pb::v1 as pb;

use crate::GRPC_LISTENER;
use crate::groups::group::{JoinRefused, Joined};
use crate::groups::join::Join;
use crate::groups::leave::Leaving;
use crate::groups::member::Protocol;
use crate::groups::sync::Sync;
use crate::grpc::call::Call;
use crate::grpc::refused::Refused;
use crate::ops::groups::find;

pub(super) async fn find_coordinator(
    call: &Call,
    request: pb::FindCoordinatorRequest,
) -> Result<pb::FindCoordinatorReply, Refused> {
    let id = find(&call.shared, &request.group).await?;
    let image = call.shared.cluster.image();
    let broker = image.broker(id).filter(|broker| !broker.fenced);
    let endpoint = broker.and_then(|broker| broker.endpoints.iter().find(|e| e.listener == GRPC_LISTENER));
    let endpoint = endpoint.ok_or_else(|| {
        let message = format!("broker {id} coordinates the group and cannot be reached over gRPC now");
        Refused::new(ErrorCode::CoordinatorNotAvailable, message)
    })?;
    Ok(pb::FindCoordinatorReply {
        broker_id: id.0,
        host: endpoint.host.clone(),
        port: u32::from(endpoint.port),
    })
}

pub(super) async fn join(call: &Call, request: pb::JoinRequest) -> Result<pb::JoinReply, Refused> {
    let group = request.group.clone();
    match call.shared.groups.join(&group, joining(call, request)).await {
        Ok(joined) => Ok(welcome(joined)),
        Err(JoinRefused { error, member_id }) => Err(Refused::from(error).with("member_id", member_id)),
    }
}

fn joining(call: &Call, request: pb::JoinRequest) -> Join {
    let protocol = |p: pb::GroupProtocol| Protocol { name: Arc::from(p.name), metadata: p.metadata };
    let ms = |ms: u32| i32::try_from(ms).unwrap_or(i32::MAX);
    let host = call.client_host().map_or_else(String::new, |host| format!("/{host}"));
    Join {
        member_id: Arc::from(request.member_id),
        instance_id: request.instance_id.map(Arc::from),
        client_id: Arc::from(request.client_id),
        client_host: Arc::from(host),
        protocol_type: Arc::from(request.protocol_type),
        protocols: request.protocols.into_iter().map(protocol).collect(),
        session_timeout_ms: ms(request.session_timeout_ms),
        rebalance_timeout_ms: ms(request.rebalance_timeout_ms),
        needs_known_member_id: true,
        may_skip_assignment: true,
        // The coordinator's to choose.
        fresh: uuid::Uuid::nil(),
    }
}

fn welcome(joined: Joined) -> pb::JoinReply {
    let members = joined.members.into_iter().map(|member| pb::JoinedMember {
        member_id: member.id.to_string(),
        instance_id: member.instance_id.map(|id| id.to_string()),
        metadata: member.metadata,
    });
    pb::JoinReply {
        generation: joined.generation,
        member_id: joined.member_id.to_string(),
        leader_id: joined.leader.to_string(),
        protocol: joined.protocol.map(|protocol| protocol.to_string()).unwrap_or_default(),
        members: members.collect(),
        skip_assignment: joined.skip_assignment,
    }
}

pub(super) async fn sync(call: &Call, request: pb::SyncRequest) -> Result<pb::SyncReply, Refused> {
    let said = |text: String| (!text.is_empty()).then(|| Arc::from(text));
    let assignments = request.assignments.into_iter().map(|a| (Arc::from(a.member_id), a.assignment));
    let sync = Sync {
        member_id: Arc::from(request.member_id),
        instance_id: request.instance_id.map(Arc::from),
        generation: request.generation,
        protocol_type: said(request.protocol_type),
        protocol: said(request.protocol),
        assignments: assignments.collect(),
    };
    let synced = call.shared.groups.sync(&request.group, sync).await?;
    Ok(pb::SyncReply { assignment: synced.assignment })
}

pub(super) async fn heartbeat(
    call: &Call,
    request: pb::HeartbeatRequest,
) -> Result<pb::HeartbeatReply, Refused> {
    let instance = request.instance_id.as_deref();
    call.shared.groups.heartbeat(&request.group, &request.member_id, instance, request.generation)?;
    Ok(pb::HeartbeatReply {})
}

pub(super) async fn leave(call: &Call, request: pb::LeaveRequest) -> Result<pb::LeaveReply, Refused> {
    let leaving = Leaving { member_id: &request.member_id, instance_id: request.instance_id.as_deref() };
    let answers = call.shared.groups.leave(&request.group, &[leaving])?;
    answers.into_iter().collect::<Result<Vec<()>, _>>()?;
    Ok(pb::LeaveReply {})
}
