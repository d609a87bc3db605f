//! What commands say and do where brokers are gone and the one that is left can decide nothing.

use std::fs;
use std::process::Stdio;

use crate::nodes::{Nodes, Process, eventually, floodmark, objects, run};

/// Three brokers, each of which leads some of the partitions, of which the last two have been killed.
fn left_alone() -> Nodes {
    let mut nodes = Nodes::start(3, &[]);
    nodes.ok(&["topic", "create", "orders", "--partitions", "6", "--replication-factor", "3"]);
    nodes.await_well();
    nodes.kill(2);
    nodes.kill(3);
    nodes
}

#[test]
fn commands_end_in_time_and_say_what_they_waited_for() {
    let nodes = left_alone();
    for partition in 0..6 {
        let place = partition.to_string();
        let args = ["produce", "orders", "--partition", &place, "--timeout", "2s"];
        let ran = run(nodes.command(&args), "a\n");
        assert_eq!(ran.status.code(), Some(2), "{partition}: {}", ran.stderr);
        let words = "delivering a record took longer than 2000 ms; the last attempt: ";
        assert!(ran.stderr.contains(words), "{partition}: {}", ran.stderr);
    }
    let ran = nodes.run(&["topic", "describe", "orders", "--timeout", "2s", "--output", "json"]);
    assert_eq!(ran.status.code(), Some(1), "{}", ran.stderr);
    let described = objects(&ran.stdout).remove(0);
    let partitions = described["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), 6);
    for partition in partitions {
        assert_eq!(partition["start"].is_null(), partition["untold"].is_string(), "{partition}");
    }
    // Each of the leaders is told of once, whatever it leads.
    for broker in [2, 3] {
        let line = format!("broker {broker}, who leads, does not tell offsets: ");
        assert_eq!(ran.stderr.matches(&line).count(), 1, "{}", ran.stderr);
    }
}

#[test]
fn whoever_interrupts_twice_does_not_wait_for_a_broker_that_is_gone() {
    let nodes = left_alone();
    let described = nodes.run(&["topic", "describe", "orders", "--timeout", "1s", "--output", "json"]);
    let described = objects(&described.stdout).remove(0);
    let partitions = described["partitions"].as_array().unwrap();
    let of_the_dead = partitions.iter().position(|partition| partition["leader"] == 2).unwrap();
    let records = nodes.path().join("records");
    fs::write(&records, "a\n").unwrap();
    let mut command = nodes.command(&["produce", "orders", "--timeout", "10m"]);
    command.args(["--partition", &of_the_dead.to_string(), "--file"]).arg(records);
    command.stderr(Stdio::piped());
    let mut process = Process::spawn(command);
    let status = format!("/proc/{}/status", process.child().id());
    eventually("it takes signals", || {
        let status = fs::read_to_string(&status).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
        u64::from_str_radix(caught, 16).unwrap() & 2 != 0
    });
    process.signal("INT");
    eventually("it ends", || {
        let has_ended = process.child().try_wait().unwrap().is_some();
        if !has_ended {
            process.signal("INT");
        }
        has_ended
    });
    process.end();
}

#[test]
fn a_broker_that_waits_for_others_says_so_at_once_and_serves_when_they_are_there() {
    let mut nodes = {
        let mut nodes = left_alone();
        nodes.kill(1);
        nodes.spawn(1);
        nodes
    };
    let server = nodes.node(1).grpc();
    let both = format!("{server},{}", nodes.node(2).grpc());
    eventually("it listens", || std::net::TcpStream::connect(&server).is_ok());
    let mut command = floodmark();
    command.args(["cluster", "status", "--server", &both]);
    let ran = run(command, "");
    assert_eq!(ran.status.code(), Some(2));
    let waits = format!("{server} says: this broker starts, and serves nobody yet: ");
    assert!(ran.stderr.contains(&waits) && ran.stderr.contains("refuses connections"), "{}", ran.stderr);
    // Alone it is told for whom it waits, once it has looked; the timeout is not waited for.
    let needed = "a majority of the voters (brokers 1, 2, 3) is needed";
    eventually("it says for whom it waits", || {
        let refused = nodes.refused(&["cluster", "status", "--timeout", "10m"]);
        assert_eq!(refused.matches(&waits).count(), 1, "{refused}");
        refused.contains(needed)
    });
    nodes.spawn(2);
    eventually("it serves", || nodes.run(&["cluster", "status"]).status.success());
}
