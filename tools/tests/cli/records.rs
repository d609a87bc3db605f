//! `floodmark produce` and `floodmark consume`: what goes in comes out, byte for byte.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::{Cluster, objects};

#[test]
fn lines_go_in_and_come_out() {
    let cluster = Cluster::start();
    cluster.create("t", "1");
    let told = cluster.ok_with(&["produce", "t"], b"one\n\nthree\xff\r\nfour");
    let told = String::from_utf8(told).unwrap();
    assert!(told.starts_with("4 records written to t\n"), "{told}");
    assert_eq!(cluster.ok_with(&["consume", "t"], b""), b"one\n\nthree\xff\r\nfour\n");
    let acknowledged = objects(
        &String::from_utf8(
            cluster.ok_with(&["produce", "t", "--output", "json", "--acks", "leader"], b"five\nsix\n"),
        )
        .unwrap(),
    );
    let offsets: Vec<&Value> = acknowledged.iter().map(|record| &record["offset"]).collect();
    assert_eq!(offsets, [&json!(4), &json!(5)]);
    assert!(String::from_utf8(cluster.ok_with(&["produce", "t"], b"")).unwrap().starts_with("0 records"));
}

#[test]
fn keys_nulls_and_delimiters_come_back() {
    let cluster = Cluster::start();
    cluster.create("t", "1");
    let form = ["--key-separator", r"\t", "--null", "~", "--delimiter", r"\0"];
    let input = b"k1\tline\nline\0~\tv2\0k3\t~\0\t\0k4\ta\tb\0";
    cluster.ok_with(&[&["produce", "t"][..], &form].concat(), input);
    assert_eq!(cluster.ok_with(&[&["consume", "t"][..], &form].concat(), b""), input);
    let records = cluster.json(&["consume", "t"]);
    assert_eq!((&records[1]["key"], &records[2]["value"]), (&Value::Null, &Value::Null));
    assert_eq!(records[4]["value"], json!({"utf8": "a\tb"}));
}

