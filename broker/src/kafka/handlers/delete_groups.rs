//! DeleteGroups (42): groups without members, and their offsets.

use floodmark_proto::kafka::messages::delete_groups::{
    DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse,
};

use super::code_of;
use super::named::once;
use crate::kafka::request::{Refusal, Reply, RequestContext};

pub(crate) async fn handle(
    ctx: &RequestContext,
    mut request: DeleteGroupsRequest<'_>,
) -> Result<Reply, Refusal> {
    once(&mut request.groups_names, |name| *name);
    let mut results = Vec::with_capacity(request.groups_names.len());
    for &group_id in &request.groups_names {
        let outcome = ctx.shared().groups.delete_group(group_id).await;
        results.push(DeletableGroupResult { group_id, error_code: code_of(ctx, outcome) });
    }
    ctx.reply(&DeleteGroupsResponse { results, ..Default::default() })
}
