//! What only the leaders of partitions know. All leaders are asked at the same time, each for one of its partitions after the other; one that
//! does not answer is not asked for the rest, so that the whole takes no longer than one call may.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use floodmark_client::admin::{Offsets, ReplicaState, Topic};
use floodmark_client::{Admin, Error, TopicPartition};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// What the leader of a partition told, or why it did not.
pub(super) type Told = Result<(Offsets, Vec<ReplicaState>), String>;

/// Of each partition that somebody leads.
pub(super) async fn at_leaders(
    admin: &Admin,
    topics: impl Iterator<Item = &Topic>,
    limit: Duration,
) -> HashMap<TopicPartition, Told> {
    let mut by_leader: BTreeMap<i32, Vec<TopicPartition>> = BTreeMap::new();
    for topic in topics {
        for partition in &topic.partitions {
            if let Some(leader) = partition.leader {
                let place = TopicPartition::new(topic.name.as_str(), partition.partition);
                by_leader.entry(leader).or_default().push(place);
            }
        }
    }
    let until = Instant::now() + limit;
    let mut asking = JoinSet::new();
    for (_, partitions) in by_leader {
        let admin = admin.clone();
        asking.spawn(async move { ask_one(&admin, partitions, until, limit).await });
    }
    let mut all = HashMap::new();
    while let Some(asked) = asking.join_next().await {
        // One that panicked has told nothing.
        all.extend(asked.unwrap_or_default());
    }
    all
}

async fn ask_one(
    admin: &Admin,
    partitions: Vec<TopicPartition>,
    until: Instant,
    limit: Duration,
) -> Vec<(TopicPartition, Told)> {
    let mut silent: Option<String> = None;
    let mut all = Vec::with_capacity(partitions.len());
    for place in partitions {
        let told = match &silent {
            Some(reason) => Err(reason.clone()),
            None => match timeout_at(until, admin.offsets_and_replicas(&place)).await {
                Ok(told) => told.map_err(|e| {
                    let reason = e.to_string();
                    if matches!(e, Error::Deadline { .. } | Error::Unreachable { .. }) {
                        silent = Some(reason.clone());
                    }
                    reason
                }),
                Err(_elapsed) => {
                    Err(silent.insert(format!("no answer within {} ms", limit.as_millis())).clone())
                }
            },
        };
        all.push((place, told));
    }
    all
}
