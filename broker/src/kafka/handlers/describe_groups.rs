//! DescribeGroups (15). A group that is not there is `Dead` and no error up to version 5, and an error from 6 on.

use floodmark_proto::kafka::messages::describe_groups::{
    DescribeGroupsRequest, DescribeGroupsResponse, DescribedGroup, DescribedGroupMember,
};

use super::named::once;
use super::{GROUP_OPERATIONS, code_of};
use crate::groups::GroupError;
use crate::groups::coordinator;
use crate::groups::group::GroupState;
use crate::kafka::request::{Refusal, Reply, RequestContext};

const FIRST_WITH_UNKNOWN_GROUP: i16 = 6;

pub(crate) fn handle(ctx: &RequestContext, mut request: DescribeGroupsRequest<'_>) -> Result<Reply, Refusal> {
    once(&mut request.groups, |name| *name);
    let described: Vec<_> =
        request.groups.iter().map(|group| (*group, ctx.shared().groups.describe_group(group))).collect();
    let mut groups: Vec<DescribedGroup<'_>> = described
        .iter()
        .map(|(group_id, described)| match described {
            Ok(group) => of_group(group_id, group),
            Err(error) => refused(ctx, group_id, *error),
        })
        .collect();
    if request.include_authorized_operations {
        let there = groups.iter_mut().filter(|group| group.error_code == 0);
        there.for_each(|group| group.authorized_operations = GROUP_OPERATIONS);
    }
    ctx.reply(&DescribeGroupsResponse { groups, ..Default::default() })
}

fn of_group<'a>(group_id: &'a str, group: &'a coordinator::DescribedGroup) -> DescribedGroup<'a> {
    let members = group.members.iter().map(|member| DescribedGroupMember {
        member_id: &member.id,
        group_instance_id: member.instance_id.as_deref(),
        client_id: &member.client_id,
        client_host: &member.client_host,
        member_metadata: &member.metadata,
        member_assignment: &member.assignment,
    });
    DescribedGroup {
        group_id,
        group_state: group.state.name(),
        protocol_type: &group.protocol_type,
        protocol_data: &group.protocol,
        members: members.collect(),
        ..Default::default()
    }
}

fn refused<'a>(ctx: &RequestContext, group_id: &'a str, error: GroupError) -> DescribedGroup<'a> {
    let group_state = GroupState::Dead.name();
    if error == GroupError::GroupNotFound && ctx.version() < FIRST_WITH_UNKNOWN_GROUP {
        return DescribedGroup { group_id, group_state, ..Default::default() };
    }
    let error_message = (error == GroupError::GroupNotFound).then_some("there is no such group");
    let error_code = code_of(ctx, Err(error));
    DescribedGroup { error_code, error_message, group_id, group_state, ..Default::default() }
}
