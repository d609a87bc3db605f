//! Streams over a real partition on a simulated disk: what is appended, refused, read and followed.

use std::collections::BTreeMap;
use std::path::Path;

use floodmark_proto::batch::{CompressionType, RecordHeader};
use floodmark_proto::ids::{BrokerId, LeaderEpoch, TopicId};
use floodmark_replication::cluster::settings::{Layers, TopicSettings};
use floodmark_replication::partition::{Duty, PartitionId, Role};
use floodmark_storage::clock::Clock;
use floodmark_storage::fs::SimDisk;
use floodmark_storage::group_commit::DiskThreads;
use floodmark_storage::log::{Log, LogContext};
use floodmark_storage::random::Random;
use floodmark_storage::{LogConfig, TailBudget};

use super::*;
use crate::ops::deadline::Deadline;
use crate::ops::produce::{Part, Until, produce};

const NOW: TimestampMs = 1_700_000_000_000;

fn settings(set: &[(&str, &str)]) -> TopicSettings {
    let nothing = BTreeMap::new();
    let topic = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let layers = Layers { topic: &topic, broker: &nothing, cluster: &nothing, file: &nothing };
    TopicSettings::resolve(&layers, &LogConfig { prewrite_bytes: 8_192, ..LogConfig::default() })
}

fn duty(set: &[(&str, &str)]) -> Duty {
    let role = Role::Leader { epoch: LeaderEpoch(3) };
    Duty {
        node: BrokerId(1),
        role,
        replicas: Arc::new([BrokerId(1)]),
        isr: Arc::new([BrokerId(1)]),
        partition_epoch: 0,
        settings: Arc::new(settings(set)),
    }
}

fn open(disk: &SimDisk, set: &[(&str, &str)]) -> PartitionHandle {
    open_with_tail(disk, set, 10_000)
}

pub(in crate::ops) fn open_with_tail(
    disk: &SimDisk,
    set: &[(&str, &str)],
    tail_bytes: u64,
) -> PartitionHandle {
    let duty = duty(set);
    let context = LogContext {
        disk: Arc::new(disk.clone()),
        clock: Clock::System,
        random: Random::seeded(1),
        tail_budget: TailBudget::new(tail_bytes),
    };
    let log = Log::open(context, Path::new("t-0"), duty.settings.log.clone()).unwrap().0;
    let topic_id = TopicId::from_bytes([7; 16]).unwrap();
    let name = PartitionId { topic_id, topic: "t".into(), index: 0 };
    PartitionHandle::new(name, log, &DiskThreads::start(2).unwrap(), duty)
}

const STORE: &[(&str, &str)] = &[("floodmark.key.index", "true")];

fn store() -> PartitionHandle {
    open(&SimDisk::new(), STORE)
}

pub(in crate::ops) fn store_on(disk: &SimDisk) -> PartitionHandle {
    open(disk, STORE)
}

/// One whose reads of what was just appended need no disk.
pub(in crate::ops) fn store_in_memory() -> PartitionHandle {
    open_with_tail(&SimDisk::new(), STORE, 16 << 20)
}

pub(in crate::ops) fn now<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(30), future).await.expect("nobody was told in time")
    })
}

pub(in crate::ops) fn held() -> Lease {
    let lease = Lease::default();
    lease.hold();
    lease
}

fn event(value: &str) -> NewEvent {
    NewEvent { value: Some(Bytes::copy_from_slice(value.as_bytes())), ..NewEvent::default() }
}

fn events(stream: &str, expected: Expected, values: &[&str]) -> AppendEvents {
    AppendEvents {
        stream: Bytes::copy_from_slice(stream.as_bytes()),
        expected,
        events: values.iter().map(|value| event(value)).collect(),
        append_id: None,
        producer: None,
        acks: Acks::All,
        within: Duration::from_secs(20),
    }
}

pub(in crate::ops) fn append(
    partition: &PartitionHandle,
    stream: &str,
    expected: Expected,
    values: &[&str],
) -> Result<i64, Option<i64>> {
    match now(append_if(partition.clone(), events(stream, expected, values), NOW)) {
        Ok(appended) => Ok(appended.last_offset.0),
        Err(EventsError::Conflict { actual, .. }) => Err(actual.map(|actual| actual.0)),
        Err(other) => panic!("{other:?}"),
    }
}

pub(in crate::ops) fn append_in_vain(partition: &PartitionHandle, stream: &str, value: &str) {
    now(append_if(partition.clone(), events(stream, Expected::Any, &[value]), NOW)).unwrap_err();
}

