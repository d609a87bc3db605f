//! What is served, told to whoever asks for it: gRPC reflection, in both its versions. Its tables are made when the first one asks, for they
//! take time at the start and memory at rest, and hardly anybody does; then once for all cores.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use floodmark_proto::pb::v1 as pb;
use tonic::Status;
use tonic::codegen::Service as _;
use tonic::service::Routes;
use tonic_reflection::server::{Builder, Error};

/// Everything below them is answered here.
pub(super) const PATHS: [&str; 2] =
    ["/grpc.reflection.v1.ServerReflection/{*method}", "/grpc.reflection.v1alpha.ServerReflection/{*method}"];

/// What answers, from the first question on.
#[derive(Debug, Default)]
pub(super) struct Reflection(OnceLock<Router>);

/// Answers a question.
pub(super) async fn answer(State(reflection): State<Arc<Reflection>>, request: Request) -> Response {
    let made = match reflection.0.get() {
        Some(made) => made,
        None => match tables() {
            // Where another core was first, its are taken.
            Ok(made) => reflection.0.get_or_init(|| made),
            Err(error) => {
                tracing::error!(%error, "what is served over gRPC cannot be told");
                return Status::internal("what is served cannot be told: please report this").into_http();
            }
        },
    };
    // Always ready, as routers are.
    made.clone().call(request).await.into_response()
}

fn tables() -> Result<Router, Error> {
    let builder = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let routes = Routes::new(builder().build_v1()?).add_service(builder().build_v1alpha()?);
    Ok(routes.into_axum_router())
}
