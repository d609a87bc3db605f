//! Heartbeats between brokers: what a controller answers to calls, and the call itself.

use std::time::Duration;

use floodmark_proto::ids::{BrokerEpoch, BrokerId};
use floodmark_proto::pb::controller as pb;
use tonic::service::RoutesBuilder;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status};

use super::{Controller, Heartbeat, HeartbeatAnswer, Wants};
use crate::rpc::generated::controller::controller_client::ControllerClient;
use crate::rpc::generated::controller::controller_server::{self, ControllerServer};
use crate::rpc::{IdentityCheck, Peers, Purpose, caller};

/// Bytes of a heartbeat: a few numbers, and what newer programs add.
const HEARTBEAT_BYTES_MAX: usize = 16 << 10;

impl Controller {
    /// Adds what other brokers ask of this one to what a listener serves.
    pub fn add_service(&self, routes: &mut RoutesBuilder, check: IdentityCheck) {
        let server = ControllerServer::new(self.clone()).max_decoding_message_size(HEARTBEAT_BYTES_MAX);
        routes.add_service(InterceptedService::new(server, check));
    }
}

#[tonic::async_trait]
impl controller_server::Controller for Controller {
    async fn heartbeat(
        &self,
        request: Request<pb::HeartbeatRequest>,
    ) -> Result<Response<pb::HeartbeatReply>, Status> {
        let caller = caller(&request)?;
        let heartbeat = from_pb(request.get_ref())?;
        if heartbeat.broker != caller {
            let says = format!("broker {caller} sent a heartbeat of broker {}", heartbeat.broker);
            return Err(Status::permission_denied(says));
        }
        Ok(Response::new(answer_to_pb(Controller::heartbeat(self, &heartbeat))))
    }
}

/// Says to another broker that this one lives.
pub async fn heartbeat_to(
    peers: &Peers,
    to: BrokerId,
    heartbeat: &Heartbeat,
    deadline: Duration,
) -> Result<HeartbeatAnswer, Status> {
    let channel = peers.channel(to, Purpose::Quorum).map_err(|e| Status::unavailable(e.to_string()))?;
    let mut client = ControllerClient::new(channel);
    let mut request = peers.request(to, to_pb(heartbeat));
    request.set_timeout(deadline);
    let call = client.heartbeat(request);
    let late = |_| Status::deadline_exceeded(format!("broker {to} did not answer within {deadline:?}"));
    let reply = tokio::time::timeout(deadline, call).await.map_err(late)??;
    answer_from_pb(reply.into_inner())
}

fn to_pb(heartbeat: &Heartbeat) -> pb::HeartbeatRequest {
    let wants = match heartbeat.wants {
        Wants::Serve => pb::Wants::Serve,
        Wants::Stop => pb::Wants::Stop,
    };
    pb::HeartbeatRequest {
        broker: heartbeat.broker.0,
        broker_epoch: heartbeat.epoch.0,
        image_version: heartbeat.image_version,
        wants: wants.into(),
    }
}

fn from_pb(message: &pb::HeartbeatRequest) -> Result<Heartbeat, Status> {
    let wants = match pb::Wants::try_from(message.wants) {
        Ok(pb::Wants::Serve) => Wants::Serve,
        Ok(pb::Wants::Stop) => Wants::Stop,
        Ok(pb::Wants::Unspecified) | Err(_) => {
            return Err(Status::invalid_argument("the heartbeat wants something that a newer program knows"));
        }
    };
    Ok(Heartbeat {
        broker: BrokerId(message.broker),
        epoch: BrokerEpoch(message.broker_epoch),
        image_version: message.image_version,
        wants,
    })
}

fn answer_to_pb(answer: HeartbeatAnswer) -> pb::HeartbeatReply {
    use pb::heartbeat_reply::{NotController, Outcome};
    let outcome = match answer {
        HeartbeatAnswer::Lease(lease) => {
            Outcome::LeaseMs(u64::try_from(lease.as_millis()).unwrap_or(u64::MAX))
        }
        HeartbeatAnswer::NotController { leader } => {
            Outcome::NotController(NotController { leader: leader.map(|leader| leader.0) })
        }
        HeartbeatAnswer::Refused(reason) => Outcome::Refused(reason),
    };
    pb::HeartbeatReply { outcome: Some(outcome) }
}

fn answer_from_pb(message: pb::HeartbeatReply) -> Result<HeartbeatAnswer, Status> {
    use pb::heartbeat_reply::Outcome;
    match message.outcome {
        Some(Outcome::LeaseMs(ms)) => Ok(HeartbeatAnswer::Lease(Duration::from_millis(ms))),
        Some(Outcome::NotController(m)) => {
            Ok(HeartbeatAnswer::NotController { leader: m.leader.map(BrokerId) })
        }
        Some(Outcome::Refused(reason)) => Ok(HeartbeatAnswer::Refused(reason)),
        None => Err(Status::internal("the answer is of a kind that a newer program gives")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_and_answers_come_back() {
        for wants in [Wants::Serve, Wants::Stop] {
            let heartbeat =
                Heartbeat { broker: BrokerId(3), epoch: BrokerEpoch(7), image_version: 1 << 40, wants };
            assert_eq!(from_pb(&to_pb(&heartbeat)).unwrap(), heartbeat);
        }
        for answer in [
            HeartbeatAnswer::Lease(Duration::ZERO),
            HeartbeatAnswer::Lease(Duration::from_millis(2000)),
            HeartbeatAnswer::NotController { leader: None },
            HeartbeatAnswer::NotController { leader: Some(BrokerId(0)) },
            HeartbeatAnswer::Refused("why".to_owned()),
        ] {
            assert_eq!(answer_from_pb(answer_to_pb(answer.clone())).unwrap(), answer);
        }
    }

    #[test]
    fn what_a_newer_program_says_is_refused() {
        let wants = pb::HeartbeatRequest { wants: 9, ..pb::HeartbeatRequest::default() };
        assert_eq!(from_pb(&wants).unwrap_err().code(), tonic::Code::InvalidArgument);
        let unspecified = pb::HeartbeatRequest::default();
        assert_eq!(from_pb(&unspecified).unwrap_err().code(), tonic::Code::InvalidArgument);
        let answer = answer_from_pb(pb::HeartbeatReply::default());
        assert_eq!(answer.unwrap_err().code(), tonic::Code::Internal);
    }
}
