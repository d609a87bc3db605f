//! `floodmark serve` and `floodmark config` as a user runs them.
#![allow(clippy::disallowed_methods, reason = "the test writes settings files")]
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use deadline::Deadline;
use serde_json::Value;
use tempfile::TempDir;

#[path = "deadline/mod.rs"]
mod deadline;

fn floodmark() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_floodmark"));
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("FLOODMARK_") {
            command.env_remove(variable);
        }
    }
    command
}

/// A broker on free ports; killed where a test forgets it.
struct Served {
    child: Child,
    stdout: BufReader<ChildStdout>,
    kafka: String,
    grpc: String,
    http: String,
    _deadline: Deadline,
}

impl Served {
    fn start(dir: &Path, more: &[&str]) -> Served {
        let mut command = floodmark();
        command.args([
            "serve",
            "--kafka-listen",
            "127.0.0.1:0",
            "--grpc-listen",
            "127.0.0.1:0",
            "--http-listen",
            "127.0.0.1:0",
            "--data-dir",
        ]);
        command.arg(dir).args(more).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let deadline = Deadline::of(&child, format!("{command:?}"));
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut addresses = [String::new(), String::new(), String::new()];
        for (at, name) in ["Kafka", "gRPC", "HTTP"].into_iter().enumerate() {
            while addresses[at].is_empty() {
                let mut line = String::new();
                assert!(
                    stdout.read_line(&mut line).unwrap() > 0,
                    "ended early: {}",
                    rest_of_stderr(&mut child)
                );
                if let Some((_, address)) = line.split_once(name) {
                    addresses[at] = address.trim().to_owned();
                }
            }
        }
        let [kafka, grpc, http] = addresses;
        Served { child, stdout, kafka, grpc, http, _deadline: deadline }
    }

    fn signal(&self, name: &str) {
        let sent =
            Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Exit code and what was logged.
    fn end(mut self) -> (Option<i32>, String) {
        let log = rest_of_stderr(&mut self.child);
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), log)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn rest_of_stderr(child: &mut Child) -> String {
    let mut log = String::new();
    child.stderr.as_mut().unwrap().read_to_string(&mut log).unwrap();
    log
}

/// Standard error of a run that must fail.
fn failure(args: &[&str], variables: &[(&str, &str)]) -> String {
    let output = floodmark().args(args).envs(variables.iter().copied()).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

fn connect(address: &str) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    socket
}

fn ask_versions(kafka: &str) -> Vec<u8> {
    let mut socket = connect(kafka);
    socket.write_all(&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 5, 0xff, 0xff]).unwrap();
    let mut head = [0; 10];
    socket.read_exact(&mut head).unwrap();
    head.to_vec()
}

#[test]
fn a_broker_answers_and_ends_when_told() {
    for signal in ["TERM", "INT"] {
        let dir = TempDir::new().unwrap();
        let served = Served::start(&dir.path().join("data"), &[]);
        assert_eq!(ask_versions(&served.kafka)[4..], [0, 0, 0, 5, 0, 0]);
        let http = served.http.strip_prefix("http://").unwrap().strip_suffix("/metrics").unwrap();
        let mut socket = connect(http);
        socket.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("ready\n"), "{answer}");
        // An HTTP/2 connection without a call is greeted with settings, and keeps nobody from stopping.
        let mut grpc = connect(&served.grpc);
        grpc.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
        let mut frame = [0; 9];
        grpc.read_exact(&mut frame).unwrap();
        assert_eq!(frame[3], 4);
        served.signal(signal);
        let (code, log) = served.end();
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains(&format!("SIG{signal}")) && log.contains("stopped"), "{log}");
        // Started again in the same place.
        let served = Served::start(&dir.path().join("data"), &[]);
        served.signal(signal);
        assert_eq!(served.end().0, Some(0));
    }
}

#[test]
fn the_log_is_json_where_that_is_asked_for() {
    let dir = TempDir::new().unwrap();
    let served = Served::start(dir.path(), &["--log-format", "json"]);
    // One bad frame, one line.
    let mut socket = connect(&served.kafka);
    socket.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    let _ = socket.read(&mut [0]);
    served.signal("TERM");
    let (_, log) = served.end();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let warnings: Vec<&Value> = lines.iter().filter(|line| line["level"] == "WARN").collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(warnings[0]["reason"].as_str().unwrap().starts_with("frame of 1195725856 bytes"), "{log}");
}

