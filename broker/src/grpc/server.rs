//! The server of one core: HTTP/2 with its limits, and what is served: health and reflection from the broker's first moment on, the rest once
//! it serves. Until then each call is told at once what the broker waits for, and connections stay as they are.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::any;
use floodmark_proto::kafka::ErrorCode;
use floodmark_replication::rpc::IdentityCheck;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::Service as _;
use tonic::service::interceptor::InterceptedService;
use tonic::service::{Routes, RoutesBuilder};
use tonic::transport::Server;
use tonic::{Code, Status};
use tonic_health::pb::health_server::HealthServer;

use super::admin::AdminService;
use super::call::Api;
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
use super::reflection::{self, Reflection};
use super::refused::Refused;
use super::socket::{Accepted, Socket};
use crate::config::BrokerConfig;
use crate::http2::Told;
use crate::shared::{Ground, Shared};

/// What the names of Floodmark's own services begin with.
const OWN: &str = "/floodmark.v1.";

/// What one core serves.
#[derive(Debug)]
pub(super) struct Served {
    ground: Ground,
    bounds: Bounds,
    /// Answered as soon as the door is open.
    early: axum::Router,
    /// Floodmark's own services, once the broker serves.
    own: OnceLock<axum::Router>,
}

/// What the settings say of each call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Largest message of a call that carries records.
    message_bytes_max: usize,
    /// How long a message or a handshake may stand still.
    patience: Duration,
}

impl Bounds {
    pub(super) fn of(config: &BrokerConfig) -> Bounds {
        let message_bytes_max = config.grpc_message_bytes_max.as_usize();
        Bounds { message_bytes_max, patience: config.request_timeout.duration() }
    }
}

impl Served {
    pub(super) fn new(ground: Ground, bounds: Bounds, reflection: &Arc<Reflection>) -> Served {
        let early = early_routes(&ground, reflection);
        Served { ground, bounds, early, own: OnceLock::new() }
    }

    /// The broker serves: connections that are there find it with their next call.
    pub(super) fn mount(&self, shared: &Arc<Shared>) {
        // A broker begins to serve once.
        let _ = self.own.set(own_routes(shared));
    }

    /// The answer to a call of `path` where the broker does not serve yet.
    fn refuse(&self, path: &str) -> Response {
        let waiting = self.ground.readiness.waiting();
        let message =
            format!("this broker starts, and serves nobody yet: {waiting}; ask another one, or try again");
        let refused = Refused::new(ErrorCode::BrokerNotAvailable, message);
        let called = path.strip_prefix(OWN).and_then(|called| called.split_once('/'));
        let is_called = |api: &&Api| api.name().split_once('.') == called;
        if let Some(api) = Api::ALL.iter().find(is_called) {
            self.ground.metrics.grpc.on_error(api.name(), refused.reason);
        }
        refused.to_status().into_http()
    }
}

/// Serves connections on the runtime that this runs on. Returns once the broker stops and all calls have ended.
pub(super) async fn run(served: Arc<Served>, told: Arc<Told>, accepted: mpsc::Receiver<Accepted>) {
    let ground = served.ground.clone();
    let drain = ground.drain.clone();
    let handshake = limits::HANDSHAKE_TIMEOUT.min(served.bounds.patience);
    let sockets =
        ReceiverStream::new(accepted).map(move |accepted| Socket::new(accepted, &ground, &told, handshake));
    let routes = axum::Router::new().fallback(answer).with_state(served);
    let serving = server()
        .add_routes(Routes::from(routes))
        .serve_with_incoming_shutdown(sockets, async move { drain.begun().await });
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

fn early_routes(ground: &Ground, reflection: &Arc<Reflection>) -> axum::Router {
    let health = HealthServer::new(HealthService::new(ground.clone()));
    let routes = Routes::default().add_service(health);
    reflection::PATHS.iter().fold(routes.into_axum_router(), |routes, path| {
        routes.route(path, any(reflection::answer).with_state(Arc::clone(reflection)))
    })
}

fn own_routes(shared: &Arc<Shared>) -> axum::Router {
    // Each message was held against its own limit before it gets to a decoder.
    let bytes_max = shared.config.grpc_message_bytes_max.as_usize().max(limits::OTHER_MESSAGE_BYTES_MAX);
    let data = DataServer::new(DataService::new(Arc::clone(shared)));
    let events = EventsServer::new(EventsService::new(Arc::clone(shared)));
    let groups = GroupsServer::new(GroupsService::new(Arc::clone(shared)));
    let admin = AdminServer::new(AdminService::new(Arc::clone(shared)));
    let routes = Routes::default()
        .add_service(data.max_decoding_message_size(bytes_max))
        .add_service(events.max_decoding_message_size(bytes_max))
        .add_service(groups.max_decoding_message_size(bytes_max))
        .add_service(admin.max_decoding_message_size(bytes_max));
    routes.into_axum_router()
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

/// What a call sends is held against the broker's budget from its first byte on. Where the broker does not serve yet, nothing of it is read.
async fn answer(State(served): State<Arc<Served>>, mut request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let router = if path.starts_with(OWN) { served.own.get() } else { Some(&served.early) };
    let Some(mut router) = router.cloned() else { return served.refuse(&path) };
    let bytes_max = match &*path {
        "/floodmark.v1.Data/Produce" | "/floodmark.v1.Data/Append" | "/floodmark.v1.Events/AppendIf" => {
            served.bounds.message_bytes_max
        }
        _ => limits::OTHER_MESSAGE_BYTES_MAX,
    };
    let memory = RequestMemory::new(served.ground.request_bytes.share(), bytes_max);
    request.extensions_mut().insert(memory.clone());
    let patience = served.bounds.patience;
    let counted = request.map(|body| Body::from_stream(Counted::new(body, memory, patience)));
    // A router is always ready, and never fails.
    match router.call(counted).await {
        Ok(response) => with_reason(response, &path),
        Err(never) => match never {},
    }
}

/// What is not served is refused before any service looks at it: without words, or, where it is how a message is compressed, without a reason
/// for programs. Both are given to it here.
fn with_reason(mut response: Response, path: &str) -> Response {
    let said = Status::from_header_map(response.headers());
    if let Some(said) = said.filter(|said| said.code() == Code::Unimplemented && said.details().is_empty()) {
        let message = match said.message() {
            "" => format!("there is no method {path} here"),
            other => other.to_owned(),
        };
        let status = Refused::new(ErrorCode::UnsupportedVersion, message).to_status();
        // It fails for words that no header can carry; then what was said before stays.
        let _ = status.add_header(response.headers_mut());
    }
    response
}
