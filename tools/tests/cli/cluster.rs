//! A broker, and commands that are run against it.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use floodmark_broker::{Broker, BrokerConfig};
use serde_json::Value;

use crate::deadline::Deadline;

/// How often something that must come true is looked at, and how many times before the test gives up.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOOKS: usize = 600;

/// The program, without what the environment of the test says about servers.
pub(crate) fn floodmark() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_floodmark"));
    command.env_remove("FLOODMARK_SERVER");
    command
}

/// A broker of a test's own; it ends and its files go away with this.
pub(crate) struct Cluster {
    broker: Broker,
}

/// What came of a command.
pub(crate) struct Ran {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Cluster {
    pub(crate) fn start() -> Cluster {
        Cluster { broker: Broker::start(BrokerConfig::temporary().unwrap()).unwrap() }
    }

    pub(crate) fn server(&self) -> String {
        self.broker.grpc_address().unwrap().to_string()
    }

    pub(crate) fn kafka(&self) -> String {
        self.broker.kafka_address().to_string()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = floodmark();
        command.args(args).env("FLOODMARK_SERVER", self.server());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, b"")
    }

    /// With these bytes on standard input.
    pub(crate) fn run_with(&self, args: &[&str], input: &[u8]) -> Ran {
        run(self.command(args), input)
    }

    /// Standard output of a command that must do it.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        String::from_utf8(self.ok_with(args, b"")).unwrap()
    }

    pub(crate) fn ok_with(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        let ran = self.run_with(args, input);
        assert!(ran.status.success(), "{args:?}: {}", ran.stderr);
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
        assert_eq!(ran.status.code(), Some(2), "{args:?}: {}", String::from_utf8_lossy(&ran.stdout));
        assert!(ran.stderr.starts_with("error: "), "{args:?}: {}", ran.stderr);
        ran.stderr
    }

    /// A command that goes on by itself.
    pub(crate) fn spawn(&self, args: &[&str]) -> Running {
        let mut command = self.command(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        Running { _deadline: Deadline::of(&child, format!("{args:?}")), child: Some(child) }
    }

    pub(crate) fn create(&self, topic: &str, partitions: &str) {
        self.ok(&["topic", "create", topic, "--partitions", partitions]);
    }
}

pub(crate) fn run(mut command: Command, input: &[u8]) -> Ran {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let _deadline = Deadline::of(&child, format!("{command:?}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = thread::spawn(move || {
        // A command that has seen enough closes it.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Ran { status: output.status, stdout: output.stdout, stderr: String::from_utf8(output.stderr).unwrap() }
}

pub(crate) fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// Looks until it is so.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..LOOKS {
        if is_so() {
            return;
        }
        thread::sleep(LOOK_EVERY);
    }
    panic!("it never came true: {what}");
}

/// A command under way; killed where a test forgets it.
pub(crate) struct Running {
    child: Option<Child>,
    _deadline: Deadline,
}

impl Running {
    pub(crate) fn child(&mut self) -> &mut Child {
        self.child.as_mut().unwrap()
    }

    pub(crate) fn signal(&mut self, name: &str) {
        let id = self.child().id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    /// The next bytes on standard output.
    pub(crate) fn read(&mut self, bytes: usize) -> Vec<u8> {
        let mut read = vec![0; bytes];
        self.child().stdout.as_mut().unwrap().read_exact(&mut read).unwrap();
        read
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Ran {
        let output = self.child.take().unwrap().wait_with_output().unwrap();
        Ran {
            status: output.status,
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
