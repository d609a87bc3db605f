//! Topics, settings, offsets, the cluster: what an operator or a program that sets itself up asks for. Groups are in `groups`.

mod cluster;
mod groups;
mod types;

use std::collections::HashMap;

use floodmark_proto::pb::v1 as pb;

pub use cluster::{
    BrokerStatus, ClusterStatus, Elected, Mode, MoveGoal, MoveUnderWay, Moved, PartitionCounts, Quorum,
    QuorumMember,
};
pub use groups::{CommittedOffset, Group, GroupListing, GroupMember, OffsetCommit, PartitionLag};
pub use types::{
    Broker, Cluster, ConfigChange, ConfigResource, CreatedTopic, LogDir, NewTopic, Offsets, Partition,
    PartitionSize, ProducerState, ReplicaState, Setting, Topic,
};

use crate::channels::Peer;
use crate::client::Client;
use crate::error::{Error, Result, outcome};
use crate::record::TopicPartition;

/// Cheap to clone. Every call is tried again where that can help, within [`crate::ClientConfig::operation_timeout`].
///
/// A call that makes or deletes something and whose answer was lost may find, when it is tried again, that it was done already; it then
/// fails with what the broker says about that.
#[derive(Debug, Clone)]
pub struct Admin {
    client: Client,
}

impl Admin {
    pub(crate) fn new(client: Client) -> Admin {
        Admin { client }
    }

    /// The brokers, and who answered.
    pub async fn cluster(&self) -> Result<Cluster> {
        let what = "describing the cluster";
        let described = self.client.ask_anyone(what, |peer| async move {
            let asked = peer.request(pb::DescribeClusterRequest {});
            peer.answer(what, peer.admin().describe_cluster(asked)).await
        });
        let described = described.await?;
        self.client.learn_brokers(&described.brokers);
        Ok(described.into())
    }

    /// All topics, without those that the cluster keeps for itself.
    pub async fn topics(&self) -> Result<Vec<Topic>> {
        self.describe_topics(pb::DescribeTopicsRequest::default()).await?.into_iter().collect()
    }

    /// All topics, the internal ones too.
    pub async fn topics_with_internal(&self) -> Result<Vec<Topic>> {
        let all = pb::DescribeTopicsRequest { include_internal: true, ..Default::default() };
        self.describe_topics(all).await?.into_iter().collect()
    }

    /// One topic; fails where it is not there.
    pub async fn topic(&self, name: &str) -> Result<Topic> {
        let named = pb::DescribeTopicsRequest { topics: vec![name.to_owned()], include_internal: true };
        let described = self.describe_topics(named).await?;
        described.into_iter().next().unwrap_or_else(|| Err(unanswered(name)))
    }

    async fn describe_topics(&self, asked: pb::DescribeTopicsRequest) -> Result<Vec<Result<Topic>>> {
        let what = "describing topics";
        let described = self.client.ask_anyone(what, |peer| {
            let asked = asked.clone();
            async move {
                let asked = peer.request(asked);
                peer.answer(what, peer.admin().describe_topics(asked)).await
            }
        });
        let described = described.await?;
        self.client.learn_brokers(&described.brokers);
        let topic = |topic: pb::DescribedTopic| outcome(topic.error.as_ref()).map(|()| topic.into());
        Ok(described.topics.into_iter().map(topic).collect())
    }

    /// Makes a topic. It can be written to when this returns.
    pub async fn create_topic(&self, topic: NewTopic) -> Result<CreatedTopic> {
        let created = self.create_topics(vec![topic]).await?;
        created.into_iter().next().unwrap_or_else(|| Err(unanswered("the topic")))
    }

    /// Makes several topics, each by itself: an outcome for each, in their order.
    pub async fn create_topics(&self, topics: Vec<NewTopic>) -> Result<Vec<Result<CreatedTopic>>> {
        self.create(topics, false).await
    }

    /// Says what would become of it, and makes nothing.
    pub async fn check_new_topic(&self, topic: NewTopic) -> Result<CreatedTopic> {
        let checked = self.create(vec![topic], true).await?;
        checked.into_iter().next().unwrap_or_else(|| Err(unanswered("the topic")))
    }

