//! The few Kafka calls with which a run makes topics, looks at them and fills them, one at a time on a connection. Not for what is timed
//! to the microsecond: that is `kafka_wire`.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use floodmark_proto::kafka::header::decode_response_header;
use floodmark_proto::kafka::messages::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest, CreateTopicsResponse,
};
use floodmark_proto::kafka::messages::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use floodmark_proto::kafka::messages::produce::{
    PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData,
};
use floodmark_proto::kafka::{ApiKey, Decoder, Encoder, Message, RequestHeader};

use crate::workload::Template;

/// A broker that was killed answers once it has checked what its logs hold.
const ANSWER_WITHIN: Duration = Duration::from_secs(180);
const CREATE_VERSION: i16 = 7;
const METADATA_VERSION: i16 = 12;
const PRODUCE_VERSION: i16 = 9;

/// A connection to one broker.
#[derive(Debug)]
pub struct Kafka {
    socket: TcpStream,
    encoder: Encoder,
    next_id: i32,
}

/// A partition as a broker tells it.
#[derive(Debug)]
pub struct Partition {
    /// Its number.
    pub index: i32,
    /// Where its leader is, if it has one.
    pub leader: Option<SocketAddr>,
    /// How many replicas are in sync.
    pub in_sync: usize,
}

/// Which partition of which topic.
pub type PartitionOf = (Arc<str>, i32);

/// All partitions, as a broker tells them.
#[derive(Debug)]
pub struct Everything {
    /// The broker that decides for the cluster.
    pub controller: i32,
    /// All of them.
    pub partitions: Vec<Placed>,
}

/// A partition by the ids of brokers.
#[derive(Debug)]
pub struct Placed {
    /// Which.
    pub of: PartitionOf,
    /// The broker that leads it, if any does.
    pub leader: Option<i32>,
    /// The first of its replicas.
    pub preferred: Option<i32>,
    /// How many replicas are in sync.
    pub in_sync: usize,
}

