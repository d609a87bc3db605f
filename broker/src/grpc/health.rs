//! The standard health service: whether this broker serves, told by the same rule as `/readyz`.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_stream::Stream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::pull::pull;
use crate::shared::Shared;

/// Services that may be asked about; empty is the broker as a whole.
const SERVICES: [&str; 5] =
    ["", "floodmark.v1.Data", "floodmark.v1.Events", "floodmark.v1.Groups", "floodmark.v1.Admin"];
/// How soon who watches learns of a change.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Answers who asks for health.
#[derive(Debug)]
pub(super) struct HealthService {
    shared: Arc<Shared>,
}

impl HealthService {
    pub(super) fn new(shared: Arc<Shared>) -> HealthService {
        HealthService { shared }
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match status(&self.shared, &request.get_ref().service) {
            ServingStatus::ServiceUnknown => Err(Status::not_found("there is no such service")),
            status => Ok(Response::new(told(status))),
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// Ends with the broker, whose last word is that it does not serve.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (shared, service) = (Arc::clone(&self.shared), request.into_inner().service);
        let changes = pull(Some((shared, service, None)), |state| async move {
            let (shared, service, last) = state?;
            loop {
                let has_ended = shared.ground.drain.has_begun();
                let now = status(&shared, &service);
                if last != Some(now) {
                    let next = (!has_ended).then_some((shared, service, Some(now)));
                    return Some((next, Ok(told(now))));
                }
                if has_ended {
                    return None;
                }
                let drain = shared.ground.drain.clone();
                // Either way there is something to look at.
                let _ = tokio::time::timeout(WATCH_INTERVAL, drain.begun()).await;
            }
        });
        Ok(Response::new(Box::pin(changes)))
    }
}

fn status(shared: &Shared, service: &str) -> ServingStatus {
    if !SERVICES.contains(&service) {
        return ServingStatus::ServiceUnknown;
    }
    match shared.ground.readiness.unavailable() {
        None => ServingStatus::Serving,
        Some(_) => ServingStatus::NotServing,
    }
}

fn told(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
