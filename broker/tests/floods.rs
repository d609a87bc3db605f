//! Clients that ask too much, too often, in the wrong order, or take too long: what they are told or lose, how much memory it costs the
//! broker, and that another client is served meanwhile. One test, alone in its program, since it looks at the process's memory.
#![allow(clippy::disallowed_methods, reason = "the test looks at the process from outside")]
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod kafka_client;
mod wire;

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use floodmark_broker::Broker;
use floodmark_proto::batch::BatchBuilder;
use floodmark_proto::ids::ProducerId;
use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::kafka::messages::fetch::FetchResponse;
use floodmark_proto::kafka::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use floodmark_proto::kafka::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use floodmark_proto::kafka::messages::join_group::{
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse,
};
use floodmark_proto::kafka::messages::produce::ProduceResponse;
use floodmark_proto::kafka::messages::sync_group::{
    SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse,
};

use floodmark_storage::clock::Stopwatch;
use kafka_client::{Asked, FetchOf, Kafka, batch, batch_of, produce_request, produced};
use wire::{API_VERSIONS, Client, Fate, PATIENCE, api_versions, broker, frame};

const TOPIC: &str = "t";
const MIB: usize = 1 << 20;
/// Requests that are sent before the first answer is read.
const AHEAD: usize = 200;

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// Runs a flood, and holds what stays of it against a bound; another client is served in the middle and behind it.
fn flood(what: &str, broker: &Broker, bytes_max: usize, run: impl FnOnce(&mut Kafka, &mut Client)) {
    let mut kafka = Kafka::connect(broker.kafka_address()).unwrap();
    let mut other = Client::connect(broker.kafka_address());
    assert!(other.is_served(1));
    let before = resident_bytes();
    run(&mut kafka, &mut other);
    let taken = resident_bytes().saturating_sub(before);
    assert!(taken < bytes_max, "{what}: {taken} bytes");
    assert!(other.is_served(2), "{what}: another connection suffers");
}

/// Asks `count` times, many on their way at once, and looks at each answer.
fn many(
    kafka: &mut Kafka,
    count: usize,
    mut ask: impl FnMut(&mut Kafka, usize) -> Asked,
    mut on: impl FnMut(usize, &kafka_client::Answer),
) {
    let mut answered = 0;
    for from in (0..count).step_by(AHEAD) {
        let asked: Vec<Asked> = (from..count.min(from + AHEAD)).map(|n| ask(kafka, n)).collect();
        for asked in asked {
            on(answered, &kafka.receive(asked).unwrap());
            answered += 1;
        }
    }
}

#[test]
fn floods_are_bounded_and_cost_nobody_else() {
    let broker = broker(&[("request.timeout.ms", "2000"), ("group.initial.rebalance.delay.ms", "0")]);
    let mut kafka = Kafka::connect(broker.kafka_address()).unwrap();
    assert_eq!(kafka.create_topic(TOPIC, 1, &[]).unwrap(), 0);
    assert_eq!(kafka.produce(TOPIC, 0, -1, &batch(&[b"v"])).unwrap().error_code, 0);

    flood("fetch sessions", &broker, 16 * MIB, fetch_sessions);
    flood("producer ids", &broker, 8 * MIB, producer_ids);
    flood("producers that write", &broker, 24 * MIB, writing_producers);
    flood("limits of a fetch", &broker, 8 * MIB, fetch_limits);
    flood("metadata of offsets", &broker, 8 * MIB, metadata_of_offsets);
    flood("groups", &broker, 24 * MIB, groups);
    flood("what members bring", &broker, 80 * MIB, members);
    flood("garbage behind good requests", &broker, 8 * MIB, |_, _| garbage(broker.kafka_address()));
    flood("clients that trickle", &broker, 16 * MIB, |_, other| trickle(broker.kafka_address(), other));
    flood("clients that do not read", &broker, 64 * MIB, |kafka, other| {
        unread_replies(broker.kafka_address(), kafka, other);
    });
    flood("clients that are gone", &broker, 8 * MIB, |_, _| gone(broker.kafka_address()));
}

