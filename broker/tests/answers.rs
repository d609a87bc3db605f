//! Answers that clients rely on and that are seen only in the bytes: one request, one answer.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod wire;

use std::thread;
use std::time::Duration;

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
