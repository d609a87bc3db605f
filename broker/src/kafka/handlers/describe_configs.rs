//! DescribeConfigs: settings with their sources.

use floodmark_proto::kafka::EncodeError;
use floodmark_proto::kafka::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResponse,
    DescribeConfigsResult, DescribeConfigsSynonym,
};

use super::configs::{CLIENT_METRICS, GROUP, resource, source_code, type_code};
use super::named::once;
use crate::kafka::request::{REPLY_BYTES_MAX, Refusal, Reply, RequestContext};
use crate::ops::configs::{Entry, describe};
use crate::ops::error::OpError;

pub(crate) async fn handle(
    ctx: &RequestContext,
    mut request: DescribeConfigsRequest<'_>,
) -> Result<Reply, Refusal> {
    once(&mut request.resources, |r| (r.resource_type, r.resource_name));
    let (mut described, mut bytes) = (Vec::with_capacity(request.resources.len()), 0);
    for asked in &request.resources {
        let mut outcome = entries(ctx, asked);
        for entry in outcome.iter_mut().flatten() {
            if !request.include_synonyms {
                entry.chain = Vec::new();
            }
            bytes += size_of(entry, request.include_documentation);
        }
        // Before it is all there, and again before it is all written.
        if bytes > REPLY_BYTES_MAX {
            return Err(EncodeError::Cap(REPLY_BYTES_MAX).into());
        }
        described.push(outcome);
        tokio::task::yield_now().await;
    }
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

/// What an entry takes of the reply, but for lengths and numbers.
fn size_of(entry: &Entry, is_documented: bool) -> usize {
    let documentation = if is_documented { entry.documentation.len() } else { 0 };
    let chain: usize = entry.chain.iter().map(|(name, value, _)| name.len() + value.len()).sum();
    entry.name.len() + entry.value.len() + documentation + chain
}

fn entries(ctx: &RequestContext, asked: &DescribeConfigsResource<'_>) -> Result<Vec<Entry>, OpError> {
    // Nothing was set for them, and asking is no mistake.
    if matches!(asked.resource_type, CLIENT_METRICS | GROUP) {
        return Ok(Vec::new());
    }
    let resource = resource(asked.resource_type, asked.resource_name)?;
    // An empty list asks for all, as none does.
    let names = asked.configuration_keys.as_deref().filter(|names| !names.is_empty());
    describe(ctx.shared(), resource, names)
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
