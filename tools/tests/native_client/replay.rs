//! Ranges read again: exactly what was asked for, in the same order each time, at the speed asked for, and copied once.

use floodmark_client::admin::NewTopic;
use floodmark_client::replay::{COPY_HEADER, CopyConfig, CopyPoint, Rate, ReplayConfig, SOURCE_HEADER, Span};
use floodmark_client::{Begin, Client, Error, NewRecord, ProducerConfig, Record};

use super::{Served, in_time, text};

const FIRST_MS: i64 = 1_700_000_000_000;

/// Records of three partitions, a tenth of a second between them.
async fn fill(served: &Served, topic: &str, count: i64) {
    served.topic(topic, 3).await;
    let producer = served.producer();
    for number in 0..count {
        let (value, key) = (number.to_string(), format!("k{}", number % 7));
        let record = NewRecord::to(topic).key(&key).value(&value).timestamp_ms(FIRST_MS + 100 * number);
        // The last is no UTF-8.
        let headers: [(&[u8], Option<&[u8]>); 3] = [(b"h", Some(b"1")), (b"h", None), (b"gr\xfcn", None)];
        drop(producer.send(record.partition((number % 3) as i32).headers(&headers)).await.unwrap());
    }
    producer.close().await.unwrap();
}

async fn read(client: &Client, config: ReplayConfig) -> Vec<Record> {
    let mut replay = client.replay(config).await.unwrap();
    let mut records = Vec::new();
    while let Some(record) = in_time(replay.next()).await.unwrap() {
        records.push(record);
    }
    assert!(replay.left().iter().all(|span| span.from == span.to), "{:?}", replay.left());
    records
}

