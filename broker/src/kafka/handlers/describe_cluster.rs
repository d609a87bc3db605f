//! DescribeCluster: who belongs to the cluster, and where.

use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::kafka::messages::describe_cluster::{
    DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse,
};

use super::{Address, CLUSTER_OPERATIONS, address_of};
use crate::kafka::request::{Refusal, Reply, RequestContext};

/// Brokers, as opposed to controllers, which clients do not reach here.
const BROKERS: i8 = 1;

pub(crate) fn handle(ctx: &RequestContext, request: DescribeClusterRequest) -> Result<Reply, Refusal> {
    let image = ctx.shared().cluster.image();
    let cluster_id = image.cluster_id().to_string();
    if request.endpoint_type != BROKERS {
        let code = ErrorCode::MismatchedEndpointType;
        ctx.count_error(code);
        let response = DescribeClusterResponse {
            error_code: code.code(),
            error_message: Some("this listener serves the addresses of brokers; ask for endpoint type 1"),
            endpoint_type: BROKERS,
            ..Default::default()
        };
        return ctx.reply(&response);
    }
    let wanted = image.brokers().filter(|broker| !broker.fenced || request.include_fenced_brokers);
    let endpoints: Vec<Address> = wanted.filter_map(|broker| address_of(ctx, broker)).collect();
    let brokers = endpoints
        .iter()
        .map(|broker| DescribeClusterBroker {
            broker_id: broker.id,
            host: &broker.host,
            port: broker.port,
            rack: broker.rack.as_deref(),
            is_fenced: broker.is_fenced,
        })
        .collect();
    let mut response = DescribeClusterResponse {
        endpoint_type: BROKERS,
        cluster_id: &cluster_id,
        controller_id: ctx.shared().cluster.controller_id().map_or(-1, |id| id.0),
        brokers,
        ..Default::default()
    };
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    ctx.reply(&response)
}
