//! CreatePartitions: a topic gets more of them; fewer it never has.

use floodmark_proto::kafka::messages::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopicResult,
};

use super::given_here;
use crate::kafka::request::{Refusal, Reply, RequestContext};
use crate::ops::topics::{self, MorePartitions};

pub(crate) async fn handle(
    ctx: &RequestContext,
    request: CreatePartitionsRequest<'_>,
) -> Result<Reply, Refusal> {
    let wanted: Vec<MorePartitions<'_>> = request
        .topics
        .iter()
        .map(|topic| MorePartitions {
            name: topic.name,
            count: topic.count,
            assignments: topic
                .assignments
                .as_ref()
                .map(|all| all.iter().map(|a| a.broker_ids.clone()).collect()),
        })
        .collect();
    let within = given_here(request.timeout_ms);
    let outcomes = topics::extend(ctx.shared(), &wanted, request.validate_only, within).await;
    let results = request.topics.iter().zip(&outcomes).map(|(topic, outcome)| {
        let error = outcome.as_ref().err();
        if let Some(e) = error {
            ctx.count_error(e.code);
        }
        CreatePartitionsTopicResult {
            name: topic.name,
            error_code: error.map_or(0, |e| e.code.code()),
            error_message: error.map(|e| e.message.as_str()),
        }
    });
    let response = CreatePartitionsResponse { results: results.collect(), ..Default::default() };
    ctx.reply(&response)
}
