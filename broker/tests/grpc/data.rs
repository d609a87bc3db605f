//! Produce, Append and InitProducer, and what the other door makes of it.

use bytes::Bytes;
use floodmark_proto::batch::{BatchBuilder, CompressionType, NewRecord};
use floodmark_proto::ids::ProducerId;
use floodmark_proto::murmur2::partition_of_key;
use floodmark_proto::pb::v1 as pb;
use pb::partition_reply::Outcome;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::kafka::Client;
use crate::setup::{
    Subscribed, batch, broker, data, from_start, next as next_of, record, records, start, topic,
};

fn header(key: &str, value: Option<&'static [u8]>) -> pb::Header {
    pb::Header { key: key.to_owned(), value: value.map(Bytes::from_static) }
}

/// Everything that a record may be.
fn odd_records() -> Vec<pb::Record> {
    let headers = vec![
        header("b", Some(b"1")),
        header("a", None),
        header("b", Some(b"")),
        header("", Some(b"\xff\x00")),
        header("b", Some(b"1")),
    ];
    vec![
        pb::Record {
            key: Some("k".into()),
            value: Some(vec![7; 3000].into()),
            headers,
            timestamp_ms: Some(1_600_000_000_123),
            offset: None,
        },
        pb::Record { key: Some(Bytes::new()), value: None, timestamp_ms: Some(0), ..Default::default() },
        pb::Record { key: None, value: Some(Bytes::new()), timestamp_ms: Some(1), ..Default::default() },
    ]
}

fn with_offsets(records: Vec<pb::Record>, base: i64) -> Vec<pb::Record> {
    (base..).zip(records).map(|(offset, record)| pb::Record { offset: Some(offset), ..record }).collect()
}

fn encoded(records: &[pb::Record], codec: CompressionType) -> Bytes {
    let mut builder = BatchBuilder::new().compression(codec, None);
    for record in records {
        let headers: Vec<_> = record.headers.iter().map(|h| (h.key.as_bytes(), h.value.as_deref())).collect();
        let new = NewRecord {
            timestamp: record.timestamp_ms.unwrap(),
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
        };
        builder.push(&new).unwrap();
    }
    builder.build().unwrap().freeze()
}

fn produced(reply: &pb::PartitionReply) -> &pb::Produced {
    match reply.outcome.as_ref().unwrap() {
        Outcome::Produced(produced) => produced,
        Outcome::Error(e) => panic!("{e:?}"),
    }
}

#[tokio::test]
async fn what_one_door_writes_the_other_reads() {
    let broker = broker(&[]);
    topic(&broker, "both", 1, &[]).await;
    let (mut client, mut kafka) = (data(&broker).await, Client::connect(&broker));
    let mut expected = Vec::new();
    for n in 0..3 {
        // By this door, record by record; by this door, encoded; by the other.
        let base = match n {
            0 => {
                let reply =
                    client.append(records("both", Some(0), odd_records())).await.unwrap().into_inner();
                produced(&reply.partitions[0]).base_offset
            }
            1 => {
                let bytes = encoded(&odd_records(), CompressionType::Zstd);
                let reply = client.append(batch("both", 0, bytes)).await.unwrap().into_inner();
                produced(&reply.partitions[0]).base_offset
            }
            _ => kafka.produce("both", 0, encoded(&odd_records(), CompressionType::Lz4)),
        };
        assert_eq!(base, n * 3);
        expected.extend(with_offsets(odd_records(), base));
    }
    assert_eq!(kafka.fetch("both", 0), expected);
    let mut reading = Subscribed::open(&mut client, start(vec![from_start("both", None)])).await;
    let read: Vec<pb::Record> = reading.records(9).await.into_iter().map(|(_, record)| record).collect();
    assert_eq!(read, expected);
}

#[tokio::test]
async fn keys_go_where_kafkas_client_sends_them_and_the_rest_to_one_partition() {
    let broker = broker(&[]);
    topic(&broker, "keyed", 7, &[]).await;
    let mut client = data(&broker).await;
    let keys: Vec<String> = (0..50).map(|n| format!("key-{n}")).collect();
    let mut sent: Vec<pb::Record> = keys.iter().map(|key| record(Some(key), key)).collect();
    sent.push(record(None, "no key"));
    sent.push(record(None, "none either"));
    let reply = client.append(records("keyed", None, sent.clone())).await.unwrap().into_inner();
    let mut places: Vec<u32> = reply.partitions.iter().flat_map(|p| p.records.clone()).collect();
    for partition in &reply.partitions {
        assert!(partition.records.is_sorted());
        for place in &partition.records {
            if let Some(key) = &sent[*place as usize].key {
                assert_eq!(partition_of_key(key, 7), partition.partition as u32);
            }
        }
        let read = Client::connect(&broker).fetch("keyed", partition.partition);
        let values: Vec<_> = read.into_iter().map(|record| record.value).collect();
        let expected: Vec<_> = partition.records.iter().map(|n| sent[*n as usize].value.clone()).collect();
        assert_eq!(values, expected, "partition {}", partition.partition);
    }
    places.sort_unstable();
    assert_eq!(places, (0..52).collect::<Vec<u32>>());
    let keyless = |n: u32| reply.partitions.iter().find(|p| p.records.contains(&n)).unwrap().partition;
    assert_eq!(keyless(50), keyless(51));
}

