//! Brokers that are processes, and commands that are run against them.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::deadline::Deadline;
use crate::free_ports::free_ports;

/// How often something that must come true is looked at, and for how long before a test gives up. A look that hangs is one of the last.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LOOK_FOR: Duration = Duration::from_secs(90);

/// The program, without what the environment of the test says about brokers and servers.
pub(crate) fn floodmark() -> Command {
    program(Path::new(OWN_PROGRAM))
}

/// This build's.
pub(crate) const OWN_PROGRAM: &str = env!("CARGO_BIN_EXE_floodmark");

fn program(path: &Path) -> Command {
    let mut command = Command::new(path);
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("FLOODMARK_") {
            command.env_remove(variable);
        }
    }
    command
}

/// What came of a command.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

pub(crate) fn run(mut command: Command, input: &str) -> Ran {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let _deadline = Deadline::of(&child, format!("{command:?}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = thread::spawn(move || {
        // A command that has seen enough closes it.
        let _ = stdin.write_all(input.as_bytes());
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
}

pub(crate) fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// Looks until it is so.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while since.elapsed() < LOOK_FOR {
        if is_so() {
            return;
        }
        thread::sleep(LOOK_EVERY);
    }
    panic!("it never came true: {what}");
}

/// A process that is killed where a test forgets it.
pub(crate) struct Process(Option<Child>);

impl Process {
    pub(crate) fn spawn(mut command: Command) -> Process {
        Process(Some(command.stdin(Stdio::null()).spawn().unwrap()))
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        self.0.as_mut().unwrap()
    }

