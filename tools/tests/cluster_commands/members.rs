//! Brokers that come, that go, and one whose disk is lost; voters that change.

use std::fs;
use std::process::Stdio;

use crate::free_ports::free_ports;
use crate::nodes::{Nodes, Process, eventually, floodmark};

#[test]
fn a_fourth_broker_joins_takes_its_share_votes_and_leaves() {
    let mut nodes = Nodes::start(3, &[]);
    nodes.fill("t", "8", "3", 800);
    // Four in a row behind one that is free; the next ones are not given to anybody else.
    let [port, ..]: [u16; 4] = free_ports();
    let file = nodes.path().join("four.toml");
    let dir = nodes.path().join("broker-4");
    let (file, dir) = (file.to_str().unwrap().to_owned(), dir.to_str().unwrap().to_owned());
    let port_text = port.to_string();
    let join = ["cluster", "join", "--host", "127.0.0.1", "--port", &port_text, "--rack", "d"];
    let printed = nodes.ok(&[&join[..], &["--data-dir", &dir]].concat());
    assert!(printed.contains("id = 4") && printed.contains("rack = \"d\""), "{printed}");
    nodes.ok(&[&join[..], &["--data-dir", &dir, "--write", &file]].concat());
    assert_eq!(fs::read_to_string(&file).unwrap(), printed);
    assert!(nodes.refused(&[&join[..], &["--write", &file]].concat()).contains("four.toml"));
    assert!(nodes.refused(&[&join[..], &["--node-id", "2"]].concat()).contains("broker 2 is in the cluster"));

    nodes.add(4, [port, port + 1, port + 2, port + 3]);
    let mut serve = floodmark();
    serve.args(["serve", "--config", &file, "--log-filter", "warn,openraft=error"]).stdout(Stdio::null());
    let log = nodes.path().join("four.log");
    serve.stderr(fs::File::create(&log).unwrap());
    nodes.spawn_with(4, serve);
    nodes.await_ready(4);
    let log = fs::read_to_string(&log).unwrap();
    assert!(!log.contains("was refused"), "others call it before it is a member, as they must: {log}");
    assert_eq!((&nodes.broker(4)["replicas"], &nodes.broker(4)["rack"]), (&0.into(), &"d".into()));
    nodes.ok(&["cluster", "move", "--balance-onto", "4"]);
    assert!(nodes.broker(4)["replicas"].as_u64().unwrap() >= 6, "{}", nodes.broker(4));
    nodes.await_well();
    nodes.check("t", 800);

    // It votes in place of broker 3, and back.
    let changed = nodes.json(&["cluster", "voters", "set", "1", "2", "4"]);
    assert_eq!(changed[0]["before"], serde_json::json!([1, 2, 3]));
    let voters = || -> Vec<i64> {
        let members = nodes.json(&["cluster", "voters", "list"]);
        let mut voters: Vec<i64> =
            members.iter().filter(|m| m["is_voter"] == true).map(|m| m["broker"].as_i64().unwrap()).collect();
        voters.sort_unstable();
        voters
    };
    assert_eq!(voters(), [1, 2, 4]);
    assert!(nodes.refused(&["cluster", "voters", "add", "3"]).contains("1, 3 or 5"));
    nodes.ok(&["cluster", "voters", "set", "1", "2", "3"]);
    assert_eq!(voters(), [1, 2, 3]);

    assert!(nodes.refused(&["cluster", "remove", "4"]).contains("drain it and stop it first"));
    nodes.ok(&["cluster", "drain", "4"]);
    assert_eq!(nodes.broker(4)["replicas"], 0);
    nodes.stop(4);
    eventually("broker 4 is fenced", || nodes.broker(4)["state"] == "fenced");
    nodes.ok(&["cluster", "remove", "4", "--dry-run"]);
    assert!(!nodes.broker(4).is_null());
    nodes.ok(&["cluster", "remove", "4"]);
    assert!(nodes.broker(4).is_null());
    nodes.await_well();
    nodes.check("t", 800);
}

#[test]
fn a_broker_whose_disk_is_lost_gets_everything_back_from_the_others() {
    let mut nodes = Nodes::start(3, &[]);
    nodes.fill("t", "4", "3", 400);
    for lone in ["lone", "gone"] {
        nodes.fill(lone, "1", "1", 1);
        nodes.ok(&["cluster", "move", lone, "--to", "2"]);
    }
    nodes.await_well();
    nodes.kill(2);
    eventually("broker 2 is fenced", || nodes.broker(2)["state"] == "fenced");
    nodes.write("t", 400, 100);
    fs::remove_dir_all(&nodes.node(2).dir).unwrap();

    // It would not have what the old one promised.
    let mut refused = nodes.serve(2);
    refused.stderr(Stdio::piped());
    let (status, log) = Process::spawn(refused).end();
    assert_eq!(status.code(), Some(2), "{log}");
    assert!(log.contains("another disk") && log.contains("cluster remove 2"), "{log}");
    fs::remove_dir_all(&nodes.node(2).dir).unwrap();

    assert!(nodes.refused(&["cluster", "remove", "2", "--keep-replicas"]).contains("voter"));
    nodes.ok(&["cluster", "voters", "set", "1"]);
    assert!(nodes.refused(&["cluster", "remove", "2"]).contains("holds"));
    // It alone had these partitions. Nothing brings their records back: one topic is given up, the other begins again.
    for mode in [&["--dry-run"][..], &[]] {
        let told = nodes.refused(&[&["cluster", "remove", "2", "--keep-replicas"][..], mode].concat());
        for words in ["2 alone is in sync", "gone-0", "lone-0"] {
            assert!(told.contains(words), "{mode:?}: {told}");
        }
    }
    nodes.ok(&["topic", "delete", "gone"]);
    nodes.ok(&["cluster", "move", "lone", "--partition", "0", "--to", "1", "--no-wait"]);
    nodes.ok(&["cluster", "elect", "lone", "--partition", "0", "--unclean", "--accept-data-loss"]);
    nodes.write("lone", 0, 3);
    nodes.check("lone", 3);
    nodes.ok(&["cluster", "remove", "2", "--keep-replicas", "--dry-run"]);
    let removed = nodes.json(&["cluster", "remove", "2", "--keep-replicas"]);
    assert!(removed[0]["replicas"].as_u64().unwrap() >= 4, "{removed:?}");
    nodes.spawn(2);
    nodes.await_ready(2);
    nodes.ok(&["cluster", "voters", "set", "1", "2", "3"]);
    nodes.await_well();
    // Everything is on the new disk: the others may go, one after the other.
    nodes.ok(&["cluster", "move", "t", "--to", "2", "--copies", "1"]);
    nodes.check("t", 500);
}
