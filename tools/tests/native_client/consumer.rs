//! Reading what one is told to: from anywhere, paused, sought, after losses.

use std::time::Duration;

use floodmark_client::{Begin, ConsumerConfig, Error, NewRecord, TopicPartition};
use tokio_stream::StreamExt as _;

use super::{Served, in_time, numbers, receive, text, texts};

#[tokio::test(flavor = "multi_thread")]
async fn reading_begins_wherever_it_is_told_to() {
    let served = Served::start().await;
    served.topic("t", 1).await;
    let producer = served.producer();
    for number in 0..100_i64 {
        let value = number.to_string();
        let record = NewRecord::to("t").value(&value).timestamp_ms(1_700_000_000_000 + 10 * number);
        in_time(producer.deliver(record)).await.unwrap();
    }
    let at = TopicPartition::new("t", 0);
    let mut consumer = served.client.consumer(ConsumerConfig::assigned()).await.unwrap();
    for (begin, first) in [
        (Begin::Offset(42), "42"),
        (Begin::Start, "0"),
        (Begin::Time(1_700_000_000_000 + 555), "56"),
        (Begin::Offset(99), "99"),
    ] {
        consumer.assign(&[(at.clone(), begin)]).await.unwrap();
        assert_eq!(text(&in_time(consumer.recv()).await.unwrap()), first, "{begin:?}");
    }
    for begin in [Begin::End, Begin::Time(i64::MAX)] {
        consumer.assign(&[(at.clone(), begin)]).await.unwrap();
        let handle = consumer.handle();
        let end = handle.position(&at).unwrap();
        let placed = in_time(producer.deliver(NewRecord::to("t").value("new"))).await.unwrap();
        assert_eq!(placed.offset, end);
        assert_eq!(in_time(consumer.recv()).await.unwrap().offset, end);
    }
    assert!(matches!(consumer.assign(&[(at, Begin::Committed)]).await, Err(Error::Invalid(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_partition_rests_and_a_sought_one_jumps() {
    let served = Served::start().await;
    served.topic("t", 2).await;
    served.write("t", 0, numbers(0, 1000)).await;
    served.write("t", 1, numbers(5000, 5010)).await;
    let mut consumer = served.client.consumer(ConsumerConfig::assigned()).await.unwrap();
    let handle = consumer.handle();
    let parts = [TopicPartition::new("t", 0), TopicPartition::new("t", 1)];
    consumer
        .assign(&[(parts[0].clone(), Begin::Start), (parts[1].clone(), Begin::Offset(10))])
        .await
        .unwrap();
    assert_eq!(texts(&receive(&mut consumer, 10).await), numbers(0, 10));
    handle.pause(&parts[..1]);
    let silent = tokio::time::timeout(Duration::from_millis(300), consumer.recv()).await;
    assert!(silent.is_err(), "{silent:?}");
    handle.seek(&parts[1], Begin::Start).await.unwrap();
    assert_eq!(texts(&receive(&mut consumer, 10).await), numbers(5000, 5010));
    handle.resume(&parts[..1]);
    assert_eq!(texts(&receive(&mut consumer, 10).await), numbers(10, 20));
    handle.seek(&parts[0], Begin::Offset(990)).await.unwrap();
    assert_eq!(texts(&receive(&mut consumer, 10).await), numbers(990, 1000));
    assert_eq!((handle.position(&parts[0]), handle.lag(&parts[0])), (Some(1000), Some(0)));
    assert!(handle.seek(&TopicPartition::new("t", 7), Begin::Start).await.is_err());
    assert_eq!(handle.assignment(), parts);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_the_budget_flows_through_it() {
    let served = Served::start().await;
    served.topic("t", 3).await;
    for partition in 0..3 {
        served.write("t", partition, (0..3000).map(|number| format!("{number:0500}"))).await;
    }
    let config = ConsumerConfig { prefetch_bytes: 20_000, ..ConsumerConfig::assigned() };
    let mut consumer = served.client.consumer(config).await.unwrap();
    consumer.assign_topic("t", Begin::Start).await.unwrap();
    let mut next = [0; 3];
    let mut count = 0;
    while count < 9000 {
        for record in in_time(consumer.recv_batch()).await.unwrap() {
            let place = &mut next[record.partition as usize];
            assert_eq!(record.offset, *place);
            *place += 1;
            count += 1;
        }
    }
    assert_eq!(next, [3000; 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_that_is_gone_is_met_as_the_settings_say() {
    let served = Served::start().await;
    served.topic("t", 1).await;
    served.write("t", 0, numbers(0, 50)).await;
    let at = TopicPartition::new("t", 0);
    served.client.admin().delete_records(&at, Some(20)).await.unwrap();
    let mut consumer = served.client.consumer(ConsumerConfig::assigned().from_start()).await.unwrap();
    consumer.assign(&[(at.clone(), Begin::Offset(5))]).await.unwrap();
    assert_eq!(text(&in_time(consumer.recv()).await.unwrap()), "20");
    let config = ConsumerConfig { reset: floodmark_client::Reset::Fail, ..ConsumerConfig::assigned() };
    let mut consumer = served.client.consumer(config).await.unwrap();
    consumer.assign(&[(at.clone(), Begin::Offset(5))]).await.unwrap();
    let error = in_time(consumer.recv()).await.unwrap_err();
    assert!(matches!(error, Error::NoPosition { partition: 0, .. }), "{error}");
    // Told once, and nothing is tried before somebody seeks.
    let silent = tokio::time::timeout(Duration::from_millis(300), consumer.recv()).await;
    assert!(silent.is_err(), "{silent:?}");
    consumer.handle().seek(&at, Begin::Offset(30)).await.unwrap();
    assert_eq!(text(&in_time(consumer.recv()).await.unwrap()), "30");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_restarts_is_read_on_without_a_gap() {
    let mut served = Served::start().await;
    served.topic("t", 1).await;
    served.write("t", 0, numbers(0, 500)).await;
    let config = ConsumerConfig { prefetch_bytes: 2000, ..ConsumerConfig::assigned() };
    let mut consumer = served.client.consumer(config).await.unwrap();
    consumer.assign_topic("t", Begin::Start).await.unwrap();
    let mut seen = texts(&receive(&mut consumer, 100).await);
    tokio::task::block_in_place(|| {
        served.stop();
        served.start_again();
    });
    served.write("t", 0, numbers(500, 600)).await;
    seen.extend(texts(&receive(&mut consumer, 500).await));
    assert_eq!(seen, numbers(0, 600));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_is_a_stream_and_a_topic_that_grows_or_is_missing_is_told() {
    let served = Served::start().await;
    served.topic("t", 1).await;
    served.write("t", 0, numbers(0, 20)).await;
    let mut consumer = served.client.consumer(ConsumerConfig::assigned()).await.unwrap();
    let missing = consumer.assign_topic("nowhere", Begin::Start).await.unwrap_err();
    assert_eq!(missing.code().map(|code| code.name()), Some("UNKNOWN_TOPIC_OR_PARTITION"));
    consumer.assign_topic("t", Begin::Start).await.unwrap();
    let values: Vec<String> =
        in_time((&mut consumer).take(20).map(|record| text(&record.unwrap())).collect()).await;
    assert_eq!(values, numbers(0, 20));
    in_time(consumer.close()).await.unwrap();
}