#[test]
fn json_takes_everything_there_and_back() {
    let cluster = Cluster::start();
    for topic in ["a", "b"] {
        cluster.create(topic, "3");
    }
    let all: String = (0..=255u8).map(|byte| format!("\\u{byte:04x}")).collect();
    let lines = [
        json!({"key": null, "value": null, "headers": [], "timestamp_ms": 5, "partition": 2}).to_string(),
        json!({"key": {"base64": "/wD+"}, "value": {"base64": "gA=="}, "headers": [
            {"name": "twice", "value": {"base64": "//8="}},
            {"name": "null", "value": null},
            {"name": "twice", "value": ""},
            {"name": "grün", "value": "ja"},
            {"name": {"base64": "Z3L8bg=="}, "value": "latin"},
        ], "timestamp_ms": 1_700_000_000_123i64, "partition": 0})
        .to_string(),
        format!(r#"{{"key": "", "value": "{all}", "partition": 1, "timestamp_ms": 0}}"#),
    ];
    cluster.ok_with(&["produce", "a", "--input", "json", "--keep-partitions"], lines.join("\n").as_bytes());
    let first = cluster.ok(&["consume", "a", "--output", "json"]);
    cluster.ok_with(&["produce", "b", "--input", "json", "--keep-partitions"], first.as_bytes());
    let second = cluster.ok(&["consume", "b", "--output", "json"]);
    let sorted = |text: &str| {
        let mut records = objects(text);
        records.sort_by_key(|record| record["partition"].as_i64());
        records.iter_mut().for_each(|record| record["topic"] = Value::Null);
        records
    };
    assert_eq!(sorted(&first), sorted(&second));
    let records = sorted(&second);
    assert_eq!(records.len(), 3);
    assert_eq!(records[0]["key"], json!({"base64": "/wD+"}));
    assert_eq!(
        records[0]["headers"],
        json!([
            {"name": {"utf8": "twice"}, "value": {"base64": "//8="}},
            {"name": {"utf8": "null"}, "value": null},
            {"name": {"utf8": "twice"}, "value": {"utf8": ""}},
            {"name": {"utf8": "grün"}, "value": {"utf8": "ja"}},
            {"name": {"base64": "Z3L8bg=="}, "value": {"utf8": "latin"}},
        ])
    );
    assert_eq!(records[0]["timestamp_ms"], 1_700_000_000_123i64);
    let text: String = (0..=255u8).map(char::from).collect();
    assert_eq!(records[1]["value"], json!({"utf8": text}));
    assert_eq!((&records[2]["value"], &records[2]["timestamp_ms"]), (&Value::Null, &json!(5)));
}

#[test]
fn whole_files_and_headers() {
    let cluster = Cluster::start();
    cluster.create("t", "1");
    let dir = TempDir::new().unwrap();
    let bytes: Vec<u8> = (0..100_000u32).map(|n| (n * 7 % 256) as u8).collect();
    let paths: Vec<String> = ["one", "two"].map(|name| dir.path().join(name).display().to_string()).into();
    std::fs::write(&paths[0], &bytes).unwrap();
    std::fs::write(&paths[1], b"").unwrap();
    let args = [
        "produce",
        "t",
        "--input",
        "whole",
        "--key",
        "k",
        "--header",
        "a=1",
        "--header",
        "a=",
        "--compression",
        "zstd",
    ];
    cluster.ok(&[&args[..], &["--file", &paths[0], "--file", &paths[1]]].concat());
    let out = cluster.ok_with(&["consume", "t", "--max", "1", "--delimiter", ""], b"");
    assert!(out == bytes, "{} bytes of {}", out.len(), bytes.len());
    let told =
        cluster.ok(&["consume", "t", "--format", r"{key} {headers} {header:a|json} {offset}\t{partition}"]);
    assert_eq!(told, "k a=1,a= \"\" 0\t0\nk a=1,a= \"\" 1\t0\n");
}

#[test]
fn reading_begins_and_ends_where_it_is_told() {
    let cluster = Cluster::start();
    cluster.create("t", "2");
    let lines: Vec<String> = (0..10)
        .map(|n| json!({"value": n.to_string(), "timestamp_ms": n * 1_000, "partition": 0}).to_string())
        .collect();
    cluster.ok_with(&["produce", "t", "--input", "json", "--keep-partitions"], lines.join("\n").as_bytes());
    let read = |args: &[&str]| {
        let text = cluster.ok(&[&["consume", "t"][..], args].concat());
        text.lines().collect::<Vec<_>>().join(" ")
    };
    for (args, values) in [
        (&[][..], "0 1 2 3 4 5 6 7 8 9"),
        (&["--from", "7"], "7 8 9"),
        (&["--from", "-2"], "8 9"),
        (&["--from", "end"], ""),
        (&["--from", "@3500", "--to", "@6000"], "4 5"),
        (&["--from", "3", "--to", "5"], "3 4"),
        (&["--from", "1970-01-01T00:00:08Z"], "8 9"),
        (&["--from", "99"], ""),
        (&["--max", "3"], "0 1 2"),
        (&["--partition", "1"], ""),
        (&["--partition", "0,1", "--from", "8"], "8 9"),
        (&["--from", "5", "--to", "5"], ""),
    ] {
        assert_eq!(read(args), values, "{args:?}");
    }
    let table = cluster.ok(&["consume", "t", "--from", "9", "--output", "table"]);
    assert!(table.contains("│         0 ┆      9 ┆ 1970-01-01T00:00:09.000Z ┆"), "{table}");
}

#[test]
fn the_broker_leaves_out_what_a_filter_leaves_out() {
    let cluster = Cluster::start();
    cluster.create("t", "2");
    cluster.ok_with(&["produce", "t", "--key-separator", "="], b"a=1\nb=2\na=3\nc=4\n");
    let mut chosen: Vec<String> = cluster
        .ok(&["consume", "t", "--filter", "key in [\"a\", \"c\"]"])
        .lines()
        .map(str::to_owned)
        .collect();
    chosen.sort();
    assert_eq!(chosen, ["1", "3", "4"]);
    assert_eq!(
        cluster.ok(&["consume", "t", "--filter", "value == \"9\""]),
        "",
        "it ends where nothing is chosen"
    );
    assert_eq!(cluster.ok(&["consume", "t", "--group", "g", "--filter", "value == \"2\""]), "2\n");
    assert_eq!(cluster.json(&["group", "describe", "g"])[0]["total_lag"], 0, "it has passed over the others");
    let told = cluster.refused(&["consume", "t", "--filter", "key ="]);
    assert!(told.contains("filter"), "{told}");
}

#[test]
fn following_goes_on_until_it_is_told_to_stop() {
    let cluster = Cluster::start();
    cluster.create("t", "1");
    cluster.ok_with(&["produce", "t"], b"before\n");
    let mut reader = cluster.spawn(&["consume", "t", "--follow"]);
    assert_eq!(reader.read(7), b"before\n");
    cluster.ok_with(&["produce", "t"], b"after\n");
    assert_eq!(reader.read(6), b"after\n");
    reader.signal("INT");
    let ran = reader.end();
    assert!(ran.status.success() && ran.stdout.is_empty(), "{}", ran.stderr);

    let mut reader = cluster.spawn(&["consume", "t", "--follow", "--from", "end", "--max", "2"]);
    // It has no place to begin before it is there: more records than it takes are written until it has them.
    let mut written = 0;
    crate::cluster::eventually("two records are read", || {
        cluster.ok_with(&["produce", "t"], format!("{written}\n").as_bytes());
        written += 1;
        reader.child().try_wait().unwrap().is_some()
    });
    let text = String::from_utf8(reader.end().stdout).unwrap();
    let numbers: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.len() == 2 && numbers[1] == numbers[0] + 1, "{text}");
}

