//! The brokers as processes: started, killed, paused, stopped, each in its place.

use std::fs::{self, OpenOptions};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::ground::{Ground, wait_until};

/// A broker answers no later, or the run has failed.
const UP_WITHIN: Duration = Duration::from_secs(60);
const DOWN_WITHIN: Duration = Duration::from_secs(60);
const READY_WITHIN: &str = "60s";

/// The program that is built with this test.
pub(crate) fn present_program() -> PathBuf {
    env!("CARGO_BIN_EXE_floodmark").into()
}

/// All brokers of a run, by their place; their ids are one more.
pub(crate) struct Brokers {
    pub(crate) ground: Ground,
    logs: PathBuf,
    settings: Vec<(String, String)>,
    /// What each of them runs, when it is started next.
    programs: Vec<PathBuf>,
    children: Vec<Option<Child>>,
}

impl Brokers {
    /// So many, none of which runs yet. The ground may have room for more.
    pub(crate) fn new(ground: Ground, count: usize, logs: PathBuf, settings: &[(&str, String)]) -> Brokers {
        let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        let children = (0..count).map(|_| None).collect();
        let programs = vec![present_program(); ground.places.len()];
        Brokers { ground, logs, settings, programs, children }
    }

    /// This broker runs another version of the program from its next start on.
    pub(crate) fn run_with(&mut self, index: usize, program: &Path) {
        program.clone_into(&mut self.programs[index]);
    }

    pub(crate) fn count(&self) -> usize {
        self.children.len()
    }

    pub(crate) fn is_running(&self, index: usize) -> bool {
        self.children[index].is_some()
    }

    /// What a broker wrote to its log so far.
    pub(crate) fn log(&self, index: usize) -> PathBuf {
        self.logs.join(format!("broker-{}.log", index + 1))
    }

    pub(crate) fn data_dir(&self, index: usize) -> PathBuf {
        self.ground.places[index].disk.join("data")
    }

    /// Starts the process; does not wait for it.
    pub(crate) fn start(&mut self, index: usize) {
        assert!(self.children[index].is_none(), "broker {} runs already", index + 1);
        let child = self.spawn(index, index + 1, &self.data_dir(index), &[]);
        self.children[index] = Some(child);
    }

