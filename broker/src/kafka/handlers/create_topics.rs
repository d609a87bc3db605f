//! CreateTopics: -1 and an empty list become "as the broker has it", and what was made is told with all its settings.

use floodmark_proto::kafka::messages::create_topics::{
    CreatableTopic, CreatableTopicConfigs, CreatableTopicResult, CreateTopicsRequest, CreateTopicsResponse,
};

use super::configs::source_code;
use super::given_here;
use crate::kafka::request::{Refusal, Reply, RequestContext};
use crate::ops::configs::{self, Entry};
use crate::ops::error::OpError;
use crate::ops::topics::{self, CreatedTopic, NewTopic};

pub(crate) async fn handle(ctx: &RequestContext, request: CreateTopicsRequest<'_>) -> Result<Reply, Refusal> {
    let wanted: Vec<NewTopic<'_>> = request.topics.iter().map(wanted).collect();
    let within = given_here(request.timeout_ms);
    let outcomes = topics::create(ctx.shared(), &wanted, request.validate_only, within).await;
    let mut described = Vec::with_capacity(outcomes.len());
    for outcome in &outcomes {
        let of_created = |created: &CreatedTopic| configs::describe_new(ctx.shared(), &created.settings);
        described.push(outcome.as_ref().map(|created| (created, of_created(created))));
        // Those that are only tried may be thousands.
        tokio::task::yield_now().await;
    }
    let results =
        request.topics.iter().zip(&described).map(|(topic, outcome)| result(ctx, topic.name, outcome));
    let response = CreateTopicsResponse { topics: results.collect(), ..Default::default() };
    ctx.reply(&response)
}

fn wanted<'a>(topic: &CreatableTopic<'a>) -> NewTopic<'a> {
    NewTopic {
        name: topic.name,
        partitions: (topic.num_partitions != -1).then_some(topic.num_partitions),
        replication_factor: (topic.replication_factor != -1).then_some(topic.replication_factor),
        assignments: topic.assignments.iter().map(|a| (a.partition_index, a.broker_ids.clone())).collect(),
        settings: topic.configs.iter().map(|c| (c.name, c.value)).collect(),
    }
}

fn result<'a>(
    ctx: &RequestContext,
    name: &'a str,
    outcome: &'a Result<(&CreatedTopic, Vec<Entry>), &OpError>,
) -> CreatableTopicResult<'a> {
    match outcome {
        Ok((created, entries)) => CreatableTopicResult {
            name,
            topic_id: created.id.to_bytes(),
            num_partitions: created.partitions as i32,
            replication_factor: created.replication_factor as i16,
            configs: Some(entries.iter().map(config).collect()),
            ..Default::default()
        },
        Err(e) => {
            ctx.count_error(e.code);
            CreatableTopicResult {
                name,
                error_code: e.code.code(),
                error_message: Some(&e.message),
                ..Default::default()
            }
        }
    }
}

fn config(entry: &Entry) -> CreatableTopicConfigs<'_> {
    CreatableTopicConfigs {
        name: entry.name,
        value: Some(&entry.value),
        read_only: entry.is_read_only,
        config_source: source_code(entry.source),
        is_sensitive: false,
    }
}