#[test]
fn records_that_come_by_and_by_are_written_as_they_come() {
    let cluster = Cluster::start();
    cluster.create("t", "1");
    let mut writer = cluster.command(&["produce", "t", "--output", "json"]);
    writer.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut writer = writer.spawn().unwrap();
    let mut stdin = writer.stdin.take().unwrap();
    stdin.write_all(b"first\nsecon").unwrap();
    let mut reader = cluster.spawn(&["consume", "t", "--follow", "--max", "2"]);
    assert_eq!(reader.read(6), b"first\n");
    stdin.write_all(b"d\n").unwrap();
    assert_eq!(reader.read(7), b"second\n");
    assert!(reader.end().status.success());
    drop(stdin);
    let output = writer.wait_with_output().unwrap();
    assert_eq!(objects(&String::from_utf8(output.stdout).unwrap()).len(), 2);
}

#[test]
fn a_reader_that_has_seen_enough_ends_it_quietly() {
    let cluster = Cluster::start();
    cluster.create("t", "1");
    let lines: Vec<u8> = (0..200_000).flat_map(|n| format!("{n}\n").into_bytes()).collect();
    let told = cluster.ok_with(&["produce", "t", "--compression", "lz4"], &lines);
    assert!(told.starts_with(b"200,000 records written"), "{}", String::from_utf8_lossy(&told));
    let mut reader = cluster.spawn(&["consume", "t", "--follow"]);
    assert_eq!(reader.read(2), b"0\n");
    drop(reader.child().stdout.take());
    let ran = reader.end();
    assert!(ran.status.success() && ran.stderr.is_empty(), "{:?} {}", ran.status, ran.stderr);
    assert_eq!(cluster.ok_with(&["consume", "t"], b""), lines);
}

