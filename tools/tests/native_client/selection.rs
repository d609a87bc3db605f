//! Which records a consumer is given: those that a filter lets through, and those whose transactions were not aborted.

use std::sync::Arc;

use floodmark_client::replay::ReplayConfig;
use floodmark_client::{
    Begin, Client, Commit, ConsumerConfig, Error, Isolation, NewRecord, Record, TopicPartition,
};
use floodmark_proto::batch::{
    BatchBuilder, EndTransactionMarker, NewRecord as Stored, RecordBatch, TransactionResult,
};
use floodmark_proto::ids::{LeaderEpoch, ProducerId, TopicId};
use floodmark_storage::clock::Clock;
use floodmark_storage::data_dir::{DataDir, PartitionName};
use floodmark_storage::fs::RealDisk;
use floodmark_storage::log::append::AppendAs;
use floodmark_storage::log::{Log, LogContext};
use floodmark_storage::producers::Origin;
use floodmark_storage::random::Random;
use floodmark_storage::{LogConfig, TailBudget};

use super::{Served, in_time, receive, text, texts};

/// A hundred records in each of two partitions, every tenth with the key "wanted".
async fn fill(served: &Served) {
    served.topic("t", 2).await;
    let producer = served.producer();
    for number in 0..200_i64 {
        let (value, key) = (number.to_string(), if number % 20 < 2 { "wanted" } else { "other" });
        let record = NewRecord::to("t").partition((number % 2) as i32).key(key).value(&value);
        drop(producer.send(record).await.unwrap());
    }
    producer.close().await.unwrap();
}

fn wanted() -> Vec<i64> {
    (0..200).filter(|number| number % 20 < 2).collect()
}

