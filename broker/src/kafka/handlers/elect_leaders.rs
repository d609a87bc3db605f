//! ElectLeaders (43): the preferred leaders, or, from version 1 on, whoever lives where nobody in sync does.

use std::time::Duration;

use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::kafka::messages::elect_leaders::{
    ElectLeadersRequest, ElectLeadersResponse, PartitionResult, ReplicaElectionResult,
};
use tokio::time::Instant;

use crate::kafka::request::{Refusal, Reply, RequestContext};
use crate::ops::cluster::elections::{self, Elected};
use crate::ops::error::OpError;

const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

pub(crate) async fn handle(ctx: &RequestContext, request: ElectLeadersRequest<'_>) -> Result<Reply, Refusal> {
    let within = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let deadline = Instant::now() + within;
    let named: Option<Vec<(String, i32)>> = request.topic_partitions.as_ref().map(|topics| {
        let of_topic = |t: &floodmark_proto::kafka::messages::elect_leaders::TopicPartitions<'_>| {
            let topic = t.topic.to_owned();
            t.partitions.iter().map(move |index| (topic.clone(), *index)).collect::<Vec<_>>()
        };
        topics.iter().flat_map(of_topic).collect()
    });
    let elected = match (request.election_type, named) {
        // An empty list names nothing; none at all asks for every partition where there is something to do.
        (PREFERRED, Some(named)) if named.is_empty() => Vec::new(),
        (PREFERRED, named) => {
            elections::preferred(ctx.shared(), &named.unwrap_or_default(), false, deadline).await
        }
        (UNCLEAN, Some(named)) => uncleanly(ctx, &named, deadline).await,
        (UNCLEAN, None) => {
            return refused(
                ctx,
                "an unclean election loses records: it is ordered by the names of partitions",
            );
        }
        _ => return refused(ctx, "leaders are elected preferred (0) or unclean (1)"),
    };
    let mut results: Vec<ReplicaElectionResult<'_>> = Vec::new();
    for one in &elected {
        let result = result(ctx, one);
        match results.iter_mut().find(|of| of.topic == one.topic) {
            Some(of) => of.partition_result.push(result),
            None => {
                results.push(ReplicaElectionResult { topic: &one.topic, partition_result: vec![result] });
            }
        }
    }
    ctx.reply(&ElectLeadersResponse { replica_election_results: results, ..Default::default() })
}

/// Each by itself: an operator has named them.
async fn uncleanly(ctx: &RequestContext, named: &[(String, i32)], deadline: Instant) -> Vec<Elected> {
    let mut elected = Vec::with_capacity(named.len());
    for one in named {
        let outcome = elections::unclean(ctx.shared(), std::slice::from_ref(one), true, deadline).await;
        elected.push(outcome.unwrap_or_else(|e| failed(one, e)));
    }
    elected
}

fn failed((topic, partition): &(String, i32), error: OpError) -> Elected {
    Elected {
        topic: topic.clone(),
        partition: *partition,
        before: None,
        leader: None,
        in_sync: Vec::new(),
        error: Some(error),
    }
}

fn result<'a>(ctx: &RequestContext, elected: &'a Elected) -> PartitionResult<'a> {
    if let Some(e) = &elected.error {
        ctx.count_error(e.code);
    }
    PartitionResult {
        partition_id: elected.partition,
        error_code: elected.error.as_ref().map_or(0, |e| e.code.code()),
        error_message: elected.error.as_ref().map(|e| &*e.message),
    }
}

/// Of the request as a whole. Version 0 has no room for it; its requests are never refused so.
fn refused(ctx: &RequestContext, why: &str) -> Result<Reply, Refusal> {
    let code = ErrorCode::InvalidRequest;
    ctx.count_error(code);
    tracing::debug!(reason = why, "an election was refused");
    ctx.reply(&ElectLeadersResponse { error_code: code.code(), ..Default::default() })
}
