//! Heartbeat (12): a member of a group says that it is there. Version 3 brings static members.

use floodmark_proto::kafka::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};

use super::code_of;
use crate::kafka::request::{Refusal, Reply, RequestContext};

pub(crate) fn handle(ctx: &RequestContext, request: HeartbeatRequest<'_>) -> Result<Reply, Refusal> {
    let HeartbeatRequest { group_id, generation_id, member_id, group_instance_id } = request;
    let outcome = ctx.shared().groups.heartbeat(group_id, member_id, group_instance_id, generation_id);
    let response = HeartbeatResponse { error_code: code_of(ctx, outcome), ..Default::default() };
    ctx.reply(&response)
}
