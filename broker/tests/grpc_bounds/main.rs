//! What clients do ten thousand times over leaves nothing behind, and what they announce or do not read costs the broker little. Alone in
//! its program, since it looks at the memory of the process.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests, which may panic")]

mod raw;
#[path = "../grpc/setup.rs"]
#[allow(dead_code, reason = "each test program uses its part")]
mod setup;

/// Clients that were generated from the .proto files.
#[allow(missing_docs, unreachable_pub, dead_code, clippy::all, clippy::pedantic, reason = "generated")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/client/floodmark.v1.rs"));
}

use std::time::Duration;

use floodmark_broker::Broker;
use floodmark_proto::pb::v1 as pb;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;

use raw::Raw;
use setup::{
    PATIENCE, Subscribed, batch, broker, channel, data, from_start, reason, record, records, start, stop,
    topic,
};

const TIMES: usize = 10_000;
const PRODUCE: &str = "/floodmark.v1.Data/Produce";

/// Memory that the process holds itself, without files that it has mapped.
fn held_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

async fn metric(broker: &Broker, name: &str) -> f64 {
    let mut socket = TcpStream::connect(broker.http_address().unwrap()).await.unwrap();
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    let line = answer.lines().find(|line| line.starts_with(name));
    line.map_or(0.0, |line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
}

/// Waits until nothing of what was cancelled is left.
async fn settles(broker: &Broker) {
    let open = async {
        loop {
            let mut left = 0.0;
            for api in ["Data.Subscribe", "Data.Produce"] {
                left += metric(broker, &format!("floodmark_grpc_streams{{api=\"{api}\"}}")).await;
            }
            let free = metric(broker, "floodmark_kafka_request_memory_free_bytes").await;
            if left == 0.0 && free == f64::from(64 << 20) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, open).await.expect("calls stay open, or keep memory");
}

async fn again_and_again(broker: &Broker, times: usize) {
    let mut client = data(broker).await;
    for _ in 0..times {
        let status = client.append(batch("t", 0, "no batch")).await.unwrap_err();
        assert_eq!(reason(&status).0, Code::InvalidArgument);
    }
    for _ in 0..times {
        let status = client.append(records("missing", None, vec![record(None, "v")])).await.unwrap_err();
        assert_eq!(reason(&status).0, Code::NotFound);
    }
    let bad = pb::SubscribeStart { filter: "((((".to_owned(), ..start(vec![from_start("t", None)]) };
    for _ in 0..times {
        let mut reading = Subscribed::open(&mut client, bad.clone()).await;
        assert_eq!(reason(&reading.next().await.unwrap_err()).1, "INVALID_FILTER");
    }
    for n in 0..times {
        if n % 1000 == 0 {
            // A message that crosses the end of its call is a fault of the connection, of which each may have so many.
            client = data(broker).await;
        }
        let mut reading = Subscribed::open(&mut client, start(vec![from_start("t", None)])).await;
        // Given up at once, or with messages under way.
        if n % 2 == 0 {
            reading.delivery().await;
        }
    }
    // Announced larger than it may be; and begun, and never sent to the end.
    for chunk in 0..times / 50 {
        let mut raw = Raw::connect(broker.grpc_address().unwrap()).await;
        for n in 0..50 {
            let stream = 2 * n + 1;
            let length: u32 = if chunk % 2 == 0 { 1 << 30 } else { 8 << 20 };
            raw.open(stream, PRODUCE, 0).await;
            raw.data(stream, &[&[0][..], &length.to_be_bytes()].concat()).await;
            raw.data(stream, &[7; 300]).await;
        }
    }
    settles(broker).await;
}

#[tokio::test]
async fn memory_follows_what_arrives_and_is_read() {
    let settings = [
        ("http.listen", "127.0.0.1:0"),
        ("queued.max.request.bytes", "64MiB"),
        // Who connects has so long to say that it speaks HTTP/2, this test's clients too.
        ("request.timeout.ms", "5000"),
    ];
    let broker = broker(&settings);
    topic(&broker, "t", 1, &[]).await;
    data(&broker).await.append(records("t", Some(0), vec![record(None, "v")])).await.unwrap();

    again_and_again(&broker, TIMES / 20).await;
    let before = held_bytes();
    again_and_again(&broker, TIMES).await;
    let grown = held_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes after ten thousand of each");

    announced_messages_take_nothing(&broker).await;
    readers_that_stop_take_little(&broker).await;
    who_breaks_the_protocol_is_sent_away(&broker).await;
    // Everybody else is served as before.
    data(&broker).await.append(records("t", Some(0), vec![record(None, "v")])).await.unwrap();
    stop(broker).await;
}

async fn announced_messages_take_nothing(broker: &Broker) {
    let before = held_bytes();
    let mut all = Vec::new();
    // 2,000 calls that announce 8 MiB each.
    for _ in 0..20 {
        let mut raw = Raw::connect(broker.grpc_address().unwrap()).await;
        for n in 0..100 {
            raw.open(2 * n + 1, PRODUCE, 0).await;
            raw.data(2 * n + 1, &[0, 0, 0x80, 0, 0, 1, 2, 3]).await;
        }
        all.push(raw);
    }
    tokio::time::timeout(PATIENCE, async {
        while metric(broker, "floodmark_grpc_streams{api=\"Data.Produce\"}").await < 2000.0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("calls are not taken");
    let taken = held_bytes().saturating_sub(before);
    assert!(taken < 64 << 20, "{taken} bytes");
    drop(all);
    settles(broker).await;
}

async fn readers_that_stop_take_little(broker: &Broker) {
    topic(broker, "large", 1, &[]).await;
    let mut writer = data(broker).await;
    for _ in 0..64 {
        writer.append(records("large", Some(0), vec![record(None, &"x".repeat(900_000))])).await.unwrap();
    }
    let before = held_bytes();
    let mut all = Vec::new();
    for _ in 0..4 {
        let mut client = crate::generated::data_client::DataClient::new(channel(broker).await);
        for _ in 0..50 {
            all.push(Subscribed::open(&mut client, start(vec![from_start("large", None)])).await);
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Each connection may hold 32 MiB of messages that were made, what was handed over, and a read that waits for each reader.
    let taken = held_bytes().saturating_sub(before);
    assert!(taken < (4 * (32 + 64)) << 20, "{taken} bytes");
    // One that reads is not kept from it.
    let mut reader = data(broker).await;
    let mut reading = Subscribed::open(&mut reader, start(vec![from_start("large", None)])).await;
    assert_eq!(reading.records(64).await.len(), 64);
    drop((all, reading));
    settles(broker).await;
}

async fn who_breaks_the_protocol_is_sent_away(broker: &Broker) {
    let address = broker.grpc_address().unwrap();
    for said in [&b""[..], &[b'x'; 100]] {
        // Nothing at all, or another protocol.
        let mut other = TcpStream::connect(address).await.unwrap();
        other.write_all(said).await.unwrap();
        let read = tokio::time::timeout(PATIENCE, other.read_to_end(&mut Vec::new())).await;
        assert!(read.is_ok(), "it stays open");
    }
    // Opens calls and resets them, faster than they can be looked at.
    let mut raw = Raw::connect(address).await;
    for n in 0..10_000 {
        raw.open(2 * n + 1, PRODUCE, 0).await;
        raw.reset(2 * n + 1).await;
    }
    assert!(raw.is_sent_away(PATIENCE).await);
    // Headers without end.
    let mut raw = Raw::connect(address).await;
    raw.open(1, PRODUCE, 4 << 20).await;
    assert!(raw.is_sent_away(PATIENCE).await);
    settles(broker).await;
}
