//! AlterPartitionReassignments (45): partitions go to other brokers, or, where no replicas are given, stay where they were.

use std::time::Duration;

use floodmark_proto::ids::BrokerId;
use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::kafka::messages::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ReassignablePartitionResponse,
    ReassignableTopicResponse,
};
use tokio::time::Instant;

use crate::kafka::request::{Refusal, Reply, RequestContext};
use crate::ops::cluster::moves::{self, Target};
use crate::ops::error::OpError;
use crate::ops::topics::{TopicKey, find};

/// What became of a partition, by its number.
type Outcome = (i32, Result<(), OpError>);

pub(crate) async fn handle(
    ctx: &RequestContext,
    request: AlterPartitionReassignmentsRequest<'_>,
) -> Result<Reply, Refusal> {
    let within = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let deadline = Instant::now() + within;
    let mut outcomes: Vec<(&str, Vec<Outcome>)> = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let mut of_topic = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let index = asked.partition_index;
            let outcome = match &asked.replicas {
                None => cancel(ctx, topic.name, index, deadline).await,
                Some(replicas) => {
                    let replicas: Vec<BrokerId> = replicas.iter().map(|id| BrokerId(*id)).collect();
                    let may_differ = request.allow_replication_factor_change;
                    match check_count(ctx, topic.name, index, replicas.len(), may_differ) {
                        Ok(()) => begin(ctx, topic.name, index, replicas, deadline).await,
                        Err(e) => Err(e),
                    }
                }
            };
            of_topic.push((index, outcome));
        }
        outcomes.push((topic.name, of_topic));
    }
    let responses = outcomes.iter().map(|(name, of_topic)| ReassignableTopicResponse {
        name,
        partitions: of_topic.iter().map(|(index, outcome)| response(ctx, *index, outcome)).collect(),
    });
    ctx.reply(&AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: request.allow_replication_factor_change,
        responses: responses.collect(),
        ..Default::default()
    })
}

async fn begin(
    ctx: &RequestContext,
    topic: &str,
    partition: i32,
    replicas: Vec<BrokerId>,
    deadline: Instant,
) -> Result<(), OpError> {
    let target = Target { topic: topic.to_owned(), partition, replicas };
    let begun = moves::begin(ctx.shared(), &[target], false, deadline).await;
    begun.into_iter().next().map_or(Ok(()), |(_, outcome)| outcome)
}

async fn cancel(ctx: &RequestContext, topic: &str, partition: i32, deadline: Instant) -> Result<(), OpError> {
    let named = [(topic.to_owned(), partition)];
    let cancelled = moves::cancel(ctx.shared(), &named, None, false, deadline).await;
    cancelled.into_iter().next().map_or(Ok(()), |(_, outcome)| outcome)
}

/// Where the client does not want it, a partition does not get more or fewer replicas by moving.
fn check_count(
    ctx: &RequestContext,
    topic: &str,
    index: i32,
    wanted: usize,
    may_differ: bool,
) -> Result<(), OpError> {
    if may_differ {
        return Ok(());
    }
    let image = ctx.shared().cluster.image();
    let topic = find(&image, TopicKey::Name(topic))?;
    let partition = u32::try_from(index).ok().and_then(|index| topic.partition(index));
    match partition.map(|partition| partition.target().count()) {
        Some(now) if now != wanted => {
            let message = format!("the partition has {now} replicas, and {wanted} are given");
            Err(OpError::new(ErrorCode::InvalidReplicationFactor, message))
        }
        _ => Ok(()),
    }
}

fn response<'a>(
    ctx: &RequestContext,
    partition_index: i32,
    outcome: &'a Result<(), OpError>,
) -> ReassignablePartitionResponse<'a> {
    match outcome {
        Ok(()) => ReassignablePartitionResponse { partition_index, ..Default::default() },
        Err(e) => {
            ctx.count_error(e.code);
            let (error_code, error_message) = (e.code.code(), Some(&*e.message));
            ReassignablePartitionResponse { partition_index, error_code, error_message }
        }
    }
}
