//! SyncGroup (14). Version 3 brings static members, 5 demands that a member says which protocol it was told of.

use std::sync::Arc;

use bytes::Bytes;
use floodmark_proto::kafka::messages::sync_group::{SyncGroupRequest, SyncGroupResponse};

use super::code_of;
use crate::groups::GroupError;
use crate::groups::sync::Sync;
use crate::kafka::request::{Refusal, Reply, RequestContext};

const FIRST_WITH_PROTOCOL: i16 = 5;

pub(crate) async fn handle(ctx: &RequestContext, request: SyncGroupRequest<'_>) -> Result<Reply, Refusal> {
    let names_protocol = request.protocol_type.is_some() && request.protocol_name.is_some();
    let outcome = if ctx.version() >= FIRST_WITH_PROTOCOL && !names_protocol {
        Err(GroupError::InconsistentProtocol)
    } else {
        ctx.shared().groups.sync(request.group_id, sync(&request)).await
    };
    match outcome {
        Ok(synced) => ctx.reply(&SyncGroupResponse {
            protocol_type: synced.protocol_type.as_deref(),
            protocol_name: synced.protocol.as_deref(),
            assignment: &synced.assignment,
            ..Default::default()
        }),
        Err(error) => {
            ctx.reply(&SyncGroupResponse { error_code: code_of(ctx, Err(error)), ..Default::default() })
        }
    }
}

fn sync(request: &SyncGroupRequest<'_>) -> Sync {
    let assignments = request.assignments.iter();
    Sync {
        member_id: Arc::from(request.member_id),
        instance_id: request.group_instance_id.map(Arc::from),
        generation: request.generation_id,
        protocol_type: request.protocol_type.map(Arc::from),
        protocol: request.protocol_name.map(Arc::from),
        assignments: assignments
            .map(|a| (Arc::from(a.member_id), Bytes::copy_from_slice(a.assignment)))
            .collect(),
    }
}
