//! Both ends of a follower's call against those of the generated code, and what is in a frame: brokers of two versions understand each other,
//! and batches come in where they are used.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use floodmark_proto::ids::{BrokerId, ClusterId, TopicId};
use floodmark_proto::pb::replica::{FetchReply, FetchRequest, Hello, Position};
use http_body::Body as _;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::body::Body;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::transport::Server;
use tonic::{Code, Request, Streaming};
use tonic_prost::ProstCodec;

use super::nodes::{Cluster, Node, PATIENCE, Setup, append, bytes_of_log, run, value};
use crate::partition::PartitionHandle;
use crate::rpc::generated::replica::replica_client::ReplicaClient;
use crate::rpc::generated::replica::replica_server::SERVICE_NAME;
use crate::rpc::{Address, FRAME_BYTES, PeerIdentity, Peers, Purpose, replica_client};

/// Broker 1, which leads one partition of broker 2, and next to nothing of it is in memory.
struct Leading {
    cluster: Cluster,
    node: Node,
    topic: TopicId,
    partition: PartitionHandle,
    peers: Peers,
}

impl Leading {
    async fn with_batches(sizes: &[usize]) -> Leading {
        let cluster = Cluster::new();
        let node = Node::start(&cluster, 1, Setup { tail_bytes: 64 << 10, ..Setup::default() }).await;
        cluster.register(2, 1);
        let topic = cluster.create("t", 1, 1, &[1, 2]);
        let partition = node.partition(&cluster, topic, 0).await;
        for (seed, bytes) in (0..).zip(sizes) {
            append(&partition, &value(seed, *bytes)).await;
        }
        let peers = Peers::new(cluster.identity(2), BTreeMap::new());
        peers.follow(cluster.images());
        Leading { cluster, node, topic, partition, peers }
    }

    fn generated_client(&self) -> ReplicaClient<tonic::transport::Channel> {
        let channel = self.peers.channel(self.node.id, Purpose::Data).unwrap();
        ReplicaClient::new(channel).max_decoding_message_size(16 << 20)
    }

    /// Asks for everything that broker `who` lacks, which is all.
    fn first_request(&self, who: i32) -> FetchRequest {
        let hello = Hello { broker: who, broker_epoch: 1, reply_bytes_max: 4 << 20, wait_ms_max: 1000 };
        let topic_id = self.topic.to_bytes().to_vec().into();
        FetchRequest {
            hello: Some(hello),
            positions: vec![Position { slot: 1, topic_id, ..Position::default() }],
            wants_reply: true,
            ..FetchRequest::default()
        }
    }
}

async fn hear(replies: &mut Streaming<FetchReply>) -> Result<Option<FetchReply>, tonic::Status> {
    tokio::time::timeout(PATIENCE, replies.message()).await.expect("the leader says nothing")
}

#[test]
fn a_follower_by_the_generated_code_gets_everything() {
    run(async {
        let sizes = [10, 300_000, 20_000, 1_500_000, 5, 5, 700_000, 600_000, 50_000, 2_500_000, 9];
        let leading = Leading::with_batches(&sizes).await;
        let (requests, taken) = mpsc::channel(8);
        requests.send(leading.first_request(2)).await.unwrap();
        let call = leading.peers.request(leading.node.id, ReceiverStream::new(taken));
        let answer = leading.generated_client().fetch(call).await.unwrap();
        assert_eq!(answer.metadata().get("content-type").unwrap(), "application/grpc");
        let mut replies = answer.into_inner();
        let (all, mut got) = (bytes_of_log(&leading.partition), Vec::<u8>::new());
        while got.len() < all.len() {
            let reply = hear(&mut replies).await.unwrap().expect("the leader ended the call");
            got.extend(reply.parts.iter().flat_map(|part| &part.batches).flatten());
            requests.send(FetchRequest { wants_reply: true, ..FetchRequest::default() }).await.unwrap();
        }
        assert!(got == all);
        drop(requests);
        while let Some(reply) = hear(&mut replies).await.unwrap() {
            assert!(reply.parts.iter().all(|part| part.batches.is_empty()));
        }
    });
}

#[test]
fn a_caller_by_the_generated_code_is_told_why_it_is_refused() {
    run(async {
        let leading = Leading::with_batches(&[]).await;
        let (peers, leader) = (&leading.peers, leading.node.id);
        // By the end of an answer that had begun.
        let (requests, taken) = mpsc::channel(8);
        requests.send(leading.first_request(3)).await.unwrap();
        let call = peers.request(leader, ReceiverStream::new(taken));
        let mut replies = leading.generated_client().fetch(call).await.unwrap().into_inner();
        let refused = hear(&mut replies).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(refused.message().contains("says that it is broker 3"), "{refused}");
        // In the place of an answer.
        let unmarked = leading.generated_client().fetch(Request::new(tokio_stream::empty())).await;
        assert_eq!(unmarked.unwrap_err().code(), Code::InvalidArgument);
        let mut other = tonic::client::Grpc::new(peers.channel(leader, Purpose::Data).unwrap());
        other.ready().await.unwrap();
        let path = PathAndQuery::from_static("/floodmark.replica.Replica/Other");
        let codec = ProstCodec::<FetchRequest, FetchReply>::default();
        let unknown = other.streaming(peers.request(leader, tokio_stream::empty()), path, codec).await;
        assert_eq!(unknown.unwrap_err().code(), Code::Unimplemented);
        // And so it is by our own end.
        let stranger = Peers::new(leading.cluster.identity(2), BTreeMap::new());
        stranger.note(BrokerId(7), peers.address(leader).unwrap());
        let (_requests, taken) = mpsc::channel(8);
        let misled = replica_client::fetch(&stranger, BrokerId(7), taken).await;
        let misled = misled.unwrap_err();
        assert_eq!(misled.code(), Code::FailedPrecondition);
        assert!(misled.message().contains("this is broker 1, not 7"), "{misled}");
    });
}

