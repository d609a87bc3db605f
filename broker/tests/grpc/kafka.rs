//! A client of the Kafka door, by the codec that has been held against those of others.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use bytes::Bytes;
use floodmark_broker::Broker;
use floodmark_proto::batch::{DecompressLimits, Records};
use floodmark_proto::kafka::header::decode_response_header;
use floodmark_proto::kafka::messages::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic};
use floodmark_proto::kafka::messages::produce::{
    PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData,
};
use floodmark_proto::kafka::{ApiKey, Decoder, Encoder, Message, RequestHeader};
use floodmark_proto::pb::v1 as pb;

use crate::setup::PATIENCE;

pub(crate) struct Client {
    socket: TcpStream,
}

/// The body of a response, to be decoded by whoever asked.
pub(crate) struct Response {
    bytes: Vec<u8>,
    body_at: usize,
    version: i16,
}

impl Response {
    pub(crate) fn message<'a, M: Message<'a>>(&'a self) -> M {
        M::decode(&mut Decoder::new(&self.bytes[self.body_at..]), self.version).unwrap()
    }
}

impl Client {
    pub(crate) fn connect(broker: &Broker) -> Client {
        let socket = TcpStream::connect(broker.kafka_address()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        Client { socket }
    }

    pub(crate) fn ask<'a>(&mut self, api: ApiKey, version: i16, request: &impl Message<'a>) -> Response {
        let mut encoder = Encoder::new();
        let header = RequestHeader {
            api_key: api.code(),
            api_version: version,
            correlation_id: 1,
            client_id: Some("kafka"),
        };
        header.start_request(&mut encoder);
        request.encode(&mut encoder, version);
        self.socket.write_all(&encoder.finish().unwrap().concat()).unwrap();
        let mut length = [0; 4];
        self.socket.read_exact(&mut length).unwrap();
        let mut bytes = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
        self.socket.read_exact(&mut bytes).unwrap();
        let mut decoder = Decoder::new(&bytes);
        decode_response_header(&mut decoder, api, version).unwrap();
        let body_at = decoder.position();
        Response { bytes, body_at, version }
    }

    pub(crate) fn produce(&mut self, topic: &str, index: i32, batch: Bytes) -> i64 {
        self.try_produce(topic, index, batch).unwrap()
    }

    /// The offset of the first record; or the error, and the message of the record that it concerns.
    pub(crate) fn try_produce(
        &mut self,
        topic: &str,
        index: i32,
        batch: Bytes,
    ) -> Result<i64, (i16, String)> {
        let data = PartitionProduceData { index, records: Some(&batch) };
        let topic = TopicProduceData { name: topic, partition_data: vec![data], ..Default::default() };
        let request =
            ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data: vec![topic], ..Default::default() };
        let response = self.ask(ApiKey::Produce, 9, &request);
        let response: ProduceResponse<'_> = response.message();
        let partition = &response.responses[0].partition_responses[0];
        match partition.error_code {
            0 => Ok(partition.base_offset),
            code => {
                let of_record = partition.record_errors.first().and_then(|e| e.batch_index_error_message);
                Err((code, of_record.unwrap_or_default().to_owned()))
            }
        }
    }

    /// All records of a partition, as the other door would give them.
    pub(crate) fn fetch(&mut self, topic: &str, partition: i32) -> Vec<pb::Record> {
        let wanted = FetchPartition {
            partition,
            fetch_offset: 0,
            partition_max_bytes: 10 << 20,
            ..Default::default()
        };
        let topic = FetchTopic { topic, partitions: vec![wanted], ..Default::default() };
        let request = FetchRequest {
            max_bytes: 10 << 20,
            session_epoch: -1,
            topics: vec![topic],
            ..Default::default()
        };
        let response = self.ask(ApiKey::Fetch, 12, &request);
        let response: FetchResponse<'_> = response.message();
        let data = &response.responses[0].partitions[0];
        assert_eq!(data.error_code, 0);
        records_of(&data.records.iter().flatten().map(|piece| piece.to_vec()).collect::<Vec<_>>().concat())
    }
}

/// What stands in batches one behind the other.
pub(crate) fn records_of(mut batches: &[u8]) -> Vec<pb::Record> {
    let mut all = Vec::new();
    while !batches.is_empty() {
        let size = floodmark_proto::batch::BatchHeader::parse(batches).unwrap().size_bytes();
        let mut scratch = Vec::new();
        for record in Records::open(batches, &DecompressLimits::DEFAULT, &mut scratch).unwrap() {
            let record = record.unwrap();
            let owned = |bytes: Option<&[u8]>| bytes.map(Bytes::copy_from_slice);
            let headers = record.headers.map(Result::unwrap).map(|header| pb::Header {
                key: header.key_str().unwrap().to_owned(),
                value: owned(header.value),
            });
            all.push(pb::Record {
                key: owned(record.key),
                value: owned(record.value),
                headers: headers.collect(),
                timestamp_ms: Some(record.timestamp),
                offset: Some(record.offset.0),
            });
        }
        batches = &batches[size..];
    }
    all
}