fn numbers(records: &[Record]) -> Vec<i64> {
    records.iter().map(|record| text(record).parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_the_range_in_the_order_of_time() {
    let served = Served::start().await;
    fill(&served, "t", 300).await;
    let client = &served.client;
    assert_eq!(numbers(&read(client, ReplayConfig::of("t")).await), (0..300).collect::<Vec<_>>());
    let (from, to) = (Begin::Time(FIRST_MS + 5_050), Begin::Time(FIRST_MS + 10_000));
    let part = read(client, ReplayConfig { from, to, ..ReplayConfig::of("t") }).await;
    assert_eq!(numbers(&part), (51..100).collect::<Vec<_>>());
    let (from, to, partitions) = (Begin::Offset(10), Begin::Offset(12), Some(vec![1]));
    let part = read(client, ReplayConfig { from, to, partitions, ..ReplayConfig::of("t") }).await;
    assert_eq!(numbers(&part), [31, 34]);
    let filter = Some("key == \"k3\"".to_owned());
    let part = read(client, ReplayConfig { filter, ..ReplayConfig::of("t") }).await;
    assert_eq!(numbers(&part), (0..300).filter(|n| n % 7 == 3).collect::<Vec<_>>());
    let nothing = ReplayConfig { from: Begin::End, ..ReplayConfig::of("t") };
    assert!(read(client, nothing).await.is_empty());
    // What comes while it runs is not in it.
    let mut replay = client.replay(ReplayConfig::of("t")).await.unwrap();
    served.write("t", 0, ["300".to_owned()]).await;
    let mut count = 0;
    while in_time(replay.next()).await.unwrap().is_some() {
        count += 1;
    }
    assert_eq!((count, replay.progress().offsets_done, replay.progress().offsets), (300, 300, 300));
    let missing = ReplayConfig { partitions: Some(vec![3]), ..ReplayConfig::of("t") };
    assert!(matches!(client.replay(missing).await, Err(Error::Invalid(_))));
    let no_rate = ReplayConfig { rate: Rate::PerSecond(0.0), ..ReplayConfig::of("t") };
    assert!(matches!(client.replay(no_rate).await, Err(Error::Invalid(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_stopped_goes_on_with_what_is_left() {
    let mut served = Served::start().await;
    fill(&served, "t", 300).await;
    let client = served.client.clone();
    let mut replay = client.replay(ReplayConfig::of("t")).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..100 {
        seen.push(in_time(replay.next()).await.unwrap().unwrap());
    }
    let left = replay.left();
    drop(replay);
    served.stop();
    served.start_again();
    let mut rest = client.replay_spans(ReplayConfig::of("t"), left).unwrap();
    while let Some(record) = in_time(rest.next()).await.unwrap() {
        seen.push(record);
    }
    assert_eq!(numbers(&seen), (0..300).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_starts_again_interrupts_nothing() {
    let mut served = Served::start().await;
    fill(&served, "t", 3000).await;
    let config = ReplayConfig { prefetch_bytes: 1, ..ReplayConfig::of("t") };
    let mut replay = served.client.replay(config).await.unwrap();
    let mut seen = Vec::new();
    while let Some(record) = in_time(replay.next()).await.unwrap() {
        seen.push(record);
        if seen.len() == 500 {
            served.stop();
            served.start_again();
        }
    }
    assert_eq!(numbers(&seen), (0..3000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_topic_of_the_name_is_not_read() {
    let served = Served::start().await;
    let client = served.client.clone();
    // Far more than is sent ahead.
    let values =
        |word: &str| (0..400).map(|n| format!("{word} {n} {}", "-".repeat(10_000))).collect::<Vec<_>>();
    served.topic("t", 1).await;
    served.write("t", 0, values("old")).await;
    let config = ReplayConfig { prefetch_bytes: 1, ..ReplayConfig::of("t") };
    let mut replay = client.replay(config.clone()).await.unwrap();
    for _ in 0..10 {
        assert!(in_time(replay.next()).await.unwrap().is_some());
    }
    let (topic_id, left) = (replay.topic_id(), replay.left());
    assert!(topic_id.is_some());
    client.admin().delete_topic("t").await.unwrap();
    served.topic("t", 1).await;
    served.write("t", 0, values("new")).await;
    let is_anew = |error: &Error| matches!(error, Error::MadeAnew { topic } if topic == "t");
    // Whoever goes on.
    let later = ReplayConfig { topic_id, ..config.clone() };
    let error = in_time(client.replay_spans(later.clone(), left.clone()).unwrap().next()).await.unwrap_err();
    assert!(is_anew(&error), "{error}");
    let error = client.replay(later).await.unwrap_err();
    assert!(is_anew(&error), "{error}");
    // And the one under way, whose subscription ends with the topic.
    let error = loop {
        match in_time(replay.next()).await {
            Ok(record) => {
                let record = record.expect("there was more of it than was sent ahead");
                assert!(text(&record).starts_with("old"), "{}", record.offset);
            }
            Err(error) => break error,
        }
    };
    assert!(is_anew(&error), "{error}");
    // Without an id it is anybody's.
    assert!(in_time(client.replay_spans(config, left).unwrap().next()).await.unwrap().is_some());
}

fn copy_of(topic: &str) -> CopyConfig {
    CopyConfig {
        replay: ReplayConfig::of(topic),
        into: "copy".to_owned(),
        key: None,
        producer: ProducerConfig::default(),
    }
}

/// Every record of the source once, as it was, in the order of its partition.
async fn is_whole(client: &Client, source: &str) {
    let strip = |record: &Record| {
        let is_own = |name: &str| name == SOURCE_HEADER || name == COPY_HEADER;
        let headers: Vec<_> = record.headers.iter().filter(|header| !is_own(&header.name)).cloned().collect();
        (record.partition, record.key.clone(), record.value.clone(), headers, record.timestamp_ms)
    };
    let by_partition = |records: Vec<Record>| {
        let mut stripped: Vec<_> = records.iter().map(strip).collect();
        stripped.sort_by_key(|record| record.0);
        stripped
    };
    let copied = read(client, ReplayConfig::of("copy")).await;
    for record in &copied {
        let from = format!("{source}:{}:", record.partition);
        assert!(record.header_str(SOURCE_HEADER).is_some_and(|at| at.starts_with(&from)), "{record:?}");
    }
    assert_eq!(by_partition(copied), by_partition(read(client, ReplayConfig::of(source)).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_killed_anywhere_has_each_record_once_in_the_end() {
    let served = Served::start().await;
    fill(&served, "t", 3000).await;
    served.topic("copy", 3).await;
    let client = &served.client;
    let mut copy = client.copy(copy_of("t")).await.unwrap();
    let mut point: CopyPoint = copy.point().await.unwrap();
    // Dropped with records under way that no point knows of; some are taken up before a point is taken again.
    for (steps, takes_point) in [(700, false), (10, true), (900, true), (333, false)] {
        for _ in 0..steps {
            assert!(in_time(copy.advance()).await.unwrap());
        }
        if takes_point {
            point = in_time(copy.point()).await.unwrap();
        }
        drop(copy);
        copy = in_time(client.resume_copy(copy_of("t"), point.clone())).await.unwrap();
    }
    while in_time(copy.advance()).await.unwrap() {}
    is_whole(client, "t").await;
    let copied = read(client, ReplayConfig::of("copy")).await;
    assert!(copied.iter().all(|record| record.headers[2].name_bytes() == b"gr\xfcn"), "{:?}", copied[0]);
}

/// It was waited for as though it were to be copied again, so that a copy that was stopped again and again never came further.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_copied_before_is_not_waited_for() {
    let served = Served::start().await;
    fill(&served, "t", 600).await;
    served.topic("copy", 3).await;
    let client = &served.client;
    let mut copy = client.copy(copy_of("t")).await.unwrap();
    let point = copy.point().await.unwrap();
    for _ in 0..500 {
        assert!(in_time(copy.advance()).await.unwrap());
    }
    drop(copy);
    // Each record but the first would be due after more time than there is.
    let slow = ReplayConfig { rate: Rate::PerSecond(0.001), ..ReplayConfig::of("t") };
    let config = CopyConfig { replay: slow.clone(), ..copy_of("t") };
    let mut copy = in_time(client.resume_copy(config, point)).await.unwrap();
    while copy.progress().records == 0 {
        assert!(in_time(copy.advance()).await.unwrap());
    }
    assert!(copy.progress().offsets_done > 500, "{:?}", copy.progress());
    // Nor is what nobody wants.
    let mut replay = client.replay(slow).await.unwrap();
    let last = in_time(replay.next_where(|record| text(record) == "599")).await.unwrap();
    assert_eq!((last.map(|record| text(&record)), replay.progress().records), (Some("599".to_owned()), 1));
    assert!(in_time(replay.next_where(|_record| true)).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn event_stores_are_copied_though_their_records_asked_something() {
    let served = Served::start().await;
    let client = &served.client;
    for topic in ["t", "copy"] {
        let store = NewTopic::new(topic).partitions(3).setting("floodmark.key.index", "true");
        client.admin().create_topic(store).await.unwrap();
    }
    let producer = served.producer();
    for (key, expected) in [("a", "no-stream"), ("a", "0"), ("b", "no-stream"), ("a", "stream-exists")] {
        let headers: [(&[u8], Option<&[u8]>); 1] =
            [(b"floodmark-expected-offset", Some(expected.as_bytes()))];
        let record = NewRecord::to("t").key(key).value("v").headers(&headers).timestamp_ms(FIRST_MS);
        producer.deliver(record).await.unwrap();
    }
    // The second copy meets the streams of the first.
    for copies in 1..=2 {
        let mut copy = client.copy(copy_of("t")).await.unwrap();
        while in_time(copy.advance()).await.unwrap() {}
        if copies == 1 {
            is_whole(client, "t").await;
        }
    }
    assert_eq!(read(client, ReplayConfig::of("copy")).await.len(), 8);
    // Who does not say that it is a copy is asked.
    let headers: [(&[u8], Option<&[u8]>); 1] = [(b"floodmark-expected-offset", Some(b"no-stream"))];
    let refused = producer.deliver(NewRecord::to("copy").key("a").headers(&headers)).await.unwrap_err();
    assert!(refused.to_string().contains("record 0 of the batch"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_copy_is_refused() {
    let served = Served::start().await;
    fill(&served, "t", 3).await;
    served.topic("copy", 3).await;
    let client = &served.client;
    let itself = CopyConfig { into: "t".to_owned(), ..copy_of("t") };
    assert!(matches!(client.copy(itself).await, Err(Error::Invalid(_))));
    let timed = NewTopic::new("timed").partitions(3).setting("message.timestamp.type", "LogAppendTime");
    client.admin().create_topic(timed).await.unwrap();
    let error = client.copy(CopyConfig { into: "timed".to_owned(), ..copy_of("t") }).await.unwrap_err();
    assert!(error.to_string().contains("message.timestamp.type=LogAppendTime"), "{error}");
    let point = CopyPoint {
        id: "x".to_owned(),
        left: vec![Span { partition: 0, from: 0, to: 1 }],
        target: vec![0],
        source_id: None,
        target_id: None,
    };
    assert!(matches!(client.resume_copy(copy_of("t"), point).await, Err(Error::Invalid(_))));
    // Somebody has made the target anew, or the source.
    let mut copy = client.copy(copy_of("t")).await.unwrap();
    while in_time(copy.advance()).await.unwrap() {}
    let point = copy.point().await.unwrap();
    assert!(point.source_id.is_some() && point.target_id.is_some() && point.source_id != point.target_id);
    client.admin().delete_topic("copy").await.unwrap();
    served.topic("copy", 3).await;
    let is_anew = |error: &Error, name: &str| matches!(error, Error::MadeAnew { topic } if topic == name);
    let error = copy.point().await.unwrap_err();
    assert!(is_anew(&error, "copy"), "{error}");
    let error = client.resume_copy(copy_of("t"), point.clone()).await.unwrap_err();
    assert!(is_anew(&error, "copy"), "{error}");
    // A point of a program that knew no ids.
    let without = CopyPoint { source_id: None, target_id: None, ..point.clone() };
    let error = client.resume_copy(copy_of("t"), without).await.unwrap_err();
    assert!(matches!(&error, Error::Invalid(reason) if reason.contains("is gone")), "{error}");
    client.admin().delete_topic("t").await.unwrap();
    fill(&served, "t", 300).await;
    let without = CopyPoint { target_id: None, target: vec![0; 3], ..point };
    let error = client.resume_copy(copy_of("t"), without).await.unwrap_err();
    assert!(is_anew(&error, "t"), "{error}");
    client.admin().delete_topic("t").await.unwrap();
    fill(&served, "t", 3).await;
    let span = Span { partition: 1, from: 7, to: 9 };
    let mut replay = client.replay_spans(ReplayConfig::of("t"), vec![span]).unwrap();
    let error = in_time(replay.next()).await.unwrap_err();
    assert!(
        matches!(&error, Error::NoPosition { partition: 1, reason, .. } if reason.contains("offset 7")),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_resumed_though_others_write_to_its_target() {
    let served = Served::start().await;
    fill(&served, "t", 3000).await;
    served.topic("copy", 3).await;
    let client = &served.client;
    let mut copy = client.copy(copy_of("t")).await.unwrap();
    let point = copy.point().await.unwrap();
    for _ in 0..1500 {
        assert!(in_time(copy.advance()).await.unwrap());
    }
    drop(copy);
    let producer = served.producer();
    let writing = tokio::spawn(async move {
        for number in 0_u32.. {
            let value = number.to_string();
            let record = NewRecord::to("copy").partition(0).key("another's").value(&value);
            producer.deliver(record).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    let mut copy = in_time(client.resume_copy(copy_of("t"), point)).await.unwrap();
    while in_time(copy.advance()).await.unwrap() {}
    writing.abort();
    let mut sources: Vec<String> = read(client, ReplayConfig::of("copy"))
        .await
        .iter()
        .filter_map(|record| record.header_str(SOURCE_HEADER).map(str::to_owned))
        .collect();
    let count = sources.len();
    sources.sort_unstable();
    sources.dedup();
    assert_eq!((count, sources.len()), (3000, 3000));
}