/// Fails when what was read in one go is sent as one: its batches lie in two frames then, and all of it is copied where it comes in.
#[test]
fn each_run_of_batches_comes_in_a_frame_of_its_own() {
    run(async {
        let leading = Leading::with_batches(&[300_000; 9]).await;
        let (requests, taken) = mpsc::channel(8);
        requests.send(leading.first_request(2)).await.unwrap();
        let mut body = replica_client::call(&leading.peers, leading.node.id, taken).await.unwrap();
        loop {
            let (reply, frames) = next_reply(&mut body).await;
            let runs: Vec<_> = reply.parts.iter().flat_map(|part| &part.batches).collect();
            if runs.is_empty() {
                requests.send(FetchRequest { wants_reply: true, ..FetchRequest::default() }).await.unwrap();
                continue;
            }
            let bytes: usize = runs.iter().map(|run| run.len()).sum();
            assert!(bytes > FRAME_BYTES as usize && runs.len() > 1 && runs[0].len() > 800_000);
            assert!(runs.iter().all(|run| frames.contains(run)), "{runs:?} {frames:?}");
            return;
        }
    });
}

/// A reply, and what it came in.
async fn next_reply(body: &mut tonic::body::Body) -> (FetchReply, Vec<Bytes>) {
    let (mut all, mut frames) = (Vec::new(), Vec::new());
    loop {
        let next = std::future::poll_fn(|cx| std::pin::Pin::new(&mut *body).poll_frame(cx));
        let frame = tokio::time::timeout(PATIENCE, next).await.expect("nothing comes").unwrap().unwrap();
        let frame = frame.into_data().expect("the leader ended the call");
        all.extend_from_slice(&frame);
        frames.push(frame);
        let Some((head, message)) = all.split_at_checked(5) else { continue };
        if message.len() >= (&head[1..]).get_u32() as usize {
            // One reply was asked for, so nothing comes behind it.
            return (FetchReply::decode(message).unwrap(), frames);
        }
    }
}

/// Answers with nothing but a head, and tells what it heard.
#[derive(Clone)]
struct HeadOnly {
    status: u16,
    grpc_status: Option<&'static str>,
    heard: mpsc::Sender<http::request::Parts>,
}

impl Service<http::Request<Body>> for HeadOnly {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: http::Request<Body>) -> Self::Future {
        self.heard.try_send(call.into_parts().0).unwrap();
        let mut answer = http::Response::builder().status(self.status);
        if let Some(status) = self.grpc_status {
            answer = answer.header("grpc-status", status);
        }
        ready(Ok(answer.body(Body::empty()).unwrap()))
    }
}

impl NamedService for HeadOnly {
    const NAME: &'static str = SERVICE_NAME;
}

/// Broker 2 calls broker 1, which answers so.
async fn head_only(
    status: u16,
    grpc_status: Option<&'static str>,
) -> (Peers, mpsc::Receiver<http::request::Parts>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let identity = PeerIdentity { cluster_id: ClusterId::from_bytes([1; 16]), broker: BrokerId(2) };
    let peers = Peers::new(identity, BTreeMap::new());
    let port = listener.local_addr().unwrap().port();
    peers.note(BrokerId(1), Address { host: "127.0.0.1".to_owned(), port });
    let (heard, calls) = mpsc::channel(4);
    let server = Server::builder().add_service(HeadOnly { status, grpc_status, heard });
    tokio::spawn(async move { server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap() });
    (peers, calls)
}

#[tokio::test]
async fn a_head_alone_says_how_the_call_ended() {
    for (status, grpc_status, ended) in [
        (503, None, Err(Code::Unavailable)),
        (404, Some("0"), Err(Code::Unavailable)),
        (200, Some("7"), Err(Code::PermissionDenied)),
        (200, Some("0"), Ok(None)),
    ] {
        let (peers, _calls) = head_only(status, grpc_status).await;
        let (_requests, taken) = mpsc::channel(8);
        let told = match replica_client::fetch(&peers, BrokerId(1), taken).await {
            Ok(mut replies) => replies.message().await.map_err(|status| status.code()),
            Err(status) => Err(status.code()),
        };
        assert_eq!(told, ended, "{status} {grpc_status:?}");
    }
}

#[tokio::test]
async fn a_call_is_made_as_the_generated_code_makes_it() {
    let (peers, mut calls) = head_only(200, Some("0")).await;
    let (_requests, taken) = mpsc::channel(8);
    let _replies = replica_client::fetch(&peers, BrokerId(1), taken).await.unwrap();
    let own = calls.recv().await.unwrap();
    let mut generated = ReplicaClient::new(peers.channel(BrokerId(1), Purpose::Data).unwrap());
    let call = peers.request(BrokerId(1), tokio_stream::pending());
    let _replies = generated.fetch(call).await.unwrap();
    let other = calls.recv().await.unwrap();
    assert_eq!((own.method, own.uri, own.version), (other.method, other.uri, other.version));
    assert_eq!(own.headers, other.headers);
    assert_eq!((&own.headers["te"], own.headers.len()), (&"trailers".parse().unwrap(), 7));
}
