//! The follower's end of its call to a leader.

use floodmark_proto::ids::BrokerId;
use floodmark_proto::pb::replica::{FetchReply, FetchRequest};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codec::{Codec as _, EncodeBody};
use tonic::codegen::{Service as _, http};
use tonic::metadata::GRPC_CONTENT_TYPE;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use super::incoming::Replies;
use super::peers::{Peers, Purpose};
use super::replica_server::FETCH;

/// Largest reply: a batch is not cut, and a segment, which no batch exceeds, may be as large.
const REPLY_BYTES_MAX: usize = i32::MAX as usize;

/// Calls the leader; what is put into `requests` goes there. Waits until the leader has begun to answer.
pub(crate) async fn fetch(
    peers: &Peers,
    leader: BrokerId,
    requests: mpsc::Receiver<FetchRequest>,
) -> Result<Replies, Status> {
    Ok(Replies::new(call(peers, leader, requests).await?, REPLY_BYTES_MAX))
}

/// The same, as bytes.
pub(crate) async fn call(
    peers: &Peers,
    leader: BrokerId,
    requests: mpsc::Receiver<FetchRequest>,
) -> Result<Body, Status> {
    let mut channel = peers.channel(leader, Purpose::Data).map_err(|e| Status::unavailable(e.to_string()))?;
    let failed = |e: tonic::transport::Error| Status::from_error(Box::new(e));
    std::future::poll_fn(|cx| channel.poll_ready(cx)).await.map_err(failed)?;
    let answer = channel.call(request(peers, leader, requests)).await.map_err(failed)?;
    if answer.status() != http::StatusCode::OK {
        return Err(Status::unavailable(format!("the leader answers with HTTP {}", answer.status())));
    }
    // A call that is refused at once has its status here.
    if let Some(status) = Status::from_header_map(answer.headers())
        && status.code() != Code::Ok
    {
        return Err(status);
    }
    Ok(answer.into_body())
}

fn request(peers: &Peers, leader: BrokerId, requests: mpsc::Receiver<FetchRequest>) -> http::Request<Body> {
    let requests = ReceiverStream::new(requests).map(Ok);
    let (metadata, _, requests) = peers.request(leader, requests).into_parts();
    let encoder = ProstCodec::<FetchRequest, FetchReply>::default().encoder();
    let mut request = http::Request::new(Body::new(EncodeBody::new_client(encoder, requests, None, None)));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static(FETCH);
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = metadata.into_headers();
    request.headers_mut().insert(http::header::TE, http::HeaderValue::from_static("trailers"));
    request.headers_mut().insert(http::header::CONTENT_TYPE, GRPC_CONTENT_TYPE);
    request
}
