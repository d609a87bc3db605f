//! Answers that clients rely on and that are seen only in the bytes: one request, one answer.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod wire;

use std::time::Duration;

use wire::{Client, Fate, broker, frame};

const SOON: Duration = Duration::from_secs(30);
const METADATA: i16 = 3;
const FIND_COORDINATOR: i16 = 10;
const DELETE_RECORDS: i16 = 21;

fn string(text: &str) -> Vec<u8> {
    let mut bytes = i16::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

/// The body of the answer, behind the correlation id.
fn ask(client: &mut Client, key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    client.send(&frame(key, version, 7, b"test", body));
    match client.fate(SOON) {
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
fn who_looks_for_a_coordinator_of_transactions_is_told_to_give_up() {
    let broker = broker(&[]);
    let mut client = Client::connect(broker.kafka_address());
    let told = ask(&mut client, FIND_COORDINATOR, 1, &[&string("id")[..], &[1]].concat());
    // Throttle time, then TRANSACTIONAL_ID_AUTHORIZATION_FAILED: after any other error librdkafka asks again, for ever.
    assert_eq!(told[..6], [0, 0, 0, 0, 0, 53]);
    let reason = b"this broker does not serve transactions";
    assert!(told.windows(reason.len()).any(|w| w == reason), "no reason in {told:?}");
}
