//! The way from a command to a cluster: which server, how long to wait for it, and what to say where nobody answers.

mod probe;

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use floodmark_client::{Client, ClientConfig};
use floodmark_storage::random::Random;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::input::quantity;

/// For the first connection: a server that is there answers at once, and whoever typed a wrong address shall not wait.
const REACH_TIMEOUT: Duration = Duration::from_secs(5);

/// Whom to ask.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServerArgs {
    /// A broker's gRPC address; the others of the cluster are learned from it. Several, any of which will do, have commas between them.
    #[arg(long, value_name = "HOST:PORT", env = "FLOODMARK_SERVER", default_value = "127.0.0.1:9093")]
    pub(crate) server: String,
    /// How long one call may take, with all its attempts.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = quantity::positive_duration)]
    pub(crate) timeout: Duration,
}

impl ServerArgs {
    /// Fails at once, and with advice, where nobody listens, or whoever does serves nobody: a broker that starts may need what only its
    /// operator can give it.
    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        let servers: Vec<&str> =
            self.server.split(',').map(str::trim).filter(|server| !server.is_empty()).collect();
        reach(&servers)?;
        let mut config = ClientConfig::new(servers.clone());
        // Another one for each command, so that a member of a group knows itself among the others.
        config.client_id = format!("floodmark-cli-{:08x}", Random::System.next_u64() >> 32);
        config.operation_timeout = self.timeout;
        config.request_timeout = config.request_timeout.min(self.timeout);
        match Client::at_once(config).await {
            Ok(client) => Ok(client),
            Err(e) => Err(probe::explain(&servers, e).await),
        }
    }
}

/// Blocks until one of the servers has taken a connection.
fn reach(servers: &[&str]) -> anyhow::Result<()> {
    let mut refused = Vec::new();
    for server in servers {
        match reach_one(server) {
            Ok(()) => return Ok(()),
            Err(e) => refused.push(e),
        }
    }
    let all = refused.len();
    match refused.into_iter().next() {
        None => bail!("--server is empty; it takes HOST:PORT, or several with commas between them"),
        Some(first) if all == 1 => Err(first),
        Some(first) => Err(first.context(format!("none of {all} servers can be reached; of the first"))),
    }
}

fn reach_one(server: &str) -> anyhow::Result<()> {
    if server.contains("://") {
        bail!("--server takes HOST:PORT, with no http:// before it, not {server:?}");
    }
    let addresses: Vec<SocketAddr> = match server.to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => {
            bail!("--server takes HOST:PORT, not {server:?}")
        }
        Err(e) => bail!("cannot find {server}: {e}; --server HOST:PORT chooses another"),
    };
    let mut last = None;
    for address in &addresses {
        match TcpStream::connect_timeout(address, REACH_TIMEOUT) {
            Ok(_) => return Ok(()),
            Err(e) => last = Some(e),
        }
    }
    let reason = match last {
        Some(e) if e.kind() == io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        Some(e) if e.kind() == io::ErrorKind::TimedOut => {
            format!("no answer in {} s", REACH_TIMEOUT.as_secs())
        }
        Some(e) => e.to_string(),
        None => "its name has no address".to_owned(),
    };
    bail!("cannot reach {server}: {reason}; is `floodmark serve` running? --server HOST:PORT chooses another")
}

/// Runs a command that talks to a cluster. The client's own tasks have a thread of their own, so that a reader of standard output who
/// takes his time does not keep them from their heartbeats.
pub(crate) fn run<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    run_with(1, command)
}

/// The same for a command whose client works hard.
pub(crate) fn run_on_all_cores<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    run_with(std::thread::available_parallelism().map_or(1, usize::from), command)
}

fn run_with<T>(threads: usize, command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("fm-client")
        .enable_all()
        .build()
        .context("no runtime can be started")?;
    let outcome = runtime.block_on(command);
    // A thread that reads standard input can be waited for by nobody.
    runtime.shutdown_background();
    outcome
}

/// What asks a command to end in good order.
pub(crate) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    /// From now on neither signal ends the program by itself.
    pub(crate) fn new() -> anyhow::Result<Interrupts> {
        let on = |kind| signal(kind).context("signals cannot be waited for");
        Ok(Interrupts { interrupt: on(SignalKind::interrupt())?, terminate: on(SignalKind::terminate())? })
    }

    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