#[test]
fn what_is_wrong_with_a_line_is_told_and_what_came_before_is_kept() {
    let cluster = Cluster::start();
    cluster.create("t", "1");
    let ran =
        cluster.run_with(&["produce", "t", "--input", "json"], b"{\"value\": \"a\"}\n{\"vlaue\": \"b\"}\n");
    assert_eq!(ran.status.code(), Some(2));
    assert!(ran.stderr.contains("1 record written before this: standard input, line 2: "), "{}", ran.stderr);
    assert_eq!(cluster.ok(&["consume", "t"]), "a\n");
    let ran = cluster.run_with(&["produce", "t", "--key-separator", "="], b"no key\n");
    assert!(ran.stderr.contains("line 1: no key separator \"=\""), "{}", ran.stderr);
    let large = vec![b'x'; 3 << 20];
    let ran = cluster.run_with(&["produce", "t"], &large);
    assert_eq!(ran.status.code(), Some(2), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("max.message.bytes") || ran.stderr.contains("MESSAGE_TOO_LARGE"),
        "{}",
        ran.stderr
    );
}

/// An event that its stream refuses, of one partition, and a thousand of another behind it.
const REFUSED: &str = r#"{"key": "a", "value": "", "partition": 0, "headers": [{"name": "floodmark-expected-offset", "value": "5"}]}"#;

/// It was said that none was written, and whoever sent the input again had them twice.
#[test]
fn what_is_acknowledged_behind_a_refused_record_is_counted_and_told() {
    let cluster = Cluster::start();
    let create = |topic| {
        cluster.ok(&["topic", "create", topic, "--partitions", "2", "--set", "floodmark.key.index=true"])
    };
    let others = r#"{"key": "b", "value": "", "partition": 1}"#.to_owned() + "\n";
    let input = format!("{REFUSED}\n\n{}{REFUSED}\n", others.repeat(900));
    let written = |topic| {
        let offsets = cluster.json(&["offsets", topic]);
        offsets.iter().map(|partition| partition["high_watermark"].as_u64().unwrap()).sum::<u64>()
    };
    for topic in ["table", "json"] {
        create(topic);
        let command = ["produce", topic, "--input", "json", "--keep-partitions", "--output", topic];
        let ran = cluster.run_with(&command, input.as_bytes());
        assert_eq!(ran.status.code(), Some(2), "{}", ran.stderr);
        assert_eq!(written(topic), 900);
        let told = ": standard input, line 1: ";
        assert!(
            ran.stderr.starts_with("error: 900 records written, 900 of them behind this one"),
            "{}",
            ran.stderr
        );
        assert!(ran.stderr.contains(&format!("by their place in the input: 1, 902{told}")), "{}", ran.stderr);
        assert!(ran.stderr.contains("INVALID_RECORD"), "{}", ran.stderr);
        let stdout = String::from_utf8(ran.stdout).unwrap();
        if topic == "table" {
            assert!(stdout.starts_with("900 records written to table\n"), "{stdout}");
        } else {
            let places: Vec<Value> = objects(&stdout).iter().map(|object| object["record"].clone()).collect();
            assert_eq!(places, (2..902).map(Value::from).collect::<Vec<_>>());
        }
    }
}

#[test]
fn what_is_copied_is_not_asked_for_what_it_once_asked() {
    let cluster = Cluster::start();
    for topic in ["a", "b"] {
        cluster.ok(&["topic", "create", topic, "--set", "floodmark.key.index=true"]);
    }
    let event = r#"{"key": "k", "value": "v", "headers": [{"name": "floodmark-expected-offset", "value": "no-stream"}]}"#;
    cluster.ok_with(&["produce", "a", "--input", "json"], event.as_bytes());
    let records = cluster.ok(&["consume", "a", "--output", "json"]);
    for _ in 0..2 {
        cluster.ok_with(&["produce", "b", "--input", "json", "--as-copies"], records.as_bytes());
    }
    let ran = cluster.run_with(&["produce", "b", "--input", "json"], records.as_bytes());
    assert!(!ran.status.success() && ran.stderr.contains("last offset is 1"), "{}", ran.stderr);
    let copies = cluster.json(&["consume", "b"]);
    assert_eq!(copies.len(), 2);
    assert_eq!(copies[0]["headers"], objects(&records)[0]["headers"]);
}
