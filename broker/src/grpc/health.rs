//! The standard health service: whether this broker serves, told by the same rule as `/readyz`.

use std::pin::Pin;
use std::time::Duration;

use floodmark_proto::kafka::ErrorCode;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::pull::pull;
use super::refused::Refused;
use crate::shared::Ground;

/// Services that may be asked about; empty is the broker as a whole.
const SERVICES: [&str; 5] =
    ["", "floodmark.v1.Data", "floodmark.v1.Events", "floodmark.v1.Groups", "floodmark.v1.Admin"];
/// How soon who watches learns of a change.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Answers who asks for health.
#[derive(Debug)]
pub(super) struct HealthService {
    ground: Ground,
}

impl HealthService {
    pub(super) fn new(ground: Ground) -> HealthService {
        HealthService { ground }
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match status(&self.ground, &request.get_ref().service) {
            ServingStatus::ServiceUnknown => {
                let message = format!("there is no service '{}' here", request.get_ref().service);
                Err(Refused::new(ErrorCode::ResourceNotFound, message).to_status())
            }
            status => Ok(Response::new(told(status))),
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// Ends with the broker, whose last word is that it does not serve.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (ground, service) = (self.ground.clone(), request.into_inner().service);
        let changes = pull(Some((ground, service, None)), |state| async move {
            let (ground, service, last) = state?;
            loop {
                let has_ended = ground.drain.has_begun();
                let now = status(&ground, &service);
                if last != Some(now) {
                    let next = (!has_ended).then_some((ground, service, Some(now)));
                    return Some((next, Ok(told(now))));
                }
                if has_ended {
                    return None;
                }
                let drain = ground.drain.clone();
                // Either way there is something to look at.
                let _ = tokio::time::timeout(WATCH_INTERVAL, drain.begun()).await;
            }
        });
        Ok(Response::new(Box::pin(changes)))
    }
}

fn status(ground: &Ground, service: &str) -> ServingStatus {
    if !SERVICES.contains(&service) {
        return ServingStatus::ServiceUnknown;
    }
    match ground.readiness.unavailable() {
        None => ServingStatus::Serving,
        Some(_) => ServingStatus::NotServing,
    }
}

fn told(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
