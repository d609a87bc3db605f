//! The few calls that most tests make, in newer versions, with what they do not care about left at its default.

use std::io;
use std::time::Duration;

use floodmark_proto::batch::{BatchBuilder, BatchHeader, DecompressLimits, NewRecord, Records};
use floodmark_proto::kafka::messages::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest, CreateTopicsResponse,
};
use floodmark_proto::kafka::messages::delete_topics::{
    DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse,
};
use floodmark_proto::kafka::messages::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic};
use floodmark_proto::kafka::messages::find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse};
use floodmark_proto::kafka::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use floodmark_proto::kafka::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic,
};
use floodmark_proto::kafka::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic, OffsetCommitResponse,
};
use floodmark_proto::kafka::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestTopic, OffsetFetchResponse,
};
use floodmark_proto::kafka::messages::produce::{
    PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData,
};

use super::Kafka;

/// Looks at what takes a moment, 20 ms apart at least.
const TRIES: u32 = 3000;

/// What Produce says of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Produced {
    pub(crate) error_code: i16,
    pub(crate) base_offset: i64,
    pub(crate) log_append_time_ms: i64,
    pub(crate) message: Option<String>,
    /// Places of the records that are to blame.
    pub(crate) blamed: Vec<i32>,
}

/// A fetch from one partition by name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FetchOf<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) from: i64,
    pub(crate) max_wait_ms: i32,
    pub(crate) min_bytes: i32,
    pub(crate) max_bytes: i32,
    pub(crate) partition_max_bytes: i32,
    pub(crate) leader_epoch: i32,
    pub(crate) last_fetched_epoch: i32,
}

/// What Fetch says of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fetched {
    pub(crate) error_code: i16,
    pub(crate) high_watermark: i64,
    pub(crate) log_start: i64,
    pub(crate) diverging: (i32, i64),
    pub(crate) bytes: Vec<u8>,
}

