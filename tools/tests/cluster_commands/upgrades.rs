//! Programs of different versions in one cluster: older and newer builds of this one, which a command in docs/TESTING.md makes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::nodes::{Nodes, OWN_PROGRAM, Process, eventually};
use crate::outage::partitions;

/// Of this build.
const LEVEL: u64 = 3;

/// A build that the environment names.
fn build(variable: &str) -> PathBuf {
    let named = std::env::var_os(variable);
    named
        .unwrap_or_else(|| panic!("{variable} does not name a program; docs/TESTING.md has the command"))
        .into()
}

fn level(nodes: &Nodes) -> u64 {
    nodes.status()["feature_level"].as_u64().unwrap()
}

/// One broker after the other gets another program, under writes; returns how many records there are then.
fn roll(nodes: &mut Nodes, program: &Path, mut records: usize, level_meanwhile: u64) -> usize {
    nodes.program = program.to_owned();
    for id in 1..=3 {
        nodes.stop(id);
        nodes.write("t", records, 100);
        records += 100;
        assert_eq!(level(nodes), level_meanwhile, "broker {id} was one of those before");
        nodes.spawn(id);
        nodes.await_ready(id);
        nodes.await_well();
    }
    records
}

/// A broker with a program that is not for this cluster any more ends and says why; with its own it has everything.
fn refuses(nodes: &mut Nodes, id: i32, program: &Path, says: &str) {
    let own = std::mem::replace(&mut nodes.program, program.to_owned());
    nodes.stop(id);
    let mut command = nodes.serve(id);
    command.stderr(Stdio::piped());
    let (status, log) = Process::spawn(command).end();
    assert!(!status.success() && log.contains(says), "{status}: {log}");
    assert_eq!(log.matches(says).count(), 1, "told once: {log}");
    nodes.program = own;
    nodes.spawn(id);
    nodes.await_ready(id);
    nodes.await_well();
}

/// What came with it works, without another start of the brokers: of a topic that is made now it is known that it always synced.
fn uses_the_level(nodes: &mut Nodes) {
    // Each says what it could not say before.
    std::thread::sleep(std::time::Duration::from_secs(3));
    nodes.fill("new", "3", "3", 90);
    nodes.await_well();
    for id in 1..=3 {
        nodes.kill(id);
    }
    for id in [1, 2] {
        nodes.spawn(id);
    }
    eventually("two lead what three had", || {
        let found = partitions(nodes, "new");
        !found.is_empty() && found.iter().all(|p| p["leader"].as_i64().is_some_and(|leader| leader != 3))
    });
    nodes.write("new", 90, 10);
    nodes.check("new", 100);
    nodes.spawn(3);
    nodes.await_ready(3);
    nodes.await_well();
    nodes.check("new", 100);
}

#[test]
#[ignore = "needs three more builds of the program; docs/TESTING.md has the command"]
fn programs_of_other_versions_work_together_or_are_refused_and_nothing_is_lost() {
    let [older, newer, stranger] =
        ["FLOODMARK_OLDER", "FLOODMARK_NEWER", "FLOODMARK_OTHER_PROTOCOL"].map(build);
    let own = Path::new(OWN_PROGRAM);
    let mut nodes = Nodes::start_as(&older, 3, &[]);
    nodes.fill("t", "4", "3", 100);
    let first = level(&nodes);
    assert!(first < LEVEL, "{first}");
    let records = roll(&mut nodes, own, 100, first);
    eventually("the level of the last broker that was upgraded", || level(&nodes) == LEVEL);
    nodes.check("t", records);
    uses_the_level(&mut nodes);
    nodes.check("t", records);
    refuses(&mut nodes, 3, &older, &format!("the cluster works at feature level {LEVEL}"));

    // It is refused by the others, and refuses them.
    nodes.program = own.to_owned();
    let log = |id: i32| nodes.path().join(format!("log-{id}"));
    let logs = [1, 2].map(log);
    for (id, log) in (1..).zip(&logs) {
        nodes.stop(id);
        let mut command = nodes.serve(id);
        command.stderr(File::create(log).unwrap());
        nodes.spawn_with(id, command);
        nodes.await_ready(id);
        nodes.await_well();
    }
    nodes.stop(3);
    nodes.program = stranger;
    let mut command = nodes.serve(3);
    command.stderr(Stdio::null());
    nodes.spawn_with(3, command);
    let refusal = "this broker speaks version 1 among brokers, not 2";
    let told = |log: &PathBuf| fs::read_to_string(log).unwrap().matches(refusal).count();
    eventually("somebody has refused it", || logs.iter().any(|log| told(log) > 0));
    nodes.write("t", records, 100);
    let records = records + 100;
    std::thread::sleep(std::time::Duration::from_secs(5));
    for log in &logs {
        assert!(told(log) <= 1, "told once: {}", fs::read_to_string(log).unwrap());
    }
    assert_eq!(nodes.broker(3)["state"], "fenced");
    nodes.kill(3);
    nodes.program = own.to_owned();
    nodes.spawn(3);
    nodes.await_ready(3);
    nodes.await_well();
    nodes.check("t", records);

    let records = roll(&mut nodes, &newer, records, LEVEL);
    eventually("the level of the newest program", || level(&nodes) == LEVEL + 1);
    refuses(&mut nodes, 1, own, &format!("the cluster works at feature level {}", LEVEL + 1));
    nodes.check("t", records);
}
