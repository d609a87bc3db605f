//! The server of one core: HTTP/2 with its limits, and what is served.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use floodmark_proto::pb::v1 as pb;
use floodmark_replication::rpc::IdentityCheck;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::interceptor::InterceptedService;
use tonic::service::{Routes, RoutesBuilder};
use tonic::transport::Server;
use tonic_health::pb::health_server::HealthServer;

use super::admin::AdminService;
use super::data::DataService;
use super::events::EventsService;
use super::forward::MarkForwarded;
use super::generated::admin_server::AdminServer;
use super::generated::data_server::DataServer;
use super::generated::events_server::EventsServer;
use super::generated::groups_server::GroupsServer;
use super::groups::GroupsService;
use super::health::HealthService;
use super::limits;
use super::memory::{Counted, RequestMemory};
use super::socket::{Accepted, Socket};
use crate::shared::Shared;

/// Serves connections on the runtime that this runs on. Returns once the broker stops and all calls have ended.
pub(super) async fn run(shared: Arc<Shared>, accepted: mpsc::Receiver<Accepted>) {
    let ground = shared.ground.clone();
    let handshake = limits::HANDSHAKE_TIMEOUT.min(shared.config.request_timeout.duration());
    let sockets =
        ReceiverStream::new(accepted).map(move |accepted| Socket::new(accepted, &ground, handshake));
    let drain = shared.ground.drain.clone();
    let routes = match routes(&shared) {
        Ok(routes) => routes,
        Err(error) => {
            tracing::error!(%error, "what is served over gRPC cannot be told");
            return;
        }
    };
    let serving =
        server().add_routes(routes).serve_with_incoming_shutdown(sockets, async move { drain.begun().await });
    if let Err(error) = serving.await {
        tracing::error!(%error, "a gRPC server has ended");
    }
}

fn server() -> Server {
    Server::builder()
        .max_concurrent_streams(limits::CALLS_MAX)
        .http2_max_header_list_size(limits::HEADER_LIST_BYTES_MAX)
        .http2_max_pending_accept_reset_streams(Some(limits::PENDING_RESETS_MAX))
        .http2_max_local_error_reset_streams(Some(limits::OWN_RESETS_MAX))
        .http2_keepalive_interval(Some(limits::KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(limits::KEEPALIVE_TIMEOUT))
        .initial_stream_window_size(limits::CALL_WINDOW_BYTES)
        .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
        .max_frame_size(limits::FRAME_BYTES_MAX)
}

fn routes(shared: &Arc<Shared>) -> Result<Routes, tonic_reflection::server::Error> {
    // Each message was held against its own limit before it gets to a decoder.
    let bytes_max = shared.config.grpc_message_bytes_max.as_usize().max(limits::OTHER_MESSAGE_BYTES_MAX);
    let data = DataServer::new(DataService::new(Arc::clone(shared)));
    let events = EventsServer::new(EventsService::new(Arc::clone(shared)));
    let groups = GroupsServer::new(GroupsService::new(Arc::clone(shared)));
    let admin = AdminServer::new(AdminService::new(Arc::clone(shared)));
    let health = HealthServer::new(HealthService::new(Arc::clone(shared)));
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let routes = Routes::default()
        .add_service(data.max_decoding_message_size(bytes_max))
        .add_service(events.max_decoding_message_size(bytes_max))
        .add_service(groups.max_decoding_message_size(bytes_max))
        .add_service(admin.max_decoding_message_size(bytes_max))
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    let count = middleware::from_fn_with_state(Arc::clone(shared), count_memory);
    Ok(Routes::from(routes.into_axum_router().layer(count)))
}

/// What other brokers pass on, for the listener that brokers have among themselves. The broker that a call came to first holds it against
/// its memory.
pub(crate) fn add_forwarded(routes: &mut RoutesBuilder, shared: &Arc<Shared>, check: IdentityCheck) {
    let bytes_max = shared.config.grpc_message_bytes_max.as_usize().max(limits::OTHER_MESSAGE_BYTES_MAX);
    let data = DataServer::new(DataService::new(Arc::clone(shared)));
    let events = EventsServer::new(EventsService::new(Arc::clone(shared)));
    let groups = GroupsServer::new(GroupsService::new(Arc::clone(shared)));
    let admin = AdminServer::new(AdminService::new(Arc::clone(shared)));
    let mark = MarkForwarded(check);
    routes
        .add_service(InterceptedService::new(data.max_decoding_message_size(bytes_max), mark.clone()))
        .add_service(InterceptedService::new(events.max_decoding_message_size(bytes_max), mark.clone()))
        .add_service(InterceptedService::new(groups.max_decoding_message_size(bytes_max), mark.clone()))
        .add_service(InterceptedService::new(admin.max_decoding_message_size(bytes_max), mark));
}

/// What a call sends is held against the broker's budget from its first byte on.
async fn count_memory(
    state: axum::extract::State<Arc<Shared>>,
    mut request: Request,
    next: Next,
) -> Response {
    let bytes_max = match request.uri().path() {
        "/floodmark.v1.Data/Produce" | "/floodmark.v1.Data/Append" | "/floodmark.v1.Events/AppendIf" => {
            state.config.grpc_message_bytes_max.as_usize()
        }
        _ => limits::OTHER_MESSAGE_BYTES_MAX,
    };
    let memory = RequestMemory::new(state.ground.request_bytes.share(), bytes_max);
    request.extensions_mut().insert(memory.clone());
    let patience = state.config.request_timeout.duration();
    next.run(request.map(|body| Body::from_stream(Counted::new(body, memory, patience)))).await
}