fn wanted(stream: &str, direction: Direction) -> ReadStream {
    ReadStream {
        stream: Bytes::copy_from_slice(stream.as_bytes()),
        direction,
        from: None,
        max_records: 100,
        max_bytes: 1 << 20,
        isolation: Isolation::Committed,
    }
}

fn read(partition: &PartitionHandle, wanted: ReadStream) -> StreamPart {
    now(read_stream(partition.clone(), wanted)).unwrap()
}

fn values(part: &StreamPart) -> Vec<String> {
    let text = |r: &StreamRecord| String::from_utf8(r.value.clone().unwrap().to_vec()).unwrap();
    part.records.iter().map(text).collect()
}

#[test]
fn a_stream_grows_only_from_where_it_is_expected_to_end() {
    let store = store();
    assert_eq!(append(&store, "a", Expected::StreamExists, &["x"]), Err(None));
    assert_eq!(append(&store, "a", Expected::Exactly(Offset(0)), &["x"]), Err(None));
    assert_eq!(append(&store, "a", Expected::NoStream, &["1", "2"]), Ok(1));
    assert_eq!(append(&store, "b", Expected::NoStream, &["other"]), Ok(2));
    assert_eq!(append(&store, "a", Expected::NoStream, &["x"]), Err(Some(1)));
    assert_eq!(append(&store, "a", Expected::Exactly(Offset(0)), &["x"]), Err(Some(1)));
    assert_eq!(append(&store, "a", Expected::Exactly(Offset(1)), &["3"]), Ok(3));
    assert_eq!(append(&store, "a", Expected::Any, &["4"]), Ok(4));
    assert_eq!(append(&store, "a", Expected::StreamExists, &["5"]), Ok(5));
    let forward = read(&store, wanted("a", Direction::Forward));
    assert_eq!(values(&forward), ["1", "2", "3", "4", "5"]);
    assert_eq!((forward.reached, forward.has_more, forward.high_watermark), (Offset(6), false, Offset(6)));
    assert_eq!(forward.records.iter().map(|r| r.offset.0).collect::<Vec<_>>(), [0, 1, 3, 4, 5]);
    let backward = read(&store, ReadStream { max_records: 2, ..wanted("a", Direction::Backward) });
    assert_eq!(
        (values(&backward), backward.reached, backward.has_more),
        (vec!["5".into(), "4".into()], Offset(4), true)
    );
    let from = Some(Offset(backward.reached.0 - 1));
    let rest = read(&store, ReadStream { from, ..wanted("a", Direction::Backward) });
    assert_eq!((values(&rest), rest.has_more), (vec!["3".into(), "2".into(), "1".into()], false));
    assert_eq!(read(&store, wanted("nobody", Direction::Backward)).records, []);
}

#[test]
fn of_many_who_expect_the_same_one_wins_each_time() {
    let store = store();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build().unwrap();
    let mut last = Expected::NoStream;
    for round in 0..20 {
        let outcomes: Vec<_> = runtime.block_on(async {
            let all: Vec<_> = (0..16)
                .map(|n| {
                    tokio::spawn(append_if(store.clone(), events("a", last, &[&format!("{round}-{n}")]), NOW))
                })
                .collect();
            let mut outcomes = Vec::new();
            for one in all {
                outcomes.push(one.await.unwrap());
            }
            outcomes
        });
        let won: Vec<_> = outcomes.iter().flatten().collect();
        assert_eq!(won.len(), 1, "round {round}");
        let refused = outcomes.iter().filter(|outcome| {
            matches!(outcome, Err(EventsError::Conflict { actual, .. }) if *actual == Some(won[0].last_offset))
        });
        assert_eq!(refused.count(), 15, "round {round}");
        last = Expected::Exactly(won[0].last_offset);
    }
    assert_eq!(read(&store, wanted("a", Direction::Forward)).records.len(), 20);
}

#[test]
fn a_retry_with_the_same_id_is_the_append_that_landed() {
    let store = store();
    let with_id = |id: u8, values: &[&str]| AppendEvents {
        append_id: Some([id; 16]),
        ..events("a", Expected::NoStream, values)
    };
    let first = now(append_if(store.clone(), with_id(1, &["1", "2"]), NOW)).unwrap();
    assert_eq!(append(&store, "a", Expected::Exactly(Offset(1)), &["3"]), Ok(2));
    let again = now(append_if(store.clone(), with_id(1, &["1", "2"]), NOW)).unwrap();
    assert_eq!(again, EventsAppended { is_duplicate: true, ..first });
    let other = now(append_if(store.clone(), with_id(2, &["1", "2"]), NOW));
    let conflict = EventsError::Conflict { expected: Expected::NoStream, actual: Some(Offset(2)) };
    assert_eq!(other, Err(conflict));
    assert_eq!(values(&read(&store, wanted("a", Direction::Forward))), ["1", "2", "3"]);
}

