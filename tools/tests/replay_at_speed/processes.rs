//! The replay as a process that can be killed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const ENDS_WITHIN: Duration = Duration::from_secs(60);

fn floodmark() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_floodmark"));
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("FLOODMARK_") {
            command.env_remove(variable);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// `floodmark replay` into a topic, with a checkpoint beside the data. Dropped, it is killed.
pub(crate) struct Replaying {
    child: Child,
    said: PathBuf,
}

impl Replaying {
    /// Begins, or goes on where the one before was killed.
    pub(crate) fn start(dir: &Path, server: &str, from: &str, into: &str, times: f64) -> Replaying {
        let said = dir.join(format!("{into}.err"));
        let mut command = floodmark();
        command.args(["replay", from, "--into", into, "--rate", &format!("{times}x"), "--server", server]);
        command.arg("--checkpoint").arg(dir.join(format!("{into}.job")));
        let child = command.stdout(Stdio::null()).stderr(File::create(&said).unwrap()).spawn().unwrap();
        Replaying { child, said }
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// SIGKILL, which must find it at work.
    pub(crate) fn kill(mut self) {
        assert!(self.is_alive(), "the replay has ended: {}", self.words());
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end, which must be a success; what it said.
    pub(crate) fn end_well(mut self) -> String {
        let since = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(since.elapsed() < ENDS_WITHIN, "everything is copied, and the replay does not end");
            std::thread::sleep(Duration::from_millis(10));
        };
        assert!(status.success(), "{}", self.words());
        self.words()
    }

    /// What it held at most; nothing once it has ended.
    pub(crate) fn memory_peak_mib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|text| text.trim().trim_end_matches(" kB").parse::<f64>().ok());
        kib.unwrap_or_default() / 1024.0
    }

    fn words(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap()
    }
}

impl Drop for Replaying {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
