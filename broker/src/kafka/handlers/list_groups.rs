//! ListGroups (16). Version 4 filters by state, 5 by kind of group.

use floodmark_proto::kafka::messages::list_groups::{ListGroupsRequest, ListGroupsResponse, ListedGroup};

use super::code_of;
use crate::groups::coordinator;
use crate::kafka::request::{Refusal, Reply, RequestContext};

/// The kind of all groups there are, as tools call it.
const CLASSIC: &str = "classic";

pub(crate) fn handle(ctx: &RequestContext, request: ListGroupsRequest<'_>) -> Result<Reply, Refusal> {
    let groups = match ctx.shared().groups.list_groups() {
        Ok(groups) => groups,
        Err(error) => {
            return ctx
                .reply(&ListGroupsResponse { error_code: code_of(ctx, Err(error)), ..Default::default() });
        }
    };
    let passes =
        |filter: &[&str], is: &str| filter.is_empty() || filter.iter().any(|f| f.eq_ignore_ascii_case(is));
    let is_wanted = |group: &&coordinator::ListedGroup| {
        passes(&request.states_filter, group.state.name()) && passes(&request.types_filter, CLASSIC)
    };
    let listed = groups.iter().filter(is_wanted).map(|group| ListedGroup {
        group_id: &group.id,
        protocol_type: &group.protocol_type,
        group_state: group.state.name(),
        group_type: CLASSIC,
    });
    ctx.reply(&ListGroupsResponse { groups: listed.collect(), ..Default::default() })
}
