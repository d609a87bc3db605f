//! The other side of the socket, in a process of its own, so that its CPU time and memory can be told from the load's.
#![allow(clippy::disallowed_methods, reason = "a load measures time")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Where the two sides of a socket run. A system left to itself puts them on one core in one run and on two in the next, and a round trip
/// on two takes three times as long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Placement {
    /// Both on one
    OneCore,
    /// The load on one, everything of the server on another
    TwoCores,
    /// Wherever the system puts them
    Free,
}

impl Placement {
    /// As reports name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Placement::OneCore => "one core",
            Placement::TwoCores => "two cores",
            Placement::Free => "free",
        }
    }

    /// Runs what starts a server; its process inherits the place.
    pub fn serve<T>(self, start: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        self.on(1, start)
    }

    /// Runs the load; threads that it starts inherit the place.
    pub fn load<T>(self, load: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        self.on(0, load)
    }

    fn on<T>(self, core: usize, run: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        let core = match self {
            Placement::OneCore => cores.next(),
            Placement::TwoCores => cores.nth(core),
            Placement::Free => return run(),
        };
        let mut one = CpuSet::new();
        one.set(core.context("this machine gives the program one core alone; say --placement one-core")?);
        sched_setaffinity(None, &one)?;
        let result = run();
        sched_setaffinity(None, &allowed)?;
        result
    }
}

const READY_WITHIN: Duration = Duration::from_secs(20);

/// A server that is ended when this goes.
pub struct Server {
    child: Child,
    /// Where it listens; a broker's Kafka door.
    pub address: SocketAddr,
    /// A broker's gRPC door.
    pub grpc: Option<SocketAddr>,
    /// What each of its threads had used when it was last seen: threads end, and what they used counts all the same.
    cpu_seen: RefCell<BTreeMap<OsString, u64>>,
}

/// Which `floodmark` is started.
#[derive(Debug, Clone, clap::Args)]
pub struct BrokerProgram {
    /// The broker's program; the one beside this where nobody says
    #[arg(long)]
    program: Option<PathBuf>,
}

impl BrokerProgram {
    /// Where it is. Fails where it has not been built.
    pub fn path(&self) -> anyhow::Result<PathBuf> {
        let path = match &self.program {
            Some(program) => program.clone(),
            None => {
                std::env::current_exe()?.parent().context("a program lies in a folder")?.join("floodmark")
            }
        };
        anyhow::ensure!(
            path.is_file(),
            "there is no {}: build it by `cargo build --release -p floodmark-tools`, or name one with --program",
            path.display()
        );
        Ok(path)
    }
}

/// `floodmark serve`, without what the environment of the bench says about brokers.
#[must_use]
pub fn serve(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("FLOODMARK_") {
            command.env_remove(variable);
        }
    }
    command.arg("serve");
    command
}

impl Server {
    /// Starts `floodmark serve` on an empty directory.
    pub fn floodmark(program: &Path, data_dir: &Path) -> anyhow::Result<Server> {
        let (address, grpc, http) = (free_address()?, free_address()?, free_address()?);
        let mut command = serve(program);
        command.arg("--data-dir").arg(data_dir);
        command.arg("--kafka-listen").arg(address.to_string());
        command.arg("--grpc-listen").arg(grpc.to_string());
        command.arg("--http-listen").arg(http.to_string());
        let mut server = Server::start(command, address)?;
        server.grpc = Some(grpc);
        Ok(server)
    }

    /// Starts this program again as one of its bare servers: with these words, an address to listen on, and what comes `after` it.
    pub fn bare(words: &[&str], after: &[&OsStr]) -> anyhow::Result<Server> {
        let address = free_address()?;
        let own = std::env::current_exe().context("find this program")?;
        let mut command = Command::new(own);
        command.args(words).arg(address.to_string()).args(after);
        Server::start(command, address)
    }

    fn start(command: Command, address: SocketAddr) -> anyhow::Result<Server> {
        let mut server = Server::spawn(command, address, Stdio::null())?;
        server.wait_listening(READY_WITHIN)?;
        Ok(server)
    }

    /// Starts a program that will listen on `address`, and does not wait for that. What it says goes to `log`.
    pub(crate) fn spawn(mut command: Command, address: SocketAddr, log: Stdio) -> anyhow::Result<Server> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let child = child.with_context(|| format!("start {command:?}"))?;
        Ok(Server { child, address, grpc: None, cpu_seen: RefCell::default() })
    }

    /// Returns once it takes connections.
    pub(crate) fn wait_listening(&mut self, within: Duration) -> anyhow::Result<()> {
        let begun = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            let (id, address) = (self.child.id(), self.address);
            ensure!(begun.elapsed() < within, "process {id} does not listen on {address}");
            let ended = self.child.try_wait()?;
            ensure!(
                ended.is_none(),
                "the server for {address} has ended ({ended:?}); run it by hand to see why"
            );
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Asks it to end, and returns once it has: after how long, and whether it says that all went well.
    pub fn terminate(mut self, within: Duration) -> anyhow::Result<(Duration, bool)> {
        let begun = Instant::now();
        let process = Pid::from_child(&self.child);
        kill_process(process, Signal::TERM).context("tell a server to end")?;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok((begun.elapsed(), status.success()));
            }
            ensure!(begun.elapsed() < within, "a server does not end within {within:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// CPU time of all its threads so far, to the nanosecond.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let mut seen = self.cpu_seen.borrow_mut();
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let task = task?;
            // A thread may end between the listing and the look at it.
            let Ok(stat) = std::fs::read_to_string(task.path().join("schedstat")) else { continue };
            let nanos = stat.split(' ').next().context("an empty schedstat")?.parse()?;
            seen.insert(task.file_name(), nanos);
        }
        Ok(Duration::from_nanos(seen.values().sum()))
    }

    /// CPU time of the whole process so far as the system counts it, in ticks of 10 ms; of threads that have ended, too.
    pub fn cpu_ticked(&self) -> anyhow::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // Behind the name, which may hold anything: the 12th and 13th field from there are user and system time.
        let (_, fields) = stat.rsplit_once(") ").context("a stat without a name")?;
        let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        Ok(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()))
    }

    /// How many files it has open.
    pub fn open_files(&self) -> anyhow::Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.count())
    }

    /// Resident memory in MiB.
    pub fn resident_mib(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A loopback port that nobody has now.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
