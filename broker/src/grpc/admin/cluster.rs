//! Which brokers there are, and where.

use floodmark_proto::pb::v1 as pb;
use floodmark_replication::cluster::ClusterImage;

use crate::grpc::call::Call;
use crate::grpc::refused::Refused;
use crate::{GRPC_LISTENER, KAFKA_LISTENER};

pub(super) async fn describe(
    call: &Call,
    _request: pb::DescribeClusterRequest,
) -> Result<pb::DescribeClusterReply, Refused> {
    let cluster = &call.shared.cluster;
    let image = cluster.image();
    Ok(pb::DescribeClusterReply {
        cluster_id: image.cluster_id().to_string(),
        brokers: brokers(&image),
        controller_id: cluster.controller_id().map(|id| id.0),
        broker_id: cluster.node_id().0,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// All of them, by id. A door that a broker has not got is left empty.
pub(super) fn brokers(image: &ClusterImage) -> Vec<pb::Broker> {
    let told = image.brokers().map(|broker| {
        let of = |listener: &str| {
            let endpoint = broker.endpoints.iter().find(|endpoint| endpoint.listener == listener);
            endpoint.map_or_else(Default::default, |e| (e.host.clone(), u32::from(e.port)))
        };
        let ((host, port), (kafka_host, kafka_port)) = (of(GRPC_LISTENER), of(KAFKA_LISTENER));
        pb::Broker {
            broker_id: broker.id.0,
            host,
            port,
            rack: broker.rack.clone(),
            is_fenced: broker.fenced,
            kafka_host,
            kafka_port,
        }
    });
    told.collect()
}
