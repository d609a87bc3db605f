//! Calls that belong to another broker, the leader of a partition or the coordinator of a group, are made there by this one, over the
//! listener that brokers have among themselves: a client that reaches any one broker reaches the cluster. A call is passed on once;
//! whoever gets it so answers it, if only by saying that it belongs elsewhere by now.
//!
//! Streams are not passed on. Their clients are told who leads and go there.

use std::collections::BTreeMap;

use floodmark_proto::ids::BrokerId;
use floodmark_proto::kafka::ErrorCode;
use floodmark_replication::rpc::{IdentityCheck, Purpose};
use prost::Message;
use tokio::time::Instant;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};
use tonic_types::StatusExt as _;

use super::call::{Api, Call};
use super::refused::Refused;
use crate::groups::records::{OFFSETS_TOPIC, partition_for};
use crate::ops::groups;
use crate::ops::leaders::leader_of;
use crate::ops::topics::TopicKey;

/// Where the client is that a call came from first.
const CLIENT_HOST: &str = "fm-client-host";
/// What brokers say beside their reasons, and is passed on as well.
const FACTS: [&str; 2] = ["member_id", "last_offset"];
const CONFLICT: &str = "STREAM_CONFLICT";

/// Marks a call as one that another broker has passed on.
#[derive(Debug, Clone)]
pub(super) struct Forwarded {
    /// Where its client is.
    pub(super) client_host: Option<String>,
}

/// Lets pass what comes from brokers of this cluster, marked as passed on.
#[derive(Debug, Clone)]
pub(super) struct MarkForwarded(pub(super) IdentityCheck);

impl Interceptor for MarkForwarded {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let mut request = self.0.call(request)?;
        let client_host = request.metadata().get(CLIENT_HOST).and_then(|host| host.to_str().ok());
        let forwarded = Forwarded { client_host: client_host.map(str::to_owned) };
        request.extensions_mut().insert(forwarded);
        Ok(request)
    }
}

/// The broker that leads a partition, where a call about it should be passed on.
pub(super) fn other_leader(call: &Call, topic: &str, index: i32) -> Option<BrokerId> {
    let leader = leader_of(&call.shared.cluster.image(), TopicKey::Name(topic), index)?.id;
    other(call, leader)
}

/// The broker that coordinates a group, where a call about it should be passed on. With `make`, the topic that keeps groups is made
/// where there is none yet.
pub(super) async fn other_coordinator(
    call: &Call,
    group: &str,
    make: bool,
) -> Result<Option<BrokerId>, Refused> {
    let image = call.shared.cluster.image();
    let Some(topic) = image.topic(OFFSETS_TOPIC) else {
        let found = if make { Some(groups::find(&call.shared, group).await?) } else { None };
        return Ok(found.and_then(|id| other(call, id)));
    };
    let count = i32::try_from(topic.partitions.iter().count()).unwrap_or(i32::MAX);
    let leader = leader_of(&image, TopicKey::Id(topic.id), partition_for(group, count));
    Ok(leader.and_then(|leader| other(call, leader.id)))
}

/// All live brokers but this one, where a call should be passed on to them too.
pub(super) fn all_others(call: &Call) -> Vec<BrokerId> {
    let image = call.shared.cluster.image();
    let live = image.brokers().filter(|broker| !broker.fenced);
    live.filter_map(|broker| other(call, broker.id)).collect()
}

/// The broker itself, where it is another one and calls may be passed on.
pub(super) fn other(call: &Call, broker: BrokerId) -> Option<BrokerId> {
    let cluster = &call.shared.cluster;
    let is_other = call.forwarded.is_none() && broker != cluster.node_id();
    let is_reachable = cluster.peers().is_some_and(|peers| peers.address(broker).is_some());
    (is_other && is_reachable).then_some(broker)
}

/// Makes a call of one request and one reply at another broker, within this call's deadline.
pub(super) async fn unary<Q, R>(call: &Call, broker: BrokerId, api: Api, request: Q) -> Result<R, Refused>
where
    Q: Message + 'static,
    R: Message + Default + 'static,
{
    let Some(peers) = call.shared.cluster.peers() else {
        return Err(Refused::new(ErrorCode::BrokerNotAvailable, "this broker is a cluster by itself"));
    };
    let lost = |reason: String| {
        let message = format!("broker {broker}, which this call belongs to, did not answer: {reason}");
        Refused::new(ErrorCode::NetworkException, message)
    };
    let channel = peers.channel(broker, Purpose::Data).map_err(|e| lost(e.to_string()))?;
    let mut request = peers.request(broker, request);
    request.set_timeout(match call.deadline {
        Some(deadline) => deadline.saturating_duration_since(Instant::now()),
        None => call.within(0),
    });
    if let Some(host) = call.client_host()
        && let Ok(host) = MetadataValue::<Ascii>::try_from(host)
    {
        request.metadata_mut().insert(CLIENT_HOST, host);
    }
    let path = format!("/floodmark.v1.{}", api.name().replace('.', "/"));
    let path = PathAndQuery::try_from(path).map_err(|e| lost(e.to_string()))?;
    let bytes_max = call.shared.config.grpc_message_bytes_max.as_usize();
    let mut there = tonic::client::Grpc::new(channel).max_decoding_message_size(bytes_max);
    there.ready().await.map_err(|e| lost(e.to_string()))?;
    let codec = tonic_prost::ProstCodec::<Q, R>::default();
    match there.unary(request, path, codec).await {
        Ok(reply) => Ok(reply.into_inner()),
        Err(status) => Err(refused_there(&status).unwrap_or_else(|| lost(status.message().to_owned()))),
    }
}

/// What another broker refused, in its words; `None` where it was not a broker that spoke.
fn refused_there(status: &Status) -> Option<Refused> {
    let details = status.get_error_details();
    let info = details.error_info().filter(|info| info.domain == super::refused::DOMAIN)?;
    let code = info.metadata.get("code").and_then(|code| code.parse().ok()).and_then(ErrorCode::from_code)?;
    let mut refused = Refused { status: status.code(), ..Refused::new(code, status.message()) };
    if info.reason == CONFLICT {
        refused.reason = CONFLICT;
    }
    for name in FACTS {
        if let Some(value) = info.metadata.get(name) {
            refused = refused.with(name, value);
        }
    }
    Some(refused)
}

/// Which partitions are whose: those of this broker, or of nobody that can be asked, under `None`. Each with its place in the request.
pub(super) fn by_leader<'a>(
    call: &Call,
    partitions: impl Iterator<Item = (&'a str, i32)>,
) -> BTreeMap<Option<BrokerId>, Vec<usize>> {
    let mut by_leader: BTreeMap<Option<BrokerId>, Vec<usize>> = BTreeMap::new();
    for (place, (topic, index)) in partitions.enumerate() {
        by_leader.entry(other_leader(call, topic, index)).or_default().push(place);
    }
    by_leader
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_passed_on_as_it_was_said() {
        let refused = Refused::new(ErrorCode::MemberIdRequired, "say who you are").with("member_id", "m-1");
        assert_eq!(refused_there(&refused.to_status()), Some(refused));
        let conflict = Refused::new(ErrorCode::InvalidRecord, "no").with("last_offset", 7);
        let conflict = Refused { reason: CONFLICT, status: tonic::Code::FailedPrecondition, ..conflict };
        assert_eq!(refused_there(&conflict.to_status()), Some(conflict));
        assert_eq!(refused_there(&Status::unavailable("transport error")), None);
    }
}