/// Everybody wants a session: as many as there is room for get one, the others are served without.
fn fetch_sessions(kafka: &mut Kafka, other: &mut Client) {
    let mut request = FetchOf::new(TOPIC, 0, 1).request();
    request.session_epoch = 0;
    let (mut opened, began) = (0, Stopwatch::start());
    let ask = |kafka: &mut Kafka, n: usize| {
        assert!(!n.is_multiple_of(10_000) || other.is_served(n as i32));
        kafka.send(12, &request).unwrap()
    };
    many(kafka, 100_000, ask, |_, answer| {
        let response = answer.read::<FetchResponse<'_>>();
        assert_eq!((response.error_code, response.responses.len()), (0, 1));
        opened += usize::from(response.session_id != 0);
    });
    // Where this takes two minutes, those that nobody has used for so long make room for others.
    assert!(opened == 1000 || opened > 1000 && began.elapsed() >= Duration::from_secs(120), "{opened}");
}

/// Ids are numbers, and no two are the same.
fn producer_ids(kafka: &mut Kafka, other: &mut Client) {
    let request = InitProducerIdRequest { transactional_id: None, ..Default::default() };
    let mut last = -1;
    let ask = |kafka: &mut Kafka, n: usize| {
        assert!(!n.is_multiple_of(10_000) || other.is_served(n as i32));
        kafka.send(4, &request).unwrap()
    };
    many(kafka, 100_000, ask, |_, answer| {
        let got = answer.read::<InitProducerIdResponse>();
        assert_eq!(got.error_code, 0);
        assert!(got.producer_id > last);
        last = got.producer_id;
    });
}

