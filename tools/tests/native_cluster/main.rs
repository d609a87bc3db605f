//! The native client against three brokers in one process, while they go and come.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests, which may panic")]

mod cluster;
#[path = "../../../broker/tests/free_ports/mod.rs"]
mod free_ports;

use std::collections::BTreeMap;

use floodmark_client::admin::NewTopic;
use floodmark_client::events::{EventStore, Expected, NewEvent};
use floodmark_client::{Begin, Client, ConsumerConfig, NewRecord, ProducerConfig, Record, TopicPartition};

use cluster::{Three, in_time};

fn text(record: &Record) -> String {
    String::from_utf8(record.value.as_ref().unwrap().to_vec()).unwrap()
}

/// Producer, group and event store work on while each broker goes once; nothing is lost, doubled, out of order, or told to the user.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_do_not_see_brokers_go_and_come_back() {
    let mut three = Three::start().await;
    let client = three.client(&[1, 2, 3]).await;
    client.admin().create_topic(NewTopic::new("t").partitions(6)).await.unwrap();
    let store = EventStore::new(&client, "events");
    store.create(3).await.unwrap();
    let producer = client.producer(ProducerConfig::default()).unwrap();
    let config = ConsumerConfig::group("g", ["t"]).from_start();
    let mut consumer = in_time(client.consumer(config)).await.unwrap();
    let reading = tokio::spawn(async move {
        let mut seen: BTreeMap<i32, Vec<(i64, String)>> = BTreeMap::new();
        let mut count = 0;
        while count < 400 {
            let record = in_time(consumer.recv()).await.unwrap();
            let of_partition = seen.entry(record.partition).or_default();
            let is_new = of_partition.last().is_none_or(|(offset, _)| record.offset > *offset);
            // A group reads again what it had read and not committed when its partitions were given out anew, and nothing else.
            if is_new {
                of_partition.push((record.offset, text(&record)));
                count += 1;
            }
        }
        in_time(consumer.close()).await.unwrap();
        seen
    });
    let mut last = None;
    for round in 0..4_u32 {
        let mut sent = Vec::new();
        for number in 0..100 {
            let partition = number % 6;
            let value = format!("{round}-{number}");
            let record = NewRecord::to("t").partition(partition).value(&value);
            sent.push(in_time(producer.send(record)).await.unwrap());
            if number == 50 && round > 0 {
                three.drop_broker(round as i32);
            }
        }
        for delivery in sent {
            in_time(delivery).await.unwrap();
        }
        let expected = last.map_or(Expected::NoStream, Expected::Offset);
        let appended =
            in_time(store.append_if("s", expected, vec![NewEvent::new(format!("e{round}"))])).await;
        last = Some(appended.unwrap().last_offset);
        if round > 0 {
            three.start_again(round as i32).await;
            three.until_in_sync(&client, &["t", "events", "__consumer_offsets"]).await;
        }
    }
    let seen = reading.await.unwrap();
    for (partition, records) in &seen {
        let values: Vec<&str> = records.iter().map(|(_, value)| &**value).collect();
        let expected: Vec<String> = (0..4)
            .flat_map(|round| (0..100).filter(|n| n % 6 == *partition).map(move |n| format!("{round}-{n}")))
            .collect();
        assert_eq!(values, expected, "partition {partition}: each once, in order");
    }
    let events = in_time(store.read("s")).await.unwrap();
    assert_eq!(events.iter().map(text).collect::<Vec<_>>(), ["e0", "e1", "e2", "e3"]);
    in_time(producer.close()).await.unwrap();
}

/// Whoever it was that the client was told of: once it knows the cluster, any member will do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_goes_on_without_the_broker_that_it_was_given() {
    let mut three = Three::start().await;
    let client = three.client(&[2]).await;
    client.admin().create_topic(NewTopic::new("t").partitions(3)).await.unwrap();
    // What keeps groups has three replicas, like any other topic; with two brokers it would not be made.
    let place = TopicPartition::new("t", 0);
    let commit = |offset| [floodmark_client::admin::OffsetCommit::new(TopicPartition::new("t", 0), offset)];
    in_time(client.admin().commit_offsets("g", &commit(0))).await.unwrap();
    three.drop_broker(2);
    let producer = client.producer(ProducerConfig::default()).unwrap();
    for partition in 0..3 {
        let record = NewRecord::to("t").partition(partition).value("v");
        in_time(in_time(producer.send(record)).await.unwrap()).await.unwrap();
    }
    let offsets = in_time(client.admin().topic_offsets("t", None)).await.unwrap();
    assert!(offsets.iter().all(|offsets| offsets.high_watermark == 1), "{offsets:?}");
    // A new client that has a dead address first, between commas.
    let addresses = three.addresses();
    let client = in_time(Client::connect(format!("{},{}", addresses[1], addresses[0]))).await.unwrap();
    assert_eq!(in_time(client.admin().topic("t")).await.unwrap().partitions.len(), 3);
    // Offsets of a group, at whoever coordinates it.
    let outcomes = in_time(client.admin().commit_offsets("g", &commit(1))).await.unwrap();
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    let committed = in_time(client.admin().committed("g", &[place])).await.unwrap();
    assert_eq!(committed[0].offset, Some(1));
    let groups = in_time(client.admin().groups()).await.unwrap();
    assert_eq!(groups.iter().map(|group| &*group.group).collect::<Vec<_>>(), ["g"]);
    let mut consumer = in_time(client.consumer(ConsumerConfig::assigned())).await.unwrap();
    in_time(consumer.assign(&[(TopicPartition::new("t", 1), Begin::Start)])).await.unwrap();
    assert_eq!(text(&in_time(consumer.recv()).await.unwrap()), "v");
}

/// Nothing is committed for a partition that nobody leads, so that nobody can tell where it begins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_reads_its_other_partitions_while_one_has_no_leader() {
    let mut three = Three::start().await;
    let client = three.client(&[1, 2]).await;
    client.admin().create_topic(NewTopic::new("t").partitions(3).replication_factor(1)).await.unwrap();
    // The group's own topic has three replicas and is made while all are there.
    let commit = floodmark_client::admin::OffsetCommit::new(TopicPartition::new("t", 0), 0);
    in_time(client.admin().commit_offsets("another", &[commit])).await.unwrap();
    let producer = client.producer(ProducerConfig::default()).unwrap();
    for partition in 0..3 {
        let record = NewRecord::to("t").partition(partition).value("v");
        in_time(in_time(producer.send(record)).await.unwrap()).await.unwrap();
    }
    let parts = in_time(client.admin().topic("t")).await.unwrap().partitions;
    let gone = parts.iter().find(|part| part.leader == Some(3)).expect("spread over all brokers").partition;
    three.drop_broker(3);
    let config = ConsumerConfig::group("g", ["t"]).from_start();
    let mut consumer = in_time(client.consumer(config)).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..2 {
        // Less than an operation may take, after which all of them would begin again.
        let within = std::time::Duration::from_secs(40);
        let record = tokio::time::timeout(within, consumer.recv()).await.expect("the others are read");
        seen.push(record.unwrap().partition);
    }
    assert!(!seen.contains(&gone) && seen[0] != seen[1], "{seen:?}");
    let handle = consumer.handle();
    assert_eq!(handle.assignment().len(), 3);
    assert_eq!(handle.position(&TopicPartition::new("t", gone)), None);
    in_time(handle.commit()).await.unwrap();
    three.start_again(3).await;
    assert_eq!(in_time(consumer.recv()).await.unwrap().partition, gone, "once its leader is back");
    in_time(consumer.close()).await.unwrap();
    in_time(producer.close()).await.unwrap();
}