    async fn create(&self, topics: Vec<NewTopic>, validate_only: bool) -> Result<Vec<Result<CreatedTopic>>> {
        let what = "making topics";
        for topic in &topics {
            self.client.forget_topic(&topic.name);
        }
        let topics: Vec<pb::NewTopic> = topics.into_iter().map(Into::into).collect();
        let created = self.client.ask_anyone(what, |peer| {
            let asked = pb::CreateTopicsRequest {
                topics: topics.clone(),
                validate_only,
                timeout_ms: timeout_ms(&self.client),
            };
            async move {
                let asked = peer.request(asked);
                peer.answer(what, peer.admin().create_topics(asked)).await
            }
        });
        let topics = created.await?.topics.into_iter();
        Ok(topics.map(|topic| outcome(topic.error.as_ref()).map(|()| topic.into())).collect())
    }

    /// Deletes a topic with all its records.
    pub async fn delete_topic(&self, name: &str) -> Result<()> {
        let what = "deleting topics";
        let deleted = self.client.ask_anyone(what, |peer| {
            let asked = pb::DeleteTopicsRequest {
                topics: vec![name.to_owned()],
                timeout_ms: timeout_ms(&self.client),
            };
            async move {
                let asked = peer.request(asked);
                peer.answer(what, peer.admin().delete_topics(asked)).await
            }
        });
        let deleted = deleted.await?;
        self.client.forget_topic(name);
        deleted.outcomes.first().map_or_else(|| Err(unanswered(name)), |done| outcome(done.error.as_ref()))
    }

    /// Gives a topic more partitions, so that it has `partitions` in all. Keys may go to other partitions from then on.
    pub async fn extend_topic(&self, topic: &str, partitions: i32) -> Result<()> {
        let what = "giving a topic more partitions";
        let extended = self.client.ask_anyone(what, |peer| {
            let asked = pb::ExtendTopicRequest {
                topic: topic.to_owned(),
                partitions,
                validate_only: false,
                timeout_ms: timeout_ms(&self.client),
            };
            async move {
                let asked = peer.request(asked);
                peer.answer(what, peer.admin().extend_topic(asked)).await
            }
        });
        extended.await?;
        self.client.forget_topic(topic);
        Ok(())
    }

