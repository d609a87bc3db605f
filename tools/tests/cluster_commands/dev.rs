//! `floodmark dev`: a cluster in one process, and again on the same ports.

use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;

use crate::deadline::Deadline;
use crate::nodes::{Process, floodmark, lines_of, objects, run};

struct Dev {
    process: Process,
    brokers: Vec<Value>,
}

impl Dev {
    fn start(args: &[&str]) -> Dev {
        let mut command = floodmark();
        command.args(["dev", "--output", "json"]).args(args).stdout(Stdio::piped());
        let mut process = Process::spawn(command);
        let _deadline = Deadline::of(process.child(), "floodmark dev, that has to say where it listens");
        let lines: Vec<String> = lines_of(&mut process).take(3).collect();
        assert_eq!(lines.len(), 3, "it ended early");
        Dev { process, brokers: objects(&lines.join("\n")) }
    }

    fn ok(&self, args: &[&str], input: &str) -> String {
        let mut command = floodmark();
        command.args(args).env("FLOODMARK_SERVER", self.brokers[1]["grpc"].as_str().unwrap());
        let ran = run(command, input);
        assert!(ran.status.success(), "{args:?}: {}", ran.stderr);
        ran.stdout
    }

    fn stop(mut self) {
        self.process.signal("INT");
        assert!(self.process.wait().success());
    }
}

#[test]
fn three_brokers_are_there_again_on_the_same_ports() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("dev");
    let dev = Dev::start(&["--data-dir", path.to_str().unwrap(), "--port", "0"]);
    let brokers = dev.brokers.clone();
    dev.ok(&["topic", "create", "t", "--partitions", "3"], "");
    dev.ok(&["produce", "t"], "one\ntwo\nthree\n");
    let described = objects(&dev.ok(&["topic", "describe", "t", "--output", "json"], "")).remove(0);
    assert_eq!(described["partitions"][0]["replicas"].as_array().unwrap().len(), 3);
    assert_eq!(described["min_in_sync"], 2);
    dev.stop();

    let again = Dev::start(&["--data-dir", path.to_str().unwrap()]);
    assert_eq!(again.brokers, brokers);
    let mut lines: Vec<String> = again.ok(&["consume", "t"], "").lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["one", "three", "two"]);
    again.stop();

    let mut other = floodmark();
    other.args(["dev", "--nodes", "5", "--data-dir", path.to_str().unwrap()]);
    let ran = run(other, "");
    assert_eq!(ran.status.code(), Some(2));
    assert!(ran.stderr.contains("holds a cluster of 3 brokers"), "{}", ran.stderr);
}
