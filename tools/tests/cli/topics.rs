//! `floodmark topic` and `floodmark offsets`.

use crate::cluster::Cluster;

#[test]
fn a_topic_from_its_making_to_its_end() {
    let cluster = Cluster::start();
    assert!(cluster.ok(&["topic", "list"]).contains("no topics"));
    let made = cluster.ok(&["topic", "create", "orders", "--partitions", "3", "--set", "retention.ms=60000"]);
    assert_eq!(made, "topic orders made: 3 partitions, 1 copy of each\n");
    cluster.ok(&["topic", "create", "audit", "--partitions", "1"]);

    let listed = cluster.json(&["topic", "list"]);
    let names: Vec<&str> = listed.iter().map(|topic| topic["topic"].as_str().unwrap()).collect();
    assert_eq!(names, ["audit", "orders"]);
    assert_eq!((&listed[1]["partitions"], &listed[1]["offline"]), (&3.into(), &0.into()));
    let table = cluster.ok(&["topic", "list"]);
    assert!(table.contains("│ orders ┆          3 ┆      1 ┆"), "{table}");

    let described = &cluster.json(&["topic", "describe", "orders"])[0];
    assert_eq!(described["partitions"].as_array().unwrap().len(), 3);
    assert_eq!(described["partitions"][2]["high_watermark"], 0);
    assert_eq!(described["topic_id"].as_str().unwrap().len(), 22);
    let setting = serde_json::json!({"name": "retention.ms", "value": "60000", "source": "topic"});
    assert_eq!(described["settings"], serde_json::json!([setting]));
    let all = &cluster.json(&["topic", "describe", "orders", "--all-settings"])[0];
    assert!(all["settings"].as_array().unwrap().len() > 10, "{all}");
    let tables = cluster.ok(&["topic", "describe", "orders", "audit"]);
    assert!(
        tables.contains("topic orders: 3 partitions, id ") && tables.contains("topic audit: 1 partition"),
        "{tables}"
    );

    let altered = cluster.ok(&[
        "topic",
        "alter",
        "orders",
        "--unset",
        "retention.ms",
        "--set",
        "segment.bytes=2097152",
    ]);
    assert!(
        altered.contains("segment.bytes = 2097152 (topic)") && altered.contains("retention.ms = "),
        "{altered}"
    );
    let settings = &cluster.json(&["topic", "describe", "orders"])[0]["settings"];
    assert_eq!(settings[0]["name"], "segment.bytes");
    assert_eq!(settings.as_array().unwrap().len(), 1);

    let extended = cluster.ok(&["topic", "extend", "orders", "5"]);
    assert_eq!(extended, "topic orders has 5 partitions now\n");
    assert_eq!(cluster.json(&["offsets", "orders"]).len(), 5);

    assert_eq!(cluster.json(&["topic", "delete", "orders"]), [serde_json::json!({"topic": "orders"})]);
    assert_eq!(cluster.json(&["topic", "list"]).len(), 1);
}

#[test]
fn a_dry_run_makes_nothing() {
    let cluster = Cluster::start();
    let would = cluster.ok(&["topic", "create", "a", "--partitions", "2", "--dry-run"]);
    assert_eq!(would, "topic a would be made: 2 partitions, 1 copy of each\n");
    assert!(cluster.json(&["topic", "list"]).is_empty());
}

#[test]
fn what_cannot_be_done_to_a_topic_is_told() {
    let cluster = Cluster::start();
    cluster.create("a", "2");
    assert!(cluster.refused(&["topic", "create", "a"]).contains("exist"));
    assert!(cluster.refused(&["topic", "create", "b/c"]).contains("b/c"));
    assert!(
        cluster.refused(&["topic", "create", "b", "--set", "retention.days=1"]).contains("retention.days")
    );
    assert!(cluster.refused(&["topic", "extend", "a", "1"]).contains('2'));
    assert!(cluster.refused(&["topic", "alter", "a"]).contains("nothing to change"));
    assert!(cluster.refused(&["topic", "alter", "a", "--set", "segment.bytes=x"]).contains("segment.bytes"));
    assert!(cluster.refused(&["topic", "describe", "none"]).contains("none"));
    // What can be done is done.
    let ran = cluster.run(&["topic", "delete", "none", "a"]);
    assert_eq!(ran.status.code(), Some(2));
    assert_eq!(ran.stdout, b"topic a deleted\n");
    assert!(ran.stderr.contains("none"), "{}", ran.stderr);
    assert!(cluster.json(&["topic", "list"]).is_empty());
}

#[test]
fn offsets_follow_what_is_written() {
    let cluster = Cluster::start();
    cluster.create("t", "2");
    let lines = r#"{"value": "a", "timestamp_ms": 1000, "partition": 1}
{"value": "b", "timestamp_ms": 2000, "partition": 1}
{"value": "c", "timestamp_ms": 3000, "partition": 1}
"#;
    cluster.ok_with(&["produce", "t", "--input", "json", "--keep-partitions"], lines.as_bytes());
    let offsets = cluster.json(&["offsets", "t", "--at", "@1500"]);
    let [first, second] = &offsets[..] else { panic!("{offsets:?}") };
    assert_eq!((&first["high_watermark"], &first["at"]["offset"]), (&0.into(), &serde_json::Value::Null));
    assert_eq!(
        (&second["start"], &second["high_watermark"], &second["end"]),
        (&0.into(), &3.into(), &3.into())
    );
    assert_eq!(second["at"], serde_json::json!({"offset": 1, "timestamp_ms": 2000}));
    assert!(second["size_bytes"].as_u64().unwrap() > 0);
    let table = cluster.ok(&["offsets", "t", "--at", "@1500"]);
    assert!(table.contains("1970-01-01T00:00:02.000Z") && table.contains("none"), "{table}");
    assert!(cluster.json(&["offsets", "t"])[1].get("at").is_none());
}
