//! ElectLeaders (43): the preferred leaders, or, from version 1 on, whoever lives where nobody in sync does.

use std::collections::BTreeMap;
use std::sync::Arc;

use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::kafka::messages::elect_leaders::{
    ElectLeadersRequest, ElectLeadersResponse, PartitionResult, ReplicaElectionResult, TopicPartitions,
};
use tokio::time::Instant;

use super::given_here;
use super::named::partitions_once;
use crate::kafka::request::{Refusal, Reply, RequestContext};
use crate::ops::cluster::elections::{self, Elected};
use crate::ops::error::OpError;

const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

pub(crate) async fn handle(
    ctx: &RequestContext,
    mut request: ElectLeadersRequest<'_>,
) -> Result<Reply, Refusal> {
    let deadline = Instant::now() + given_here(request.timeout_ms);
    let named: Option<Vec<(Arc<str>, i32)>> = request.topic_partitions.as_mut().map(|topics| {
        partitions_once(topics, |t| t.topic, |t| &mut t.partitions, |index| *index);
        let of_topic = |t: &TopicPartitions<'_>| {
            let topic: Arc<str> = Arc::from(t.topic);
            t.partitions.iter().map(move |index| (Arc::clone(&topic), *index)).collect::<Vec<_>>()
        };
        topics.iter().flat_map(of_topic).collect()
    });
    let elected = match (request.election_type, named) {
        // An empty list names nothing; none at all asks for every partition where there is something to do.
        (PREFERRED, Some(named)) if named.is_empty() => Vec::new(),
        (PREFERRED, named) => {
            let named = named.unwrap_or_default();
            match elections::preferred(ctx.shared(), &named, false, deadline).await {
                Ok(elected) => elected,
                // Version 0 has no room for an error of the whole.
                Err(e) if ctx.version() == 0 => named.iter().map(|one| failed(one, e.clone())).collect(),
                Err(e) => return refused(ctx, e.code, &e.message),
            }
        }
        (UNCLEAN, Some(named)) => uncleanly(ctx, &named, deadline).await,
        (UNCLEAN, None) => {
            return refused(
                ctx,
                ErrorCode::InvalidRequest,
                "an unclean election loses records: it is ordered by the names of partitions",
            );
        }
        _ => {
            let why = "leaders are elected preferred (0) or unclean (1)";
            return refused(ctx, ErrorCode::InvalidRequest, why);
        }
    };
    let mut by_topic: BTreeMap<&str, Vec<PartitionResult<'_>>> = BTreeMap::new();
    for one in &elected {
        by_topic.entry(&one.topic).or_default().push(result(ctx, one));
    }
    let results = by_topic
        .into_iter()
        .map(|(topic, partition_result)| ReplicaElectionResult { topic, partition_result });
    ctx.reply(&ElectLeadersResponse { replica_election_results: results.collect(), ..Default::default() })
}

/// Each by itself: an operator has named them.
async fn uncleanly(ctx: &RequestContext, named: &[(Arc<str>, i32)], deadline: Instant) -> Vec<Elected> {
    let mut elected = Vec::with_capacity(named.len());
    for one in named {
        let outcome = elections::unclean(ctx.shared(), std::slice::from_ref(one), true, deadline).await;
        elected.push(outcome.unwrap_or_else(|e| failed(one, e)));
    }
    elected
}

fn failed((topic, partition): &(Arc<str>, i32), error: OpError) -> Elected {
    Elected {
        topic: Arc::clone(topic),
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
fn refused(ctx: &RequestContext, code: ErrorCode, why: &str) -> Result<Reply, Refusal> {
    ctx.count_error(code);
    tracing::debug!(reason = why, "an election was refused");
    ctx.reply(&ElectLeadersResponse { error_code: code.code(), ..Default::default() })
}
