//! `floodmark bench`: each runs to its end, says what it did, and leaves nothing behind. What it finds is not judged.

use serde_json::Value;

use crate::cluster::{Cluster, objects};

fn bench(cluster: &Cluster, args: &[&str]) -> Value {
    let report = cluster.json(&[&["bench"][..], args].concat()).remove(0);
    assert!(report["topic"].as_str().unwrap().starts_with("floodmark-bench-"), "{report}");
    assert!(cluster.json(&["topic", "list"]).is_empty(), "a topic is left over");
    report
}

#[test]
fn writing_and_reading_end_with_their_bytes() {
    let cluster = Cluster::start();
    let report =
        bench(&cluster, &["produce", "--bytes", "1MB", "--record-size", "1000", "--duration", "60s"]);
    assert_eq!(
        (&report["written"]["records"], &report["written"]["bytes"]),
        (&1_000.into(), &1_000_000.into())
    );
    assert_eq!(report["times"][0]["count"], 1_000);
    assert_eq!(report["settings"]["acks"], "all");
    let args =
        ["consume", "--bytes", "1MB", "--record-size", "1000", "--partitions", "3", "--duration", "60s"];
    let report = bench(&cluster, &args);
    assert_eq!((&report["read"]["records"], &report["read"]["bytes"]), (&1_000.into(), &1_000_000.into()));
}

#[test]
fn writing_ends_with_its_time() {
    let cluster = Cluster::start();
    let report = bench(&cluster, &["produce", "--duration", "300ms", "--bytes", "64GiB"]);
    assert!(
        report["written"]["records"].as_u64().unwrap() > 0
            && report["written"]["seconds"].as_f64().unwrap() >= 0.3
    );
}

#[test]
fn records_that_are_due_are_all_counted() {
    let cluster = Cluster::start();
    let report = bench(&cluster, &["latency", "--rate", "200", "--duration", "500ms"]);
    assert_eq!(report["times"][0]["what"], "due to acknowledged");
    assert_eq!(report["times"][0]["count"], 100);
    let report =
        bench(&cluster, &["end-to-end", "--rate", "200", "--duration", "500ms", "--partitions", "2"]);
    assert_eq!((&report["read"]["records"], &report["times"][0]["count"]), (&100.into(), &100.into()));
    assert_eq!(report["warnings"], serde_json::json!([]));
    let report = bench(&cluster, &["fan-out", "--readers", "3", "--rate", "200", "--duration", "500ms"]);
    assert_eq!((&report["written"]["records"], &report["read"]["records"]), (&100.into(), &300.into()));
}

#[test]
fn a_topic_that_is_there_stays_there() {
    let cluster = Cluster::start();
    cluster.create("t", "2");
    let args = ["bench", "produce", "--topic", "t", "--bytes", "10KB", "--duration", "60s"];
    let table = cluster.ok(&args);
    assert!(table.starts_with("bench produce: topic t, records of 100 bytes, acks all"), "{table}");
    assert!(table.contains("taken to acknowledged"), "{table}");
    let text = cluster.ok(&["bench", "consume", "--topic", "t", "--output", "json"]);
    assert_eq!(objects(&text)[0]["read"]["records"], 100);
    assert_eq!(cluster.json(&["topic", "list"]).len(), 1);
    assert!(cluster.refused(&["bench", "latency", "--topic", "none"]).contains("none"));
}
