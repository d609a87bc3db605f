//! DescribeLogDirs: what lies where, and how large it is.

use std::collections::BTreeMap;

use floodmark_proto::kafka::messages::describe_log_dirs::{
    DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeLogDirsResult,
    DescribeLogDirsTopic,
};

use super::named::by_topic;
use crate::kafka::request::{Refusal, Reply, RequestContext};

pub(crate) async fn handle(
    ctx: &RequestContext,
    request: DescribeLogDirsRequest<'_>,
) -> Result<Reply, Refusal> {
    let wanted =
        request.topics.as_ref().map(|topics| by_topic(topics.iter().map(|t| (t.topic, &*t.partitions))));
    let dirs = ctx.shared().cluster.log_dirs();
    let mut topics: Vec<BTreeMap<&str, Vec<DescribeLogDirsPartition>>> = vec![BTreeMap::new(); dirs.len()];
    let partitions = ctx.shared().cluster.registry().all();
    for partition in &partitions {
        let (name, index) = (&*partition.id().topic, partition.id().index);
        let Some(place) = dirs.iter().position(|dir| partition.dir().starts_with(&dir.path)) else {
            continue;
        };
        if wanted
            .as_ref()
            .is_none_or(|wanted| wanted.get(name).is_some_and(|indexes| indexes.contains(&index)))
        {
            topics[place].entry(name).or_default().push(DescribeLogDirsPartition {
                partition_index: index,
                partition_size: i64::try_from(partition.size_bytes()).unwrap_or(i64::MAX),
                offset_lag: 0,
                is_future_key: false,
            });
        }
    }
    let names: Vec<String> = dirs.iter().map(|dir| dir.path.display().to_string()).collect();
    let results = names.iter().zip(&dirs).zip(topics).map(|((log_dir, dir), topics)| DescribeLogDirsResult {
        error_code: 0,
        log_dir,
        topics: topics
            .into_iter()
            .map(|(name, partitions)| DescribeLogDirsTopic { name, partitions })
            .collect(),
        total_bytes: -1,
        usable_bytes: dir.available_bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
        is_cordoned: false,
    });
    let response = DescribeLogDirsResponse { results: results.collect(), ..Default::default() };
    ctx.reply(&response)
}
