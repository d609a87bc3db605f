//! AlterConfigs: a resource gets the settings that are named, and loses all others.

use std::time::Duration;

use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::kafka::messages::alter_configs::{
    AlterConfigsRequest, AlterConfigsResource, AlterConfigsResourceResponse, AlterConfigsResponse,
};

use super::configs::resource;
use crate::kafka::request::{Refusal, Reply, RequestContext};
use crate::ops::configs::replace;
use crate::ops::error::OpError;
use crate::ops::topics::doubled;

/// The request has no deadline of its own.
pub(super) const WITHIN: Duration = Duration::from_secs(30);

pub(crate) async fn handle(ctx: &RequestContext, request: AlterConfigsRequest<'_>) -> Result<Reply, Refusal> {
    let mut outcomes = Vec::with_capacity(request.resources.len());
    let doubled = doubled(request.resources.iter().map(|r| (r.resource_type, r.resource_name)));
    for asked in &request.resources {
        outcomes.push(if doubled.contains(&(asked.resource_type, asked.resource_name)) {
            Err(OpError::new(ErrorCode::InvalidRequest, "each resource must appear at most once"))
        } else {
            alter(ctx, asked, request.validate_only).await
        });
    }
    let responses = request.resources.iter().zip(&outcomes).map(|(asked, outcome)| {
        let error = outcome.as_ref().err();
        if let Some(e) = error {
            ctx.count_error(e.code);
        }
        AlterConfigsResourceResponse {
            error_code: error.map_or(0, |e| e.code.code()),
            error_message: error.map(|e| e.message.as_str()),
            resource_type: asked.resource_type,
            resource_name: asked.resource_name,
        }
    });
    let response = AlterConfigsResponse { responses: responses.collect(), ..Default::default() };
    ctx.reply(&response)
}

async fn alter(
    ctx: &RequestContext,
    asked: &AlterConfigsResource<'_>,
    validate_only: bool,
) -> Result<(), OpError> {
    let resource = resource(asked.resource_type, asked.resource_name)?;
    let wanted: Vec<(&str, Option<&str>)> = asked.configs.iter().map(|c| (c.name, c.value)).collect();
    replace(ctx.shared(), resource, &wanted, validate_only, WITHIN).await
}
