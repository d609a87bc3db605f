//! How a broker with an empty directory comes to its part in a cluster: one of those in the list forms it, the others find it, everybody
//! else joins. The decision is pure; what it is made from is asked of every broker in the list until there is one.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use floodmark_proto::ids::{BrokerId, ClusterId};
use floodmark_proto::pb::quorum as pb;
use floodmark_storage::data_dir::DirectoryId;
use tokio::time::{Instant, sleep, timeout};
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use super::QuorumHandle;
use super::error::QuorumError;
use super::forward::NotTaken;
use super::generated::forming_client::FormingClient;
use super::raft_log::Part;
use super::seat::Seat;
use super::types::{Membership, Node, NodeId, broker_id, directory_id, membership_from_pb, node_id, port};
use crate::cluster::wire::WireError;
use crate::rpc::identity::{PROTOCOL, VERSION};
use crate::rpc::peers::connect_lazy;
use crate::rpc::{Address, Purpose, reason};

/// One question to one broker.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// A join takes a change of the membership.
const JOIN_TIMEOUT: Duration = Duration::from_secs(20);
/// Between two rounds of questions.
const ROUND_AFTER: Duration = Duration::from_millis(200);
/// What is waited for is told at once, and again after this.
const TELL_AFTER: Duration = Duration::from_secs(5);

/// What a broker in the list answered.
#[derive(Debug, Clone, PartialEq)]
struct Heard {
    broker: BrokerId,
    directory_id: DirectoryId,
    address: Option<Address>,
    cluster: Option<(ClusterId, Membership)>,
    wanted: Option<ClusterId>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    /// This broker forms the cluster, with these.
    Form(BTreeMap<NodeId, Node>),
    /// The cluster is there, and this broker is this node of it.
    Take(ClusterId, NodeId),
    /// The cluster is there, and this broker is none of it.
    Join(ClusterId),
    /// Until something changes.
    Wait(String),
    Refuse(String),
}

/// Asks until this broker has a part. Ends only with that, or where the cluster does not want it.
pub(crate) async fn find_part(
    seat: &Seat,
    listed: &[(BrokerId, Address)],
    new_cluster_id: impl Fn() -> ClusterId,
) -> Result<Part, QuorumError> {
    let mut told: Option<(String, Instant)> = None;
    loop {
        let heard = ask_all(seat, listed).await;
        let waits_for = match decide(seat, listed, &heard) {
            Step::Form(founders) => {
                let cluster_id = seat.wanted().unwrap_or_else(&new_cluster_id);
                let node = founders.keys().copied().find(|node| broker_id(*node) == seat.broker());
                let node = node.ok_or(QuorumError::NegativeNodeId(seat.broker()))?;
                tracing::info!(cluster = %cluster_id, brokers = founders.len(), "this broker forms a new cluster");
                return Ok(Part { cluster_id, node, founders, is_newcomer: false });
            }
            Step::Take(cluster_id, node) => {
                return Ok(Part { cluster_id, node, founders: BTreeMap::new(), is_newcomer: true });
            }
            Step::Refuse(reason) => return Err(QuorumError::Refused { reason }),
            Step::Join(cluster_id) => match join(seat, listed, cluster_id).await? {
                Ok(part) => return Ok(part),
                Err(reason) => reason,
            },
            Step::Wait(reason) => reason,
        };
        let is_due = told.as_ref().is_none_or(|(what, at)| *what != waits_for || at.elapsed() >= TELL_AFTER);
        if is_due {
            tracing::info!("waiting: {waits_for}");
            told = Some((waits_for.clone(), Instant::now()));
        }
        seat.wait_for(Some(waits_for));
        sleep(ROUND_AFTER).await;
    }
}

