//! A cluster of `floodmark serve` processes on loopback, that can be killed, stopped and started again one by one.
#![allow(clippy::disallowed_methods, reason = "what a broker says goes to a file of whoever runs the load")]

use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use crate::kafka::Kafka;
use crate::line;
use crate::server::{Server, serve};

/// Brokers of a cluster.
pub const COUNT: usize = 3;
/// One that was killed checks what its logs hold before it takes connections.
const READY_WITHIN: Duration = Duration::from_secs(180);
/// Kafka, gRPC, HTTP, brokers.
const DOORS: usize = 4;
/// From below those ports that systems give to connections that go out, or one of these might take a port before its broker has it again.
const FIRST_PORT: u16 = 12_000;
const LAST_PORT: u16 = 31_000;

/// Three brokers, each of which copies what the others lead.
pub struct Nodes {
    program: PathBuf,
    dir: PathBuf,
    ports: Vec<[u16; DOORS]>,
    /// What no broker is told by its flags: names of environment variables, and values.
    environment: Vec<(String, String)>,
    /// Where the others reach each of them; empty where that is its own port.
    lines: Vec<SocketAddr>,
    servers: Vec<Option<Server>>,
}

impl Nodes {
    /// None of them runs yet. Their data, and what they say, lie in `dir`.
    pub fn new(program: &Path, dir: &Path, environment: &[(&str, &str)]) -> anyhow::Result<Nodes> {
        std::fs::create_dir_all(dir)?;
        let environment =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Ok(Nodes {
            program: program.to_owned(),
            dir: dir.to_owned(),
            ports: free_ports()?,
            environment,
            lines: Vec::new(),
            servers: (0..COUNT).map(|_| None).collect(),
        })
    }

    /// Has what brokers say to each other take so long each way.
    pub fn lay_lines(&mut self, each_way: Duration) -> anyhow::Result<()> {
        let to = |ports: &[u16; DOORS]| line::lay(loopback(ports[DOORS - 1]), each_way);
        self.lines = self.ports.iter().map(to).collect::<anyhow::Result<_>>()?;
        Ok(())
    }

    /// Where the others reach the broker at this place.
    fn reached_at(&self, n: usize) -> SocketAddr {
        self.lines.get(n).copied().unwrap_or(loopback(self.ports[n][DOORS - 1]))
    }

    /// Starts those that do not run, and returns once each takes connections.
    pub fn start_missing(&mut self) -> anyhow::Result<()> {
        let missing: Vec<usize> = (0..COUNT).filter(|n| self.servers[*n].is_none()).collect();
        // They wait for each other.
        for n in &missing {
            self.servers[*n] = Some(self.spawn(*n)?);
        }
        missing
            .into_iter()
            .try_for_each(|n| self.servers[n].as_mut().context("it runs")?.wait_listening(READY_WITHIN))
    }

    fn spawn(&self, n: usize) -> anyhow::Result<Server> {
        let [kafka, grpc, http, cluster] = self.ports[n].map(loopback);
        let voters: Vec<_> = (0..COUNT).map(|n| format!("{}@{}", n + 1, self.reached_at(n))).collect();
        let mut command = serve(&self.program);
        command.arg("--data-dir").arg(self.dir.join(format!("node-{}", n + 1)));
        command.args(["--node-id", &(n + 1).to_string(), "--voters", &voters.join(",")]);
        command.args(["--kafka-listen", &kafka.to_string(), "--grpc-listen", &grpc.to_string()]);
        command.args(["--http-listen", &http.to_string(), "--cluster-listen", &cluster.to_string()]);
        command.args(["--cluster-advertised", &self.reached_at(n).to_string()]);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let log = self.dir.join(format!("node-{}.log", n + 1));
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        Server::spawn(command, kafka, Stdio::from(log))
    }

    /// A connection to the broker with this id.
    pub fn connect(&self, id: i32) -> anyhow::Result<Kafka> {
        Kafka::connect(self.server(id)?.address)
    }

    /// A connection to one that runs.
    pub fn connect_any(&self) -> anyhow::Result<Kafka> {
        Kafka::connect(self.running().next().context("no broker runs")?.1.address)
    }

    /// True where the broker with this id runs.
    #[must_use]
    pub fn runs(&self, id: i32) -> bool {
        self.server(id).is_ok()
    }

    /// Where the broker with this id takes requests.
    pub fn server(&self, id: i32) -> anyhow::Result<&Server> {
        let n = index(id)?;
        self.servers.get(n).and_then(Option::as_ref).with_context(|| format!("broker {id} does not run"))
    }

    /// Those that run, by their ids.
    pub fn running(&self) -> impl Iterator<Item = (i32, &Server)> {
        (1..).zip(&self.servers).filter_map(|(id, server)| Some((id, server.as_ref()?)))
    }

    /// Kills one.
    pub fn kill(&mut self, id: i32) -> anyhow::Result<()> {
        self.servers.get_mut(index(id)?).and_then(Option::take).map(drop).context("it does not run")
    }

    /// Tells all of them to end, at once; the longest that one took, and whether all say that it went well.
    pub fn terminate(&mut self, within: Duration) -> anyhow::Result<(Duration, bool)> {
        let servers: Vec<Server> = self.servers.iter_mut().filter_map(Option::take).collect();
        let ending: Vec<_> =
            servers.into_iter().map(|server| thread::spawn(move || server.terminate(within))).collect();
        let mut all = (Duration::ZERO, true);
        for ended in ending {
            let Ok(ended) = ended.join() else { bail!("ending a broker panicked") };
            let (took, is_well) = ended?;
            all = (all.0.max(took), all.1 && is_well);
        }
        Ok(all)
    }
}

fn index(id: i32) -> anyhow::Result<usize> {
    let n = usize::try_from(id - 1)?;
    ensure!(n < COUNT, "there is no broker {id}");
    Ok(n)
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Held until all are chosen, so that none is chosen twice; from a place by the process, so that two runs seldom want the same.
fn free_ports() -> anyhow::Result<Vec<[u16; DOORS]>> {
    let span = LAST_PORT - FIRST_PORT;
    let from = (std::process::id() % u32::from(span)) as u16;
    let (mut held, mut free) = (Vec::new(), Vec::new());
    for port in (0..span).map(|n| FIRST_PORT + (from + n) % span) {
        if let Ok(listener) = TcpListener::bind(loopback(port)) {
            held.push(listener);
            free.push(port);
        }
        if let Some(ports) = free.as_chunks::<DOORS>().0.get(..COUNT) {
            return Ok(ports.to_vec());
        }
    }
    bail!("no ports are free from {FIRST_PORT} to {LAST_PORT}")
}
