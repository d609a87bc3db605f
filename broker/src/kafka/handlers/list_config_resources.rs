//! ListConfigResources: what there is that settings may belong to.

use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::kafka::messages::list_config_resources::{
    ConfigResource, ListConfigResourcesRequest, ListConfigResourcesResponse,
};

use super::configs::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
use crate::kafka::request::{Refusal, Reply, RequestContext};

pub(crate) fn handle(ctx: &RequestContext, request: ListConfigResourcesRequest) -> Result<Reply, Refusal> {
    // Version 0 asked for client metrics only, of which there are none.
    let all = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];
    let kinds = match (ctx.version(), request.resource_types.as_slice()) {
        (0, _) => &[CLIENT_METRICS][..],
        (_, []) => &all,
        (_, kinds) => kinds,
    };
    if kinds.iter().any(|kind| !all.contains(kind)) {
        let code = ErrorCode::UnsupportedVersion;
        ctx.count_error(code);
        let response = ListConfigResourcesResponse { error_code: code.code(), ..Default::default() };
        return ctx.reply(&response);
    }
    let image = ctx.shared().cluster.image();
    let brokers: Vec<String> = image.brokers().map(|broker| broker.id.to_string()).collect();
    let mut config_resources = Vec::new();
    if kinds.contains(&TOPIC) {
        config_resources.extend(
            image.topics().map(|topic| ConfigResource { resource_name: &topic.name, resource_type: TOPIC }),
        );
    }
    for kind in [BROKER, BROKER_LOGGER].iter().filter(|kind| kinds.contains(kind)) {
        config_resources
            .extend(brokers.iter().map(|id| ConfigResource { resource_name: id, resource_type: *kind }));
    }
    let response = ListConfigResourcesResponse { config_resources, ..Default::default() };
    ctx.reply(&response)
}