fn sorted(records: &[Record]) -> Vec<i64> {
    let mut numbers: Vec<i64> = texts(records).iter().map(|text| text.parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_lets_through_what_it_says_and_positions_move_on_past_the_rest() {
    let served = Served::start().await;
    fill(&served).await;
    let parts = [TopicPartition::new("t", 0), TopicPartition::new("t", 1)];
    let config = ConsumerConfig::assigned().filter("key == \"wanted\"");
    let mut consumer = served.client.consumer(config).await.unwrap();
    consumer.assign_topic("t", Begin::Start).await.unwrap();
    assert_eq!(sorted(&receive(&mut consumer, 20).await), wanted());
    // What was left out at the end moves positions too, though nothing is handed out for it.
    let silent = tokio::time::timeout(std::time::Duration::from_millis(300), consumer.recv()).await;
    assert!(silent.is_err(), "{silent:?}");
    let handle = consumer.handle();
    for part in &parts {
        assert_eq!((handle.position(part), handle.lag(part)), (Some(100), Some(0)), "{part}");
    }
    handle.seek(&parts[0], Begin::Offset(85)).await.unwrap();
    assert_eq!(texts(&receive(&mut consumer, 1).await), ["180"]);

    // Header, time and offset.
    let producer = served.producer();
    let sent =
        NewRecord::to("t").partition(1).value("late").timestamp_ms(5).headers(&[(b"kind", Some(b"x"))]);
    in_time(producer.deliver(sent)).await.unwrap();
    for filter in ["header(\"kind\") == \"x\"", "timestamp < 100", "offset >= 100"] {
        let config = ConsumerConfig::assigned().filter(filter);
        let mut consumer = served.client.consumer(config).await.unwrap();
        consumer.assign_topic("t", Begin::Start).await.unwrap();
        assert_eq!(texts(&receive(&mut consumer, 1).await), ["late"], "{filter}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_with_a_filter_commits_what_was_left_out() {
    let served = Served::start().await;
    fill(&served).await;
    for (group, commit) in [
        ("least", Commit::AtLeastOnce { interval: std::time::Duration::from_millis(50) }),
        ("most", Commit::AtMostOnce),
    ] {
        let config = ConsumerConfig { commit, ..ConsumerConfig::group(group, ["t"]).from_start() };
        let mut consumer = served.client.consumer(config.filter("key == \"wanted\"")).await.unwrap();
        assert_eq!(sorted(&receive(&mut consumer, 20).await), wanted());
        // Asked for one more: what was handed out is done.
        let silent = tokio::time::timeout(std::time::Duration::from_millis(300), consumer.recv()).await;
        assert!(silent.is_err(), "{silent:?}");
        in_time(consumer.close()).await.unwrap();
        let committed = served.client.admin().committed(group, &[]).await.unwrap();
        let offsets: Vec<Option<i64>> = committed.iter().map(|committed| committed.offset).collect();
        match commit {
            Commit::AtMostOnce => {
                assert!(offsets.iter().all(|offset| offset.is_some_and(|at| at > 90)), "{offsets:?}");
            }
            _ => assert_eq!(offsets, [Some(100); 2]),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_is_none_is_told() {
    let served = Served::start().await;
    fill(&served).await;
    for filter in ["key ==", "nonsense", &"(".repeat(4000)] {
        let mut consumer = served.client.consumer(ConsumerConfig::assigned().filter(filter)).await.unwrap();
        consumer.assign_topic("t", Begin::Start).await.unwrap();
        let error = in_time(consumer.recv()).await.unwrap_err();
        assert!(matches!(&error, Error::Refused(refusal) if refusal.reason == "INVALID_FILTER"), "{error:?}");
        assert!(!error.is_retryable());
    }
}

/// A log as a broker that serves transactions would have left it: (who, what).
enum Written {
    Plain(&'static str),
    InTransaction(i64, &'static str),
    Ends(i64, TransactionResult),
}

const LOG: [Written; 12] = [
    Written::Plain("before"),
    Written::InTransaction(1, "aborted 1"),
    Written::InTransaction(2, "committed 1"),
    Written::InTransaction(1, "aborted 2"),
    Written::Ends(1, TransactionResult::Abort),
    Written::InTransaction(2, "committed 2"),
    Written::Ends(2, TransactionResult::Commit),
    Written::InTransaction(1, "committed 3"),
    Written::Ends(1, TransactionResult::Commit),
    Written::Plain("between"),
    Written::InTransaction(3, "open"),
    Written::Plain("behind what is open"),
];

fn batch(written: &Written, sequences: &mut [i32; 4]) -> (RecordBatch, Origin) {
    let record = |value: &'static str| Stored {
        timestamp: 1_700_000_000_000,
        key: None,
        value: Some(value.as_bytes()),
        headers: &[],
    };
    match written {
        Written::Plain(value) => {
            let mut builder = BatchBuilder::new();
            builder.push(&record(value)).unwrap();
            (builder.build().unwrap(), Origin::Client)
        }
        Written::InTransaction(who, value) => {
            let sequence = &mut sequences[*who as usize];
            let mut builder =
                BatchBuilder::new().producer(ProducerId(*who), 0, *sequence).transactional(true);
            *sequence += 1;
            builder.push(&record(value)).unwrap();
            (builder.build().unwrap(), Origin::Client)
        }
        Written::Ends(who, result) => {
            let mut builder = BatchBuilder::new().producer(ProducerId(*who), 0, -1).transactional(true);
            let marker = EndTransactionMarker { result: *result, coordinator_epoch: 0 };
            builder.push_marker(1_700_000_000_000, &marker).unwrap();
            (builder.build().unwrap(), Origin::Coordinator)
        }
    }
}

/// The log of a partition of a broker that is down.
fn open(data_dir: &std::path::Path, topic: &str) -> Log {
    let context = LogContext {
        disk: Arc::new(RealDisk),
        clock: Clock::manual(1_700_000_000_000),
        random: Random::seeded(7),
        tail_budget: TailBudget::new(0),
    };
    let data = DataDir::open(context, data_dir).unwrap();
    let name = PartitionName::new(topic, 0).unwrap();
    let metadata = std::fs::read_to_string(data.partition_path(&name).join("partition.metadata")).unwrap();
    let id = metadata.lines().find_map(|line| line.strip_prefix("topic_id: ")).unwrap();
    data.open_partition(&name, id.parse::<TopicId>().unwrap(), LogConfig::default()).unwrap().0
}

async fn seen(client: &Client, config: ConsumerConfig, count: usize) -> Vec<String> {
    let mut consumer = client.consumer(config).await.unwrap();
    consumer.assign_topic("t", Begin::Start).await.unwrap();
    let records = receive(&mut consumer, count).await;
    let silent = tokio::time::timeout(std::time::Duration::from_millis(300), consumer.recv()).await;
    assert!(silent.is_err(), "{silent:?}");
    texts(&records)
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_aborted_and_open_transactions_are_left_out_where_that_is_asked_for() {
    let mut served = Served::start().await;
    served.topic("t", 1).await;
    let data_dir = served.config.data_dirs[0].clone();
    tokio::task::block_in_place(|| {
        served.stop();
        let mut log = open(&data_dir, "t");
        let mut sequences = [0; 4];
        for written in &LOG {
            let (batch, origin) = batch(written, &mut sequences);
            let append_as = AppendAs::Leader { epoch: LeaderEpoch(0), origin };
            log.append([batch], append_as).unwrap()[0].as_ref().unwrap();
        }
        log.checkpoint().unwrap();
        drop(log);
        served.start_again();
    });
    let client = &served.client;
    let all: Vec<&str> = LOG
        .iter()
        .filter_map(|written| match written {
            Written::Plain(value) | Written::InTransaction(_, value) => Some(*value),
            Written::Ends(..) => None,
        })
        .collect();
    let committed = ["before", "committed 1", "committed 2", "committed 3", "between"];
    // As batches, of which the client leaves out, and as messages, of which the broker does.
    for filter in [None, Some("offset >= 0".to_owned())] {
        let config = ConsumerConfig { filter, ..ConsumerConfig::assigned() };
        assert_eq!(seen(client, config.clone(), all.len()).await, all);
        let config = ConsumerConfig { isolation: Isolation::Committed, ..config };
        assert_eq!(seen(client, config, committed.len()).await, committed);
    }
    let config = ReplayConfig { isolation: Isolation::Committed, ..ReplayConfig::of("t") };
    let mut replay = client.replay(config).await.unwrap();
    let mut replayed = Vec::new();
    while let Some(record) = in_time(replay.next()).await.unwrap() {
        replayed.push(text(&record));
    }
    assert_eq!(replayed, committed);
    // The end is where the open transaction begins, for a group too.
    let config = ConsumerConfig { isolation: Isolation::Committed, ..ConsumerConfig::assigned() };
    let consumer = client.consumer(config).await.unwrap();
    consumer.assign_topic("t", Begin::End).await.unwrap();
    assert_eq!(consumer.handle().position(&TopicPartition::new("t", 0)), Some(10));
    let config = ConsumerConfig {
        isolation: Isolation::Committed,
        commit: Commit::AtLeastOnce { interval: std::time::Duration::from_millis(50) },
        ..ConsumerConfig::group("g", ["t"]).from_start()
    };
    let mut consumer = client.consumer(config).await.unwrap();
    assert_eq!(texts(&receive(&mut consumer, committed.len()).await), committed);
    let silent = tokio::time::timeout(std::time::Duration::from_millis(300), consumer.recv()).await;
    assert!(silent.is_err(), "{silent:?}");
    in_time(consumer.close()).await.unwrap();
    let of_group = client.admin().committed("g", &[]).await.unwrap();
    assert_eq!(of_group[0].offset, Some(10));
}
