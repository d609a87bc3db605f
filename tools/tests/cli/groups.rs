//! `floodmark group`, and `floodmark consume --group`.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::cluster::{Cluster, eventually};

fn fill(cluster: &Cluster, topic: &str, partitions: u32, records: std::ops::Range<u32>) {
    let lines: Vec<String> = records
        .map(|n| serde_json::json!({"value": n.to_string(), "partition": n % partitions}).to_string())
        .collect();
    cluster.ok_with(&["produce", topic, "--input", "json", "--keep-partitions"], lines.join("\n").as_bytes());
}

fn lag(cluster: &Cluster, group: &str) -> Value {
    cluster.json(&["group", "describe", group])[0]["total_lag"].clone()
}

fn numbers(text: &[u8]) -> Vec<u32> {
    std::str::from_utf8(text).unwrap().lines().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn a_group_goes_on_where_it_stopped() {
    let cluster = Cluster::start();
    cluster.create("t", "2");
    fill(&cluster, "t", 2, 0..10);
    let first = cluster.ok(&["consume", "t", "--group", "g", "--max", "4"]);
    assert_eq!(first.lines().count(), 4);
    assert_eq!(lag(&cluster, "g"), 6);
    let rest = cluster.ok(&["consume", "t", "--group", "g"]);
    let all: BTreeSet<u32> = numbers((first + &rest).as_bytes()).into_iter().collect();
    assert_eq!(all, (0..10).collect());
    assert_eq!(lag(&cluster, "g"), 0);
    assert_eq!(cluster.ok(&["consume", "t", "--group", "g"]), "");
    fill(&cluster, "t", 2, 10..13);
    assert_eq!(numbers(cluster.ok(&["consume", "t", "--group", "g"]).as_bytes()).len(), 3);
    // One that begins at the end has nothing to read.
    assert_eq!(cluster.ok(&["consume", "t", "--group", "late", "--from", "end"]), "");

    let committed = cluster.json(&["group", "offsets", "g"]);
    let offsets: Vec<i64> = committed.iter().map(|o| o["offset"].as_i64().unwrap()).collect();
    assert_eq!(offsets, [7, 6]);
    let listed = cluster.json(&["group", "list"]);
    assert!(listed.iter().any(|group| group["group"] == "g" && group["state"] == "Empty"), "{listed:?}");
    assert!(cluster.json(&["group", "list", "--state", "stable"]).is_empty());
    assert!(cluster.ok(&["group", "offsets", "g"]).contains("│ t     ┆         0 ┆      7 ┆"));
}

#[test]
fn two_members_share_a_topic() {
    let cluster = Cluster::start();
    cluster.create("t", "4");
    let consume = ["consume", "t", "--group", "pair", "--follow"];
    let [mut one, mut two] = [cluster.spawn(&consume), cluster.spawn(&consume)];
    let described = || cluster.json(&["group", "describe", "pair"]).remove(0);
    eventually("two members have two partitions each", || {
        let group = cluster.run(&["group", "describe", "pair", "--output", "json"]);
        let Ok(group) = serde_json::from_slice::<Value>(&group.stdout) else { return false };
        let counts: Vec<usize> = group["members"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["partitions"].as_array().unwrap().len())
            .collect();
        group["state"] == "Stable" && counts == [2, 2]
    });
    let table = cluster.ok(&["group", "describe", "pair"]);
    assert!(table.contains("group pair: Stable, 2 members, assigned by "), "{table}");
    fill(&cluster, "t", 4, 0..100);
    eventually("all is read and committed", || described()["total_lag"] == 0);

    let told = cluster.refused(&["group", "reset", "pair", "--to", "start", "--execute"]);
    assert!(told.contains("group pair has 2 members") && told.contains("stop them first"), "{told}");
    assert!(cluster.refused(&["group", "delete", "pair"]).contains("pair"));

    // Whoever is left takes over at once: the other has said that it goes.
    one.signal("INT");
    let first = one.end();
    assert!(first.status.success(), "{}", first.stderr);
    eventually("one member has it all", || {
        let group = described();
        group["members"].as_array().unwrap().len() == 1
            && group["members"][0]["partitions"].as_array().unwrap().len() == 4
    });
    fill(&cluster, "t", 4, 100..120);
    eventually("all is read and committed", || described()["total_lag"] == 0);
    two.signal("INT");
    let second = two.end();
    assert!(second.status.success(), "{}", second.stderr);
    let (first, second) = (numbers(&first.stdout), numbers(&second.stdout));
    assert!(!first.is_empty() && second.len() > first.len(), "{} and {}", first.len(), second.len());
    let mut all = [first, second].concat();
    all.sort_unstable();
    assert_eq!(all, (0..120).collect::<Vec<_>>(), "each once");
}

#[test]
fn a_member_without_a_partition_ends_and_says_why() {
    let cluster = Cluster::start();
    cluster.create("t", "1");
    let mut one = cluster.spawn(&["consume", "t", "--group", "g", "--follow"]);
    eventually("one member has the partition", || {
        let group = cluster.run(&["group", "describe", "g", "--output", "json"]);
        let group: Value = serde_json::from_slice(&group.stdout).unwrap_or_default();
        group["members"][0]["partitions"].as_array().is_some_and(|partitions| partitions.len() == 1)
    });
    // The partition may go from one to the other; then that one reads to its end, which is at once.
    let ran = cluster.run(&["consume", "t", "--group", "g"]);
    assert!(ran.status.success() && ran.stdout.is_empty(), "{}", ran.stderr);
    assert!(
        ran.stderr.is_empty() || ran.stderr.contains("other members of group g have all partitions"),
        "{}",
        ran.stderr
    );
    one.signal("TERM");
    assert!(one.end().status.success());
}

#[test]
fn a_reset_is_shown_first_and_then_done() {
    let cluster = Cluster::start();
    cluster.create("t", "2");
    fill(&cluster, "t", 2, 0..20);
    cluster.ok(&["consume", "t", "--group", "g"]);
    let reset = |more: &[&str]| -> Vec<(i64, i64, i64)> {
        let changes = cluster.json(&[&["group", "reset", "g"][..], more].concat());
        changes
            .iter()
            .map(|c| {
                (
                    c["partition"].as_i64().unwrap(),
                    c["before"].as_i64().unwrap(),
                    c["after"].as_i64().unwrap(),
                )
            })
            .collect()
    };
    assert_eq!(reset(&["--to", "start"]), [(0, 10, 0), (1, 10, 0)]);
    assert_eq!(lag(&cluster, "g"), 0, "nothing is done without --execute");
    assert_eq!(reset(&["--by", "-3", "--execute"]), [(0, 10, 7), (1, 10, 7)]);
    assert_eq!(lag(&cluster, "g"), 6);
    assert_eq!(reset(&["--topic", "t", "--partition", "1", "--to", "2", "--execute"]), [(1, 7, 2)]);
    assert_eq!(reset(&["--to", "-1"]), [(0, 7, 9), (1, 2, 9)]);
    assert_eq!(reset(&["--to", "-1h"]), [(0, 7, 0), (1, 2, 0)]);
    assert_eq!(reset(&["--to", "end", "--execute"]), [(0, 7, 10), (1, 2, 10)]);

    let ran = cluster.run(&["group", "reset", "g", "--to", "start"]);
    assert!(
        String::from_utf8(ran.stdout).unwrap().contains("│ t     ┆         0 ┆     10 ┆ -> ┆     0 ┆  10 │")
    );
    assert_eq!(ran.stderr, "nothing is changed yet; --execute does it\n");
    cluster.ok(&["group", "reset", "g", "--to", "start", "--execute"]);
    assert_eq!(numbers(cluster.ok(&["consume", "t", "--group", "g"]).as_bytes()).len(), 20);

    // A topic that it has not read.
    cluster.create("other", "1");
    fill(&cluster, "other", 1, 0..5);
    assert!(cluster.refused(&["group", "reset", "new", "--to", "end"]).contains("--topic TOPIC"));
    let changes = cluster.json(&["group", "reset", "new", "--topic", "other", "--to", "3", "--execute"]);
    assert_eq!((&changes[0]["before"], &changes[0]["after"]), (&Value::Null, &3.into()));
    assert_eq!(cluster.ok(&["consume", "other", "--group", "new"]), "3\n4\n");
    assert!(cluster.refused(&["group", "reset", "g", "--topic", "other", "--by", "1"]).contains("use --to"));
    assert!(
        cluster
            .refused(&["group", "reset", "g", "--topic", "t", "--partition", "7", "--to", "0"])
            .contains('7')
    );
}

#[test]
fn groups_are_deleted() {
    let cluster = Cluster::start();
    cluster.create("t", "1");
    fill(&cluster, "t", 1, 0..5);
    for group in ["a", "b"] {
        cluster.ok(&["consume", "t", "--group", group]);
    }
    cluster.ok(&["group", "delete", "a", "--topic", "t"]);
    assert!(cluster.json(&["group", "offsets", "a"]).is_empty());
    assert!(cluster.refused(&["group", "delete", "a", "--topic", "t"]).contains("no offsets of topic t"));
    assert_eq!(cluster.ok(&["group", "delete", "b"]), "group b deleted\n");
    assert!(!cluster.json(&["group", "list"]).iter().any(|group| group["group"] == "b"));
    assert!(cluster.refused(&["group", "delete", "b"]).contains('b'));
}
