//! The follower's end of its call to a leader.

use floodmark_proto::ids::BrokerId;
use floodmark_proto::pb::replica::{FetchReply, FetchRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::generated::replica::replica_client::ReplicaClient;
use super::peers::{Peers, Purpose};

/// Largest reply: a batch is not cut, and a segment, which no batch exceeds, may be as large.
const REPLY_BYTES_MAX: usize = i32::MAX as usize;

/// Calls the leader; what is put into `requests` goes there. Waits until the leader has begun to answer.
pub(crate) async fn fetch(
    peers: &Peers,
    leader: BrokerId,
    requests: mpsc::Receiver<FetchRequest>,
) -> Result<Streaming<FetchReply>, Status> {
    let channel = peers.channel(leader, Purpose::Data).map_err(|e| Status::unavailable(e.to_string()))?;
    let mut client = ReplicaClient::new(channel).max_decoding_message_size(REPLY_BYTES_MAX);
    let call = client.fetch(peers.request(leader, ReceiverStream::new(requests)));
    Ok(call.await?.into_inner())
}