    /// A process in a broker's place: a broker of this cluster, or one that takes itself for that.
    fn spawn(&self, place: usize, id: usize, data_dir: &Path, settings: &[&str]) -> Child {
        let place_of = &self.ground.places[place];
        let mut command = self.ground.command_at(place, &self.programs[place]);
        command.args(["serve", "--node-id", &id.to_string()]);
        command.arg("--data-dir").arg(data_dir);
        command.args(["--kafka-listen", &place_of.kafka().to_string()]);
        command.args(["--grpc-listen", &place_of.grpc().to_string()]);
        command.args(["--http-listen", &place_of.http().to_string()]);
        if self.count() > 1 {
            let voters = self.ground.places[..self.count()].iter().zip(1..);
            let voters: Vec<_> = voters.map(|(place, id)| format!("{id}@{}", place.cluster())).collect();
            command.args([
                "--cluster-listen",
                &place_of.cluster().to_string(),
                "--voters",
                &voters.join(","),
            ]);
        }
        for setting in self.settings.iter().map(|(key, value)| format!("{key}={value}")) {
            command.args(["--set", &setting]);
        }
        for setting in settings {
            command.args(["--set", setting]);
        }
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("FLOODMARK_") {
                command.env_remove(variable);
            }
        }
        let log = OpenOptions::new().create(true).append(true).open(self.log(place)).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    /// Waits, with the command that operators are told of, until the next broker may be restarted.
    pub(crate) fn await_ready(&mut self, index: usize) -> Result<(), String> {
        let mut command = Command::new(present_program());
        command.args(["cluster", "ready", "--http", &self.ground.places[index].http().to_string()]);
        let waited = command.args(["--wait", READY_WITHIN]).stdin(Stdio::null()).output();
        let waited = waited.map_err(|e| e.to_string())?;
        let ended = self.has_ended(index);
        if waited.status.success() && ended.is_none() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&waited.stdout).into_owned();
        Err(format!("broker {} ({ended:?}): {said}; {}", index + 1, self.last_words(index)))
    }

    /// Starts a broker that must be refused, in a place where none runs; how it ended, and what it said.
    pub(crate) fn start_refused(
        &self,
        place: usize,
        id: usize,
        data_dir: &Path,
        settings: &[&str],
    ) -> Result<String, String> {
        let said = fs::read_to_string(self.log(place)).unwrap_or_default().len();
        let mut child = self.spawn(place, id, data_dir, settings);
        let mut ended = None;
        wait_until(UP_WITHIN, || {
            ended = child.try_wait().unwrap();
            ended.is_some()
        });
        let words = fs::read_to_string(self.log(place)).unwrap().split_off(said);
        let Some(status) = ended else {
            child.kill().unwrap();
            child.wait().unwrap();
            return Err(format!("a broker that must be refused runs on; it says {words}"));
        };
        if status.success() {
            Err(format!("a refused broker ends with success; it says {words}"))
        } else {
            Ok(words)
        }
    }

    /// Waits until it takes connections of Kafka clients.
    pub(crate) fn await_up(&mut self, index: usize) -> Result<(), String> {
        let at = self.ground.places[index].kafka();
        let child = self.children[index].as_mut().unwrap();
        let mut ended = None;
        let is_up = wait_until(UP_WITHIN, || {
            ended = child.try_wait().unwrap();
            ended.is_some() || TcpStream::connect_timeout(&at, Duration::from_millis(200)).is_ok()
        });
        match ended {
            None if is_up => Ok(()),
            None => Err(format!("broker {} takes no connections; {}", index + 1, self.last_words(index))),
            Some(status) => Err(format!("broker {} ended: {status}; {}", index + 1, self.last_words(index))),
        }
    }

    pub(crate) fn start_all(&mut self) -> Result<(), String> {
        let stopped: Vec<_> = (0..self.count()).filter(|index| !self.is_running(*index)).collect();
        for index in &stopped {
            self.start(*index);
        }
        stopped.iter().try_for_each(|index| self.await_up(*index))
    }

    fn last_words(&self, index: usize) -> String {
        let log = fs::read_to_string(self.log(index)).unwrap_or_default();
        log.lines().rev().take(8).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    fn pid(&self, index: usize) -> Pid {
        Pid::from_child(self.children[index].as_ref().unwrap())
    }

    /// What it holds in memory, without files that it has mapped.
    pub(crate) fn memory_bytes(&self, index: usize) -> u64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.pid(index).as_raw_nonzero())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() << 10
    }

    /// Whether it has ended by itself, and how.
    pub(crate) fn has_ended(&mut self, index: usize) -> Option<ExitStatus> {
        self.children[index].as_mut().and_then(|child| child.try_wait().unwrap())
    }

    /// SIGKILL for several at once; returns when they are gone. True where each of them was alive until then.
    pub(crate) fn kill(&mut self, indexes: &[usize]) -> bool {
        for index in indexes {
            // One that has ended is found out below.
            let _ = kill_process(self.pid(*index), Signal::KILL);
        }
        let mut all = true;
        for index in indexes {
            let status = self.children[*index].take().map(|mut child| child.wait().unwrap());
            all &= status.is_some_and(|status| status.code().is_none());
        }
        all
    }

    /// Stops it from running, without its knowing; true where that is so.
    pub(crate) fn pause(&self, index: usize) -> bool {
        kill_process(self.pid(index), Signal::STOP).unwrap();
        let stat = || fs::read_to_string(format!("/proc/{}/stat", self.pid(index).as_raw_nonzero())).unwrap();
        wait_until(Duration::from_secs(30), || {
            stat().rsplit_once(')').is_some_and(|(_, state)| state.trim_start().starts_with('T'))
        })
    }

    pub(crate) fn resume(&self, index: usize) {
        kill_process(self.pid(index), Signal::CONT).unwrap();
    }

    /// SIGTERM; returns when it is gone, with how it ended.
    pub(crate) fn stop(&mut self, index: usize) -> Result<(), String> {
        kill_process(self.pid(index), Signal::TERM).unwrap();
        let Some(mut child) = self.children[index].take() else { return Ok(()) };
        let mut ended = None;
        wait_until(DOWN_WITHIN, || {
            ended = child.try_wait().unwrap();
            ended.is_some()
        });
        match ended {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!("broker {} stopped with {status}", index + 1)),
            None => {
                child.kill().unwrap();
                child.wait().unwrap();
                Err(format!("broker {} does not stop on SIGTERM; {}", index + 1, self.last_words(index)))
            }
        }
    }
}

impl Drop for Brokers {
    fn drop(&mut self) {
        let running: Vec<_> = (0..self.count()).filter(|index| self.is_running(*index)).collect();
        self.kill(&running);
    }
}
