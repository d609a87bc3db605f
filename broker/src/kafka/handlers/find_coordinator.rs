//! FindCoordinator (10): one key up to version 3, a list of them from 4 on with an answer for each. Version 1 brings kinds of keys.

use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::kafka::messages::find_coordinator::{
    Coordinator, FindCoordinatorRequest, FindCoordinatorResponse,
};

use super::address_of;
use super::named::once;
use crate::kafka::request::{Refusal, Reply, RequestContext};
use crate::ops::error::OpError;
use crate::ops::groups;

const FIRST_WITH_LIST: i16 = 4;
const KEY_OF_GROUP: i8 = 0;
const KEY_OF_TRANSACTION: i8 = 1;

/// Where a coordinator is, or why nobody can say.
type Found = Result<(i32, String, i32), OpError>;

pub(crate) async fn handle(
    ctx: &RequestContext,
    mut request: FindCoordinatorRequest<'_>,
) -> Result<Reply, Refusal> {
    if ctx.version() < FIRST_WITH_LIST {
        let found = find(ctx, request.key_type, request.key).await;
        let one = answer(ctx, request.key, &found);
        return ctx.reply(&FindCoordinatorResponse {
            error_code: one.error_code,
            error_message: one.error_message,
            node_id: one.node_id,
            host: one.host,
            port: one.port,
            ..Default::default()
        });
    }
    once(&mut request.coordinator_keys, |key| *key);
    let mut found = Vec::with_capacity(request.coordinator_keys.len());
    for key in &request.coordinator_keys {
        found.push(find(ctx, request.key_type, key).await);
    }
    let answers = request.coordinator_keys.iter().zip(&found).map(|(key, found)| answer(ctx, key, found));
    ctx.reply(&FindCoordinatorResponse { coordinators: answers.collect(), ..Default::default() })
}

async fn find(ctx: &RequestContext, key_type: i8, key: &str) -> Found {
    match key_type {
        KEY_OF_GROUP => {}
        // The one code that every client takes for final; librdkafka asks for ever after any other.
        KEY_OF_TRANSACTION => {
            let message = "this broker does not serve transactions";
            return Err(OpError::new(ErrorCode::TransactionalIdAuthorizationFailed, message));
        }
        _ => {
            let message = "this broker coordinates groups, and nothing else";
            return Err(OpError::new(ErrorCode::InvalidRequest, message));
        }
    }
    let id = groups::find(ctx.shared(), key).await?;
    let image = ctx.shared().cluster.image();
    let broker = image.broker(id).filter(|broker| !broker.fenced);
    let at = broker.and_then(|broker| address_of(ctx, broker));
    at.map(|at| (at.id, at.host, at.port))
        .ok_or_else(|| OpError::new(ErrorCode::CoordinatorNotAvailable, "the coordinator is not available"))
}

fn answer<'a>(ctx: &RequestContext, key: &'a str, found: &'a Found) -> Coordinator<'a> {
    match found {
        Ok((node_id, host, port)) => {
            Coordinator { key, node_id: *node_id, host, port: *port, ..Default::default() }
        }
        Err(e) => {
            ctx.count_error(e.code);
            Coordinator {
                key,
                node_id: -1,
                port: -1,
                error_code: e.code.code(),
                error_message: Some(&e.message),
                ..Default::default()
            }
        }
    }
}
