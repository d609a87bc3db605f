//! Connections: one channel to each address, opened when it is first used and again after it was lost.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use floodmark_proto::pb::v1 as pb;
use parking_lot::Mutex;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::codegen::{Service as _, http};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use crate::config::ClientConfig;
use crate::error::{Error, Result};
use crate::rpc::admin_client::AdminClient;
use crate::rpc::data_client::DataClient;
use crate::rpc::events_client::EventsClient;
use crate::rpc::groups_client::GroupsClient;
use crate::stream::{Replies, Requests};

/// Channels by address. Each is a connection that many calls share.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    by_address: Mutex<HashMap<String, Channel>>,
}

impl Channels {
    /// The one to `address`; made without waiting, connected by the first call.
    pub(crate) fn to(&self, config: &ClientConfig, address: &str) -> Result<Peer> {
        let mut by_address = self.by_address.lock();
        let channel = match by_address.get(address) {
            Some(channel) => channel.clone(),
            None => {
                let channel = endpoint(config, address, config.frame_bytes_max)?.connect_lazy();
                by_address.insert(address.to_owned(), channel.clone());
                channel
            }
        };
        Ok(Peer {
            address: address.to_owned(),
            channel,
            timeout: config.request_timeout,
            message_bytes_max: config.message_bytes_max,
        })
    }

    /// A channel of its own, for a stream that shall not share windows and one connection's order with others.
    pub(crate) fn apart(config: &ClientConfig, address: &str, frame_bytes_max: u32) -> Result<Peer> {
        Ok(Peer {
            address: address.to_owned(),
            channel: endpoint(config, address, frame_bytes_max)?.connect_lazy(),
            timeout: config.request_timeout,
            message_bytes_max: config.message_bytes_max,
        })
    }
}

fn endpoint(config: &ClientConfig, address: &str, frame_bytes_max: u32) -> Result<Endpoint> {
    let invalid = |error: &dyn std::fmt::Display| {
        Error::Invalid(format!("`{address}` is no address of a broker, which is host:port: {error}"))
    };
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| invalid(&error))?;
    let endpoint = endpoint.user_agent(config.client_id.clone()).map_err(|error| invalid(&error))?;
    Ok(endpoint
        .connect_timeout(config.connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(config.keep_alive)
        .keep_alive_timeout(config.keep_alive_timeout)
        .initial_stream_window_size(config.stream_window_bytes)
        .initial_connection_window_size(config.connection_window_bytes)
        .max_frame_size(frame_bytes_max))
}

/// A broker that can be asked.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: String,
    channel: Channel,
    timeout: Duration,
    message_bytes_max: usize,
}

impl Peer {
    pub(crate) fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone()).max_decoding_message_size(self.message_bytes_max)
    }

    pub(crate) fn data(&self) -> DataClient<Channel> {
        DataClient::new(self.channel.clone()).max_decoding_message_size(self.message_bytes_max)
    }

    pub(crate) fn groups(&self) -> GroupsClient<Channel> {
        GroupsClient::new(self.channel.clone()).max_decoding_message_size(self.message_bytes_max)
    }

    pub(crate) fn events(&self) -> EventsClient<Channel> {
        EventsClient::new(self.channel.clone()).max_decoding_message_size(self.message_bytes_max)
    }

    /// Makes a call of `/service/method` that carries messages both ways; returns when the broker begins to answer.
    pub(crate) fn stream(
        &self,
        method: &'static str,
        requests: Requests,
    ) -> impl Future<Output = Result<Replies, Status>> + Send + use<> {
        let (mut channel, message_bytes_max) = (self.channel.clone(), self.message_bytes_max);
        let failed = |error: tonic::transport::Error| Status::from_error(Box::new(error));
        async move {
            std::future::poll_fn(|cx| channel.poll_ready(cx)).await.map_err(failed)?;
            let mut request = http::Request::new(Body::new(requests));
            *request.method_mut() = http::Method::POST;
            *request.uri_mut() = http::Uri::from_static(method);
            *request.version_mut() = http::Version::HTTP_2;
            let headers = request.headers_mut();
            headers.insert(http::header::TE, http::HeaderValue::from_static("trailers"));
            let grpc = http::HeaderValue::from_static("application/grpc");
            headers.insert(http::header::CONTENT_TYPE, grpc);
            let response = channel.call(request).await.map_err(failed)?;
            if response.status() != http::StatusCode::OK {
                return Err(Status::unavailable(format!(
                    "the server answers with HTTP {}",
                    response.status()
                )));
            }
            // A call that is refused at once has its status here.
            if let Some(status) = Status::from_header_map(response.headers())
                && status.code() != tonic::Code::Ok
            {
                return Err(status);
            }
            Ok(Replies::new(response.into_body(), message_bytes_max))
        }
    }

    /// Waits for an answer for as long as one attempt may take.
    pub(crate) async fn answer<T>(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T> {
        self.answer_within(what, self.timeout, call).await
    }

    /// The same for a call that may take long on purpose.
    pub(crate) async fn answer_within<T>(
        &self,
        what: &'static str,
        limit: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T> {
        match timeout(limit, call).await {
            Ok(answered) => {
                let answered = answered.map_err(|status| Error::from_status(&self.address, &status))?;
                Ok(answered.into_inner())
            }
            Err(_elapsed) => Err(Error::Deadline { what, limit, last: None }),
        }
    }

    /// A request that tells the broker how long somebody waits for it.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        within(self.timeout, message)
    }

    pub(crate) async fn describe_topics(&self, topics: Vec<String>) -> Result<pb::DescribeTopicsReply> {
        let asked = self.request(pb::DescribeTopicsRequest { topics, include_internal: true });
        self.answer("describing topics", self.admin().describe_topics(asked)).await
    }
}

/// A request with a deadline of its own.
pub(crate) fn within<T>(limit: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}
