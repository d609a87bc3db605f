//! AlterPartitionReassignments (45): partitions go to other brokers, or, where no replicas are given, stay where they were.

use std::sync::Arc;

use floodmark_proto::ids::BrokerId;
use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::kafka::messages::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ReassignablePartitionResponse,
    ReassignableTopicResponse,
};
use tokio::time::Instant;

use super::given_here;
use super::named::partitions_once;
use crate::kafka::request::{Refusal, Reply, RequestContext};
use crate::ops::cluster::moves::{self, Target, partition_of};
use crate::ops::error::OpError;

/// What became of a partition, by its number.
type Outcome = (i32, Result<(), OpError>);

pub(crate) async fn handle(
    ctx: &RequestContext,
    mut request: AlterPartitionReassignmentsRequest<'_>,
) -> Result<Reply, Refusal> {
    partitions_once(&mut request.topics, |t| t.name, |t| &mut t.partitions, |p| p.partition_index);
    let deadline = Instant::now() + given_here(request.timeout_ms);
    let mut outcomes: Vec<(&str, Vec<Outcome>)> = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let name: Arc<str> = Arc::from(topic.name);
        let mut of_topic = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let index = asked.partition_index;
            let outcome = match &asked.replicas {
                None => cancel(ctx, &name, index, deadline).await,
                Some(replicas) => {
                    let replicas: Vec<BrokerId> = replicas.iter().map(|id| BrokerId(*id)).collect();
                    let may_differ = request.allow_replication_factor_change;
                    match check_count(ctx, topic.name, index, replicas.len(), may_differ) {
                        Ok(()) => begin(ctx, &name, index, replicas, deadline).await,
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
    topic: &Arc<str>,
    partition: i32,
    replicas: Vec<BrokerId>,
    deadline: Instant,
) -> Result<(), OpError> {
    let target = Target { topic: Arc::clone(topic), partition, replicas };
    let begun = moves::begin(ctx.shared(), &[target], false, deadline).await;
    begun.into_iter().next().map_or(Ok(()), |(_, outcome)| outcome)
}

async fn cancel(
    ctx: &RequestContext,
    topic: &Arc<str>,
    partition: i32,
    deadline: Instant,
) -> Result<(), OpError> {
    let named = [(Arc::clone(topic), partition)];
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
    let (.., partition) = partition_of(&image, topic, index)?;
    let now = partition.target().count();
    if now == wanted {
        return Ok(());
    }
    let message = format!("the partition has {now} replicas, and {wanted} are given");
    Err(OpError::new(ErrorCode::InvalidReplicationFactor, message))
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
