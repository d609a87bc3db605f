//! The broker: doors that only translate, operations that decide. Must never know file formats.
//!
//! ```
//! use floodmark_broker::{Broker, BrokerConfig};
//!
//! let broker = Broker::start(BrokerConfig::temporary()?)?;
//! println!("Kafka clients connect to {}", broker.kafka_address());
//! broker.stop();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod admission;
pub mod config;
mod error;
mod http;
mod kafka;
mod metrics;
mod ops;
mod runtime;
mod shared;
mod shutdown;

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use floodmark_storage::TailBudget;
use floodmark_storage::clock::Clock;
use floodmark_storage::data_dir::DataDir;
use floodmark_storage::fs::RealDisk;
use floodmark_storage::log::LogContext;
use floodmark_storage::random::Random;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::task::TaskTracker;

pub use config::{BrokerConfig, ConfigError, HostPort};
pub use error::StartError;

use kafka::Door;
use kafka::request::Endpoint;
use runtime::Threads;
use shared::Shared;

/// Connections that wait to be taken.
const BACKLOG: u32 = 4096;

/// A running broker. When dropped it stops at once, and nothing of it is left.
#[derive(Debug)]
pub struct Broker {
    shared: Arc<Shared>,
    /// Connections, and what takes them.
    tasks: TaskTracker,
    kafka_address: SocketAddr,
    http_address: Option<SocketAddr>,
    /// Behind everything that runs on them.
    threads: Threads,
    /// Behind the threads, so that nobody else takes the directories while anything runs.
    _data_dirs: Vec<DataDir>,
    /// Last, when nothing has files in it any more.
    _temporary: Option<Arc<tempfile::TempDir>>,
}

impl Broker {
    /// Starts a broker with threads of its own; several may run in one process. Blocks for some milliseconds, longer where logs have to be
    /// recovered. May be called inside and outside of async programs.
    pub fn start(config: BrokerConfig) -> Result<Broker, StartError> {
        let context = LogContext {
            disk: Arc::new(RealDisk),
            clock: Clock::System,
            random: Random::System,
            tail_budget: TailBudget::new(config.tail_cache_bytes.0),
        };
        let open = |dir| DataDir::open(context.clone(), dir);
        let data_dirs = config.data_dirs.iter().map(|dir| open(dir)).collect::<Result<Vec<_>, _>>()?;
        let threads = Threads::start(usize::try_from(config.runtime_threads).unwrap_or(0))
            .map_err(StartError::Thread)?;

        let _runtime = threads.control().enter();
        let kafka = Listening::on("kafka.listen", &config.kafka_listen)?;
        let http = config.http_listen.as_ref().map(|at| Listening::on("http.listen", at)).transpose()?;
        let (kafka_address, http_address) = (kafka.address, http.as_ref().map(|http| http.address));
        let advertised = Arc::new(advertised(&config, kafka_address)?);

        let _temporary = config.temporary.clone();
        let shared = Arc::new(Shared::new(config, context.clock));
        let tasks = TaskTracker::new();
        let door = Door {
            listener: kafka.listener,
            advertised,
            cores: Arc::clone(threads.cores()),
            connections: tasks.clone(),
            shared: Arc::clone(&shared),
        };
        tasks.spawn_on(door.run(), threads.control());
        if let Some(http) = http {
            tasks.spawn_on(http::run(http.listener, Arc::clone(&shared)), threads.control());
        }
        Ok(Broker { shared, tasks, kafka_address, http_address, threads, _data_dirs: data_dirs, _temporary })
    }

    /// Where Kafka clients connect.
    #[must_use]
    pub fn kafka_address(&self) -> SocketAddr {
        self.kafka_address
    }

    /// Where metrics and health are served, if they are.
    #[must_use]
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// Stops: takes no more connections, lets requests in progress finish within `shutdown.timeout.ms`, then closes everything. Blocks until
    /// that is done.
    pub fn stop(self) {
        let timeout = self.shared.config.shutdown_timeout.duration();
        self.drain(timeout);
    }

    /// Waits on a thread of the broker, so that the caller may be one that runs tasks.
    fn drain(&self, timeout: Duration) {
        self.shared.drain.begin();
        self.tasks.close();
        let tasks = self.tasks.clone();
        let (done, is_done) = std::sync::mpsc::sync_channel(1);
        self.threads.control().spawn(async move {
            let all_ended = tokio::time::timeout(timeout, tasks.wait()).await.is_ok();
            let _ = done.send(all_ended);
        });
        if is_done.recv() == Ok(false) {
            tracing::warn!(connections = self.tasks.len(), "requests in progress did not finish in time");
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.shared.drain.begin();
    }
}

/// A socket that connections can come to.
struct Listening {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listening {
    fn on(key: &'static str, address: &HostPort) -> Result<Listening, StartError> {
        bind(address).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => StartError::AddressInUse { key, address: address.clone() },
            _ => StartError::Listen { key, address: address.clone(), source },
        })
    }
}

fn bind(wanted: &HostPort) -> io::Result<Listening> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (wanted.host.as_str(), wanted.port).to_socket_addrs()? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A broker that is started again finds connections of the one before in TIME_WAIT.
        socket.set_reuseaddr(true)?;
        match socket.bind(address).and_then(|()| socket.listen(BACKLOG)) {
            Ok(listener) => return Ok(Listening { address: listener.local_addr()?, listener }),
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// What clients are told: the name they dialled by configuration, with the port that was really taken.
fn advertised(config: &BrokerConfig, bound: SocketAddr) -> Result<Endpoint, StartError> {
    let named = config.kafka_advertised.as_ref().unwrap_or(&config.kafka_listen);
    if named.is_wildcard() {
        return Err(StartError::NothingToAdvertise { address: named.clone() });
    }
    let port = if named.port == 0 { bound.port() } else { named.port };
    Ok(Endpoint { host: named.host.clone(), port })
}
