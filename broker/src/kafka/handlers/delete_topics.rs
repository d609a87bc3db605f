//! DeleteTopics: by name, and by id from version 6 on.

use floodmark_proto::ids::TopicId;
use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::kafka::messages::delete_topics::{
    DeletableTopicResult, DeleteTopicsRequest, DeleteTopicsResponse,
};

use super::{given_here, topic_key};
use crate::kafka::request::{Refusal, Reply, RequestContext};
use crate::ops::error::OpError;
use crate::ops::topics::{self, TopicKey};

pub(crate) async fn handle(ctx: &RequestContext, request: DeleteTopicsRequest<'_>) -> Result<Reply, Refusal> {
    let by_name = request.topic_names.iter().map(|name| (Some(*name), [0; 16]));
    let named: Vec<(Option<&str>, [u8; 16])> =
        by_name.chain(request.topics.iter().map(|t| (t.name, t.topic_id))).collect();
    let keys: Vec<Result<TopicKey<'_>, OpError>> = named.iter().map(|(name, id)| key(*name, *id)).collect();
    let good: Vec<TopicKey<'_>> = keys.iter().filter_map(|key| key.as_ref().ok().copied()).collect();
    let within = given_here(request.timeout_ms);
    let mut deleted = topics::delete(ctx.shared(), &good, within).await.into_iter();
    let outcomes: Vec<Result<(String, TopicId), OpError>> = keys
        .into_iter()
        .map(|key| {
            key.and_then(|_| {
                deleted.next().unwrap_or_else(|| Err(OpError::new(ErrorCode::UnknownServerError, "")))
            })
        })
        .collect();
    let results = named.iter().zip(&outcomes).map(|((name, id), outcome)| match outcome {
        Ok((name, id)) => {
            DeletableTopicResult { name: Some(name), topic_id: id.to_bytes(), ..Default::default() }
        }
        Err(e) => {
            ctx.count_error(e.code);
            DeletableTopicResult {
                name: *name,
                topic_id: *id,
                error_code: e.code.code(),
                error_message: Some(&e.message),
            }
        }
    });
    let response = DeleteTopicsResponse { responses: results.collect(), ..Default::default() };
    ctx.reply(&response)
}

fn key(name: Option<&str>, id: [u8; 16]) -> Result<TopicKey<'_>, OpError> {
    match name {
        Some(_) if id != [0; 16] => Err(OpError::new(
            ErrorCode::InvalidRequest,
            "a topic is named by its name or by its id, not by both",
        )),
        None if id == [0; 16] => Err(OpError::new(ErrorCode::InvalidRequest, "a topic without name and id")),
        _ => topic_key(name.unwrap_or_default(), id)
            .map_err(|code| OpError::new(code, "no topic can have this id")),
    }
}
