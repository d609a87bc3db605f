//! What `Admin` takes and returns, and how it stands in messages.

use std::collections::BTreeMap;

use floodmark_proto::pb::v1 as pb;

/// The brokers of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Made once, when its first broker started.
    pub id: String,
    /// All that are registered.
    pub brokers: Vec<Broker>,
    /// Who leads the metadata; none while nobody does.
    pub controller: Option<i32>,
    /// Who answered.
    pub answered_by: i32,
    /// Of the program that answered.
    pub version: String,
}

/// One broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Its number.
    pub id: i32,
    /// Of its gRPC door.
    pub host: String,
    /// Of its gRPC door.
    pub port: u32,
    /// Where it stands.
    pub rack: Option<String>,
    /// It leads nothing until it is back.
    pub is_fenced: bool,
    /// `host:port` of its Kafka door.
    pub kafka: String,
}

impl From<pb::DescribeClusterReply> for Cluster {
    fn from(reply: pb::DescribeClusterReply) -> Cluster {
        Cluster {
            id: reply.cluster_id,
            brokers: reply.brokers.into_iter().map(Into::into).collect(),
            controller: reply.controller_id,
            answered_by: reply.broker_id,
            version: reply.version,
        }
    }
}

impl From<pb::Broker> for Broker {
    fn from(broker: pb::Broker) -> Broker {
        Broker {
            id: broker.broker_id,
            host: broker.host,
            port: broker.port,
            rack: broker.rack,
            is_fenced: broker.is_fenced,
            kafka: crate::metadata::address(&broker.kafka_host, broker.kafka_port),
        }
    }
}

/// A topic as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// 16 bytes, or none where the broker gives none: another one for each topic of that name.
    pub id: Vec<u8>,
    /// The cluster keeps it for itself.
    pub is_internal: bool,
    /// With fewer replicas in sync, writes that ask for all are refused.
    pub min_in_sync: i32,
    /// In order of their numbers.
    pub partitions: Vec<Partition>,
}

/// One partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number.
    pub partition: i32,
    /// The broker that takes writes; none during an election.
    pub leader: Option<i32>,
    /// Rises with every election.
    pub leader_epoch: i32,
    /// Brokers that have a copy.
    pub replicas: Vec<i32>,
    /// Those that have all that is committed.
    pub in_sync: Vec<i32>,
    /// Those of the replicas that a move adds.
    pub adding: Vec<i32>,
    /// Those of the replicas that a move takes away.
    pub removing: Vec<i32>,
}

impl Partition {
    /// Replicas are missing from the in-sync set; those that a move adds are not missed yet.
    #[must_use]
    pub fn is_under_replicated(&self) -> bool {
        self.replicas.iter().any(|replica| !self.in_sync.contains(replica) && !self.adding.contains(replica))
    }
}

impl From<pb::DescribedTopic> for Topic {
    fn from(topic: pb::DescribedTopic) -> Topic {
        let mut partitions: Vec<Partition> = topic.partitions.into_iter().map(Into::into).collect();
        partitions.sort_by_key(|partition| partition.partition);
        Topic {
            name: topic.name,
            id: topic.topic_id.to_vec(),
            is_internal: topic.is_internal,
            min_in_sync: topic.min_in_sync,
            partitions,
        }
    }
}

impl From<pb::DescribedPartition> for Partition {
    fn from(partition: pb::DescribedPartition) -> Partition {
        Partition {
            partition: partition.partition,
            leader: partition.leader,
            leader_epoch: partition.leader_epoch,
            replicas: partition.replicas,
            in_sync: partition.in_sync,
            adding: partition.adding,
            removing: partition.removing,
        }
    }
}

/// A topic to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    pub(super) name: String,
    partitions: Option<i32>,
    replication_factor: Option<i32>,
    settings: BTreeMap<String, String>,
}

impl NewTopic {
    /// With the broker's defaults for all but its name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> NewTopic {
        NewTopic { name: name.into(), partitions: None, replication_factor: None, settings: BTreeMap::new() }
    }

    /// With so many partitions.
    #[must_use]
    pub fn partitions(mut self, partitions: i32) -> NewTopic {
        self.partitions = Some(partitions);
        self
    }

    /// With so many copies of each.
    #[must_use]
    pub fn replication_factor(mut self, copies: i32) -> NewTopic {
        self.replication_factor = Some(copies);
        self
    }

    /// With a setting, such as `retention.ms`.
    #[must_use]
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> NewTopic {
        self.settings.insert(name.into(), value.into());
        self
    }
}

impl From<NewTopic> for pb::NewTopic {
    fn from(topic: NewTopic) -> pb::NewTopic {
        pb::NewTopic {
            name: topic.name,
            partitions: topic.partitions,
            replication_factor: topic.replication_factor,
            settings: topic.settings.into_iter().collect(),
        }
    }
}

/// A topic that has been made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Its name.
    pub name: String,
    /// 16 bytes.
    pub id: Vec<u8>,
    /// How many it has.
    pub partitions: i32,
    /// Copies of each.
    pub replication_factor: i32,
}

impl From<pb::CreatedTopic> for CreatedTopic {
    fn from(topic: pb::CreatedTopic) -> CreatedTopic {
        CreatedTopic {
            name: topic.name,
            id: topic.topic_id.to_vec(),
            partitions: topic.partitions,
            replication_factor: topic.replication_factor,
        }
    }
}

