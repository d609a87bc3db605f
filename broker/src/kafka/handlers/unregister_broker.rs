//! UnregisterBroker (64): a broker that has been stopped for good is forgotten.

use std::time::Duration;

use floodmark_proto::ids::BrokerId;
use floodmark_proto::kafka::messages::unregister_broker::{
    UnregisterBrokerRequest, UnregisterBrokerResponse,
};
use tokio::time::Instant;

use crate::kafka::request::{Refusal, Reply, RequestContext};
use crate::ops::cluster::remove_broker;

/// The request says no time.
const WITHIN: Duration = Duration::from_secs(30);

pub(crate) async fn handle(ctx: &RequestContext, request: UnregisterBrokerRequest) -> Result<Reply, Refusal> {
    let (broker, deadline) = (BrokerId(request.broker_id), Instant::now() + WITHIN);
    match remove_broker(ctx.shared(), broker, false, false, deadline).await {
        Ok(_replicas) => ctx.reply(&UnregisterBrokerResponse::default()),
        Err(e) => {
            ctx.count_error(e.code);
            let (error_code, error_message) = (e.code.code(), Some(&*e.message));
            ctx.reply(&UnregisterBrokerResponse { error_code, error_message, ..Default::default() })
        }
    }
}
