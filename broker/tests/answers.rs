//! Answers that clients rely on and that are seen only in the bytes: one request, one answer.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod kafka_client;
mod wire;

use std::thread;
use std::time::Duration;

use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::kafka::messages::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic,
};
use floodmark_proto::kafka::messages::create_topics::{
    CreatableTopic, CreateTopicsRequest, CreateTopicsResponse,
};
use floodmark_proto::kafka::messages::delete_topics::{
    DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse,
};
use floodmark_proto::kafka::messages::describe_topic_partitions::{
    Cursor, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicRequest as DescribedTopic,
};
use floodmark_proto::kafka::messages::fetch::FetchResponse;
use floodmark_proto::kafka::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use floodmark_proto::kafka::messages::leave_group::{LeaveGroupRequest, LeaveGroupResponse, MemberIdentity};
use floodmark_proto::kafka::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic, OffsetCommitResponse,
};
use floodmark_proto::kafka::messages::produce::ProduceRequest;

use kafka_client::{FetchOf, Fetched, Kafka, batch, produce_request, produced};
use wire::{Client, Fate, PATIENCE, broker, frame};

const METADATA: i16 = 3;
const FIND_COORDINATOR: i16 = 10;
const HEARTBEAT: i16 = 12;
const DELETE_RECORDS: i16 = 21;
const LOAD_IN_PROGRESS: i16 = 14;
const NOT_AVAILABLE: i16 = 15;
const UNKNOWN_MEMBER: i16 = 25;
/// A busy disk may take seconds for the topic of groups.
const TRIES: u32 = 3000;

