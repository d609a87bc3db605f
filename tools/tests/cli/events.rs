//! `floodmark events`: a stream from the shell, with its conflicts.

use serde_json::{Value, json};

use crate::cluster::{Cluster, objects};

fn store() -> Cluster {
    let cluster = Cluster::start();
    cluster.ok(&["topic", "create", "orders", "--partitions", "2", "--set", "floodmark.key.index=true"]);
    cluster
}

#[test]
fn events_are_appended_on_a_condition_and_read_back() {
    let cluster = store();
    let append = |more: &[&str]| {
        cluster.json(&[&["events", "append", "orders", "order-1"][..], more].concat()).remove(0)
    };
    let first = append(&["--expect", "no-stream", "--value", "placed", "--value", "paid"]);
    let (base, last) = (first["base_offset"].as_i64().unwrap(), first["last_offset"].as_i64().unwrap());
    assert_eq!((last - base, &first["is_repeat"]), (1, &Value::Bool(false)));
    let second = append(&["--expect", &last.to_string(), "--value", "sent", "--header", "by=post"]);
    let last = second["last_offset"].as_i64().unwrap();
    // Other streams of the topic stay out of it.
    cluster.ok_with(&["events", "append", "orders", "order-2"], b"one\ntwo\n");
    append(&["--expect", "exists", "--value", "returned"]);
    append(&["--value", "paid back"]);

    assert_eq!(
        cluster.ok(&["events", "read", "orders", "order-1"]),
        "placed\npaid\nsent\nreturned\npaid back\n"
    );
    assert_eq!(cluster.ok(&["events", "read", "orders", "order-2"]), "one\ntwo\n");
    assert_eq!(cluster.ok(&["events", "read", "orders", "none"]), "");
    let backward = ["events", "read", "orders", "order-1", "--backward", "--max", "2"];
    assert_eq!(cluster.ok(&backward), "paid back\nreturned\n");
    let from = last.to_string();
    assert_eq!(
        cluster.ok(&["events", "read", "orders", "order-1", "--from", &from]),
        "sent\nreturned\npaid back\n"
    );
    let sent = &cluster.json(&["events", "read", "orders", "order-1", "--from", &from, "--max", "1"])[0];
    assert_eq!((&sent["key"], &sent["value"]), (&json!({"utf8": "order-1"}), &json!({"utf8": "sent"})));
    // Behind it stands the store's own, by which a retry is known.
    assert_eq!(sent["headers"][0], json!({"name": {"utf8": "by"}, "value": {"utf8": "post"}}));
    // Kafka's readers, and ours, see ordinary records.
    assert_eq!(cluster.ok(&["consume", "orders"]).lines().count(), 7);
}

#[test]
fn a_conflict_names_the_last_offset_and_appends_nothing() {
    let cluster = store();
    let first = &cluster.json(&["events", "append", "orders", "o", "--value", "placed"])[0];
    let last = first["last_offset"].to_string();
    for expect in ["no-stream", "4711"] {
        let ran = cluster.run(&["events", "append", "orders", "o", "--expect", expect, "--value", "x"]);
        assert_eq!(ran.status.code(), Some(1), "{expect}: {}", ran.stderr);
        let told = format!("error: conflict: the last event of stream o is at offset {last}, not ");
        assert!(ran.stderr.starts_with(&told), "{expect}: {}", ran.stderr);
        assert!(ran.stderr.contains("floodmark events read orders o"), "{}", ran.stderr);
    }
    let ran = cluster
        .run(&["events", "append", "orders", "o", "--expect", "9", "--value", "x", "--output", "json"]);
    let conflict = &objects(std::str::from_utf8(&ran.stdout).unwrap())[0];
    assert_eq!(conflict["conflict"]["last_offset"].to_string(), last);
    let ran = cluster.run(&["events", "append", "orders", "new", "--expect", "exists", "--value", "x"]);
    assert_eq!(ran.status.code(), Some(1));
    assert!(ran.stderr.contains("stream new has no events"), "{}", ran.stderr);
    assert_eq!(cluster.ok(&["events", "read", "orders", "o"]), "placed\n");
    assert_eq!(cluster.ok(&["events", "read", "orders", "new"]), "");
}

#[test]
fn a_stream_is_followed() {
    let cluster = store();
    cluster.ok(&["events", "append", "orders", "o", "--value", "a"]);
    let mut reader = cluster.spawn(&["events", "read", "orders", "o", "--follow"]);
    assert_eq!(reader.read(2), b"a\n");
    cluster.ok(&["events", "append", "orders", "other", "--value", "not this"]);
    cluster.ok(&["events", "append", "orders", "o", "--value", "b"]);
    assert_eq!(reader.read(2), b"b\n");
    reader.signal("INT");
    let ran = reader.end();
    assert!(ran.status.success() && ran.stdout.is_empty(), "{}", ran.stderr);
}

#[test]
fn a_topic_without_an_index_is_no_event_store() {
    let cluster = Cluster::start();
    cluster.create("plain", "1");
    let told = cluster.refused(&["events", "append", "plain", "k", "--expect", "no-stream", "--value", "v"]);
    assert!(told.contains("floodmark.key.index"), "{told}");
    assert!(cluster.refused(&["events", "read", "plain", "k"]).contains("floodmark.key.index"));
    let told = cluster.refused(&["events", "append", "plain", "k", "--backward"]);
    assert!(told.contains("--backward"), "{told}");
}
