//! What bytes from outside do to the connection they come over, and that they do nothing to any other.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod wire;

use std::io::Write;
use std::net::Shutdown;
use std::thread::sleep;
use std::time::Duration;

use floodmark_storage::clock::Stopwatch;
use wire::{API_VERSIONS, Client, Fate, PATIENCE, api_versions, broker, frame, prefixed};

/// Bytes, and whether the connection lives on after them.
type Row = (&'static str, Vec<u8>, bool);

fn with_length(length: i32, rest: &[u8]) -> Vec<u8> {
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend(rest);
    bytes
}

fn rows() -> Vec<Row> {
    let whole = api_versions(7);
    let inner = whole[4..].to_vec();
    let length = i32::try_from(inner.len()).unwrap();
    let flexible = |tail: &[u8]| frame(API_VERSIONS, 3, 7, b"test", tail);
    let software = b"\x00\x04abc\x041.0\x00";
    vec![
        ("a request", whole, true),
        ("a flexible request", flexible(software), true),
        (
            "a flexible header with tagged fields",
            flexible(b"\x02\x05\x01x\x6f\x02zz\x04abc\x041.0\x00"),
            true,
        ),
        ("no client id", prefixed(&[0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff]), true),
        ("length 0", with_length(0, b""), false),
        ("length -1", with_length(-1, &inner), false),
        ("length -2^31", with_length(i32::MIN, &inner), false),
        ("length 2^31-1", with_length(i32::MAX, &inner), false),
        ("length over the limit by one", with_length((100 << 20) + 1, &inner), false),
        ("length one short", with_length(length - 1, &inner), false),
        ("a header cut in its fixed part", prefixed(&inner[..7]), false),
        ("a header cut in the client id", prefixed(&inner[..11]), false),
        ("a client id of -2", prefixed(&[0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xfe]), false),
        ("a client id longer than the frame", prefixed(&[0, 18, 0, 0, 0, 0, 0, 7, 0x7f, 0xff, b'a']), false),
        ("a client id that is no UTF-8", frame(API_VERSIONS, 0, 7, b"a\xffb", b""), false),
        ("a surrogate in the client id", frame(API_VERSIONS, 0, 7, b"\xed\xa0\x80", b""), false),
        ("trailing bytes, which clients in the field send", frame(API_VERSIONS, 0, 7, b"test", b"x"), true),
        ("trailing bytes in a flexible version", flexible(b"\x00\x04abc\x041.0\x00x"), true),
        ("tagged fields without end", flexible(b"\xff\xff\xff\xff\x0f"), false),
        ("a tagged field longer than the frame", flexible(b"\x01\x00\xff\xff\xff\xff\x0f"), false),
        ("a varint of six bytes", flexible(b"\x80\x80\x80\x80\x80\x00"), false),
        ("an unknown key", frame(9999, 0, 7, b"test", b""), false),
        ("a negative key", frame(-1, 0, 7, b"test", b""), false),
        ("a key of the controllers'", frame(52, 0, 7, b"test", b""), false),
        ("ApiVersions of version -1", frame(API_VERSIONS, -1, 7, b"test", b""), true),
        ("ApiVersions of version 99", frame(API_VERSIONS, 99, 7, b"test", software), true),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: kafka\r\n\r\n".to_vec(), false),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), false),
        ("zeros", vec![0; 100], false),
        ("ones", vec![0xff; 100], false),
    ]
}

#[test]
fn bad_bytes_cost_their_sender_the_connection_and_nobody_else() {
    let broker = broker(&[]);
    let mut other = Client::connect(broker.kafka_address());
    for (n, (what, bytes, lives)) in rows().into_iter().enumerate() {
        let mut client = Client::connect(broker.kafka_address());
        client.send(&bytes);
        if lives {
            assert_eq!(client.correlation_id(), 7, "{what}");
            assert!(client.is_served(8), "{what}");
        } else {
            assert_eq!(client.fate(PATIENCE), Fate::Closed, "{what}");
        }
        assert!(other.is_served(n as i32), "{what}: another connection suffers");
    }
}

/// What is right before the bad bytes is answered.
#[test]
fn a_bad_request_does_not_take_the_replies_before_it_along() {
    let broker = broker(&[]);
    let mut client = Client::connect(broker.kafka_address());
    let mut bytes: Vec<u8> = (0..50).flat_map(api_versions).collect();
    bytes.extend(frame(9999, 0, 0, b"", b""));
    bytes.extend(api_versions(51));
    client.send(&bytes);
    assert_eq!((0..50).map(|_| client.correlation_id()).collect::<Vec<_>>(), (0..50).collect::<Vec<_>>());
    assert_eq!(client.fate(PATIENCE), Fate::Closed);
}

#[test]
fn a_version_from_the_future_is_answered_in_version_0_with_the_range() {
    let broker = broker(&[]);
    let mut client = Client::connect(broker.kafka_address());
    client.send(&frame(API_VERSIONS, 99, 7, b"test", b"\x00anything"));
    let Fate::Reply(reply) = client.fate(PATIENCE) else { panic!("no reply") };
    assert_eq!(reply[..10], [0, 0, 0, 7, 0, 35, 0, 0, 0, 1]);
    assert_eq!(reply[10..14], [0, 18, 0, 0]);
    assert_eq!(reply.len(), 16);
    assert!(client.is_served(1));
}

#[test]
fn requests_may_arrive_in_any_pieces() {
    let broker = broker(&[]);
    let mut client = Client::connect(broker.kafka_address());
    let bytes = [api_versions(1), frame(API_VERSIONS, 3, 2, b"test", b"\x00\x04abc\x041.0\x00")].concat();
    for cut in 0..=bytes.len() {
        client.send(&bytes[..cut]);
        sleep(Duration::from_millis(1));
        client.send(&bytes[cut..]);
        assert_eq!([client.correlation_id(), client.correlation_id()], [1, 2], "cut at {cut}");
    }
    for byte in &bytes {
        client.send(&[*byte]);
    }
    assert_eq!([client.correlation_id(), client.correlation_id()], [1, 2]);
}

#[test]
fn ten_thousand_requests_at_once_are_answered_in_their_order() {
    let broker = broker(&[]);
    let mut client = Client::connect(broker.kafka_address());
    let mut sender = client.socket.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        let bytes: Vec<u8> = (0..10_000).flat_map(api_versions).collect();
        sender.write_all(&bytes).unwrap();
    });
    for n in 0..10_000 {
        assert_eq!(client.correlation_id(), n);
    }
    sending.join().unwrap();
}