#[test]
fn an_idempotent_producer_needs_no_id() {
    let store = store();
    let sequence = ProducerSequence { id: ProducerId(5), epoch: 0, sequence: 0 };
    let sent = AppendEvents { producer: Some(sequence), ..events("a", Expected::NoStream, &["1"]) };
    let first = now(append_if(store.clone(), sent.clone(), NOW)).unwrap();
    let again = now(append_if(store, sent, NOW)).unwrap();
    assert_eq!(again, EventsAppended { is_duplicate: true, ..first });
}

#[test]
fn what_was_sent_comes_back_whole() {
    for codec in ["producer", "zstd"] {
        let store = open(&SimDisk::new(), &[STORE[0], ("compression.type", codec)]);
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        let headers = vec![(bytes("h"), Some(bytes("1"))), (bytes("h"), None), (bytes("g"), Some(bytes("")))];
        let full = NewEvent { value: Some(bytes("v")), headers, timestamp: Some(NOW - 5) };
        let empty = NewEvent::default();
        let sent = vec![full.clone(), empty];
        let append = AppendEvents { events: sent, ..events("a", Expected::Any, &[]) };
        let appended = now(append_if(store.clone(), append, NOW)).unwrap();
        assert_eq!(appended.timestamp, NOW);
        let found = read(&store, wanted("a", Direction::Forward)).records;
        assert_eq!(
            (&found[0].value, &found[0].headers, found[0].timestamp),
            (&full.value, &full.headers, NOW - 5)
        );
        assert_eq!((&found[1].value, found[1].headers.len(), found[1].timestamp), (&None, 0, NOW));
        assert!(found.iter().all(|r| r.key == "a" && r.leader_epoch == LeaderEpoch(3)));
    }
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let plain = open(&SimDisk::new(), &[]);
    let code = |partition: &PartitionHandle, append: AppendEvents| match now(append_if(
        partition.clone(),
        append,
        NOW,
    )) {
        Err(EventsError::Refused(refused)) => refused.code,
        other => panic!("{other:?}"),
    };
    assert_eq!(code(&plain, events("a", Expected::Any, &["1"])), ErrorCode::InvalidRequest);
    let not_read = now(read_stream(plain, wanted("a", Direction::Forward))).unwrap_err();
    assert_eq!(not_read.code, ErrorCode::InvalidRequest);
    let small = open(&SimDisk::new(), &[STORE[0], ("max.message.bytes", "200")]);
    assert_eq!(code(&small, events("a", Expected::Any, &[])), ErrorCode::InvalidRequest);
    assert_eq!(code(&small, events("a", Expected::Any, &[&"x".repeat(300)])), ErrorCode::MessageTooLarge);
    let old = NewEvent { timestamp: Some(NOW + 4_000_000), ..event("x") };
    let late = AppendEvents { events: vec![old], ..events("a", Expected::Any, &[]) };
    assert_eq!(code(&small, late), ErrorCode::InvalidTimestamp);
    small.close().unwrap();
    assert_eq!(code(&small, events("a", Expected::Any, &["1"])), ErrorCode::NotLeaderOrFollower);
}

#[test]
fn who_follows_is_told_of_what_comes_and_of_how_far_was_looked() {
    let store = store();
    append(&store, "a", Expected::Any, &["1"]).unwrap();
    append(&store, "b", Expected::Any, &["other"]).unwrap();
    now(async {
        let soon = || Instant::now() + Duration::from_secs(20);
        let first =
            follow_stream(store.clone(), wanted("a", Direction::Forward), soon(), held()).await.unwrap();
        assert_eq!((values(&first), first.reached), (vec!["1".to_owned()], Offset(2)));
        let rest = ReadStream { from: Some(first.reached), ..wanted("a", Direction::Forward) };
        let following = tokio::spawn(follow_stream(store.clone(), rest.clone(), soon(), held()));
        append_if(store.clone(), events("b", Expected::Any, &["other"]), NOW).await.unwrap();
        append_if(store.clone(), events("a", Expected::Any, &["2"]), NOW).await.unwrap();
        let next = following.await.unwrap().unwrap();
        assert_eq!((values(&next), next.reached), (vec!["2".to_owned()], Offset(4)));
        let at_once = ReadStream { from: Some(next.reached), ..rest };
        let none = follow_stream(store.clone(), at_once, Instant::now(), held()).await.unwrap();
        assert_eq!((none.records.len(), none.reached), (0, Offset(4)));
    });
}

