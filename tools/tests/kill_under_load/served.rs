//! The broker as a process, which is killed and started again in the same place.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// A broker on a free port. Dropped, it is killed.
pub(crate) struct Served {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Served {
    /// Returns once it has said where it listens.
    pub(crate) fn start(dir: &Path) -> Served {
        let mut child = spawn(dir);
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let lines = stdout.lines().map_while(Result::ok);
        let address =
            lines.filter_map(|line| line.split_once("Kafka").map(|(_, at)| at.trim().to_owned())).next();
        let Some(address) = address else {
            let _ = child.wait();
            panic!("the broker ended: {}", std::fs::read_to_string(dir.join("serve.err")).unwrap());
        };
        Served { child, address: address.parse().unwrap() }
    }

    /// Starts it and kills it so much later, whether or not it is up by then.
    pub(crate) fn start_and_kill(dir: &Path, after: Duration) {
        let mut child = spawn(dir);
        thread::sleep(after);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGKILL; returns when it is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(dir: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_floodmark"));
    command.args(["serve", "--kafka-listen", "127.0.0.1:0", "--grpc-listen", "off", "--http-listen", "off"]);
    command.arg("--data-dir");
    command.arg(dir.join("data"));
    // Members join at once.
    command.args(["--set", "group.initial.rebalance.delay.ms=0", "--set", "offsets.topic.num.partitions=5"]);
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("FLOODMARK_") {
            command.env_remove(variable);
        }
    }
    let log = OpenOptions::new().create(true).append(true).open(dir.join("serve.err")).unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    command.spawn().unwrap()
}
