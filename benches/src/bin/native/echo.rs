//! The bare server: tonic as it comes, on a runtime of one thread, answering each message with itself.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::{Grpc, NamedService};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use crate::verbatim::Verbatim;

/// A call of many messages.
pub(crate) const STREAM: &str = "/bare.Echo/Stream";
/// A call of one message.
pub(crate) const UNARY: &str = "/bare.Echo/Unary";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where it listens
    address: SocketAddr,
}

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(runtime.block_on(Server::builder().add_service(Echo).serve(self.address))?)
    }
}

#[derive(Debug, Clone, Copy)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "bare.Echo";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let is_unary = request.uri().path() == UNARY;
        Box::pin(async move {
            let mut grpc = Grpc::new(Verbatim);
            Ok(match is_unary {
                true => grpc.unary(EchoOne, request).await,
                false => grpc.streaming(EchoMany, request).await,
            })
        })
    }
}

struct EchoOne;

impl Service<Request<Bytes>> for EchoOne {
    type Response = Response<Bytes>;
    type Error = Status;
    type Future = Ready<Result<Response<Bytes>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        ready(Ok(Response::new(request.into_inner())))
    }
}

struct EchoMany;

impl Service<Request<Streaming<Bytes>>> for EchoMany {
    type Response = Response<Streaming<Bytes>>;
    type Error = Status;
    type Future = Ready<Result<Response<Streaming<Bytes>>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        ready(Ok(Response::new(request.into_inner())))
    }
}