/// Others may be written to by then, and here nothing more would come.
#[test]
fn who_follows_is_not_left_with_a_leader_that_may_be_none_or_a_log_that_is_closed() {
    let refused = |end: fn(&Lease, &PartitionHandle)| {
        let (store, lease) = (store(), held());
        now(async {
            let soon = Instant::now() + Duration::from_secs(20);
            let following =
                follow_stream(store.clone(), wanted("a", Direction::Forward), soon, lease.clone());
            let following = tokio::spawn(following);
            // It waits by then, or sees it at its first look.
            tokio::time::sleep(Duration::from_millis(20)).await;
            end(&lease, &store);
            following.await.unwrap().unwrap_err().code
        })
    };
    assert_eq!(refused(|lease, _| lease.give_up()), ErrorCode::NotLeaderOrFollower);
    let closed = code_of_partition(&PartitionError::Closed);
    assert_eq!(refused(|_, store| store.close().unwrap()), closed);
}

#[test]
fn an_index_may_come_and_go() {
    let store = open(&SimDisk::new(), &[]);
    let sent = produced(&store, &[("a", &[]), ("b", &[]), ("a", &[])], CompressionType::None);
    assert!(sent.is_ok());
    store.take_up(duty(STORE), Duration::from_secs(60));
    assert_eq!(append(&store, "a", Expected::Exactly(Offset(2)), &["3"]), Ok(3));
    store.take_up(duty(&[]), Duration::from_secs(60));
    assert!(produced(&store, &[("b", &[])], CompressionType::None).is_ok());
    store.take_up(duty(STORE), Duration::from_secs(60));
    assert_eq!(append(&store, "b", Expected::Exactly(Offset(1)), &["x"]), Err(Some(4)));
    assert_eq!(read(&store, wanted("a", Direction::Forward)).records.len(), 3);
}

#[test]
fn a_stream_whose_records_are_gone_is_none() {
    let store = store();
    append(&store, "a", Expected::NoStream, &["1"]).unwrap();
    append(&store, "b", Expected::NoStream, &["2"]).unwrap();
    now(store.delete_before(Some(Offset(1)))).unwrap();
    assert_eq!(append(&store, "a", Expected::Exactly(Offset(0)), &["x"]), Err(None));
    assert_eq!(append(&store, "a", Expected::NoStream, &["3"]), Ok(2));
    assert_eq!(append(&store, "b", Expected::Exactly(Offset(1)), &["4"]), Ok(3));
}

#[test]
fn what_was_acknowledged_is_expected_after_a_power_cut() {
    let disk = SimDisk::new();
    let store = open(&disk, STORE);
    let mut lasts = Vec::new();
    for n in 0..40 {
        let stream = format!("s{}", n % 7);
        lasts.push((stream.clone(), append(&store, &stream, Expected::Any, &["x"]).unwrap()));
    }
    for seed in 0..10 {
        let store = open(&disk.image().power_cut(seed), STORE);
        for (stream, last) in lasts.iter().rev().take(7) {
            assert_eq!(append(&store, stream, Expected::NoStream, &["y"]), Err(Some(*last)));
            assert!(append(&store, stream, Expected::Exactly(Offset(*last)), &["y"]).is_ok());
        }
    }
}

type Headers<'a> = &'a [(&'a [u8], Option<&'a [u8]>)];

