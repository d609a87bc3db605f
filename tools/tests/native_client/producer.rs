//! What is sent is what is there, once and in order, whatever happens to the broker meanwhile.

use std::time::Duration;

use floodmark_client::{
    Acks, Begin, Compression, ConsumerConfig, Delivery, Durability, Error, NewRecord, ProducerConfig,
    TopicPartition, partition_of_key,
};

use super::{Served, in_time, numbers, receive, text, texts};

#[tokio::test(flavor = "multi_thread")]
async fn records_come_back_as_they_were_sent_with_every_codec() {
    let served = Served::start().await;
    served.topic("t", 1).await;
    let mut expected = Vec::new();
    for compression in Compression::ALL {
        let producer =
            served.client.producer(ProducerConfig { compression, ..ProducerConfig::default() }).unwrap();
        let headers: &[(&[u8], Option<&[u8]>)] = &[(b"a", Some(b"1")), (b"a", None), (b"b", Some(b""))];
        let name = compression.name();
        let full = NewRecord::to("t").key(name).value("v").headers(headers).timestamp_ms(1_700_000_000_123);
        let deliveries: Vec<Delivery> = vec![
            producer.send(full).await.unwrap(),
            producer.send(NewRecord::to("t").key("")).await.unwrap(),
            producer.send(NewRecord::to("t").value("")).await.unwrap(),
        ];
        for delivery in deliveries {
            let placed = in_time(delivery).await.unwrap();
            assert_eq!(placed.offset, expected.len() as i64);
            assert_eq!(placed.durability, Durability::SyncedInSyncSet);
            expected.push(name);
        }
        producer.close().await.unwrap();
        assert!(matches!(producer.send(full).await, Err(Error::Closed(_))));
    }
    let mut consumer = served.client.consumer(ConsumerConfig::assigned()).await.unwrap();
    consumer.assign_topic("t", Begin::Start).await.unwrap();
    for (at, three) in receive(&mut consumer, expected.len()).await.chunks(3).enumerate() {
        assert_eq!(three[0].key.as_deref(), Some(expected[3 * at].as_bytes()));
        assert_eq!(three[0].timestamp_ms, 1_700_000_000_123);
        let headers: Vec<(&str, Option<&[u8]>)> =
            three[0].headers.iter().map(|header| (header.name.as_str(), header.value.as_deref())).collect();
        assert_eq!(headers, [("a", Some(&b"1"[..])), ("a", None), ("b", Some(b""))]);
        assert_eq!((three[1].key.as_deref(), three[1].value.as_deref()), (Some(&b""[..]), None));
        assert_eq!((three[2].key.as_deref(), three[2].value.as_deref()), (None, Some(&b""[..])));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_records_keep_the_order_of_their_partition() {
    let served = Served::start().await;
    served.topic("t", 4).await;
    let producer =
        served.client.producer(ProducerConfig { batch_bytes: 2000, ..ProducerConfig::default() }).unwrap();
    let count = 20_000;
    for number in 0..count {
        let value = number.to_string();
        let key = (number % 64).to_string();
        drop(producer.send(NewRecord::to("t").key(&key).value(&value)).await.unwrap());
    }
    in_time(producer.flush()).await.unwrap();
    assert_eq!(producer.buffered_bytes(), 0);
    let mut consumer = served.client.consumer(ConsumerConfig::assigned()).await.unwrap();
    consumer.assign_topic("t", Begin::Start).await.unwrap();
    let mut last = std::collections::HashMap::new();
    for record in receive(&mut consumer, count).await {
        let key = String::from_utf8(record.key.clone().unwrap().to_vec()).unwrap();
        assert_eq!(record.partition, partition_of_key(key.as_bytes(), 4));
        let number: usize = text(&record).parse().unwrap();
        let before = last.insert(key, number);
        assert!(before.is_none_or(|before| before + 64 == number), "{before:?} before {number}");
    }
    assert_eq!(last.len(), 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_restarts_costs_no_record_and_doubles_none() {
    let mut served = Served::start().await;
    served.topic("t", 2).await;
    let producer =
        served.client.producer(ProducerConfig { batch_bytes: 500, ..ProducerConfig::default() }).unwrap();
    let sending = tokio::spawn({
        let producer = producer.clone();
        async move {
            let mut deliveries = Vec::new();
            for number in 0..6000_usize {
                let value = number.to_string();
                let record = NewRecord::to("t").partition((number % 2) as i32).value(&value);
                deliveries.push(producer.send(record).await.unwrap());
                if number % 100 == 0 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            deliveries
        }
    });
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        tokio::task::block_in_place(|| served.stop());
        tokio::time::sleep(Duration::from_millis(200)).await;
        tokio::task::block_in_place(|| served.start_again());
    }
    let deliveries = in_time(sending).await.unwrap();
    for delivery in deliveries {
        in_time(delivery).await.unwrap();
    }
    let mut consumer = served.client.consumer(ConsumerConfig::assigned()).await.unwrap();
    for partition in 0..2 {
        consumer.assign(&[(TopicPartition::new("t", partition), Begin::Start)]).await.unwrap();
        let values = texts(&receive(&mut consumer, 3000).await);
        let expected: Vec<String> = (0..6000).filter(|n| n % 2 == partition).map(|n| n.to_string()).collect();
        assert_eq!(values, expected);
        let end =
            served.client.admin().offsets(&TopicPartition::new("t", partition), None).await.unwrap().end;
        assert_eq!(end, 3000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_sent_is_told() {
    let served = Served::start().await;
    served.topic("t", 1).await;
    let config = ProducerConfig { buffer_bytes: 2000, record_bytes_max: 1000, ..ProducerConfig::default() };
    let producer = served.client.producer(config).unwrap();
    let unknown = producer.send(NewRecord::to("nowhere").value("v")).await.unwrap_err();
    assert_eq!(unknown.code().map(|code| code.name()), Some("UNKNOWN_TOPIC_OR_PARTITION"));
    let large = producer.send(NewRecord::to("t").value(&[0; 1000])).await.unwrap_err();
    assert!(matches!(large, Error::TooLarge { size_bytes: 1040, limit_bytes: 1000 }), "{large}");
    assert!(producer.send(NewRecord::to("t").partition(1).value("v")).await.is_err());
    assert!(matches!(producer.try_send(NewRecord::to("another").value("v")), Err(Error::Invalid(_))));
    // A full buffer holds back whoever waits and refuses whoever does not.
    let mut waiting = Vec::new();
    let mut refused = 0;
    for _ in 0..100 {
        match producer.try_send(NewRecord::to("t").value(&[0; 900])) {
            Ok(delivery) => waiting.push(delivery),
            Err(Error::BufferFull { .. }) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 0);
    for _ in 0..20 {
        waiting.push(in_time(producer.send(NewRecord::to("t").value(&[0; 900]))).await.unwrap());
    }
    for delivery in waiting {
        in_time(delivery).await.unwrap();
    }
    assert_eq!(producer.buffered_bytes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_batch_does_not_stop_what_follows() {
    let served = Served::start().await;
    let topic =
        floodmark_client::admin::NewTopic::new("t").partitions(1).setting("max.message.bytes", "2000");
    served.client.admin().create_topic(topic).await.unwrap();
    let producer = served.producer();
    for round in 0..3 {
        let good = producer.send(NewRecord::to("t").value(&round.to_string())).await.unwrap();
        in_time(good).await.unwrap();
        let refused = producer.send(NewRecord::to("t").value(&[b'x'; 5000])).await.unwrap();
        let error = in_time(refused).await.unwrap_err();
        assert!(!error.is_retryable(), "{error}");
    }
    let mut consumer = served.client.consumer(ConsumerConfig::assigned()).await.unwrap();
    consumer.assign_topic("t", Begin::Start).await.unwrap();
    assert_eq!(texts(&receive(&mut consumer, 3).await), numbers(0, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_producers_send_what_they_took_and_other_settings_serve_too() {
    let served = Served::start().await;
    served.topic("t", 1).await;
    for (acks, is_idempotent) in [(Acks::Leader, false), (Acks::All, false), (Acks::Leader, true)] {
        let linger = Duration::from_millis(2);
        let config = ProducerConfig { acks, is_idempotent, linger, ..ProducerConfig::default() };
        let producer = served.client.producer(config).unwrap();
        let deliveries = [
            producer.send(NewRecord::to("t").value("v")).await.unwrap(),
            producer.send(NewRecord::to("t").value("w")).await.unwrap(),
        ];
        drop(producer);
        for delivery in deliveries {
            in_time(delivery).await.unwrap();
        }
    }
    let end = served.client.admin().offsets(&TopicPartition::new("t", 0), None).await.unwrap().end;
    assert_eq!(end, 6);
}