impl Kafka {
    /// Connects.
    pub fn connect(address: SocketAddr) -> anyhow::Result<Kafka> {
        let socket = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(ANSWER_WITHIN))?;
        Ok(Kafka { socket, encoder: Encoder::new(), next_id: 0 })
    }

    fn send<'a, Q: Message<'a>>(&mut self, key: ApiKey, version: i16, request: &Q) -> anyhow::Result<()> {
        let header = RequestHeader {
            api_key: key.code(),
            api_version: version,
            correlation_id: self.next_id,
            client_id: Some("bench"),
        };
        self.next_id = self.next_id.wrapping_add(1);
        header.start_request(&mut self.encoder);
        request.encode(&mut self.encoder, version);
        for piece in self.encoder.finish()? {
            self.socket.write_all(&piece)?;
        }
        Ok(())
    }

    fn receive(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.socket.read_exact(&mut length)?;
        let mut frame = vec![0; usize::try_from(i32::from_be_bytes(length))?];
        self.socket.read_exact(&mut frame)?;
        Ok(frame)
    }

    /// Makes a topic, with as many copies as brokers make unless told.
    pub fn create(&mut self, name: &str, partitions: i32) -> anyhow::Result<()> {
        self.create_with(name, partitions, &[])
    }

    /// The same with settings.
    pub fn create_with(
        &mut self,
        name: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        let config = |&(name, value)| CreatableTopicConfig { name, value: Some(value) };
        let topic = CreatableTopic {
            name,
            num_partitions: partitions,
            replication_factor: -1,
            configs: settings.iter().map(config).collect(),
            ..Default::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
        self.send(ApiKey::CreateTopics, CREATE_VERSION, &request)?;
        let frame = self.receive()?;
        let answer: CreateTopicsResponse<'_> = read(&frame, ApiKey::CreateTopics, CREATE_VERSION)?;
        let code = answer.topics.first().context("no answer for the topic")?.error_code;
        ensure!(code == 0, "the topic was not made: error {code}");
        Ok(())
    }

    /// The partitions of one topic.
    pub fn partitions(&mut self, name: &str) -> anyhow::Result<Vec<Partition>> {
        let topics = Some(vec![MetadataRequestTopic { name: Some(name), ..Default::default() }]);
        let request = MetadataRequest { topics, ..Default::default() };
        self.send(ApiKey::Metadata, METADATA_VERSION, &request)?;
        let frame = self.receive()?;
        let answer: MetadataResponse<'_> = read(&frame, ApiKey::Metadata, METADATA_VERSION)?;
        let topic = answer.topics.first().context("the topic is not known")?;
        let address = |id: i32| {
            let broker = answer.brokers.iter().find(|broker| broker.node_id == id)?;
            format!("{}:{}", broker.host, broker.port).parse().ok()
        };
        let partition = |p: &floodmark_proto::kafka::messages::metadata::MetadataResponsePartition| {
            Partition { index: p.partition_index, leader: address(p.leader_id), in_sync: p.isr_nodes.len() }
        };
        Ok(topic.partitions.iter().map(partition).collect())
    }

    /// The partitions of all topics.
    pub fn everything(&mut self) -> anyhow::Result<Everything> {
        let request = MetadataRequest { topics: None, ..Default::default() };
        self.send(ApiKey::Metadata, METADATA_VERSION, &request)?;
        let frame = self.receive()?;
        let answer: MetadataResponse<'_> = read(&frame, ApiKey::Metadata, METADATA_VERSION)?;
        let mut partitions = Vec::new();
        for topic in answer.topics {
            let name: Arc<str> = topic.name.context("a topic without a name")?.into();
            partitions.extend(topic.partitions.iter().map(|p| Placed {
                of: (Arc::clone(&name), p.partition_index),
                leader: Some(p.leader_id).filter(|id| *id >= 0),
                preferred: p.replica_nodes.first().copied(),
                in_sync: p.isr_nodes.len(),
            }));
        }
        Ok(Everything { controller: answer.controller_id, partitions })
    }

    /// Sends the batch to each partition in one request; gives those that took it not, with the codes.
    pub fn produce_each(
        &mut self,
        parts: &[PartitionOf],
        acks: i16,
        template: &Template,
    ) -> anyhow::Result<Vec<(PartitionOf, i16)>> {
        let mut by_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for (topic, index) in parts {
            by_topic.entry(topic).or_default().push(*index);
        }
        let data = |index| PartitionProduceData { index, records: Some(template.as_bytes()) };
        let topic_data = by_topic.into_iter().map(|(name, indexes)| TopicProduceData {
            name,
            partition_data: indexes.into_iter().map(data).collect(),
            ..Default::default()
        });
        let topic_data = topic_data.collect();
        let request = ProduceRequest { acks, timeout_ms: 30_000, topic_data, ..Default::default() };
        self.send(ApiKey::Produce, PRODUCE_VERSION, &request)?;
        let frame = self.receive()?;
        let answer: ProduceResponse<'_> = read(&frame, ApiKey::Produce, PRODUCE_VERSION)?;
        let mut codes = BTreeMap::new();
        for topic in &answer.responses {
            for partition in &topic.partition_responses {
                codes.insert((topic.name, partition.index), partition.error_code);
            }
        }
        let mut refused = Vec::new();
        for part in parts {
            let code = codes.get(&(&*part.0, part.1)).copied().context("a partition without an answer")?;
            if code != 0 {
                refused.push((part.clone(), code));
            }
        }
        Ok(refused)
    }

    /// Sends the batch so often, with so many under way; returns when all replicas in sync have all of them.
    pub fn produce_all(
        &mut self,
        topic: &str,
        index: i32,
        template: &Template,
        count: usize,
        under_way: usize,
    ) -> anyhow::Result<()> {
        let mut sent = VecDeque::new();
        for n in 0..count + under_way {
            if n < count {
                let partition_data = vec![PartitionProduceData { index, records: Some(template.as_bytes()) }];
                let topic_data = vec![TopicProduceData { name: topic, partition_data, ..Default::default() }];
                let request =
                    ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data, ..Default::default() };
                self.send(ApiKey::Produce, PRODUCE_VERSION, &request)?;
                sent.push_back(());
            }
            if n + 1 >= under_way && sent.pop_front().is_some() {
                let frame = self.receive()?;
                let answer: ProduceResponse<'_> = read(&frame, ApiKey::Produce, PRODUCE_VERSION)?;
                let code = answer
                    .responses
                    .first()
                    .and_then(|t| t.partition_responses.first())
                    .map(|p| p.error_code);
                match code {
                    Some(0) => {}
                    other => bail!("a batch was not taken: error {other:?}"),
                }
            }
        }
        Ok(())
    }
}

fn read<'a, M: Message<'a>>(frame: &'a [u8], key: ApiKey, version: i16) -> anyhow::Result<M> {
    let mut decoder = Decoder::new(frame);
    decode_response_header(&mut decoder, key, version)?;
    let at = decoder.position();
    let mut decoder = Decoder::new(&frame[at..]);
    Ok(M::decode(&mut decoder, version)?)
}
