//! Fetch and the look-ups of offsets as clients see them, over a socket.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod kafka_client;
mod wire;

use std::thread;
use std::time::Duration;

use floodmark_broker::Broker;
use floodmark_proto::batch::{BatchBuilder, NewRecord};
use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::kafka::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopic,
};
use floodmark_proto::kafka::messages::fetch::{FetchRequest, FetchResponse, ForgottenTopic};
use floodmark_proto::kafka::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic,
};
use floodmark_proto::kafka::messages::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use floodmark_proto::kafka::messages::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, OffsetForLeaderPartition, OffsetForLeaderTopic,
};

use kafka_client::{FetchOf, Fetched, Kafka, batch};
use wire::broker;

const TOPIC: &str = "t";

fn started(partitions: i32) -> (Broker, Kafka) {
    let broker = broker(&[]);
    let mut kafka = connect(&broker);
    assert_eq!(kafka.create_topic(TOPIC, partitions, &[]).unwrap(), 0);
    (broker, kafka)
}

fn connect(broker: &Broker) -> Kafka {
    Kafka::connect(broker.kafka_address()).unwrap()
}

/// Appends values as one batch; its base offset.
fn append(kafka: &mut Kafka, partition: i32, values: &[&[u8]]) -> i64 {
    let produced = kafka.produce(TOPIC, partition, -1, &batch(values)).unwrap();
    assert_eq!(produced.error_code, 0, "{produced:?}");
    produced.base_offset
}

fn offsets(fetched: &Fetched) -> Vec<i64> {
    fetched.records().iter().map(|(offset, _)| *offset).collect()
}

fn code(fetched: &Fetched) -> ErrorCode {
    ErrorCode::from_code(fetched.error_code).unwrap()
}

