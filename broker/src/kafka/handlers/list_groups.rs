//! ListGroups (16). Version 4 filters by state, 5 by kind of group.

use std::collections::BTreeMap;

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
    // Once for each state, not for each group.
    let (mut passing, is_kind) = (BTreeMap::new(), passes(&request.types_filter, CLASSIC));
    let mut is_wanted = |group: &&coordinator::ListedGroup| {
        let state = group.state.name();
        is_kind && *passing.entry(state).or_insert_with(|| passes(&request.states_filter, state))
    };
    let listed = groups.iter().filter(&mut is_wanted).map(|group| ListedGroup {
        group_id: &group.id,
        protocol_type: &group.protocol_type,
        group_state: group.state.name(),
        group_type: CLASSIC,
    });
    ctx.reply(&ListGroupsResponse { groups: listed.collect(), ..Default::default() })
}