/// What this broker does, by what every other one in the list answered. Pure.
fn decide(
    seat: &Seat,
    listed: &[(BrokerId, Address)],
    heard: &BTreeMap<BrokerId, Result<Heard, String>>,
) -> Step {
    let own = seat.broker();
    let mut clusters = heard.values().filter_map(|heard| heard.as_ref().ok()?.cluster.as_ref());
    if let Some((cluster_id, _)) = clusters.next() {
        if let Some((other, _)) = clusters.find(|(other, _)| other != cluster_id) {
            return Step::Refuse(format!(
                "the brokers in cluster.voters are in two clusters, {cluster_id} and {other}; list those of one"
            ));
        }
        if let Some(wanted) = seat.wanted().filter(|wanted| wanted != cluster_id) {
            return Step::Refuse(format!(
                "cluster.id is {wanted}, but the brokers in cluster.voters are {cluster_id}"
            ));
        }
        let known = heard.values().filter_map(|heard| heard.as_ref().ok()?.cluster.as_ref());
        let mut nodes = known.flat_map(|(_, membership)| membership.nodes()).peekable();
        if nodes.peek().is_none() {
            return Step::Wait("the members of the cluster do not know it themselves yet".to_owned());
        }
        let own_disk = Some(seat.directory_id());
        return match nodes.find(|(node, known)| broker_id(**node) == own && known.directory_id == own_disk) {
            Some((node, _)) => Step::Take(*cluster_id, *node),
            // Where this id is another disk's, the leader says so: others may not know yet that it was removed.
            None => Step::Join(*cluster_id),
        };
    }
    for heard in heard.values().flatten() {
        if let (Some(wanted), Some(theirs)) = (seat.wanted(), heard.wanted)
            && wanted != theirs
        {
            return Step::Refuse(format!(
                "cluster.id is {wanted} here and {theirs} on broker {}; it must be the same on all",
                heard.broker
            ));
        }
    }
    let missing = |(broker, address): &(BrokerId, Address)| match heard.get(broker) {
        Some(Err(reason)) => Some(format!("broker {broker} at {address} ({reason})")),
        _ => None,
    };
    let missing: Vec<String> = listed.iter().filter_map(missing).collect();
    let lowest = listed.iter().map(|(broker, _)| *broker).min();
    if !listed.iter().any(|(broker, _)| *broker == own) {
        let others = missing.join(", ");
        return Step::Wait(format!("no broker in cluster.voters has a cluster to join yet; {others}"));
    }
    if !missing.is_empty() {
        return Step::Wait(format!("a new cluster needs all of cluster.voters: {}", missing.join(", ")));
    }
    if lowest != Some(own) {
        return Step::Wait("the broker with the lowest id in cluster.voters forms the cluster".to_owned());
    }
    let mut founders = BTreeMap::new();
    for (broker, listed_at) in listed {
        let Some(node) = node_id(*broker, 0) else {
            return Step::Refuse(format!("node id {broker} is negative"));
        };
        let (directory_id, address) = match heard.get(broker) {
            Some(Ok(heard)) => (heard.directory_id, heard.address.clone()),
            _ => (seat.directory_id(), seat.address().cloned()),
        };
        let address = Some(address.unwrap_or_else(|| listed_at.clone()));
        founders.insert(node, Node { directory_id: Some(directory_id), address });
    }
    Step::Form(founders)
}

/// What every listed broker but this one says, in one round.
async fn ask_all(seat: &Seat, listed: &[(BrokerId, Address)]) -> BTreeMap<BrokerId, Result<Heard, String>> {
    let mut asked = tokio::task::JoinSet::new();
    for (broker, address) in listed.iter().filter(|(broker, _)| *broker != seat.broker()) {
        let (broker, address, seat) = (*broker, address.clone(), seat.clone());
        asked.spawn(async move { (broker, introduce(&seat, broker, &address).await) });
    }
    let mut heard = BTreeMap::new();
    while let Some(answer) = asked.join_next().await {
        if let Ok((broker, answer)) = answer {
            heard.insert(broker, answer);
        }
    }
    heard
}

async fn introduce(seat: &Seat, broker: BrokerId, address: &Address) -> Result<Heard, String> {
    let mut client = client(address)?;
    let request = marked(pb::Introduction {
        broker: seat.broker().0,
        directory_id: Bytes::copy_from_slice(seat.directory_id().0.as_bytes()),
        cluster_id: seat.wanted().map(|id| Bytes::copy_from_slice(&id.to_bytes())),
    });
    let reply = match timeout(CALL_TIMEOUT, client.introduce(request)).await {
        Ok(Ok(reply)) => reply.into_inner(),
        Ok(Err(status)) => return Err(reason(&status)),
        Err(_) => return Err("it does not answer".to_owned()),
    };
    let heard = read_reply(reply).map_err(|e| e.to_string())?;
    if heard.broker != broker {
        return Err(format!("broker {} answers there", heard.broker));
    }
    Ok(heard)
}

