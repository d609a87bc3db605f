//! DescribeConfigs: settings with their sources.

use floodmark_proto::kafka::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResponse,
    DescribeConfigsResult, DescribeConfigsSynonym,
};

use super::configs::{CLIENT_METRICS, GROUP, resource, source_code, type_code};
use crate::kafka::request::{Refusal, Reply, RequestContext};
use crate::ops::configs::{Entry, describe};
use crate::ops::error::OpError;

pub(crate) fn handle(ctx: &RequestContext, request: DescribeConfigsRequest<'_>) -> Result<Reply, Refusal> {
    let described: Vec<_> = request.resources.iter().map(|asked| entries(ctx, asked)).collect();
    let results = request.resources.iter().zip(&described).map(|(asked, outcome)| {
        let error = outcome.as_ref().err();
        if let Some(e) = error {
            ctx.count_error(e.code);
        }
        let entries = outcome.as_deref().unwrap_or_default();
        DescribeConfigsResult {
            error_code: error.map_or(0, |e| e.code.code()),
            error_message: error.map(|e| e.message.as_str()),
            resource_type: asked.resource_type,
            resource_name: asked.resource_name,
            configs: entries.iter().map(|entry| config(entry, &request)).collect(),
        }
    });
    let response = DescribeConfigsResponse { results: results.collect(), ..Default::default() };
    ctx.reply(&response)
}

fn entries(ctx: &RequestContext, asked: &DescribeConfigsResource<'_>) -> Result<Vec<Entry>, OpError> {
    // Nothing was set for them, and asking is no mistake.
    if matches!(asked.resource_type, CLIENT_METRICS | GROUP) {
        return Ok(Vec::new());
    }
    let resource = resource(asked.resource_type, asked.resource_name)?;
    describe(ctx.shared(), resource, asked.configuration_keys.as_deref())
}

fn config<'a>(entry: &'a Entry, request: &DescribeConfigsRequest<'_>) -> DescribeConfigsResourceResult<'a> {
    let synonym = |(name, value, source): &'a (&'static str, String, _)| DescribeConfigsSynonym {
        name,
        value: Some(value),
        source: source_code(*source),
    };
    DescribeConfigsResourceResult {
        name: entry.name,
        value: Some(&entry.value),
        read_only: entry.is_read_only,
        config_source: source_code(entry.source),
        is_sensitive: false,
        synonyms: if request.include_synonyms {
            entry.chain.iter().map(synonym).collect()
        } else {
            Vec::new()
        },
        config_type: type_code(entry.config_type),
        documentation: request.include_documentation.then_some(entry.documentation),
    }
}
