//! IncrementalAlterConfigs: the settings that are named change, the others stay.

use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::kafka::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterConfigsResourceResponse, AlterableConfig, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
};

use super::alter_configs::WITHIN;
use super::configs::resource;
use crate::kafka::request::{Refusal, Reply, RequestContext};
use crate::ops::configs::{Change, change, null_value};
use crate::ops::error::OpError;
use crate::ops::topics::doubled;

pub(crate) async fn handle(
    ctx: &RequestContext,
    request: IncrementalAlterConfigsRequest<'_>,
) -> Result<Reply, Refusal> {
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
    let response = IncrementalAlterConfigsResponse { responses: responses.collect(), ..Default::default() };
    ctx.reply(&response)
}

async fn alter(
    ctx: &RequestContext,
    asked: &AlterConfigsResource<'_>,
    validate_only: bool,
) -> Result<(), OpError> {
    let resource = resource(asked.resource_type, asked.resource_name)?;
    let changes =
        asked.configs.iter().map(|c| Ok((c.name, operation(c)?))).collect::<Result<Vec<_>, OpError>>()?;
    change(ctx.shared(), resource, &changes, validate_only, WITHIN).await
}

fn operation<'a>(config: &AlterableConfig<'a>) -> Result<Change<'a>, OpError> {
    let value = config.value.ok_or_else(|| null_value(config.name));
    match config.config_operation {
        0 => value.map(Change::Set),
        1 => Ok(Change::Delete),
        2 => value.map(Change::Append),
        3 => value.map(Change::Subtract),
        other => Err(OpError::new(
            ErrorCode::InvalidRequest,
            format!("unknown operation {other} on {}", config.name),
        )),
    }
}
