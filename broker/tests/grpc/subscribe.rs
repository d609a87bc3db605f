//! Subscribe: credit, positions, fairness, filters, and partitions that come and go.

use floodmark_proto::batch::{BatchBuilder, CompressionType, NewRecord};
use floodmark_proto::pb::v1 as pb;
use pb::position::{At, Special};
use pb::subscribe_request::Request;

use crate::kafka::records_of;
use crate::setup::{Subscribed, admin, batch, broker, data, from_start, part, record, records, start, topic};

fn values(records: &[(i32, pb::Record)]) -> Vec<String> {
    let text = |record: &pb::Record| String::from_utf8(record.value.as_ref().unwrap().to_vec()).unwrap();
    records.iter().map(|(_, record)| text(record)).collect()
}

fn numbers(range: std::ops::Range<i32>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

async fn append(broker: &floodmark_broker::Broker, topic: &str, partition: i32, values: &[String]) {
    let sent = values.iter().map(|value| record(None, value)).collect();
    data(broker).await.append(records(topic, Some(partition), sent)).await.unwrap();
}

#[tokio::test]
async fn records_are_pushed_as_they_come() {
    let broker = broker(&[]);
    topic(&broker, "live", 2, &[]).await;
    append(&broker, "live", 0, &numbers(0..3)).await;
    let mut client = data(&broker).await;
    let mut reading = Subscribed::open(&mut client, start(vec![from_start("live", None)])).await;
    assert_eq!(values(&reading.records(3).await), numbers(0..3));
    for n in 3..20 {
        append(&broker, "live", n % 2, &numbers(n..n + 1)).await;
        let got = reading.records(1).await;
        assert_eq!((got[0].0, values(&got)), (n % 2, numbers(n..n + 1)));
    }
    // Whoever goes on elsewhere begins where the last message said.
    drop(reading);
    let at = part("live", Some(0), At::Offset(4));
    let mut reading = Subscribed::open(&mut client, start(vec![at])).await;
    let got = reading.records(1).await;
    assert_eq!(got[0].1.offset, Some(4));
}

#[tokio::test]
async fn positions_are_offsets_times_and_ends() {
    let broker = broker(&[]);
    topic(&broker, "from", 1, &[]).await;
    let mut client = data(&broker).await;
    for n in 0..10 {
        let sent = pb::Record { timestamp_ms: Some(1000 + n * 10), ..record(None, &n.to_string()) };
        client.append(records("from", Some(0), vec![sent])).await.unwrap();
    }
    for (at, first) in [
        (At::Offset(7), 7),
        (At::TimestampMs(1031), 4),
        (At::TimestampMs(0), 0),
        (At::TimestampMs(5000), 10),
        (At::Special(Special::Start.into()), 0),
        (At::Special(Special::End.into()), 10),
    ] {
        let mut reading = Subscribed::open(&mut client, start(vec![part("from", Some(0), at)])).await;
        let delivery = reading.delivery().await;
        assert_eq!(delivery.high_watermark, 10);
        match delivery.payload {
            // Where there is nothing yet, the first message says where reading stands.
            None => assert_eq!((delivery.next_offset, first), (10, 10), "{at:?}"),
            Some(pb::delivery::Payload::Records(got)) => {
                assert_eq!(got.records[0].offset, Some(first), "{at:?}");
                assert_eq!(delivery.next_offset, 10);
            }
            Some(other) => panic!("{other:?}"),
        }
    }
}

/// Where what was written lies for who reads it: in the broker's memory, and in files alone.
const PLACES: [(&str, &str); 2] = [("tail.cache.bytes", "64MiB"), ("tail.cache.bytes", "0")];

#[tokio::test]
async fn nothing_is_pushed_without_credit() {
    for place in PLACES {
        nothing_without_credit(&broker(&[place])).await;
    }
}

async fn nothing_without_credit(broker: &floodmark_broker::Broker) {
    topic(broker, "credit", 1, &[]).await;
    for n in 0..10 {
        append(broker, "credit", 0, &[n.to_string().repeat(1000)]).await;
    }
    let mut client = data(broker).await;
    let begin = pb::SubscribeStart { credit_bytes: 0, ..start(vec![from_start("credit", None)]) };
    let mut reading = Subscribed::open(&mut client, begin).await;
    assert!(reading.is_quiet().await);
    let mut seen = 0;
    while seen < 10 {
        // Less than one record takes: one comes all the same, and then no other.
        reading.send(Request::CreditBytes(10)).await;
        let delivery = reading.delivery().await;
        let Some(pb::delivery::Payload::Records(got)) = delivery.payload else { panic!("{delivery:?}") };
        assert_eq!(got.records.len(), 1);
        assert_eq!(got.records[0].offset, Some(seen));
        seen += 1;
        assert!(reading.is_quiet().await);
        // What it took beyond its credit is owed.
        reading.send(Request::CreditBytes(delivery.cost_bytes - 10)).await;
        assert!(reading.is_quiet().await);
    }
}

#[tokio::test]
async fn stored_batches_are_handed_on_as_they_are() {
    let broker = broker(&[]);
    topic(&broker, "stored", 1, &[]).await;
    let mut client = data(&broker).await;
    let mut expected = Vec::new();
    for codec in CompressionType::ALL {
        let mut builder = BatchBuilder::new().compression(codec, None);
        for n in 0..5 {
            builder
                .push(&NewRecord { timestamp: n, value: Some(&[b'v'; 200]), ..NewRecord::default() })
                .unwrap();
        }
        let bytes = builder.build().unwrap().freeze();
        expected.push(bytes.slice(floodmark_proto::batch::header::CRC_COVERS_FROM..));
        client.append(batch("stored", 0, bytes)).await.unwrap();
    }
    let begin = pb::SubscribeStart {
        encoding: pb::Encoding::Batches.into(),
        ..start(vec![part("stored", Some(0), At::Offset(7))])
    };
    let mut reading = Subscribed::open(&mut client, begin).await;
    let (mut bytes, mut next) = (Vec::new(), 0);
    while next < 25 {
        let delivery = reading.delivery().await;
        next = delivery.next_offset;
        if let Some(pb::delivery::Payload::Batches(batches)) = delivery.payload {
            assert_eq!(delivery.cost_bytes, batches.len() as u64);
            bytes.extend_from_slice(&batches);
        }
    }
    // The first one begins before the position.
    let offsets: Vec<i64> = records_of(&bytes).iter().map(|record| record.offset.unwrap()).collect();
    assert_eq!(offsets, (5..25).collect::<Vec<i64>>());
    let mut rest = &bytes[..];
    for covered in &expected[1..] {
        let at = floodmark_proto::batch::header::CRC_COVERS_FROM;
        assert_eq!(&rest[at..at + covered.len()], &covered[..]);
        rest = &rest[at + covered.len()..];
    }
    assert!(rest.is_empty());
}

#[tokio::test]
async fn a_batch_that_is_large_when_decoded_comes_in_pieces() {
    let broker = broker(&[]);
    topic(&broker, "large", 1, &[]).await;
    let mut client = data(&broker).await;
    let mut builder = BatchBuilder::new().compression(CompressionType::Zstd, None);
    for n in 0..9000_u32 {
        let mut value = vec![0; 1000];
        value[..4].copy_from_slice(&n.to_be_bytes());
        builder.push(&NewRecord { value: Some(&value), timestamp: 1, ..NewRecord::default() }).unwrap();
    }
    client.append(batch("large", 0, builder.build().unwrap().freeze())).await.unwrap();
    let mut reading = Subscribed::open(&mut client, start(vec![from_start("large", None)])).await;
    let mut seen = 0_u32;
    while seen < 9000 {
        let delivery = reading.delivery().await;
        let Some(pb::delivery::Payload::Records(got)) = delivery.payload else { panic!("{delivery:?}") };
        assert!(delivery.cost_bytes < 300 << 10, "{}", delivery.cost_bytes);
        for record in got.records {
            assert_eq!(record.value.unwrap()[..4], seen.to_be_bytes());
            assert_eq!(record.offset, Some(i64::from(seen)));
            seen += 1;
        }
        assert_eq!(delivery.next_offset, i64::from(seen));
    }
}

#[tokio::test]
async fn partitions_take_turns() {
    for place in PLACES {
        taking_turns(&broker(&[place])).await;
    }
}

async fn taking_turns(broker: &floodmark_broker::Broker) {
    topic(broker, "fair", 3, &[]).await;
    let mut client = data(broker).await;
    for partition in 0..3 {
        for _ in 0..20 {
            let sent = vec![record(None, &"x".repeat(50_000))];
            client.append(records("fair", Some(partition), sent)).await.unwrap();
        }
    }
    let begin = pb::SubscribeStart { message_bytes_max: 60_000, ..start(vec![from_start("fair", None)]) };
    let mut reading = Subscribed::open(&mut client, begin).await;
    let mut seen = [0, 0, 0];
    for (partition, _) in reading.records(30).await {
        seen[usize::try_from(partition).unwrap()] += 1;
    }
    assert!(seen.iter().all(|count| (8..=12).contains(count)), "{seen:?}");
}

/// Fails when readers of one file that are apart disturb each other, or batches are left out or come twice where reads end with a segment.
#[tokio::test]
async fn readers_far_behind_get_all_out_of_files() {
    let broker = broker(&[("tail.cache.bytes", "0")]);
    topic(&broker, "files", 1, &[("segment.bytes", "1048576")]).await;
    let mut client = data(&broker).await;
    for n in 0..60 {
        let value = format!("{n:0>50000}");
        client.append(records("files", Some(0), vec![record(None, &value)])).await.unwrap();
    }
    let begin = |from: i64| pb::SubscribeStart {
        encoding: pb::Encoding::Batches.into(),
        message_bytes_max: 120_000,
        ..start(vec![part("files", Some(0), At::Offset(from))])
    };
    let mut readings = Vec::new();
    for from in [0, 1, 20] {
        readings.push((Subscribed::open(&mut client, begin(from)).await, from));
    }
    while !readings.is_empty() {
        for (reading, next) in &mut readings {
            let delivery = reading.delivery().await;
            let Some(pb::delivery::Payload::Batches(batches)) = delivery.payload else {
                panic!("{delivery:?}")
            };
            assert!(batches.len() <= 120_000);
            for record in records_of(&batches) {
                assert_eq!(record.offset, Some(*next));
                assert_eq!(record.value.unwrap(), format!("{next:0>50000}"));
                *next += 1;
            }
            assert_eq!(delivery.next_offset, *next);
        }
        readings.retain(|(_, next)| *next < 60);
    }
}

#[tokio::test]
async fn a_filter_lets_through_what_it_says_and_positions_move_on() {
    let broker = broker(&[]);
    topic(&broker, "filtered", 1, &[]).await;
    let mut client = data(&broker).await;
    for n in 0..100 {
        let header = pb::Header {
            key: "type".to_owned(),
            value: Some(if n % 2 == 0 { "even" } else { "odd" }.into()),
        };
        let sent = pb::Record { headers: vec![header], ..record(Some(&format!("k{n}")), &n.to_string()) };
        client.append(records("filtered", Some(0), vec![sent])).await.unwrap();
    }
    let filter = r#"header("type") == "even" && offset >= 90 || key == "k3""#;
    let begin = pb::SubscribeStart { filter: filter.to_owned(), ..start(vec![from_start("filtered", None)]) };
    let mut reading = Subscribed::open(&mut client, begin).await;
    assert_eq!(values(&reading.records(6).await), ["3", "90", "92", "94", "96", "98"]);
    append(&broker, "filtered", 0, &["left out".to_owned()]).await;
    let delivery = reading.delivery().await;
    assert_eq!((delivery.next_offset, delivery.payload, delivery.cost_bytes), (101, None, 0));
}

#[tokio::test]
async fn parts_are_added_and_removed_and_those_that_cannot_be_read_are_told() {
    let broker = broker(&[]);
    topic(&broker, "a", 1, &[]).await;
    topic(&broker, "b", 1, &[]).await;
    append(&broker, "a", 0, &numbers(0..2)).await;
    append(&broker, "b", 0, &numbers(2..4)).await;
    let mut client = data(&broker).await;
    let parts = vec![
        from_start("a", Some(0)),
        from_start("missing", None),
        from_start("a", Some(5)),
        part("b", Some(0), At::Offset(99)),
    ];
    let mut reading = Subscribed::open(&mut client, start(parts)).await;
    let mut told = Vec::new();
    for _ in 0..2 {
        let failure = reading.failure().await;
        told.push((failure.topic, failure.partition, failure.error.unwrap().reason));
    }
    let unknown = "UNKNOWN_TOPIC_OR_PARTITION".to_owned();
    assert_eq!(
        told,
        [("missing".to_owned(), None, unknown.clone()), ("a".to_owned(), Some(5), unknown.clone())]
    );
    assert_eq!(values(&reading.records(2).await), numbers(0..2));
    let failure = reading.failure().await;
    assert_eq!((&*failure.topic, &*failure.error.unwrap().reason), ("b", "OFFSET_OUT_OF_RANGE"));
    let change = pb::SubscribeChange {
        add: vec![from_start("b", None)],
        remove: vec![pb::TopicPartition { topic: "a".to_owned(), partition: 0 }],
    };
    reading.send(Request::Change(change)).await;
    assert_eq!(values(&reading.records(2).await), numbers(2..4));
    append(&broker, "a", 0, &numbers(4..5)).await;
    append(&broker, "b", 0, &numbers(5..6)).await;
    assert_eq!(values(&reading.records(1).await), numbers(5..6));
    // A topic that goes away takes its partitions along.
    let request = pb::DeleteTopicsRequest { topics: vec!["b".to_owned()], ..Default::default() };
    admin(&broker).await.delete_topics(request).await.unwrap();
    let failure = reading.failure().await;
    assert_eq!((&*failure.topic, failure.partition), ("b", Some(0)));
}

#[tokio::test]
async fn a_reader_that_has_said_all_gets_what_it_has_credit_for() {
    let broker = broker(&[]);
    topic(&broker, "half", 1, &[]).await;
    append(&broker, "half", 0, &numbers(0..5)).await;
    let mut client = data(&broker).await;
    let begin = pb::SubscribeStart { credit_bytes: 1, ..start(vec![from_start("half", None)]) };
    let mut reading = Subscribed::open(&mut client, begin).await;
    reading.say_no_more();
    assert_eq!(reading.delivery().await.next_offset, 1);
    reading.has_ended().await;
}

#[tokio::test]
async fn a_reader_that_has_said_all_gets_it_also_when_it_comes_later() {
    let broker = broker(&[]);
    topic(&broker, "later", 1, &[]).await;
    let mut client = data(&broker).await;
    let begin = pb::SubscribeStart { credit_bytes: 1, ..start(vec![from_start("later", None)]) };
    let mut reading = Subscribed::open(&mut client, begin).await;
    assert_eq!(reading.delivery().await.next_offset, 0);
    reading.say_no_more();
    // The broker has heard it before there is anything.
    assert!(reading.is_quiet().await);
    append(&broker, "later", 0, &numbers(0..5)).await;
    assert_eq!(reading.delivery().await.next_offset, 1);
    reading.has_ended().await;
}