#[test]
fn what_keeps_a_broker_from_starting_is_told_in_one_line() {
    let dir = TempDir::new().unwrap();
    let served = Served::start(dir.path(), &[]);
    let in_dir = |more: &[&str]| {
        let path = dir.path().join("other");
        let mut args = vec![
            "serve",
            "--grpc-listen",
            "off",
            "--http-listen",
            "off",
            "--data-dir",
            path.to_str().unwrap(),
        ];
        args.extend(more);
        failure(&args, &[])
    };
    let told = in_dir(&["--kafka-listen", &served.kafka]);
    assert!(told.contains("is in use by another process") && told.lines().count() == 1, "{told}");
    let path = dir.path().to_str().unwrap();
    let told = failure(
        &[
            "serve",
            "--kafka-listen",
            "127.0.0.1:0",
            "--grpc-listen",
            "off",
            "--http-listen",
            "off",
            "--data-dir",
            path,
        ],
        &[],
    );
    assert!(told.contains("another process uses this data directory") && told.lines().count() == 1, "{told}");
    let told = in_dir(&["--log-filter", "a=b=c"]);
    assert!(told.contains("logging.filter cannot be \"a=b=c\""), "{told}");
    let told = in_dir(&["--set", "offsets.retention.check.interval=5s"]);
    assert!(told.contains("did you mean offsets.retention.check.interval.ms?"), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    let told = in_dir(&["--set", "num.partitions"]);
    assert!(told.contains("--set takes KEY=VALUE"), "{told}");
}

#[test]
fn settings_are_shown_with_their_origin() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("broker.toml");
    fs::write(&file, "# a comment\n[num]\npartitions = 6\n").unwrap();
    let file = file.to_str().unwrap();
    let args = [
        "config",
        "show",
        "--config",
        file,
        "--node-id",
        "9",
        "--output",
        "json",
        "--data-dir",
        "a",
        "--data-dir",
        "b",
    ];
    let output = floodmark().args(args).env("FLOODMARK_LOGGING_FORMAT", "json").output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let row = |key: &str| rows.iter().find(|row| row["key"] == key).unwrap();
    assert_eq!(row("num.partitions")["value"], "6");
    assert_eq!(row("num.partitions")["origin"], serde_json::json!({"kind": "file", "path": file, "line": 3}));
    assert_eq!(row("node.id")["origin"], serde_json::json!({"kind": "flag", "flag": "--node-id"}));
    assert_eq!(row("data.dirs")["value"], "a,b");
    assert_eq!(row("logging.format")["origin"]["variable"], "FLOODMARK_LOGGING_FORMAT");
    assert_eq!(row("kafka.listen")["origin"]["kind"], "default");
    assert!(rows.iter().all(|row| !row["documentation"].as_str().unwrap().is_empty()));

    let output = floodmark().args(["config", "show"]).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    for row in rows.iter().filter(|row| !row["default"].is_null()) {
        assert!(table.contains(row["key"].as_str().unwrap()), "{row}");
    }
    assert_eq!(row("log.retention.hours")["topic_setting"], "retention.ms");
    assert!(row("log.retention.hours")["value"].is_null() && row("log.retention.ms")["value"] == "604800000");
}

#[test]
fn a_setting_is_explained_and_a_wrong_one_refused() {
    let output = floodmark().args(["config", "explain", "node.id"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for part in ["a whole number, from 0 to 2147483647", "FLOODMARK_NODE_ID=1", "--node-id 1", "node.id = 1"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(failure(&["config", "explain", "node.idd"], &[]).contains("did you mean node.id?"));
    let told = failure(&["config", "show"], &[("FLOODMARK_NUM_PARTITION", "1")]);
    assert!(
        told.contains("environment variable FLOODMARK_NUM_PARTITION")
            && told.contains("FLOODMARK_NUM_PARTITIONS?"),
        "{told}"
    );
    let told = failure(&["serve", "--node-id", "x"], &[]);
    assert_eq!(
        told,
        "error: flag --node-id: node.id cannot be \"x\"; allowed is a whole number, from 0 to 2147483647\n"
    );
}

#[test]
fn a_life_in_good_order_is_logged_without_warnings_and_garbage_once() {
    let dir = TempDir::new().unwrap();
    let mut served = Served::start(dir.path(), &["--cluster-listen", "127.0.0.1:0"]);
    let mut line = String::new();
    served.stdout.read_line(&mut line).unwrap();
    let (what, brokers) = line.trim().split_once("  ").unwrap();
    assert_eq!(what, "brokers");
    drop(connect(brokers));
    ask_versions(&served.kafka);
    served.signal("TERM");
    let (code, log) = served.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("stopped") && !log.contains("WARN") && !log.contains("ERROR"), "{log}");

    let served = Served::start(dir.path(), &[]);
    for _ in 0..2 {
        let mut garbage = connect(&served.grpc);
        garbage.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        // Closed, with or without a word.
        let _ = garbage.read_to_end(&mut Vec::new());
    }
    served.signal("TERM");
    let (_, log) = served.end();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("what came is not HTTP/2")).collect();
    assert!(matches!(told[..], [one] if one.contains("peer=127.0.0.1") && one.contains("gRPC")), "{log}");
}
