//! JoinGroup (11). Version 1 tells sessions from rebalances, 4 has members join twice, 5 brings static ones, 7 echoes the protocol's
//! type, 9 lets a leader skip the assignment.

use std::sync::Arc;

use bytes::Bytes;
use floodmark_proto::kafka::messages::join_group::{
    JoinGroupRequest, JoinGroupResponse, JoinGroupResponseMember,
};

use crate::groups::group::{JoinRefused, Joined};
use crate::groups::join::Join;
use crate::groups::member::Protocol;
use crate::kafka::request::{Refusal, Reply, RequestContext};

const FIRST_WITH_KNOWN_MEMBER_ID: i16 = 4;
const FIRST_WITH_PROTOCOL_TYPE: i16 = 7;
const FIRST_WITH_SKIP_ASSIGNMENT: i16 = 9;

pub(crate) async fn handle(ctx: &RequestContext, request: JoinGroupRequest<'_>) -> Result<Reply, Refusal> {
    match ctx.shared().groups.join(request.group_id, join(ctx, &request)).await {
        Ok(joined) => ctx.reply(&welcome(ctx, &joined)),
        Err(refused) => ctx.reply(&refusal(ctx, &refused)),
    }
}

fn join(ctx: &RequestContext, request: &JoinGroupRequest<'_>) -> Join {
    let protocols = request
        .protocols
        .iter()
        .map(|p| Protocol { name: Arc::from(p.name), metadata: Bytes::copy_from_slice(p.metadata) });
    Join {
        member_id: Arc::from(request.member_id),
        instance_id: request.group_instance_id.map(Arc::from),
        client_id: Arc::from(ctx.client_id()),
        client_host: Arc::from(format!("/{}", ctx.peer().ip())),
        protocol_type: Arc::from(request.protocol_type),
        protocols: protocols.collect(),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        needs_known_member_id: ctx.version() >= FIRST_WITH_KNOWN_MEMBER_ID,
        may_skip_assignment: ctx.version() >= FIRST_WITH_SKIP_ASSIGNMENT,
        // The coordinator's to choose.
        fresh: uuid::Uuid::nil(),
    }
}

fn welcome<'a>(ctx: &RequestContext, joined: &'a Joined) -> JoinGroupResponse<'a> {
    let members = joined.members.iter().map(|member| JoinGroupResponseMember {
        member_id: &member.id,
        group_instance_id: member.instance_id.as_deref(),
        metadata: &member.metadata,
    });
    JoinGroupResponse {
        generation_id: joined.generation,
        protocol_type: joined.protocol_type.as_deref(),
        protocol_name: joined.protocol.as_deref().or(no_protocol(ctx)),
        leader: &joined.leader,
        skip_assignment: joined.skip_assignment,
        member_id: &joined.member_id,
        members: members.collect(),
        ..Default::default()
    }
}

fn refusal<'a>(ctx: &RequestContext, refused: &'a JoinRefused) -> JoinGroupResponse<'a> {
    ctx.count_error(refused.error.code());
    JoinGroupResponse {
        error_code: refused.error.code().code(),
        protocol_name: no_protocol(ctx),
        member_id: &refused.member_id,
        ..Default::default()
    }
}

fn no_protocol(ctx: &RequestContext) -> Option<&'static str> {
    (ctx.version() < FIRST_WITH_PROTOCOL_TYPE).then_some("")
}
