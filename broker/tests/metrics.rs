//! What `/metrics` tells, held against what clients have done: requests, times, bytes, errors, connections, logs, lag of groups.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod kafka_client;
mod wire;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use floodmark_broker::Broker;

use kafka_client::{FetchOf, Kafka, batch};
use wire::{Client, PATIENCE, broker};

fn scrape(broker: &Broker) -> String {
    let mut socket = TcpStream::connect(broker.http_address().unwrap()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(socket, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

/// The value of a series by its whole name.
fn value(text: &str, series: &str) -> Option<f64> {
    let line =
        text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn what_clients_did_is_told() {
    let broker = broker(&[("http.listen", "127.0.0.1:0")]);
    let mut kafka = Kafka::connect(broker.kafka_address()).unwrap();
    assert_eq!(kafka.create_topic("t", 2, &[]).unwrap(), 0);
    for _ in 0..3 {
        assert_eq!(kafka.produce("t", 0, -1, &batch(&[b"a", b"b"])).unwrap().error_code, 0);
    }
    assert_eq!(kafka.produce("t", 1, -1, &batch(&[b"c"])).unwrap().error_code, 0);
    assert_eq!(kafka.produce("t", 9, -1, &batch(&[b"c"])).unwrap().error_code, 3);
    assert_eq!(kafka.fetch(FetchOf::new("t", 0, 99)).unwrap().error_code, 1);
    assert_eq!(kafka.fetch(FetchOf::new("t", 0, 0)).unwrap().error_code, 0);
    kafka.await_coordinator("g");
    kafka.await_coordinator("h");
    for (group, partition, offset) in [("g", 0, 4), ("g", 1, 0), ("h", 0, 6)] {
        assert_eq!(kafka.commit(group, "t", partition, offset).unwrap(), 0);
    }
    let mut bad = Client::connect(broker.kafka_address());
    bad.send(&[0xff; 8]);
    assert!(bad.is_closed(PATIENCE));

    // Where a disk is slow, groups are served before all partitions of their topic are open.
    let is_open = |text: &String| value(text, r#"floodmark_partitions{state="leader"}"#) == Some(52.0);
    let looks = std::iter::repeat_with(|| {
        std::thread::sleep(Duration::from_millis(10));
        scrape(&broker)
    });
    let text = looks.take(3000).find(is_open).expect("52 partitions are led");
    let told = |series: &str| value(&text, series).unwrap_or_else(|| panic!("no {series} in\n{text}"));
    for (series, expected) in [
        (r#"floodmark_kafka_request_seconds_count{api="Produce"}"#, 5.0),
        (r#"floodmark_kafka_request_seconds_bucket{le="+Inf",api="Produce"}"#, 5.0),
        (r#"floodmark_kafka_request_seconds_count{api="Fetch"}"#, 2.0),
        (r#"floodmark_kafka_request_seconds_count{api="OffsetCommit"}"#, 3.0),
        (r#"floodmark_kafka_errors_total{api="Produce",error="UNKNOWN_TOPIC_OR_PARTITION"}"#, 1.0),
        (r#"floodmark_kafka_errors_total{api="Fetch",error="OFFSET_OUT_OF_RANGE"}"#, 1.0),
        ("floodmark_kafka_connections", 1.0),
        ("floodmark_kafka_connections_opened_total", 2.0),
        (r#"floodmark_kafka_connections_closed_total{reason="bad_frame"}"#, 1.0),
        ("floodmark_brokers", 1.0),
        ("floodmark_topics", 2.0),
        (r#"floodmark_partitions{state="leader"}"#, 52.0),
        (r#"floodmark_log_start_offset{topic="t",partition="0"}"#, 0.0),
        (r#"floodmark_log_high_watermark{topic="t",partition="0"}"#, 6.0),
        (r#"floodmark_log_end_offset{topic="t",partition="0"}"#, 6.0),
        (r#"floodmark_log_end_offset{topic="t",partition="1"}"#, 1.0),
        (r#"floodmark_groups{state="Empty"}"#, 2.0),
        (r#"floodmark_group_lag{group="g",topic="t",partition="0"}"#, 2.0),
        (r#"floodmark_group_lag{group="g",topic="t",partition="1"}"#, 1.0),
        (r#"floodmark_group_lag{group="h",topic="t",partition="0"}"#, 0.0),
        (r#"floodmark_group_offset{group="g",topic="t",partition="0"}"#, 4.0),
        (r#"floodmark_group_lag_sum{group="g"}"#, 3.0),
        (r#"floodmark_group_lag_sum{group="h"}"#, 0.0),
    ] {
        assert_eq!(told(series), expected, "{series}");
    }
    let log_bytes = told(r#"floodmark_log_bytes{topic="t",partition="0"}"#);
    assert_eq!(log_bytes, 3.0 * batch(&[b"a", b"b"]).len() as f64);
    assert!(told(r#"floodmark_topic_log_bytes{topic="t"}"#) > log_bytes);
    assert!(told(r#"floodmark_kafka_request_bytes_total{api="Produce"}"#) > log_bytes);
    assert!(told(r#"floodmark_kafka_response_bytes_total{api="Fetch"}"#) > log_bytes);
    assert!(told(r#"floodmark_kafka_request_seconds_sum{api="Produce"}"#) > 0.0);
    // Lag follows both ends.
    assert_eq!(kafka.produce("t", 0, -1, &batch(&[b"d"])).unwrap().error_code, 0);
    assert_eq!(kafka.commit("g", "t", 1, 1).unwrap(), 0);
    let text = scrape(&broker);
    assert_eq!(value(&text, r#"floodmark_group_lag_sum{group="g"}"#), Some(3.0));
    assert_eq!(value(&text, r#"floodmark_group_lag{group="h",topic="t",partition="0"}"#), Some(1.0));
}

#[test]
fn series_by_offset_have_a_limit() {
    let broker = broker(&[("http.listen", "127.0.0.1:0"), ("metrics.group.offsets.max", "2")]);
    let mut kafka = Kafka::connect(broker.kafka_address()).unwrap();
    assert_eq!(kafka.create_topic("t", 3, &[]).unwrap(), 0);
    kafka.await_coordinator("g");
    for partition in 0..3 {
        assert_eq!(kafka.commit("g", "t", partition, 0).unwrap(), 0);
    }
    let text = scrape(&broker);
    assert_eq!(value(&text, r#"floodmark_group_lag_sum{group="g"}"#), Some(0.0));
    assert!(!text.contains("floodmark_group_lag{"), "{text}");
}