/// Whose settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigResource {
    /// Of a topic.
    Topic(String),
    /// Of a broker.
    Broker(i32),
}

impl From<ConfigResource> for pb::ConfigResource {
    fn from(resource: ConfigResource) -> pb::ConfigResource {
        use pb::config_resource::Resource;
        pb::ConfigResource {
            resource: Some(match resource {
                ConfigResource::Topic(topic) => Resource::Topic(topic),
                ConfigResource::Broker(broker) => Resource::BrokerId(broker),
            }),
        }
    }
}

/// A setting in effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Where it came from.
    pub source: String,
    /// It cannot be changed while the broker runs.
    pub is_read_only: bool,
    /// What it does.
    pub documentation: String,
}

impl From<pb::ConfigEntry> for Setting {
    fn from(entry: pb::ConfigEntry) -> Setting {
        Setting {
            name: entry.name,
            value: entry.value,
            source: entry.source,
            is_read_only: entry.is_read_only,
            documentation: entry.documentation,
        }
    }
}

/// What becomes of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigChange {
    /// This value.
    Set(String, String),
    /// Back to the default.
    Remove(String),
    /// Put behind a list.
    Append(String, String),
    /// Taken out of a list.
    Subtract(String, String),
}

impl From<ConfigChange> for pb::ConfigChange {
    fn from(change: ConfigChange) -> pb::ConfigChange {
        use pb::config_change::Change;
        let (name, change) = match change {
            ConfigChange::Set(name, value) => (name, Change::Set(value)),
            ConfigChange::Remove(name) => (name, Change::Remove(true)),
            ConfigChange::Append(name, value) => (name, Change::Append(value)),
            ConfigChange::Subtract(name, value) => (name, Change::Subtract(value)),
        };
        pb::ConfigChange { name, change: Some(change) }
    }
}

/// How far a partition reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offsets {
    /// Its number.
    pub partition: i32,
    /// Of the oldest record.
    pub start: i64,
    /// No open transaction lies before it.
    pub last_stable: i64,
    /// Everything before it is committed.
    pub high_watermark: i64,
    /// Of the next record to be written.
    pub end: i64,
    /// Of its files.
    pub size_bytes: u64,
    /// Of its leader.
    pub leader_epoch: i32,
    /// Where a time was asked for: the first record at or after it, offset and timestamp.
    pub at: Option<(i64, i64)>,
}

/// How far a follower is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaState {
    /// Its number.
    pub broker: i32,
    /// Offset that its next record gets; `None`, as what it lacks, where its leader has not heard of it since it leads.
    pub end: Option<i64>,
    /// Records that it lacks.
    pub lag_records: Option<i64>,
    /// Bytes that it lacks.
    pub lag_bytes: Option<u64>,
    /// For how long it has not had everything, as far as its leader knows; 0 where it has.
    pub behind_for_ms: u64,
}

impl From<pb::ReplicaState> for ReplicaState {
    fn from(state: pb::ReplicaState) -> ReplicaState {
        let is_known = !state.is_unknown;
        ReplicaState {
            broker: state.broker_id,
            end: is_known.then_some(state.end),
            lag_records: is_known.then_some(state.lag_records),
            lag_bytes: is_known.then_some(state.lag_bytes),
            behind_for_ms: state.behind_for_ms,
        }
    }
}

impl From<&pb::PartitionOffsets> for Offsets {
    fn from(offsets: &pb::PartitionOffsets) -> Offsets {
        Offsets {
            partition: offsets.partition,
            start: offsets.start,
            last_stable: offsets.last_stable,
            high_watermark: offsets.high_watermark,
            end: offsets.end,
            size_bytes: offsets.size_bytes,
            leader_epoch: offsets.leader_epoch,
            at: offsets.at_offset.map(|offset| (offset, offsets.at_timestamp_ms.unwrap_or(-1))),
        }
    }
}

/// A directory that holds partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogDir {
    /// On the broker.
    pub path: String,
    /// On its disk, where the broker can tell.
    pub available_bytes: Option<u64>,
    /// What lies in it.
    pub partitions: Vec<PartitionSize>,
}

/// How large a partition is on one disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionSize {
    /// Of the partition.
    pub topic: String,
    /// Its number.
    pub partition: i32,
    /// Of its files.
    pub size_bytes: u64,
}

impl From<pb::LogDir> for LogDir {
    fn from(dir: pb::LogDir) -> LogDir {
        let size = |size: pb::PartitionSize| PartitionSize {
            topic: size.topic,
            partition: size.partition,
            size_bytes: size.size_bytes,
        };
        LogDir {
            path: dir.path,
            available_bytes: dir.available_bytes,
            partitions: dir.partitions.into_iter().map(size).collect(),
        }
    }
}

/// What a partition knows of one producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerState {
    /// Of the producer.
    pub producer_id: i64,
    /// Its incarnation.
    pub producer_epoch: i32,
    /// Of its last record.
    pub last_sequence: Option<i32>,
    /// Of its last record.
    pub last_timestamp_ms: Option<i64>,
}

impl From<pb::ProducerInfo> for ProducerState {
    fn from(info: pb::ProducerInfo) -> ProducerState {
        ProducerState {
            producer_id: info.producer_id,
            producer_epoch: info.producer_epoch,
            last_sequence: info.last_sequence,
            last_timestamp_ms: info.last_timestamp_ms,
        }
    }
}
