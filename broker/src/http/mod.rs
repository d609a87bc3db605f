//! The HTTP door: `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever watches the process. Reads only, and cheap at that.

mod listener;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::shared::Ground;
use listener::Bounded;

/// What Prometheus wants the text form to be called.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers until the broker stops.
pub(crate) async fn run(listener: TcpListener, ground: Ground) {
    let drain = ground.drain.clone();
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(ground);
    let served = axum::serve(Bounded::new(listener), routes);
    if let Err(e) = served.with_graceful_shutdown(async move { drain.begun().await }).await {
        tracing::error!(error = %e, "the HTTP door has ended");
    }
}

/// Written on a thread that may take its time, since there may be many partitions.
async fn metrics(State(ground): State<Ground>) -> impl IntoResponse {
    match tokio::task::spawn_blocking(move || ground.metrics.text(ground.request_bytes.available_bytes()))
        .await
    {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        _ => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Whether clients can be served.
async fn ready(State(ground): State<Ground>) -> impl IntoResponse {
    match ground.readiness.unready() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}