fn produced(
    partition: &PartitionHandle,
    records: &[(&str, Headers<'_>)],
    codec: CompressionType,
) -> Result<i64, NotProduced> {
    let mut builder = BatchBuilder::new().compression(codec, None);
    for (key, headers) in records {
        let key = Some(key.as_bytes());
        builder.push(&NewRecord { timestamp: NOW, key, value: Some(b"kafka"), headers }).unwrap();
    }
    sent(partition, builder)
}

/// As the other door has it, where the caller's time is for all.
fn until(within: Duration) -> Until {
    Until { here: Deadline::after(within), elsewhere: Deadline::after(within) }
}

fn sent(partition: &PartitionHandle, builder: BatchBuilder) -> Result<i64, NotProduced> {
    let records = Some(bytes::BytesMut::from(builder.build().unwrap().as_bytes()));
    let parts = vec![Part { partition: Ok(partition.clone()), records }];
    let with = SentWith { may_use_zstd: true, in_transaction: false, are_copies: false };
    let outcome = now(produce(parts, Acks::All, with, until(Duration::from_secs(20)), NOW)).remove(0);
    outcome.map(|produced| produced.base_offset.0)
}

/// Answers of a pipeline are asked for one after the other, and their time does not begin one after the other.
#[test]
fn the_time_of_records_begins_with_their_call() {
    let store = store();
    let (both, within) = (Arc::from([BrokerId(1), BrokerId(2)]), Duration::from_millis(20));
    store.take_up(
        Duty { replicas: Arc::clone(&both), isr: both, partition_epoch: 1, ..duty(STORE) },
        Duration::from_secs(60),
    );
    let mut batch = BatchBuilder::new();
    batch.push(&NewRecord { timestamp: NOW, key: Some(b"a"), ..NewRecord::default() }).unwrap();
    let records = Some(batch.build().unwrap().as_bytes().into());
    let with = SentWith { may_use_zstd: true, in_transaction: false, are_copies: false };
    now(async {
        let parts = vec![Part { partition: Ok(store.clone()), records }];
        let mut answer = Box::pin(produce(parts, Acks::All, with, until(within), NOW));
        tokio::time::sleep(within * 2).await;
        // The other replica has not got it.
        let at_once = std::future::poll_fn(|cx| std::task::Poll::Ready(answer.as_mut().poll(cx))).await;
        let std::task::Poll::Ready(outcomes) = at_once else { panic!("its time begins only now") };
        assert_eq!(outcomes[0].as_ref().unwrap_err().code, ErrorCode::RequestTimedOut);
    });
}

#[test]
fn kafka_producers_ask_the_same_with_a_header() {
    let store = store();
    let header = |value: &'static str| [(&b"floodmark-expected-offset"[..], Some(value.as_bytes()))];
    for codec in [CompressionType::None, CompressionType::Snappy] {
        let stream = codec.name();
        let start = store.log_end().0;
        let none = header("no-stream");
        assert_eq!(produced(&store, &[(stream, &none), (stream, &[])], codec), Ok(start));
        let refused = produced(&store, &[("x", &[]), (stream, &none)], codec).unwrap_err();
        assert_eq!(refused.code, ErrorCode::InvalidRecord);
        assert_eq!((refused.records.len(), refused.records[0].index), (1, 1));
        let message = refused.message.unwrap();
        assert!(message.contains(&format!("its last offset is {}", start + 1)), "{message}");
        assert_eq!(refused.records[0].reason, message);
        let exact = (start + 1).to_string().leak() as &'static str;
        assert_eq!(produced(&store, &[("x", &[]), (stream, &header(exact))], codec), Ok(start + 2));
        let nonsense = produced(&store, &[(stream, &header("soon"))], codec).unwrap_err();
        assert_eq!((nonsense.code, nonsense.records[0].index), (ErrorCode::InvalidRecord, 0));
    }
    // Whoever reads meets ordinary records.
    let found = read(&store, wanted("none", Direction::Forward)).records;
    assert_eq!(found[0].headers[0].0, RecordHeader { key: b"floodmark-expected-offset", value: None }.key);
    let plain = open(&SimDisk::new(), &[]);
    assert_eq!(produced(&plain, &[("a", &header("stream-exists"))], CompressionType::None), Ok(0));
}

#[test]
fn a_refused_batch_leaves_its_producer_where_it_was() {
    let store = store();
    let batch = |sequence: i32, value: &'static [u8]| {
        let mut builder = BatchBuilder::new().producer(ProducerId(9), 0, sequence);
        let headers: Headers<'_> = &[(b"floodmark-expected-offset", Some(value))];
        builder.push(&NewRecord { timestamp: NOW, key: Some(b"a"), value: None, headers }).unwrap();
        builder
    };
    assert_eq!(sent(&store, batch(0, b"no-stream")), Ok(0));
    assert_eq!(sent(&store, batch(1, b"no-stream")).unwrap_err().code, ErrorCode::InvalidRecord);
    // The client gives the sequence number of what was refused to the next one.
    assert_eq!(sent(&store, batch(1, b"0")), Ok(1));
    // A retry of what landed is no conflict.
    assert_eq!(sent(&store, batch(0, b"no-stream")), Ok(0));
}