fn string(text: &str) -> Vec<u8> {
    let mut bytes = i16::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

/// The body of the answer, behind the correlation id.
fn ask(client: &mut Client, key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    client.send(&frame(key, version, 7, b"test", body));
    match client.fate(PATIENCE) {
        Fate::Reply(reply) => reply[4..].to_vec(),
        other => panic!("no reply to {key}: {other:?}"),
    }
}

#[test]
fn deleting_records_without_time_to_wait_is_still_done_and_said() {
    let broker = broker(&[]);
    let mut client = Client::connect(broker.kafka_address());
    let one = 1_i32.to_be_bytes();
    // Topics, and leave to make them.
    ask(&mut client, METADATA, 4, &[&one[..], &string("t"), &[1]].concat());
    // Up to the high watermark of partition 0, within no time.
    let body = [&one[..], &string("t"), &one, &[0; 4], &(-1_i64).to_be_bytes(), &[0; 4]].concat();
    let told = ask(&mut client, DELETE_RECORDS, 0, &body);
    let expected = [&[0; 4][..], &one, &string("t"), &one, &[0; 4], &0_i64.to_be_bytes(), &[0; 2]].concat();
    assert_eq!(told, expected, "throttle time, topic, partition, first offset, no error");
}

#[test]
fn producing_without_time_to_wait_for_others_is_done_and_said() {
    let broker = broker(&[]);
    let mut kafka = Kafka::connect(broker.kafka_address()).unwrap();
    // Of the second the disk is asked nothing before it is told.
    for (topic, sync) in [("synced", "ack"), ("written", "none")] {
        assert_eq!(kafka.create_topic(topic, 1, &[("floodmark.sync", sync)]).unwrap(), 0);
        let (records, mut next) = (batch(&[b"v"]), 0);
        for timeout_ms in [0, -1, i32::MIN, 1] {
            let request =
                |acks| ProduceRequest { timeout_ms, ..produce_request(topic, 0, acks, Some(&records)) };
            for acks in [1, -1] {
                let answer = kafka.ask(9, &request(acks)).unwrap();
                let told = produced(&answer.read());
                assert_eq!(
                    (told.error_code, told.base_offset),
                    (0, next),
                    "{topic}, acks={acks}, {timeout_ms} ms"
                );
                next += 1;
            }
            // Nothing is said; a connection that is closed would say that it failed.
            kafka.send(9, &request(0)).unwrap();
            next += 1;
            assert_eq!(
                kafka.produce(topic, 0, -1, &records).unwrap().base_offset,
                next,
                "{topic}, {timeout_ms} ms"
            );
            next += 1;
        }
    }
}

#[test]
fn topics_are_made_extended_and_deleted_without_time_to_wait() {
    let broker = broker(&[]);
    let mut kafka = Kafka::connect(broker.kafka_address()).unwrap();
    for (timeout_ms, name) in [(0, "a"), (1, "b"), (-1, "c")] {
        let topic = CreatableTopic { name, num_partitions: 1, replication_factor: 1, ..Default::default() };
        let request = CreateTopicsRequest { topics: vec![topic], timeout_ms, ..Default::default() };
        let answer = kafka.ask(7, &request).unwrap();
        assert_eq!(answer.read::<CreateTopicsResponse<'_>>().topics[0].error_code, 0, "{timeout_ms} ms");
        let topics = vec![CreatePartitionsTopic { name, count: 2, assignments: None }];
        let request = CreatePartitionsRequest { topics, timeout_ms, validate_only: false };
        let answer = kafka.ask(3, &request).unwrap();
        assert_eq!(answer.read::<CreatePartitionsResponse<'_>>().results[0].error_code, 0, "{timeout_ms} ms");
        let topics = vec![DeleteTopicState { name: Some(name), ..Default::default() }];
        let request = DeleteTopicsRequest { topics, timeout_ms, ..Default::default() };
        let answer = kafka.ask(6, &request).unwrap();
        assert_eq!(answer.read::<DeleteTopicsResponse<'_>>().responses[0].error_code, 0, "{timeout_ms} ms");
    }
}

#[test]
fn ids_that_are_none_and_halves_of_things_are_told_apart_as_kafka_does() {
    let broker = broker(&[]);
    let mut kafka = Kafka::connect(broker.kafka_address()).unwrap();
    assert_eq!(kafka.create_topic("t", 1, &[]).unwrap(), 0);
    kafka.await_coordinator("g");
    let (unknown_id, invalid) = (ErrorCode::UnknownTopicId.code(), ErrorCode::InvalidRequest.code());

    let records = batch(&[b"v"]);
    let mut request = produce_request("", 0, -1, Some(&records));
    let answer = kafka.ask(13, &request).unwrap();
    assert_eq!(produced(&answer.read()).error_code, unknown_id);
    request.topic_data[0].name = "missing";
    let answer = kafka.ask(9, &request).unwrap();
    assert_eq!(produced(&answer.read()).error_code, ErrorCode::UnknownTopicOrPartition.code());

    let answer = kafka.ask(13, &FetchOf::new("", 0, 0).request()).unwrap();
    assert_eq!(Fetched::of(&answer.read::<FetchResponse<'_>>()).error_code, unknown_id);

    let partition = OffsetCommitRequestPartition { partition_index: 0, ..Default::default() };
    let topic = OffsetCommitRequestTopic { partitions: vec![partition], ..Default::default() };
    let request = OffsetCommitRequest {
        group_id: "g",
        generation_id_or_member_epoch: -1,
        topics: vec![topic],
        ..Default::default()
    };
    let answer = kafka.ask(10, &request).unwrap();
    let told = answer.read::<OffsetCommitResponse<'_>>();
    assert_eq!(told.topics[0].partitions[0].error_code, unknown_id);

    for (producer_id, producer_epoch, expected) in [(-1, 0, invalid), (7, -1, invalid), (-1, -1, 0)] {
        let request = InitProducerIdRequest {
            transactional_id: None,
            producer_id,
            producer_epoch,
            ..Default::default()
        };
        let answer = kafka.ask(4, &request).unwrap();
        assert_eq!(
            answer.read::<InitProducerIdResponse>().error_code,
            expected,
            "{producer_id} {producer_epoch}"
        );
    }

    let cursor = |partition_index| {
        let cursor = Some(Cursor { topic_name: "t", partition_index });
        let topics = vec![DescribedTopic { name: "t" }];
        DescribeTopicPartitionsRequest { topics, response_partition_limit: 10, cursor }
    };
    for (index, expected) in [(-1, invalid), (0, 0)] {
        let answer = kafka.ask(0, &cursor(index)).unwrap();
        let told = answer.read::<DescribeTopicPartitionsResponse<'_>>();
        assert_eq!(told.topics[0].error_code, expected, "from partition {index}");
    }

    // Of a group that is not there nobody is a member, one by one where there is room for it.
    let unknown = ErrorCode::UnknownMemberId.code();
    let member = |member_id| MemberIdentity { member_id, ..Default::default() };
    let members = vec![member("a"), member("b")];
    let request = LeaveGroupRequest { group_id: "no group", member_id: "", members };
    let answer = kafka.ask(4, &request).unwrap();
    let told = answer.read::<LeaveGroupResponse<'_>>();
    let codes: Vec<i16> = told.members.iter().map(|member| member.error_code).collect();
    assert_eq!((told.error_code, codes), (0, vec![unknown; 2]));
    let request = LeaveGroupRequest { member_id: "a", members: Vec::new(), ..request };
    let answer = kafka.ask(2, &request).unwrap();
    assert_eq!(answer.read::<LeaveGroupResponse<'_>>().error_code, unknown);
}

#[test]
fn who_looks_for_a_coordinator_of_transactions_is_told_to_give_up() {
    let broker = broker(&[]);
    let mut client = Client::connect(broker.kafka_address());
    let told = ask(&mut client, FIND_COORDINATOR, 1, &[&string("id")[..], &[1]].concat());
    // Throttle time, then TRANSACTIONAL_ID_AUTHORIZATION_FAILED: after any other error librdkafka asks again, for ever.
    assert_eq!(told[..6], [0, 0, 0, 0, 0, 53]);
    let reason = b"this broker does not serve transactions";
    assert!(told.windows(reason.len()).any(|w| w == reason), "no reason in {told:?}");
}

/// Asks until the answer's error, which begins at `at`, is not `meanwhile`; that error.
fn ask_past(client: &mut Client, key: i16, version: i16, body: &[u8], at: usize, meanwhile: i16) -> i16 {
    for _ in 0..TRIES {
        let told = ask(client, key, version, body);
        let error = i16::from_be_bytes([told[at], told[at + 1]]);
        if error != meanwhile {
            return error;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("{key}: still error {meanwhile} after {TRIES} tries");
}

#[test]
fn who_is_sent_to_a_coordinator_is_served_there_from_the_very_first_groups_on() {
    let broker = broker(&[]);
    // One soon after the other, so that some ask while the topic for groups is being made for another.
    let told = thread::scope(|scope| {
        let asking: Vec<_> = (0..16)
            .map(|number| {
                let address = broker.kafka_address();
                scope.spawn(move || {
                    let mut client = Client::connect(address);
                    thread::sleep(Duration::from_millis(4) * number);
                    let group = string(&format!("group {number}"));
                    let of_group = [&group[..], &[0]].concat();
                    let found = ask_past(&mut client, FIND_COORDINATOR, 1, &of_group, 4, NOT_AVAILABLE);
                    let of_nobody = [&group[..], &[0; 4], &string("nobody")].concat();
                    (found, ask_past(&mut client, HEARTBEAT, 0, &of_nobody, 0, LOAD_IN_PROGRESS))
                })
            })
            .collect();
        asking.into_iter().map(|asks| asks.join().unwrap()).collect::<Vec<_>>()
    });
    // A coordinator that serves a group knows that it has no such member; one that does not yet says that it is none.
    assert_eq!(told, [(0, UNKNOWN_MEMBER); 16]);
}