/// What a log remembers of a producer is some hundred bytes, and has a cap (storage/src/producers).
fn writing_producers(kafka: &mut Kafka, other: &mut Client) {
    let ask = |kafka: &mut Kafka, n: usize| {
        assert!(!n.is_multiple_of(10_000) || other.is_served(n as i32));
        let builder = BatchBuilder::new().producer(ProducerId(1_000_000 + n as i64), 0, 0);
        kafka.send(9, &produce_request(TOPIC, 0, 1, Some(&batch_of(builder, &[b"v"])))).unwrap()
    };
    many(kafka, 20_000, ask, |_, answer| {
        assert_eq!(produced(&answer.read::<ProduceResponse<'_>>()).error_code, 0);
    });
}

/// Bytes and times at both ends of their types; a client gets a batch, and never more than the broker gives.
fn fetch_limits(kafka: &mut Kafka, _: &mut Client) {
    for number in [0, 1, -1, i32::MAX, i32::MIN] {
        for fetch in [
            FetchOf { max_bytes: number, ..FetchOf::new(TOPIC, 0, 0) },
            FetchOf { partition_max_bytes: number, ..FetchOf::new(TOPIC, 0, 0) },
            FetchOf { max_wait_ms: number, ..FetchOf::new(TOPIC, 0, 0) },
            FetchOf { min_bytes: number, max_wait_ms: 1, ..FetchOf::new(TOPIC, 0, 0) },
        ] {
            let fetched = kafka.fetch(fetch).unwrap();
            assert_eq!(
                (fetched.error_code, fetched.records().first().map(|r| r.0)),
                (0, Some(0)),
                "{fetch:?}"
            );
        }
    }
}

/// What is attached to an offset has a limit; any offset may be committed.
fn metadata_of_offsets(kafka: &mut Kafka, _: &mut Client) {
    kafka.await_coordinator("blobs");
    let commit = |kafka: &mut Kafka, offset, bytes: usize| {
        let metadata = "m".repeat(bytes);
        let code = kafka.commit_as("blobs", ("", -1), TOPIC, &[(0, offset, &metadata)]).unwrap();
        ErrorCode::from_code(code).unwrap()
    };
    assert_eq!(commit(kafka, 1, 4096), ErrorCode::None);
    assert_eq!(commit(kafka, 2, 4097), ErrorCode::OffsetMetadataTooLarge);
    assert_eq!(commit(kafka, 3, 32_767), ErrorCode::OffsetMetadataTooLarge);
    assert_eq!(kafka.committed("blobs", TOPIC, 0).unwrap(), Ok(1));
    for offset in [i64::MAX, 0] {
        assert_eq!(commit(kafka, offset, 0), ErrorCode::None);
        assert_eq!(kafka.committed("blobs", TOPIC, 0).unwrap(), Ok(offset));
    }
    for (topic, partition) in [("missing", 0), (TOPIC, 1), (TOPIC, -1), (TOPIC, i32::MAX)] {
        let code = kafka.commit("blobs", topic, partition, 0).unwrap();
        assert_eq!(ErrorCode::from_code(code).unwrap(), ErrorCode::UnknownTopicOrPartition);
    }
}

/// A group that is only asked for leaves nothing behind.
fn groups(kafka: &mut Kafka, other: &mut Client) {
    kafka.await_coordinator("g");
    let names: Vec<String> = (0..20_000).map(|n| format!("group-{n}")).collect();
    let ask = |kafka: &mut Kafka, n: usize| {
        assert!(!n.is_multiple_of(5_000) || other.is_served(n as i32));
        let request = HeartbeatRequest {
            group_id: &names[n],
            generation_id: 1,
            member_id: "m",
            group_instance_id: None,
        };
        kafka.send(4, &request).unwrap()
    };
    many(kafka, names.len(), ask, |_, answer| {
        let code = answer.read::<HeartbeatResponse>().error_code;
        assert_eq!(ErrorCode::from_code(code), Some(ErrorCode::UnknownMemberId));
    });
}

fn join(kafka: &mut Kafka, group: &str, member_id: &str, metadata: &[u8]) -> (ErrorCode, String, i32) {
    let request = JoinGroupRequest {
        group_id: group,
        session_timeout_ms: 60_000,
        rebalance_timeout_ms: 60_000,
        member_id,
        protocol_type: "test",
        protocols: vec![JoinGroupRequestProtocol { name: "p", metadata }],
        ..Default::default()
    };
    let answer = kafka.ask(7, &request).unwrap();
    let joined = answer.read::<JoinGroupResponse<'_>>();
    (ErrorCode::from_code(joined.error_code).unwrap(), joined.member_id.to_owned(), joined.generation_id)
}

/// What all members of a group bring has a limit together.
fn members(kafka: &mut Kafka, _: &mut Client) {
    kafka.await_coordinator("heavy");
    let (code, id, _) = join(kafka, "heavy", "", b"");
    assert_eq!(code, ErrorCode::MemberIdRequired);
    let (code, ..) = join(kafka, "heavy", &id, &vec![1; 33 * MIB]);
    assert_eq!(code, ErrorCode::GroupMaxSizeReached);
    // Who was refused is no member, and begins anew.
    let (code, id, _) = join(kafka, "heavy", "", b"");
    assert_eq!(code, ErrorCode::MemberIdRequired);
    let (code, id, generation_id) = join(kafka, "heavy", &id, &vec![1; MIB]);
    assert_eq!(code, ErrorCode::None);
    let assignment = vec![1; 33 * MIB];
    let request = SyncGroupRequest {
        group_id: "heavy",
        generation_id,
        member_id: &id,
        protocol_type: Some("test"),
        protocol_name: Some("p"),
        assignments: vec![SyncGroupRequestAssignment { member_id: &id, assignment: &assignment }],
        ..Default::default()
    };
    let answer = kafka.ask(5, &request).unwrap();
    let code = ErrorCode::from_code(answer.read::<SyncGroupResponse<'_>>().error_code).unwrap();
    assert_ne!(code, ErrorCode::None, "an assignment of 33 MiB");
}

/// Garbage behind something good: the good is answered, the garbage ends the connection.
fn garbage(address: SocketAddr) {
    let software = b"\x00\x04abc\x041.0\x00";
    for bytes in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[0; 64], &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]]
    {
        for good in [api_versions(7), frame(API_VERSIONS, 3, 7, b"test", software)] {
            let mut client = Client::connect(address);
            client.send(&[&good[..], bytes].concat());
            assert_eq!(client.correlation_id(), 7);
            assert_eq!(client.fate(PATIENCE), Fate::Closed);
        }
    }
    // A request as it was before another one was asked for, and one of an older time in the middle.
    let mut client = Client::connect(address);
    client.send(&[api_versions(1), frame(0, 2, 2, b"test", b""), api_versions(3)].concat());
    assert_eq!(client.correlation_id(), 1);
    assert_eq!(client.fate(PATIENCE), Fate::Closed, "Produce of version 2 is not served any more");
}

/// Two hundred connections that send a byte now and then: each has its time, and no more.
fn trickle(address: SocketAddr, other: &mut Client) {
    let mut slow: Vec<Client> = (0..200).map(|_| Client::connect(address)).collect();
    let request = frame(API_VERSIONS, 0, 1, &[b'a'; 1000], b"");
    for byte in &request[..60] {
        for client in &mut slow {
            let _ = client.socket.write_all(&[*byte]);
        }
        assert!(other.is_served(9));
        std::thread::sleep(Duration::from_millis(50));
    }
    for client in &mut slow {
        assert!(client.is_closed(PATIENCE));
    }
}

/// Forty connections that ask for a MiB again and again and read nothing, and one that reads a byte now and then: each holds what it
/// was about to be given and loses its connection.
fn unread_replies(address: SocketAddr, kafka: &mut Kafka, other: &mut Client) {
    assert_eq!(kafka.create_topic("large", 1, &[("max.message.bytes", "4194304")]).unwrap(), 0);
    // Committed, or readers are given nothing as long as a sync takes.
    for _ in 0..4 {
        assert_eq!(kafka.produce("large", 0, -1, &batch(&[&vec![1; MIB]])).unwrap().error_code, 0);
    }
    let (_, request) = kafka.frame(12, &FetchOf::new("large", 0, 0).request());
    let mut clients: Vec<Client> = (0..40).map(|_| Client::connect(address)).collect();
    for client in &mut clients {
        client.send(&request.repeat(50));
    }
    for n in 0..20 {
        assert!(other.is_served(n));
        let _ = clients[0].socket.read(&mut [0]);
        std::thread::sleep(Duration::from_millis(20));
    }
    for client in &mut clients {
        // What the sockets still hold comes, then the end: far less than what was asked for.
        client.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        std::thread::sleep(Duration::from_millis(if client.socket.peek(&mut [0]).is_ok() { 60 } else { 0 }));
    }
    // Until the broker has closed it, by which time it was to have been read: what is written to a closed one comes back as an error.
    let since = Stopwatch::start();
    while clients[1].socket.write_all(&[0]).is_ok() {
        assert!(since.elapsed() < PATIENCE, "who does not read keeps its connection");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut rest = Vec::new();
    let ended = clients[1].socket.read_to_end(&mut rest);
    assert!(rest.len() < 100 * MIB, "{} bytes, {ended:?}", rest.len());
}

/// A client whose machine has gone says nothing: the system asks it now and then, so that its connection ends.
fn gone(address: SocketAddr) {
    let mut client = Client::connect(address);
    assert!(client.is_served(1));
    let (here, there) = (address.port(), client.socket.local_addr().unwrap().port());
    let ends = format!(":{here:04X} 0100007F:{there:04X} ");
    let mut line = String::new();
    for _ in 0..1000 {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        line = table.lines().find(|line| line.contains(&ends)).unwrap().to_owned();
        // The kind of timer that runs: 02 is that of keepalive. Until the reply is acknowledged it is another one.
        if line.split_whitespace().nth(5).unwrap().starts_with("02:") {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("nobody asks: {line}");
}
