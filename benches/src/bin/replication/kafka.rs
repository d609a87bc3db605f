//! The few Kafka calls that a run makes, each over its own connection.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use floodmark_benches::workload::Template;
use floodmark_proto::kafka::header::decode_response_header;
use floodmark_proto::kafka::messages::create_topics::{
    CreatableTopic, CreateTopicsRequest, CreateTopicsResponse,
};
use floodmark_proto::kafka::messages::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use floodmark_proto::kafka::messages::produce::{
    PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData,
};
use floodmark_proto::kafka::{ApiKey, Decoder, Encoder, Message, RequestHeader};

const ANSWER_WITHIN: Duration = Duration::from_secs(60);
const CREATE_VERSION: i16 = 7;
const METADATA_VERSION: i16 = 12;
const PRODUCE_VERSION: i16 = 9;

pub(crate) struct Kafka {
    socket: TcpStream,
    encoder: Encoder,
    next_id: i32,
}

/// A partition as a broker tells it.
pub(crate) struct Partition {
    pub(crate) index: i32,
    pub(crate) leader: Option<SocketAddr>,
    pub(crate) in_sync: usize,
}

impl Kafka {
    pub(crate) fn connect(address: SocketAddr) -> anyhow::Result<Kafka> {
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

    pub(crate) fn create(&mut self, name: &str, partitions: i32) -> anyhow::Result<()> {
        let topic =
            CreatableTopic { name, num_partitions: partitions, replication_factor: -1, ..Default::default() };
        let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
        self.send(ApiKey::CreateTopics, CREATE_VERSION, &request)?;
        let frame = self.receive()?;
        let answer: CreateTopicsResponse<'_> = read(&frame, ApiKey::CreateTopics, CREATE_VERSION)?;
        let code = answer.topics.first().context("no answer for the topic")?.error_code;
        ensure!(code == 0, "the topic was not made: error {code}");
        Ok(())
    }

    pub(crate) fn partitions(&mut self, name: &str) -> anyhow::Result<Vec<Partition>> {
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

    /// Sends the batch so often, with so many under way; returns when all replicas in sync have all of them.
    pub(crate) fn produce_all(
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
