//! LeaveGroup (13): one member up to version 2, a list of them from 3 on, each with an answer of its own.

use floodmark_proto::kafka::messages::leave_group::{LeaveGroupRequest, LeaveGroupResponse, MemberResponse};

use super::code_of;
use crate::groups::GroupError;
use crate::groups::leave::Leaving;
use crate::kafka::request::{Refusal, Reply, RequestContext};

const FIRST_WITH_LIST: i16 = 3;

pub(crate) fn handle(ctx: &RequestContext, request: LeaveGroupRequest<'_>) -> Result<Reply, Refusal> {
    let groups = &ctx.shared().groups;
    if ctx.version() < FIRST_WITH_LIST {
        let leaving = [Leaving { member_id: request.member_id, instance_id: None }];
        let answers = groups.leave(request.group_id, &leaving);
        let outcome = answers.and_then(|answers| answers.into_iter().next().unwrap_or(Ok(())));
        return ctx.reply(&LeaveGroupResponse { error_code: code_of(ctx, outcome), ..Default::default() });
    }
    let leaving: Vec<Leaving<'_>> = request
        .members
        .iter()
        .map(|m| Leaving { member_id: m.member_id, instance_id: m.group_instance_id })
        .collect();
    match groups.leave(request.group_id, &leaving) {
        // Of a group that is not there nobody is a member.
        Err(error @ GroupError::UnknownMemberId) => ctx.reply(&LeaveGroupResponse {
            members: leaving.iter().map(|one| left(ctx, one, Err(error))).collect(),
            ..Default::default()
        }),
        Err(error) => {
            ctx.reply(&LeaveGroupResponse { error_code: code_of(ctx, Err(error)), ..Default::default() })
        }
        Ok(answers) => ctx.reply(&LeaveGroupResponse {
            members: leaving.iter().zip(answers).map(|(one, answer)| left(ctx, one, answer)).collect(),
            ..Default::default()
        }),
    }
}

fn left<'a>(ctx: &RequestContext, one: &Leaving<'a>, answer: Result<(), GroupError>) -> MemberResponse<'a> {
    MemberResponse {
        member_id: one.member_id,
        group_instance_id: one.instance_id,
        error_code: code_of(ctx, answer),
    }
}
