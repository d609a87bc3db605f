//! The broker as a process with a gRPC door, which is killed and started again in the same place.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Dropped, it is killed.
pub(crate) struct Served {
    child: Child,
    /// Where gRPC clients connect.
    pub(crate) grpc: String,
}

impl Served {
    /// Returns once it has said where it listens.
    pub(crate) fn start(dir: &Path, grpc_listen: &str) -> Served {
        let mut command = Command::new(env!("CARGO_BIN_EXE_floodmark"));
        command.args(["serve", "--kafka-listen", "127.0.0.1:0", "--http-listen", "off"]);
        command.args(["--grpc-listen", grpc_listen, "--data-dir"]).arg(dir.join("data"));
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("FLOODMARK_") {
                command.env_remove(variable);
            }
        }
        let log = OpenOptions::new().create(true).append(true).open(dir.join("serve.err")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let grpc = lines.find_map(|line| line.split_once("gRPC").map(|(_, at)| at.trim().to_owned()));
        let Some(grpc) = grpc else {
            let _ = child.wait();
            panic!("the broker ended: {}", std::fs::read_to_string(dir.join("serve.err")).unwrap());
        };
        Served { child, grpc }
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