impl<'a> FetchOf<'a> {
    /// Whatever there is from an offset on, without waiting.
    pub(crate) fn new(topic: &'a str, partition: i32, from: i64) -> FetchOf<'a> {
        FetchOf {
            topic,
            partition,
            from,
            max_wait_ms: 0,
            min_bytes: 1,
            max_bytes: 50 << 20,
            partition_max_bytes: 50 << 20,
            leader_epoch: -1,
            last_fetched_epoch: -1,
        }
    }

    /// As a request of a version that names topics, outside of any session.
    pub(crate) fn request(&self) -> FetchRequest<'a> {
        FetchRequest {
            max_wait_ms: self.max_wait_ms,
            min_bytes: self.min_bytes,
            max_bytes: self.max_bytes,
            session_epoch: -1,
            topics: vec![FetchTopic {
                topic: self.topic,
                partitions: vec![FetchPartition {
                    partition: self.partition,
                    current_leader_epoch: self.leader_epoch,
                    fetch_offset: self.from,
                    last_fetched_epoch: self.last_fetched_epoch,
                    partition_max_bytes: self.partition_max_bytes,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        }
    }
}

impl Fetched {
    pub(crate) fn of(response: &FetchResponse<'_>) -> Fetched {
        let partition = &response.responses[0].partitions[0];
        Fetched {
            error_code: partition.error_code,
            high_watermark: partition.high_watermark,
            log_start: partition.log_start_offset,
            diverging: (partition.diverging_epoch.epoch, partition.diverging_epoch.end_offset),
            bytes: partition.records.as_ref().map(|pieces| pieces.concat()).unwrap_or_default(),
        }
    }

    /// Offsets and values of the whole batches, those before the offset asked for among them.
    pub(crate) fn records(&self) -> Vec<(i64, Vec<u8>)> {
        records_in(&self.bytes)
    }
}

/// One batch of these values, without keys.
pub(crate) fn batch(values: &[&[u8]]) -> Vec<u8> {
    batch_of(BatchBuilder::new(), values)
}

/// One batch of these values in a builder that says more about it.
pub(crate) fn batch_of(mut builder: BatchBuilder, values: &[&[u8]]) -> Vec<u8> {
    for value in values {
        let value = NewRecord { timestamp: 1_700_000_000_000, value: Some(value), ..Default::default() };
        builder.push(&value).unwrap();
    }
    builder.build().unwrap().as_bytes().to_vec()
}

/// Offsets and values of the whole batches in `bytes`.
pub(crate) fn records_in(mut bytes: &[u8]) -> Vec<(i64, Vec<u8>)> {
    let (mut found, mut scratch) = (Vec::new(), Vec::new());
    while let Ok(header) = BatchHeader::parse(bytes) {
        if header.size_bytes() > bytes.len() {
            break;
        }
        let (batch, rest) = bytes.split_at(header.size_bytes());
        for record in Records::open(batch, &DecompressLimits::DEFAULT, &mut scratch).unwrap() {
            let record = record.unwrap();
            found.push((record.offset.0, record.value.unwrap_or_default().to_vec()));
        }
        bytes = rest;
    }
    found
}

impl Kafka {
    /// Makes a topic; the error code where it was not made.
    pub(crate) fn create_topic(
        &mut self,
        name: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> io::Result<i16> {
        let configs = settings.iter().map(|(name, value)| CreatableTopicConfig { name, value: Some(value) });
        let topic = CreatableTopic {
            name,
            num_partitions: partitions,
            replication_factor: -1,
            configs: configs.collect(),
            ..Default::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
        let answer = self.ask(7, &request)?;
        Ok(answer.read::<CreateTopicsResponse<'_>>().topics[0].error_code)
    }

    pub(crate) fn delete_topic(&mut self, name: &str) -> io::Result<i16> {
        let topic = DeleteTopicState { name: Some(name), ..Default::default() };
        let request = DeleteTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
        let answer = self.ask(6, &request)?;
        Ok(answer.read::<DeleteTopicsResponse<'_>>().responses[0].error_code)
    }

    /// Appends what may be a batch to one partition.
    pub(crate) fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        acks: i16,
        records: &[u8],
    ) -> io::Result<Produced> {
        let answer = self.ask(9, &produce_request(topic, partition, acks, Some(records)))?;
        Ok(produced(&answer.read()))
    }

    pub(crate) fn fetch(&mut self, fetch: FetchOf<'_>) -> io::Result<Fetched> {
        let answer = self.ask(12, &fetch.request())?;
        let response = answer.read::<FetchResponse<'_>>();
        assert_eq!(response.error_code, 0);
        Ok(Fetched::of(&response))
    }

    /// All committed records of a partition from an offset on.
    pub(crate) fn read_from(
        &mut self,
        topic: &str,
        partition: i32,
        from: i64,
    ) -> io::Result<Vec<(i64, Vec<u8>)>> {
        let (mut next, mut found) = (from, Vec::new());
        loop {
            let fetched = self.fetch(FetchOf::new(topic, partition, next))?;
            assert_eq!(fetched.error_code, 0, "fetch from {next}");
            let records = fetched.records();
            let Some((last, _)) = records.last() else { return Ok(found) };
            let before = std::mem::replace(&mut next, last + 1);
            found.extend(records.into_iter().filter(|(offset, _)| *offset >= before));
        }
    }

    /// Offset for a time or one of Kafka's special timestamps: -1 the end, -2 the start.
    pub(crate) fn offset_at(&mut self, topic: &str, partition: i32, timestamp: i64) -> io::Result<i64> {
        let partition = ListOffsetsPartition { partition_index: partition, timestamp, ..Default::default() };
        let topic = ListOffsetsTopic { name: topic, partitions: vec![partition] };
        let request = ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() };
        let answer = self.ask(8, &request)?;
        let found = &answer.read::<ListOffsetsResponse<'_>>().topics[0].partitions[0];
        match found.error_code {
            0 => Ok(found.offset),
            code => Err(io::Error::other(format!("error code {code}"))),
        }
    }

    /// Has the coordinator of a group found, and made where there was none; the error code.
    pub(crate) fn find_coordinator(&mut self, group: &str) -> io::Result<i16> {
        let request = FindCoordinatorRequest { coordinator_keys: vec![group], ..Default::default() };
        let answer = self.ask(4, &request)?;
        Ok(answer.read::<FindCoordinatorResponse<'_>>().coordinators[0].error_code)
    }

    /// Waits until this broker, which is to be the group's coordinator, serves it.
    pub(crate) fn await_coordinator(&mut self, group: &str) {
        // What it answers, not how long it takes to answer, is what is waited for: a busy disk may take seconds for the topic of groups.
        for _ in 0..TRIES {
            let found = self.find_coordinator(group).unwrap();
            if found == 0 && self.committed(group, "any", 0).unwrap().is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("group {group} has no coordinator");
    }

    pub(crate) fn init_producer_id(&mut self) -> io::Result<(i64, i16)> {
        let request = InitProducerIdRequest { transactional_id: None, ..Default::default() };
        let answer = self.ask(4, &request)?;
        let got = answer.read::<InitProducerIdResponse>();
        assert_eq!(got.error_code, 0);
        Ok((got.producer_id, got.producer_epoch))
    }

    /// Commits an offset as whoever is no member; the error code.
    pub(crate) fn commit(
        &mut self,
        group: &str,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> io::Result<i16> {
        self.commit_as(group, ("", -1), topic, &[(partition, offset, "")])
    }

    /// Commits offsets of one topic as a member of a generation; the first error code that is none.
    pub(crate) fn commit_as(
        &mut self,
        group: &str,
        (member_id, generation): (&str, i32),
        topic: &str,
        offsets: &[(i32, i64, &str)],
    ) -> io::Result<i16> {
        let partition = |&(partition_index, committed_offset, metadata)| OffsetCommitRequestPartition {
            partition_index,
            committed_offset,
            committed_leader_epoch: -1,
            committed_metadata: Some(metadata),
        };
        let partitions = offsets.iter().map(partition).collect();
        let request = OffsetCommitRequest {
            group_id: group,
            generation_id_or_member_epoch: generation,
            member_id,
            topics: vec![OffsetCommitRequestTopic { name: topic, partitions, ..Default::default() }],
            ..Default::default()
        };
        let answer = self.ask(8, &request)?;
        let response = answer.read::<OffsetCommitResponse<'_>>();
        let mut codes = response.topics.iter().flat_map(|t| &t.partitions).map(|p| p.error_code);
        Ok(codes.find(|code| *code != 0).unwrap_or(0))
    }

    /// Committed offset of a partition, -1 where there is none; or the error code.
    pub(crate) fn committed(
        &mut self,
        group: &str,
        topic: &str,
        partition: i32,
    ) -> io::Result<Result<i64, i16>> {
        let topics = Some(vec![OffsetFetchRequestTopic { name: topic, partition_indexes: vec![partition] }]);
        let request = OffsetFetchRequest { group_id: group, topics, ..Default::default() };
        let answer = self.ask(7, &request)?;
        let response = answer.read::<OffsetFetchResponse<'_>>();
        if response.error_code != 0 {
            return Ok(Err(response.error_code));
        }
        let found = &response.topics[0].partitions[0];
        Ok(if found.error_code == 0 { Ok(found.committed_offset) } else { Err(found.error_code) })
    }
}

/// A request with what may be a batch for one partition.
pub(crate) fn produce_request<'a>(
    topic: &'a str,
    partition: i32,
    acks: i16,
    records: Option<&'a [u8]>,
) -> ProduceRequest<'a> {
    let partition_data = vec![PartitionProduceData { index: partition, records }];
    let topic_data = vec![TopicProduceData { name: topic, partition_data, ..Default::default() }];
    ProduceRequest { acks, timeout_ms: 30_000, topic_data, ..Default::default() }
}

/// What a response says of the one partition in it.
pub(crate) fn produced(response: &ProduceResponse<'_>) -> Produced {
    let partition = &response.responses[0].partition_responses[0];
    Produced {
        error_code: partition.error_code,
        base_offset: partition.base_offset,
        log_append_time_ms: partition.log_append_time_ms,
        message: partition.error_message.map(str::to_owned),
        blamed: partition.record_errors.iter().map(|record| record.batch_index).collect(),
    }
}