#[test]
fn a_long_poll_ends_with_the_append_that_fills_it() {
    let (broker, mut kafka) = started(2);
    let mut waiting = connect(&broker);
    // It would wait for ten minutes, and the client for one.
    let fetch = FetchOf { max_wait_ms: 600_000, min_bytes: 150, ..FetchOf::new(TOPIC, 0, 0) };
    let asked = waiting.send(12, &fetch.request()).unwrap();
    waiting.socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    // Neither a partition that nobody asked for nor too few bytes end it.
    append(&mut kafka, 1, &[&[1; 200]]);
    append(&mut kafka, 0, &[&[1; 20]]);
    let nothing_yet = waiting.socket.peek(&mut [0]).unwrap_err();
    assert!(matches!(nothing_yet.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut));
    append(&mut kafka, 0, &[&[1; 200]]);
    waiting.socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let answer = waiting.receive(asked).unwrap();
    let fetched = Fetched::of(&answer.read::<FetchResponse<'_>>());
    assert_eq!((offsets(&fetched), fetched.high_watermark), (vec![0, 1], 2));
}

#[test]
fn a_long_poll_ends_with_its_time_an_error_or_a_topic_that_goes() {
    let (broker, mut kafka) = started(1);
    append(&mut kafka, 0, &[b"a"]);
    let waiting = |from| FetchOf { max_wait_ms: 50, min_bytes: i32::MAX, ..FetchOf::new(TOPIC, 0, from) };
    let fetched = kafka.fetch(waiting(0)).unwrap();
    assert_eq!(offsets(&fetched), [0], "what there is, when the time is over");
    assert_eq!(offsets(&kafka.fetch(waiting(1)).unwrap()), [] as [i64; 0]);
    let long = |from| FetchOf { max_wait_ms: i32::MAX, ..waiting(from) };
    assert_eq!(code(&kafka.fetch(long(2)).unwrap()), ErrorCode::OffsetOutOfRange, "at once");
    // The longest wait there is ends with the topic.
    for wait_ms in [50, 500, 5000] {
        let mut other = connect(&broker);
        let asked = other.send(12, &long(1).request()).unwrap();
        thread::sleep(Duration::from_millis(wait_ms));
        assert_eq!(kafka.delete_topic(TOPIC).unwrap(), 0);
        let answer = other.receive(asked).unwrap();
        match code(&Fetched::of(&answer.read::<FetchResponse<'_>>())) {
            ErrorCode::NotLeaderOrFollower => return,
            // The broker came to it only when the topic was gone already.
            code => assert_eq!(code, ErrorCode::UnknownTopicOrPartition),
        }
        assert_eq!(kafka.create_topic(TOPIC, 1, &[]).unwrap(), 0);
        append(&mut kafka, 0, &[b"a"]);
    }
    panic!("it did not wait yet when the topic went, each time");
}

/// Whole batches may never be as many bytes as are asked for, however many there are.
#[test]
fn a_long_poll_does_not_wait_for_what_is_there_and_does_not_fit() {
    let (_broker, mut kafka) = started(2);
    for _ in 0..3 {
        append(&mut kafka, 0, &[&[1; 1000]]);
        append(&mut kafka, 1, &[&[1; 1000]]);
    }
    let bytes = kafka.fetch(FetchOf::new(TOPIC, 0, 0)).unwrap().bytes.len() as i32 / 2;
    // One batch fits, and the second does not. It would wait for ten minutes, and the client for one.
    let waiting = FetchOf { max_wait_ms: 600_000, min_bytes: bytes, ..FetchOf::new(TOPIC, 0, 0) };
    for fetch in [FetchOf { partition_max_bytes: bytes, ..waiting }, FetchOf { max_bytes: bytes, ..waiting }]
    {
        assert_eq!(offsets(&kafka.fetch(fetch).unwrap()), [0]);
    }
    // Of two partitions neither of which has enough, the second has no room.
    let mut both = FetchOf { max_bytes: bytes, ..waiting }.request();
    let mut second = both.topics[0].partitions[0].clone();
    (second.partition, both.topics[0].partitions[0].fetch_offset) = (1, 2);
    both.topics[0].partitions.push(second);
    let answer = kafka.ask(12, &both).unwrap();
    assert_eq!(offsets(&Fetched::of(&answer.read::<FetchResponse<'_>>())), [2]);
}

#[test]
fn limits_on_bytes_hold_but_for_the_first_batch() {
    let (_broker, mut kafka) = started(2);
    for _ in 0..4 {
        append(&mut kafka, 0, &[&[1; 1000], &[2; 1000]]);
        append(&mut kafka, 1, &[&[1; 1000]]);
    }
    let whole = kafka.fetch(FetchOf::new(TOPIC, 0, 0)).unwrap().bytes.len();
    let one = whole / 4;
    let batches = |kafka: &mut Kafka, max_bytes, partition_max_bytes| {
        let fetch = FetchOf { max_bytes, partition_max_bytes, ..FetchOf::new(TOPIC, 0, 0) };
        let fetched = kafka.fetch(fetch).unwrap();
        assert_eq!(fetched.bytes.len() % one, 0, "batches are whole");
        fetched.bytes.len() / one
    };
    let one = one as i32;
    for (max_bytes, partition_max_bytes, expected) in [
        (i32::MAX, i32::MAX, 4),
        (i32::MAX, 0, 1),
        (i32::MAX, -1, 1),
        (0, i32::MAX, 1),
        (-1, -1, 1),
        (1, 1, 1),
        (i32::MAX, one - 1, 1),
        (i32::MAX, one, 1),
        (i32::MAX, 2 * one, 2),
        (i32::MAX, 2 * one + 1, 2),
        (3 * one, i32::MAX, 3),
        (2 * one, 3 * one, 2),
    ] {
        let got = batches(&mut kafka, max_bytes, partition_max_bytes);
        assert_eq!(got, expected, "max_bytes {max_bytes}, of the partition {partition_max_bytes}");
    }
    // What one partition has used up another one does not get, not even its first batch.
    let mut request = FetchOf { max_bytes: 1, ..FetchOf::new(TOPIC, 0, 0) }.request();
    let mut second = request.topics[0].partitions[0].clone();
    second.partition = 1;
    request.topics[0].partitions.push(second);
    let answer = kafka.ask(12, &request).unwrap();
    let response = answer.read::<FetchResponse<'_>>();
    let bytes = |n: usize| response.responses[0].partitions[n].records.as_ref().unwrap().concat().len();
    assert_eq!((bytes(0), bytes(1)), (one as usize, 0));
}

#[test]
fn an_offset_inside_a_batch_brings_the_whole_batch() {
    let (_broker, mut kafka) = started(1);
    append(&mut kafka, 0, &[b"a", b"b", b"c"]);
    append(&mut kafka, 0, &[b"d", b"e"]);
    for (from, expected) in [(0, 0..5), (1, 0..5), (2, 0..5), (3, 3..5), (4, 3..5), (5, 5..5)] {
        let fetched = kafka.fetch(FetchOf::new(TOPIC, 0, from)).unwrap();
        assert_eq!(offsets(&fetched), expected.collect::<Vec<i64>>(), "from {from}");
    }
    for from in [-1, -2, -3, i64::MIN, 6, i64::MAX] {
        let fetched = kafka.fetch(FetchOf::new(TOPIC, 0, from)).unwrap();
        assert_eq!(code(&fetched), ErrorCode::OffsetOutOfRange, "from {from}");
        assert!(fetched.bytes.is_empty());
    }
}

#[test]
fn epochs_are_held_against_the_leaders() {
    let (_broker, mut kafka) = started(1);
    append(&mut kafka, 0, &[b"a", b"b"]);
    let fetch = FetchOf::new(TOPIC, 0, 0);
    let epoch = i32::from_be_bytes(kafka.fetch(fetch).unwrap().bytes[12..16].try_into().unwrap());
    assert!(epoch >= 0);
    for (leader_epoch, expected) in [
        (-1, ErrorCode::None),
        (i32::MIN, ErrorCode::None),
        (epoch, ErrorCode::None),
        (epoch + 1, ErrorCode::UnknownLeaderEpoch),
        (i32::MAX, ErrorCode::UnknownLeaderEpoch),
    ] {
        let fetched = kafka.fetch(FetchOf { leader_epoch, ..fetch }).unwrap();
        assert_eq!(code(&fetched), expected, "epoch {leader_epoch}");
    }
    // Records that the log has not: the end of the newest epoch that both know.
    let fetched = kafka.fetch(FetchOf { last_fetched_epoch: epoch, ..fetch }).unwrap();
    assert_eq!((code(&fetched), fetched.diverging, offsets(&fetched).len()), (ErrorCode::None, (-1, -1), 2));
    let ahead = FetchOf { last_fetched_epoch: epoch, ..FetchOf::new(TOPIC, 0, 7) };
    let fetched = kafka.fetch(ahead).unwrap();
    assert_eq!((code(&fetched), fetched.diverging), (ErrorCode::None, (epoch, 2)));
    // One of the future ends nowhere, as in Kafka.
    let later = FetchOf { last_fetched_epoch: i32::MAX, ..FetchOf::new(TOPIC, 0, 1) };
    assert_eq!(code(&kafka.fetch(later).unwrap()), ErrorCode::OffsetOutOfRange);

    let ask = |kafka: &mut Kafka, current_leader_epoch, leader_epoch| {
        let partitions = vec![OffsetForLeaderPartition { partition: 0, current_leader_epoch, leader_epoch }];
        let topics = vec![OffsetForLeaderTopic { topic: TOPIC, partitions }];
        let request = OffsetForLeaderEpochRequest { replica_id: -1, topics };
        let answer = kafka.ask(4, &request).unwrap();
        let response = answer.read::<OffsetForLeaderEpochResponse<'_>>();
        let end = &response.topics[0].partitions[0];
        (end.error_code, end.leader_epoch, end.end_offset)
    };
    assert_eq!(ask(&mut kafka, -1, epoch), (0, epoch, 2));
    assert_eq!(ask(&mut kafka, epoch, i32::MAX), (0, -1, -1), "no epoch of the future ends anywhere");
    assert_eq!(ask(&mut kafka, epoch + 1, epoch).0, ErrorCode::UnknownLeaderEpoch.code());
}

/// Replicas are copied over the brokers' own listener; a client that says it is one moves nothing and reads nothing (CVE-2018-1288).
#[test]
fn a_client_that_claims_to_be_a_replica_gets_nothing_and_moves_nothing() {
    let (_broker, mut kafka) = started(1);
    append(&mut kafka, 0, &[b"a", b"b"]);
    let watermark = |kafka: &mut Kafka| kafka.fetch(FetchOf::new(TOPIC, 0, 0)).unwrap().high_watermark;
    let before = watermark(&mut kafka);
    // As the leader itself, as another replica, from the end, from far behind it, with a high watermark of its own.
    for (replica, from) in [(1, 2), (2, 2), (2, 1_000_000), (0, 0)] {
        let mut request = FetchOf::new(TOPIC, 0, from).request();
        request.replica_id = replica;
        let fetched = Fetched::of(&kafka.ask(12, &request).unwrap().read::<FetchResponse<'_>>());
        assert_eq!(code(&fetched), ErrorCode::TopicAuthorizationFailed);
        assert_eq!((fetched.high_watermark, fetched.bytes.len()), (-1, 0));
    }
    // The same where a replica says who it is from version 15 on.
    let mut request = FetchOf::new(TOPIC, 0, 2).request();
    request.replica_state.replica_id = 2;
    request.replica_state.replica_epoch = 7;
    request.topics[0].topic_id = topic_id(&mut kafka);
    request.topics[0].partitions[0].high_watermark = 1_000_000;
    let fetched = Fetched::of(&kafka.ask(18, &request).unwrap().read::<FetchResponse<'_>>());
    assert_eq!(code(&fetched), ErrorCode::TopicAuthorizationFailed);
    assert_eq!(watermark(&mut kafka), before);
    assert_eq!(kafka.read_from(TOPIC, 0, 0).unwrap().len(), 2, "readers see what they saw");
}

fn topic_id(kafka: &mut Kafka) -> [u8; 16] {
    let topics = Some(vec![MetadataRequestTopic { name: Some(TOPIC), ..Default::default() }]);
    let answer = kafka.ask(12, &MetadataRequest { topics, ..Default::default() }).unwrap();
    answer.read::<MetadataResponse<'_>>().topics[0].topic_id
}

#[test]
fn a_session_tells_what_changed() {
    let (_broker, mut kafka) = started(3);
    let mut full = FetchOf::new(TOPIC, 0, 0).request();
    full.session_epoch = 0;
    full.topics[0].partitions = (0..3)
        .map(|partition| {
            let mut wanted = full.topics[0].partitions[0].clone();
            wanted.partition = partition;
            wanted
        })
        .collect();
    let ask = |kafka: &mut Kafka, request: &FetchRequest<'_>| {
        let answer = kafka.ask(12, request).unwrap();
        let response = answer.read::<FetchResponse<'_>>();
        let told = response.responses.iter().flat_map(|topic| &topic.partitions);
        let told: Vec<i32> = told.map(|partition| partition.partition_index).collect();
        (ErrorCode::from_code(response.error_code).unwrap(), response.session_id, told)
    };
    let (_, session_id, told) = ask(&mut kafka, &full);
    assert_ne!(session_id, 0);
    assert_eq!(told, [0, 1, 2], "the first answer has everything");
    let next = |session_epoch| FetchRequest {
        max_wait_ms: 0,
        min_bytes: 1,
        session_id,
        session_epoch,
        ..FetchRequest::default()
    };
    assert_eq!(ask(&mut kafka, &next(1)), (ErrorCode::None, session_id, vec![]));
    append(&mut kafka, 1, &[b"a"]);
    assert_eq!(ask(&mut kafka, &next(2)), (ErrorCode::None, session_id, vec![1]));
    // It has not moved on, so it gets the record again; once it does, there is nothing.
    assert_eq!(ask(&mut kafka, &next(3)).2, [1]);
    let mut moved = next(4);
    moved.topics = FetchOf::new(TOPIC, 1, 1).request().topics;
    assert_eq!(ask(&mut kafka, &moved).2, [] as [i32; 0]);
    // A partition that is let go is not told of.
    let mut forgetting = next(5);
    forgetting.forgotten_topics_data =
        vec![ForgottenTopic { topic: TOPIC, partitions: vec![2], ..Default::default() }];
    ask(&mut kafka, &forgetting);
    append(&mut kafka, 2, &[b"a"]);
    append(&mut kafka, 0, &[b"a"]);
    assert_eq!(ask(&mut kafka, &next(6)).2, [0]);
    // Who has what the log has not is told each time, though nothing else is new.
    let mut ahead = next(7);
    ahead.topics = FetchOf { last_fetched_epoch: 0, ..FetchOf::new(TOPIC, 0, 7) }.request().topics;
    assert_eq!(ask(&mut kafka, &ahead).2, [0]);
    assert_eq!(ask(&mut kafka, &next(8)).2, [0]);
    // What is out of step is told so, and disturbs nothing.
    for wrong in [next(8), next(11), next(i32::MAX)] {
        assert_eq!(ask(&mut kafka, &wrong).0, ErrorCode::InvalidFetchSessionEpoch);
    }
    let mut unknown = next(9);
    unknown.session_id = session_id.wrapping_add(1).max(1);
    assert_eq!(ask(&mut kafka, &unknown).0, ErrorCode::FetchSessionIdNotFound);
    assert_eq!(ask(&mut kafka, &next(9)).0, ErrorCode::None);
    // A last request closes it.
    let mut last = full.clone();
    (last.session_id, last.session_epoch) = (session_id, -1);
    assert_eq!(ask(&mut kafka, &last), (ErrorCode::None, 0, vec![0, 1, 2]));
    assert_eq!(ask(&mut kafka, &next(10)).0, ErrorCode::FetchSessionIdNotFound);
}

#[test]
fn every_special_time_has_its_offset() {
    let (_broker, mut kafka) = started(1);
    // Not in the order of their times.
    for timestamp in [1_700_000_001_000, 1_700_000_009_000, 1_700_000_005_000] {
        let mut builder = BatchBuilder::new();
        builder.push(&NewRecord { timestamp, value: Some(b"v"), ..Default::default() }).unwrap();
        let bytes = builder.build().unwrap().as_bytes().to_vec();
        assert_eq!(kafka.produce(TOPIC, 0, -1, &bytes).unwrap().error_code, 0);
    }
    let ask = |kafka: &mut Kafka, version, timestamp, current_leader_epoch| {
        let partitions = vec![ListOffsetsPartition { partition_index: 0, current_leader_epoch, timestamp }];
        let topics = vec![ListOffsetsTopic { name: TOPIC, partitions }];
        let request = ListOffsetsRequest { replica_id: -1, topics, ..Default::default() };
        let answer = kafka.ask(version, &request).unwrap();
        let found = answer.read::<ListOffsetsResponse<'_>>().topics[0].partitions[0].clone();
        (ErrorCode::from_code(found.error_code).unwrap(), found.offset, found.timestamp)
    };
    use ErrorCode::{None as Well, UnsupportedVersion};
    for (version, timestamp, expected) in [
        (11, -1, (Well, 3, -1)),
        (11, -2, (Well, 0, -1)),
        (11, -3, (Well, 1, 1_700_000_009_000)),
        (11, -4, (Well, 0, -1)),
        (11, -5, (Well, -1, -1)),
        (11, -6, (Well, -1, -1)),
        (11, -7, (UnsupportedVersion, -1, -1)),
        (11, i64::MIN, (UnsupportedVersion, -1, -1)),
        (6, -3, (UnsupportedVersion, -1, -1)),
        (1, -1, (Well, 3, -1)),
        (1, -2, (Well, 0, -1)),
        (11, 0, (Well, 0, 1_700_000_001_000)),
        (11, 1_700_000_001_000, (Well, 0, 1_700_000_001_000)),
        (11, 1_700_000_001_001, (Well, 1, 1_700_000_009_000)),
        (11, 1_700_000_009_000, (Well, 1, 1_700_000_009_000)),
        (11, 1_700_000_009_001, (Well, -1, -1)),
        (11, i64::MAX, (Well, -1, -1)),
    ] {
        assert_eq!(ask(&mut kafka, version, timestamp, -1), expected, "{timestamp} in version {version}");
    }
    assert_eq!(ask(&mut kafka, 11, -1, i32::MAX).0, ErrorCode::UnknownLeaderEpoch);
}

#[test]
fn records_are_deleted_from_the_front() {
    let (_broker, mut kafka) = started(1);
    for _ in 0..5 {
        append(&mut kafka, 0, &[b"a", b"b"]);
    }
    let delete = |kafka: &mut Kafka, topic, partition, offset| {
        let partitions = vec![DeleteRecordsPartition { partition_index: partition, offset }];
        let topics = vec![DeleteRecordsTopic { name: topic, partitions }];
        let answer = kafka.ask(2, &DeleteRecordsRequest { topics, timeout_ms: 30_000 }).unwrap();
        let result = answer.read::<DeleteRecordsResponse<'_>>().topics[0].partitions[0].clone();
        (ErrorCode::from_code(result.error_code).unwrap(), result.low_watermark)
    };
    use ErrorCode::{None as Well, OffsetOutOfRange, UnknownTopicOrPartition};
    // In the middle of a batch.
    assert_eq!(delete(&mut kafka, TOPIC, 0, 3), (Well, 3));
    assert_eq!(kafka.offset_at(TOPIC, 0, -2).unwrap(), 3);
    assert_eq!(code(&kafka.fetch(FetchOf::new(TOPIC, 0, 2)).unwrap()), OffsetOutOfRange);
    let fetched = kafka.fetch(FetchOf::new(TOPIC, 0, 3)).unwrap();
    assert_eq!((fetched.log_start, offsets(&fetched)), (3, (2..10).collect()));
    // What is gone already stays gone.
    assert_eq!(delete(&mut kafka, TOPIC, 0, 1), (Well, 3));
    for offset in [11, -2, i64::MAX, i64::MIN] {
        assert_eq!(delete(&mut kafka, TOPIC, 0, offset), (OffsetOutOfRange, -1), "{offset}");
    }
    assert_eq!(delete(&mut kafka, TOPIC, 1, 0), (UnknownTopicOrPartition, -1));
    assert_eq!(delete(&mut kafka, "missing", 0, 0), (UnknownTopicOrPartition, -1));
    // -1 is all that is committed.
    assert_eq!(delete(&mut kafka, TOPIC, 0, -1), (Well, 10));
    assert_eq!(append(&mut kafka, 0, &[b"c"]), 10);
    assert_eq!(kafka.read_from(TOPIC, 0, 10).unwrap(), [(10, b"c".to_vec())]);
    // The records of a topic that is only compacted are its state.
    assert_eq!(kafka.create_topic("compacted", 1, &[("cleanup.policy", "compact")]).unwrap(), 0);
    assert_eq!(delete(&mut kafka, "compacted", 0, 0).0, ErrorCode::PolicyViolation);
}