#[test]
fn a_correlation_id_may_come_again() {
    let broker = broker(&[]);
    let mut client = Client::connect(broker.kafka_address());
    client.send(&[api_versions(5), api_versions(5), api_versions(i32::MIN), api_versions(5)].concat());
    let ids: Vec<i32> = (0..4).map(|_| client.correlation_id()).collect();
    assert_eq!(ids, [5, 5, i32::MIN, 5]);
}

#[test]
fn a_frame_that_does_not_end_in_time_is_not_waited_for() {
    let broker = broker(&[("request.timeout.ms", "300")]);
    let mut other = Client::connect(broker.kafka_address());
    for bytes in [&b"\x00"[..], &with_length(1000, b"\x00\x12\x00\x00"), &api_versions(1)[..10]] {
        let mut client = Client::connect(broker.kafka_address());
        assert!(client.is_served(1));
        client.send(bytes);
        assert_eq!(client.fate(PATIENCE), Fate::Closed);
        assert!(other.is_served(2));
    }
    // A byte now and then does not buy more time.
    let mut client = Client::connect(broker.kafka_address());
    client.send(&with_length(1000, b""));
    let mut trickle = client.socket.try_clone().unwrap();
    let trickling = std::thread::spawn(move || {
        while trickle.write_all(&[0]).is_ok() {
            sleep(Duration::from_millis(20))
        }
    });
    assert_eq!(client.fate(PATIENCE), Fate::Closed);
    trickling.join().unwrap();
    assert!(other.is_served(3), "the other waited longer between its requests than a frame may take");
}

#[test]
fn a_client_that_does_not_read_is_closed_and_holds_no_more_than_its_share() {
    let broker = broker(&[("request.timeout.ms", "300")]);
    let mut client = Client::connect(broker.kafka_address());
    let mut other = Client::connect(broker.kafka_address());
    // Replies fill the sockets' buffers, then the broker stops reading, then writing stops too.
    let many: Vec<u8> = (0..1000).flat_map(api_versions).collect();
    let mut sent = 0;
    while sent < 1 << 30 && client.socket.write_all(&many).is_ok() {
        sent += many.len();
    }
    assert!(sent < 1 << 30, "the broker took everything");
    assert!(other.is_served(1));
}

const IDLE: Duration = Duration::from_millis(400);

/// One that is idle beside one that is busy: whether the busy one is still served when the idle one is closed. `None` where this test
/// itself was too slow to keep it busy.
fn outlives_an_idle_one(address: std::net::SocketAddr) -> Option<Client> {
    let began = Stopwatch::start();
    let mut busy = Client::connect(address);
    let mut idle = Client::connect(address);
    idle.socket.set_nonblocking(true).unwrap();
    // Before the broker can have read what it read last.
    let mut last_asked = began;
    loop {
        let was_closed = idle.fate(Duration::from_millis(1)) == Fate::Closed;
        let asks = Stopwatch::start();
        if !busy.is_served(0) {
            assert!(last_asked.elapsed() >= IDLE, "it was busy, and is closed");
            return None;
        }
        last_asked = asks;
        if was_closed {
            assert!(began.elapsed() >= IDLE, "it was not idle for so long");
            return Some(busy);
        }
        assert!(began.elapsed() < PATIENCE, "the idle one stays open");
        sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let broker = broker(&[("connections.max.idle.ms", "400")]);
    let mut busy = (0..50).find_map(|_| outlives_an_idle_one(broker.kafka_address())).unwrap();
    assert_eq!(busy.fate(PATIENCE), Fate::Closed);
}

#[test]
fn one_address_has_so_many_connections_and_no_more() {
    let broker = broker(&[("max.connections.per.ip", "3")]);
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(broker.kafka_address())).collect();
    for client in &mut clients {
        assert!(client.is_served(1));
    }
    assert!(Client::connect(broker.kafka_address()).is_closed(PATIENCE));
    assert!(clients[0].is_served(2));
    // A place that is free again can be taken, once the broker has noticed.
    drop(clients.pop());
    let taken = (0..3000).any(|_| {
        sleep(Duration::from_millis(20));
        Client::connect(broker.kafka_address()).is_served(3)
    });
    assert!(taken);
}

#[test]
fn all_addresses_together_have_so_many_connections() {
    let broker = broker(&[("max.connections.total", "2")]);
    let mut clients: Vec<Client> = (0..2).map(|_| Client::connect(broker.kafka_address())).collect();
    assert!(clients.iter_mut().all(|client| client.is_served(1)));
    assert!(Client::connect(broker.kafka_address()).is_closed(PATIENCE));
}

#[test]
fn a_client_that_stops_sending_is_done() {
    let broker = broker(&[]);
    let mut client = Client::connect(broker.kafka_address());
    assert!(client.is_served(1));
    client.socket.shutdown(Shutdown::Write).unwrap();
    assert!(client.is_closed(PATIENCE));
}
