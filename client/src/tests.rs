//! A broker of tests: says of the cluster and its topics what it was given, and refuses everything else.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use floodmark_proto::pb::v1 as pb;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::{Grpc, NamedService};
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// What nobody but one broker says.
#[derive(Debug, Clone)]
pub(crate) struct StandIn {
    reply: pb::DescribeTopicsReply,
}

impl StandIn {
    /// Topic `t` with one partition for each of these brokers, which leads it; each broker is where it is said to be.
    pub(crate) fn new(leaders: &[(i32, &str)]) -> StandIn {
        let broker = |(id, address): &(i32, &str)| {
            let (host, port) = address.rsplit_once(':').unwrap();
            let (host, port) = (host.to_owned(), port.parse().unwrap());
            pb::Broker { broker_id: *id, host, port, ..Default::default() }
        };
        let partition = |(number, (leader, _)): (i32, &(i32, &str))| pb::DescribedPartition {
            partition: number,
            leader: Some(*leader),
            ..Default::default()
        };
        let partitions = (0..).zip(leaders).map(partition).collect();
        let topic = pb::DescribedTopic { name: "t".to_owned(), partitions, ..Default::default() };
        let reply =
            pb::DescribeTopicsReply { topics: vec![topic], brokers: leaders.iter().map(broker).collect() };
        StandIn { reply }
    }

    /// Serves as long as the runtime of the test; its address.
    pub(crate) async fn serve(self) -> String {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        tokio::spawn(Server::builder().add_service(self).serve_with_incoming(incoming));
        address
    }
}

/// Where nobody listens.
pub(crate) async fn nobody() -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    listener.local_addr().unwrap().to_string()
}

/// Somebody who takes connections and says nothing on them, as long as the listener lives.
pub(crate) async fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

impl NamedService for StandIn {
    const NAME: &'static str = "floodmark.v1.Admin";
}

impl Service<http::Request<Body>> for StandIn {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let reply = self.reply.clone();
        Box::pin(async move {
            Ok(match request.uri().path() {
                "/floodmark.v1.Admin/DescribeTopics" => {
                    let codec = ProstCodec::<_, pb::DescribeTopicsRequest>::default();
                    Grpc::new(codec).unary(Says(reply), request).await
                }
                "/floodmark.v1.Admin/DescribeCluster" => {
                    let cluster = pb::DescribeClusterReply { brokers: reply.brokers, ..Default::default() };
                    let codec = ProstCodec::<_, pb::DescribeClusterRequest>::default();
                    Grpc::new(codec).unary(Says(cluster), request).await
                }
                _ => Status::unimplemented("a stand-in").into_http(),
            })
        })
    }
}

/// Answers each request of one method with the same.
struct Says<T>(T);

impl<R, T: Clone> Service<Request<R>> for Says<T> {
    type Response = Response<T>;
    type Error = Status;
    type Future = Ready<Result<Response<T>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<R>) -> Self::Future {
        ready(Ok(Response::new(self.0.clone())))
    }
}
