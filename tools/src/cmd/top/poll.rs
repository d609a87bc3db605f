//! Asks a cluster for what `floodmark top` shows. What cannot be had is left out and named; only a cluster that does not answer is a failure.

use floodmark_client::admin::{Group, Topic};
use floodmark_client::{Admin, Client};
use floodmark_storage::clock::Stopwatch;
use tokio::task::JoinSet;

use super::view::{GroupSample, Sample, TopicSample};

/// Questions that are under way at once: enough to hide the way there and back, too few to be a load.
const QUESTIONS_MAX: usize = 16;

pub(super) struct Poller {
    admin: Admin,
    watch: Stopwatch,
}

impl Poller {
    pub(super) fn new(client: Client) -> Poller {
        Poller { admin: client.admin(), watch: Stopwatch::start() }
    }

    pub(super) async fn sample(&self) -> anyhow::Result<Sample> {
        let cluster = self.admin.cluster().await?;
        let mut gaps = Gaps::default();
        let topics = self.topics(&mut gaps).await?;
        // At the time of the offsets, which the rates are made of.
        let at = self.watch.elapsed();
        let groups = self.groups(&mut gaps).await?;
        let brokers = cluster.brokers.iter().filter(|broker| !broker.is_fenced).count();
        Ok(Sample { at, brokers, topics, groups, gaps: gaps.first })
    }

    async fn topics(&self, gaps: &mut Gaps) -> anyhow::Result<Vec<TopicSample>> {
        let topics = self.admin.topics().await?;
        let mut asked = JoinSet::new();
        let mut samples = Vec::new();
        for topic in topics {
            if asked.len() == QUESTIONS_MAX {
                gaps.keep(asked.join_next().await, &mut samples);
            }
            asked.spawn(topic_sample(self.admin.clone(), topic));
        }
        while !asked.is_empty() {
            gaps.keep(asked.join_next().await, &mut samples);
        }
        Ok(samples)
    }

    async fn groups(&self, gaps: &mut Gaps) -> anyhow::Result<Vec<GroupSample>> {
        let groups = self.admin.groups().await?;
        let mut asked = JoinSet::new();
        let mut samples = Vec::new();
        for group in groups {
            if asked.len() == QUESTIONS_MAX {
                gaps.keep(asked.join_next().await, &mut samples);
            }
            let admin = self.admin.clone();
            asked.spawn(async move {
                let described = admin.group(&group.group).await;
                described.map(group_sample).map_err(|e| format!("group {}: {e}", group.group))
            });
        }
        while !asked.is_empty() {
            gaps.keep(asked.join_next().await, &mut samples);
        }
        Ok(samples)
    }
}

/// What could not be had.
#[derive(Default)]
struct Gaps {
    first: Option<String>,
}

impl Gaps {
    fn keep<T>(
        &mut self,
        answer: Option<Result<Result<T, String>, tokio::task::JoinError>>,
        samples: &mut Vec<T>,
    ) {
        let reason = match answer {
            Some(Ok(Ok(sample))) => return samples.push(sample),
            Some(Ok(Err(reason))) => reason,
            Some(Err(e)) => e.to_string(),
            None => return,
        };
        self.first.get_or_insert(reason);
    }
}

async fn topic_sample(admin: Admin, topic: Topic) -> Result<TopicSample, String> {
    let offline = topic.partitions.iter().filter(|partition| partition.leader.is_none()).count();
    let mut sample = TopicSample {
        name: topic.name,
        partitions: topic.partitions.len(),
        offline,
        ..TopicSample::default()
    };
    // Nobody can tell the offsets of a partition without a leader, and waiting for one takes long.
    if offline == 0 {
        let offsets = admin.topic_offsets(&sample.name, None).await;
        for partition in offsets.map_err(|e| format!("topic {}: {e}", sample.name))? {
            let records = partition.high_watermark.saturating_sub(partition.start);
            sample.records += u64::try_from(records).unwrap_or(0);
            sample.committed_end = sample.committed_end.saturating_add(partition.high_watermark);
            sample.size_bytes += partition.size_bytes;
        }
    }
    Ok(sample)
}

fn group_sample(group: Group) -> GroupSample {
    let lag: i64 = group.partitions.iter().filter_map(|partition| partition.lag).sum();
    GroupSample {
        name: group.group,
        state: group.state,
        members: group.members.len(),
        committed: group.partitions.iter().filter_map(|partition| partition.committed).sum(),
        lag: u64::try_from(lag).unwrap_or(0),
    }
}