fn read_reply(reply: pb::IntroductionReply) -> Result<Heard, WireError> {
    let cluster = match reply.cluster {
        None => None,
        Some(cluster) => {
            let membership =
                cluster.membership.ok_or(WireError::Missing { what: "a cluster's membership" })?;
            Some((cluster_id(&cluster.id)?, membership_from_pb(&membership)?))
        }
    };
    let port = port(reply.port)?;
    Ok(Heard {
        broker: BrokerId(reply.broker),
        directory_id: directory_id(&reply.directory_id)?,
        address: (!reply.host.is_empty()).then_some(Address { host: reply.host, port }),
        cluster,
        wanted: reply.wanted_cluster_id.as_deref().map(cluster_id).transpose()?,
    })
}

/// Asks each listed broker in turn to be let in. Says why it is none in now.
async fn join(
    seat: &Seat,
    listed: &[(BrokerId, Address)],
    wanted: ClusterId,
) -> Result<Result<Part, String>, QuorumError> {
    use pb::join_reply::Outcome;
    let Some(own) = seat.address() else {
        let reason = "a broker without cluster.listen cannot join a cluster; others must reach it".to_owned();
        return Err(QuorumError::Refused { reason });
    };
    let mut why_not = "nobody in cluster.voters can be asked".to_owned();
    for (_, address) in listed.iter().filter(|(broker, _)| *broker != seat.broker()) {
        let request = marked(pb::JoinRequest {
            broker: seat.broker().0,
            directory_id: Bytes::copy_from_slice(seat.directory_id().0.as_bytes()),
            host: own.host.clone(),
            port: own.port.into(),
            cluster_id: Some(Bytes::copy_from_slice(&wanted.to_bytes())),
            passed_on: false,
        });
        let mut client = match client(address) {
            Ok(client) => client,
            Err(reason) => {
                why_not = reason;
                continue;
            }
        };
        why_not = match timeout(JOIN_TIMEOUT, client.join(request)).await {
            Ok(Ok(reply)) => match reply.into_inner().outcome {
                Some(Outcome::Joined(joined)) => {
                    let part = Part {
                        cluster_id: wanted,
                        node: joined.node,
                        founders: BTreeMap::new(),
                        is_newcomer: true,
                    };
                    return Ok(Ok(part));
                }
                Some(Outcome::Refused(reason)) => return Err(QuorumError::Refused { reason }),
                Some(Outcome::Later(reason)) => reason,
                None => "the answer to a join cannot be read".to_owned(),
            },
            Ok(Err(status)) => format!("{address}: {}", reason(&status)),
            Err(_) => format!("{address} does not answer"),
        };
    }
    Ok(Err(format!("the cluster has not let this broker join yet: {why_not}")))
}

/// Asks the leader in the name of a newcomer.
pub(crate) async fn pass_on(
    quorum: &QuorumHandle,
    message: pb::JoinRequest,
) -> Result<pb::JoinReply, Status> {
    use pb::join_reply::Outcome;
    let later = |reason: String| Ok(pb::JoinReply { outcome: Some(Outcome::Later(reason)) });
    let shared = &quorum.shared;
    let Some(leader) = shared.leader_node().filter(|leader| *leader != shared.node) else {
        return later(NotTaken::NotLeader(None).to_string());
    };
    let channel = match shared.peers.channel(broker_id(leader), Purpose::Quorum) {
        Ok(channel) => channel,
        Err(e) => return later(e.to_string()),
    };
    let request = shared.peers.request(broker_id(leader), pb::JoinRequest { passed_on: true, ..message });
    match timeout(JOIN_TIMEOUT, FormingClient::new(channel).join(request)).await {
        Ok(Ok(reply)) => Ok(reply.into_inner()),
        Ok(Err(status)) => later(reason(&status)),
        Err(_) => later(format!("broker {}, which leads, does not answer", broker_id(leader))),
    }
}

fn client(address: &Address) -> Result<FormingClient<tonic::transport::Channel>, String> {
    let channel = connect_lazy(address).ok_or_else(|| format!("{address} is no address"))?;
    Ok(FormingClient::new(channel))
}

/// A call of a broker that has no cluster yet.
fn marked<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let metadata: &mut MetadataMap = request.metadata_mut();
    metadata.insert(VERSION, PROTOCOL.into());
    request
}

fn cluster_id(bytes: &[u8]) -> Result<ClusterId, WireError> {
    let bytes = <[u8; 16]>::try_from(bytes);
    Ok(ClusterId::from_bytes(bytes.map_err(|_| WireError::Identifier { what: "a cluster id" })?))
}

#[cfg(test)]
mod tests;