    /// Effective settings of a topic or a broker, where each came from, and its documentation. Without names, all.
    pub async fn settings(&self, resource: ConfigResource, names: &[&str]) -> Result<Vec<Setting>> {
        let what = "describing settings";
        let asked = pb::DescribeConfigsRequest {
            resource: Some(resource.clone().into()),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let described = self.of(what, &resource, |peer| {
            let asked = asked.clone();
            async move {
                let asked = peer.request(asked);
                peer.answer(what, peer.admin().describe_configs(asked)).await
            }
        });
        Ok(described.await?.entries.into_iter().map(Into::into).collect())
    }

    /// Changes settings: all of these or none.
    pub async fn alter_settings(&self, resource: ConfigResource, changes: Vec<ConfigChange>) -> Result<()> {
        let what = "changing settings";
        let asked = pb::AlterConfigsRequest {
            resource: Some(resource.clone().into()),
            changes: changes.into_iter().map(Into::into).collect(),
            validate_only: false,
        };
        let altered = self.of(what, &resource, |peer| {
            let asked = asked.clone();
            async move {
                let asked = peer.request(asked);
                peer.answer(what, peer.admin().alter_configs(asked)).await
            }
        });
        altered.await.map(|_altered| ())
    }

    /// Asks whoever can answer for the settings of `resource`.
    async fn of<T, F>(
        &self,
        what: &'static str,
        resource: &ConfigResource,
        ask: impl Fn(Peer) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        match resource {
            ConfigResource::Topic(_) => self.client.ask_anyone(what, ask).await,
            ConfigResource::Broker(broker) => self.client.ask_broker(what, *broker, ask).await,
        }
    }

    /// Start, end and watermarks of one partition; with a time, also the first offset at or after it.
    pub async fn offsets(&self, partition: &TopicPartition, at_ms: Option<i64>) -> Result<Offsets> {
        Ok((&self.described_offsets(partition, at_ms).await?).into())
    }

    /// How far the followers of a partition are, as its leader knows them.
    pub async fn replicas(&self, partition: &TopicPartition) -> Result<Vec<ReplicaState>> {
        Ok(self.offsets_and_replicas(partition).await?.1)
    }

    /// Both in one call.
    pub async fn offsets_and_replicas(
        &self,
        partition: &TopicPartition,
    ) -> Result<(Offsets, Vec<ReplicaState>)> {
        let described = self.described_offsets(partition, None).await?;
        Ok(((&described).into(), described.replicas.into_iter().map(Into::into).collect()))
    }

    async fn described_offsets(
        &self,
        partition: &TopicPartition,
        at_ms: Option<i64>,
    ) -> Result<pb::PartitionOffsets> {
        let what = "looking up offsets";
        let described = self.client.ask_leader(what, &partition.topic, partition.partition, |peer| {
            let asked = pb::DescribeOffsetsRequest {
                partitions: vec![partition.clone().into()],
                timestamp_ms: at_ms,
            };
            async move {
                let asked = peer.request(asked);
                let described = peer.answer(what, peer.admin().describe_offsets(asked)).await?;
                let offsets = described.partitions.into_iter().next();
                let offsets = offsets.ok_or_else(|| unanswered("the partition"))?;
                outcome(offsets.error.as_ref()).map(|()| offsets)
            }
        });
        described.await
    }

    /// The same for all partitions of a topic, in their order.
    pub async fn topic_offsets(&self, topic: &str, at_ms: Option<i64>) -> Result<Vec<Offsets>> {
        let count = self.client.partition_count(topic).await?;
        let mut all = Vec::new();
        for partition in 0..count {
            all.push(self.offsets(&TopicPartition::new(topic, partition), at_ms).await?);
        }
        Ok(all)
    }

    /// Removes the records of a partition before an offset, or, without one, all that are committed. Returns the first offset left.
    pub async fn delete_records(&self, partition: &TopicPartition, before: Option<i64>) -> Result<i64> {
        let what = "removing records";
        let deleted = self.client.ask_leader(what, &partition.topic, partition.partition, |peer| {
            let (topic, partition) = (partition.topic.to_string(), partition.partition);
            let asked = pb::DeleteRecordsRequest {
                partitions: vec![pb::DeleteBefore { topic, partition, before }],
                timeout_ms: timeout_ms(&self.client),
            };
            async move {
                let asked = peer.request(asked);
                let deleted = peer.answer(what, peer.admin().delete_records(asked)).await?;
                let deleted = deleted.partitions.into_iter().next();
                let deleted = deleted.ok_or_else(|| unanswered("the partition"))?;
                outcome(deleted.error.as_ref()).map(|()| deleted.start)
            }
        });
        deleted.await
    }

    /// Where partitions lie on the disks of each broker, and how large they are.
    pub async fn log_dirs(&self) -> Result<HashMap<i32, Vec<LogDir>>> {
        let what = "describing disks";
        let mut all = HashMap::new();
        for broker in self.client.broker_ids().await? {
            let described = self.client.ask_broker(what, broker, |peer| async move {
                let asked = peer.request(pb::DescribeLogDirsRequest {});
                peer.answer(what, peer.admin().describe_log_dirs(asked)).await
            });
            all.insert(broker, described.await?.dirs.into_iter().map(Into::into).collect());
        }
        Ok(all)
    }

    /// What a partition knows of idempotent producers.
    pub async fn producers(&self, partition: &TopicPartition) -> Result<Vec<ProducerState>> {
        let what = "describing producers";
        let described = self.client.ask_leader(what, &partition.topic, partition.partition, |peer| {
            let asked = pb::DescribeProducersRequest { partitions: vec![partition.clone().into()] };
            async move {
                let asked = peer.request(asked);
                let described = peer.answer(what, peer.admin().describe_producers(asked)).await?;
                let described = described.partitions.into_iter().next();
                let described = described.ok_or_else(|| unanswered("the partition"))?;
                outcome(described.error.as_ref()).map(|()| described.producers)
            }
        });
        Ok(described.await?.into_iter().map(Into::into).collect())
    }
}

/// What a broker is told, so that it gives up before the client does.
fn timeout_ms(client: &Client) -> u32 {
    u32::try_from(client.request_timeout().as_millis()).unwrap_or(u32::MAX)
}

fn unanswered(what: &str) -> Error {
    Error::Protocol(format!("the answer says nothing of {what}"))
}