#[tokio::test]
async fn replies_come_in_the_order_of_requests_whatever_becomes_of_them() {
    let broker = broker(&[]);
    topic(&broker, "ordered", 2, &[]).await;
    let (requests, receiver) = mpsc::channel(1000);
    let mut client = data(&broker).await;
    for id in 0..500 {
        let name = if id % 10 == 3 { "missing" } else { "ordered" };
        let mut request = records(name, Some((id % 2) as i32), vec![record(None, &id.to_string())]);
        request.id = id;
        request.acks =
            pb::Acks::from_str_name(if id % 3 == 0 { "ACKS_LEADER" } else { "ACKS_ALL" }).unwrap().into();
        requests.send(request).await.unwrap();
    }
    drop(requests);
    let mut replies = client.produce(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    let (mut next, mut offsets) = (0, [0, 0]);
    while let Some(reply) = next_of(&mut replies).await.unwrap() {
        assert_eq!(reply.id, next);
        let [partition] = &reply.partitions[..] else { panic!("{reply:?}") };
        if next % 10 == 3 {
            let Some(Outcome::Error(error)) = &partition.outcome else { panic!("{reply:?}") };
            assert_eq!(
                (&*error.reason, error.code, error.retryable),
                ("UNKNOWN_TOPIC_OR_PARTITION", 3, true)
            );
        } else {
            let done = produced(partition);
            assert_eq!(done.base_offset, offsets[(next % 2) as usize]);
            offsets[(next % 2) as usize] += 1;
            if next % 3 != 0 {
                assert_eq!(done.durability(), pb::Durability::SyncedInSyncSet);
            }
        }
        next += 1;
    }
    assert_eq!(next, 500);
}

#[tokio::test]
async fn an_idempotent_producers_batch_is_written_once() {
    let broker = broker(&[]);
    topic(&broker, "once", 1, &[]).await;
    let mut client = data(&broker).await;
    let first = client.init_producer(pb::InitProducerRequest {}).await.unwrap().into_inner();
    let second = client.init_producer(pb::InitProducerRequest {}).await.unwrap().into_inner();
    assert_ne!(first.producer_id, second.producer_id);
    let epoch = i16::try_from(first.producer_epoch).unwrap();
    let encoded = |sequence| {
        let mut builder = BatchBuilder::new().producer(ProducerId(first.producer_id), epoch, sequence);
        builder.push(&NewRecord { value: Some(b"v"), timestamp: 1, ..NewRecord::default() }).unwrap();
        builder.build().unwrap().freeze()
    };
    for (sequence, offset) in [(0, 0), (1, 1), (0, 0), (1, 1), (2, 2)] {
        let reply = client.append(batch("once", 0, encoded(sequence))).await.unwrap().into_inner();
        assert_eq!(produced(&reply.partitions[0]).base_offset, offset, "{sequence}");
    }
    assert_eq!(Client::connect(&broker).fetch("once", 0).len(), 3);
}

#[tokio::test]
async fn the_brokers_time_is_told_where_it_counts() {
    let broker = broker(&[]);
    topic(&broker, "timed", 1, &[("message.timestamp.type", "LogAppendTime")]).await;
    topic(&broker, "plain", 1, &[]).await;
    let mut client = data(&broker).await;
    let mut told = Vec::new();
    for name in ["timed", "plain"] {
        let sent = pb::Record { timestamp_ms: Some(5), ..record(None, "v") };
        let reply = client.append(records(name, Some(0), vec![sent])).await.unwrap().into_inner();
        let read = Client::connect(&broker).fetch(name, 0);
        told.push((produced(&reply.partitions[0]).log_append_time_ms, read[0].timestamp_ms));
    }
    assert!(told[0].0.is_some_and(|ms| ms > 1_600_000_000_000));
    assert_eq!(told[0].0, told[0].1);
    assert_eq!(told[1], (None, Some(5)));
}