    pub(crate) fn signal(&mut self, name: &str) {
        let id = self.child().id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    pub(crate) fn wait(mut self) -> ExitStatus {
        let mut child = self.0.take().unwrap();
        let _deadline = Deadline::of(&child, "a process that was told to end");
        child.wait().unwrap()
    }

    /// The end of a process that fails, with what it said on standard error.
    pub(crate) fn end(mut self) -> (ExitStatus, String) {
        let mut child = self.0.take().unwrap();
        let _deadline = Deadline::of(&child, "a process that has to fail");
        let mut log = String::new();
        child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (child.wait().unwrap(), log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// One broker: where it listens, and its process while it runs.
pub(crate) struct Node {
    id: i32,
    /// Kafka, gRPC, HTTP, brokers.
    pub(crate) ports: [u16; 4],
    pub(crate) dir: PathBuf,
    process: Option<Process>,
}

impl Node {
    pub(crate) fn grpc(&self) -> String {
        format!("127.0.0.1:{}", self.ports[1])
    }

    pub(crate) fn http(&self) -> String {
        format!("127.0.0.1:{}", self.ports[2])
    }
}

/// Brokers that are one cluster; all of it goes away with this.
pub(crate) struct Nodes {
    nodes: BTreeMap<i32, Node>,
    voters: String,
    settings: Vec<String>,
    /// What brokers that are started from now on run.
    pub(crate) program: PathBuf,
    dir: TempDir,
}

impl Nodes {
    /// Starts brokers 1 to `count`, which vote, and returns once all are ready. `settings` are `KEY=VALUE`, for each of them.
    pub(crate) fn start(count: i32, settings: &[&str]) -> Nodes {
        Nodes::start_as(Path::new(OWN_PROGRAM), count, settings)
    }

    /// The same with another program.
    pub(crate) fn start_as(program: &Path, count: i32, settings: &[&str]) -> Nodes {
        let dir = TempDir::new().unwrap();
        let mut nodes = Nodes {
            nodes: BTreeMap::new(),
            voters: String::new(),
            settings: settings.iter().map(|setting| (*setting).to_owned()).collect(),
            program: program.to_owned(),
            dir,
        };
        for id in 1..=count {
            nodes.add(id, free_ports());
        }
        let voter = |node: &Node| format!("{}@127.0.0.1:{}", node.id, node.ports[3]);
        nodes.voters = nodes.nodes.values().map(voter).collect::<Vec<_>>().join(",");
        for id in 1..=count {
            nodes.spawn(id);
        }
        for id in 1..=count {
            nodes.await_ready(id);
        }
        nodes
    }

    pub(crate) fn add(&mut self, id: i32, ports: [u16; 4]) {
        let dir = self.dir.path().join(format!("broker-{id}"));
        self.nodes.insert(id, Node { id, ports, dir, process: None });
    }

    pub(crate) fn node(&self, id: i32) -> &Node {
        &self.nodes[&id]
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Starts a broker, without waiting for it.
    pub(crate) fn spawn(&mut self, id: i32) {
        let command = self.serve(id);
        self.nodes.get_mut(&id).unwrap().process = Some(Process::spawn(command));
    }

    /// The command that starts a broker.
    pub(crate) fn serve(&self, id: i32) -> Command {
        let node = &self.nodes[&id];
        let address = |n: usize| format!("127.0.0.1:{}", node.ports[n]);
        let mut command = program(&self.program);
        command.args(["serve", "--node-id", &id.to_string(), "--log-filter", "warn,openraft=error"]);
        command.arg("--data-dir").arg(&node.dir).args(["--voters", &self.voters]);
        for (n, door) in ["kafka", "grpc", "http", "cluster"].into_iter().enumerate() {
            command.args([&format!("--{door}-listen"), &address(n)]);
        }
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        command.stdout(Stdio::null());
        command
    }

    /// One with a command of the test's own.
    pub(crate) fn spawn_with(&mut self, id: i32, command: Command) {
        self.nodes.get_mut(&id).unwrap().process = Some(Process::spawn(command));
    }

    /// Waits until a broker says that it is ready.
    pub(crate) fn await_ready(&self, id: i32) {
        let mut command = floodmark();
        command.args(["cluster", "ready", "--http", &self.nodes[&id].http(), "--wait", "60s"]);
        let ran = run(command, "");
        assert!(ran.status.success(), "broker {id}: {}{}", ran.stdout, ran.stderr);
    }

    /// Stops a broker in good order.
    pub(crate) fn stop(&mut self, id: i32) {
        let mut process = self.nodes.get_mut(&id).unwrap().process.take().unwrap();
        process.signal("TERM");
        assert!(process.wait().success(), "broker {id}");
    }

    /// kill -9.
    pub(crate) fn kill(&mut self, id: i32) {
        self.nodes.get_mut(&id).unwrap().process = None;
    }

    /// The gRPC address of a broker that runs.
    fn server(&self) -> String {
        self.nodes.values().find(|node| node.process.is_some()).unwrap().grpc()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = floodmark();
        command.args(args).env("FLOODMARK_SERVER", self.server());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        run(self.command(args), "")
    }

    /// Standard output of a command that must do it.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        self.ok_with(args, "")
    }

    pub(crate) fn ok_with(&self, args: &[&str], input: &str) -> String {
        let ran = run(self.command(args), input);
        assert!(ran.status.success(), "{args:?}: {}{}", ran.stdout, ran.stderr);
        ran.stdout
    }

    /// The objects that a command prints with `--output json`.
    pub(crate) fn json(&self, args: &[&str]) -> Vec<Value> {
        let mut args = args.to_vec();
        args.extend(["--output", "json"]);
        objects(&self.ok(&args))
    }

    /// Standard error of a command that must be refused.
    pub(crate) fn refused(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.status.code(), Some(2), "{args:?}: {}{}", ran.stdout, ran.stderr);
        ran.stderr
    }

    pub(crate) fn status(&self) -> Value {
        self.json(&["cluster", "status"]).remove(0)
    }

    /// What `cluster status` says of a broker.
    pub(crate) fn broker(&self, id: i32) -> Value {
        let status = self.status();
        let brokers = status["brokers"].as_array().unwrap();
        brokers.iter().find(|broker| broker["broker"] == id).cloned().unwrap_or(Value::Null)
    }

    /// Makes a topic, and writes records with numbers as values.
    pub(crate) fn fill(&self, topic: &str, partitions: &str, copies: &str, records: usize) {
        self.ok(&["topic", "create", topic, "--partitions", partitions, "--replication-factor", copies]);
        self.write(topic, 0, records);
    }

    pub(crate) fn write(&self, topic: &str, from: usize, records: usize) {
        let lines: String = (from..from + records).map(|n| format!("{n}\n")).collect();
        self.ok_with(&["produce", topic], &lines);
    }

    /// Every number below `records`, once.
    pub(crate) fn check(&self, topic: &str, records: usize) {
        let mut read: Vec<usize> =
            self.ok(&["consume", topic]).lines().map(|line| line.parse().unwrap()).collect();
        read.sort_unstable();
        assert!(read.iter().copied().eq(0..records), "{} of {records} records", read.len());
    }

    /// Replicas of each partition of a topic.
    pub(crate) fn replicas(&self, topic: &str) -> Vec<Vec<i64>> {
        let described = self.json(&["topic", "describe", topic]).remove(0);
        let ids = |ids: &Value| ids.as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect();
        described["partitions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|partition| ids(&partition["replicas"]))
            .collect()
    }

    /// The sum of a metric without labels over the brokers that run.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let value = |node: &Node| {
            let mut socket = TcpStream::connect(node.http()).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            write!(socket, "GET /metrics HTTP/1.0\r\n\r\n").unwrap();
            let mut answer = String::new();
            socket.read_to_string(&mut answer).unwrap();
            let line = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("no {name}")).parse::<f64>().unwrap()
        };
        self.nodes.values().filter(|node| node.process.is_some()).map(value).sum()
    }

    /// Waits until every broker that runs serves, every partition has all its replicas in sync and nothing moves. The cluster alone does not
    /// tell: of a broker that is killed and started again within a session it has not heard either.
    pub(crate) fn await_well(&self) {
        for node in self.nodes.values().filter(|node| node.process.is_some()) {
            self.await_ready(node.id);
        }
        eventually("the cluster is well", || {
            let ran = self.run(&["cluster", "status", "--check", "--output", "json"]);
            ran.status.success() && objects(&ran.stdout)[0]["partitions"]["moving"] == 0
        });
    }
}

/// A process that prints where it can be reached, line by line.
pub(crate) fn lines_of(process: &mut Process) -> impl Iterator<Item = String> + use<> {
    BufReader::new(process.child().stdout.take().unwrap()).lines().map(|line| line.unwrap())
}
