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

mod accepted;
mod admission;
mod cluster;
pub mod config;
mod error;
pub mod filter;
pub mod groups;
mod grpc;
mod heartbeat;
mod http;
mod http2;
mod kafka;
mod log_rate;
mod lost_replicas;
mod member;
mod metrics;
mod ops;
mod peer_door;
mod readiness;
mod runtime;
mod shared;
mod shutdown;
#[cfg(test)]
mod test_cluster;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use floodmark_proto::ids::BrokerId;
use floodmark_replication::cluster::image::Endpoint as ClusterEndpoint;
use floodmark_replication::controller::{Controller, ControllerRules};
use floodmark_replication::quorum::{FEATURE_LEVELS, QuorumOptions, QuorumTiming, Seat, SnapshotRule};
use floodmark_replication::rpc::{Address, BROKER_LISTENER};
use floodmark_storage::TailBudget;
use floodmark_storage::clock::Clock;
use floodmark_storage::data_dir::DataDir;
use floodmark_storage::fs::{Disk, RealDisk};
use floodmark_storage::log::LogContext;
use floodmark_storage::random::Random;
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

pub use config::{BrokerConfig, ConfigError, HostPort, VoterAddress};
pub use error::StartError;

use cluster::{Cluster, Opening};
use kafka::Door;
use kafka::request::Endpoint;
use member::{Joining, Member, in_sync_defaults};
use peer_door::PeerDoor;
use runtime::Threads;
use shared::{Ground, Shared};
use shutdown::Drain;

/// What the cluster calls the listener of Kafka clients.
pub(crate) const KAFKA_LISTENER: &str = "KAFKA";
/// What the cluster calls the listener of gRPC clients.
pub(crate) const GRPC_LISTENER: &str = "GRPC";
/// How long metadata is waited for when nobody gave a deadline.
const METADATA_DEADLINE: Duration = Duration::from_secs(30);
/// Connections that wait to be taken.
const BACKLOG: u32 = 4096;
/// How long connections are let end where a start fails. Nothing that takes longer is begun with them before the broker serves.
const PARTING: Duration = Duration::from_secs(1);

/// A running broker. When dropped it stops at once, and nothing of it is left.
#[derive(Debug)]
pub struct Broker {
    shared: Arc<Shared>,
    /// Connections, and what takes them.
    tasks: TaskTracker,
    kafka_address: SocketAddr,
    grpc_address: Option<SocketAddr>,
    http_address: Option<SocketAddr>,
    peer_address: Option<SocketAddr>,
    /// Behind everything that runs on them.
    threads: Threads,
    /// Last, when nothing has files in it any more.
    _temporary: Option<Arc<tempfile::TempDir>>,
}

impl Broker {
    /// Starts a broker with threads of its own; several may run in one process. Blocks for some milliseconds, longer where logs have to be
    /// recovered, and as long as it takes where there are other brokers to wait for. May be called inside and outside of async programs.
    pub fn start(config: BrokerConfig) -> Result<Broker, StartError> {
        Broker::start_until(config, std::future::pending())
    }

    /// As [`Broker::start`], but gives up waiting for other brokers with [`StartError::Stopped`] when `stop` is done.
    pub fn start_until(
        config: BrokerConfig,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Broker, StartError> {
        Broker::start_on(config, Arc::new(RealDisk), stop)
    }

    fn start_on(
        config: BrokerConfig,
        disk: Arc<dyn Disk>,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Broker, StartError> {
        let context = LogContext {
            disk,
            clock: Clock::System,
            random: Random::System,
            tail_budget: TailBudget::new(config.tail_cache_bytes.0),
        };
        let open = |dir| DataDir::open(context.clone(), dir);
        let data_dirs = config.data_dirs.iter().map(|dir| open(dir)).collect::<Result<Arc<[_]>, _>>()?;
        let threads = Threads::start(usize::try_from(config.runtime_threads).unwrap_or(0))
            .map_err(StartError::Thread)?;
        let _runtime = threads.control().enter();
        let kafka = Bound::to("kafka.listen", &config.kafka_listen)?;
        let bound = |key, at: &Option<HostPort>| at.as_ref().map(|at| Bound::to(key, at)).transpose();
        let grpc = bound("grpc.listen", &config.grpc_listen)?;
        let http = bound("http.listen", &config.http_listen)?;
        let peers = bound("cluster.listen", &config.cluster_listen)?;
        let kafka_address = kafka.address;
        let [grpc_address, http_address, peer_address] =
            [&grpc, &http, &peers].map(|door| door.as_ref().map(|door| door.address));
        let kafka_advertised = Arc::new(advertised(
            "kafka",
            config.kafka_advertised.as_ref().unwrap_or(&config.kafka_listen),
            kafka_address,
        )?);
        let mut endpoints = vec![endpoint(KAFKA_LISTENER, &kafka_advertised)];
        if let (Some(listen), Some(bound)) = (&config.grpc_listen, grpc_address) {
            let named = config.grpc_advertised.as_ref().unwrap_or(listen);
            endpoints.push(endpoint(GRPC_LISTENER, &advertised("grpc", named, bound)?));
        }
        let for_peers = peer_address.map(|bound| peer_endpoint(&config, bound)).transpose()?;
        endpoints.extend(for_peers.iter().map(|at| endpoint(BROKER_LISTENER, at)));

        // Whoever wonders what a start waits for is answered from here on.
        let ground = Ground::new(&config);
        let tasks = TaskTracker::new();
        if let Some(http) = http {
            let serving = ground.vitals.keep("serving HTTP", http::run(http.listen()?, ground.clone()));
            tasks.spawn_on(serving, threads.control());
        }
        let on = (threads.control(), threads.cores());
        let open = |listener| grpc::Door::open(listener, &config, &ground, &tasks, on);
        let grpc = grpc.map(Bound::listen).transpose()?.map(open);
        let peers = peers.map(Bound::listen).transpose()?;
        let stopping = Drain::default();
        let stopped = stopping.clone();
        threads.control().spawn(async move {
            stop.await;
            stopped.begin();
        });
        let _temporary = config.temporary.clone();
        let starting = Starting { context, data_dirs, endpoints, peers, ground: &ground, threads: &threads };
        let shared = starting.join(config, &stopping).inspect_err(|_| part(&ground, &tasks, &threads))?;
        // From here on whatever goes wrong is undone by the drop.
        let broker = Broker {
            shared,
            tasks,
            kafka_address,
            grpc_address,
            http_address,
            peer_address,
            threads,
            _temporary,
        };
        broker.serve(stopping, kafka, kafka_advertised, grpc.as_ref())?;
        Ok(broker)
    }

    fn serve(
        &self,
        stopping: Drain,
        kafka: Bound,
        advertised: Arc<Endpoint>,
        grpc: Option<&grpc::Door>,
    ) -> Result<(), StartError> {
        let shared = Arc::clone(&self.shared);
        let serving = self.threads.wait_for(async move {
            tokio::select! {
                serving = shared.cluster.serve(&shared.ground.readiness) => serving,
                () = stopping.begun() => Err(StartError::Stopped),
                reason = shared.cluster.failed() => Err(StartError::Failed { reason }),
            }
        });
        serving.ok_or(StartError::Ended)??;
        let (groups, cluster) = (self.shared.groups.clone(), &self.shared.cluster);
        let following = ops::groups::follow(groups, cluster.quorum().clone(), cluster.registry().clone());
        let vitals = &self.shared.ground.vitals;
        self.threads.control().spawn(vitals.keep("having groups follow the metadata", following));
        let changes = self.shared.ground.metrics.changes.clone();
        let counting = changes.follow(cluster.node_id(), cluster.quorum().watch());
        self.threads.control().spawn(vitals.keep("counting elections", counting));
        let door = Door {
            listener: kafka.listen()?,
            advertised,
            cores: Arc::clone(self.threads.cores()),
            connections: self.tasks.clone(),
            shared: Arc::clone(&self.shared),
        };
        self.tasks.spawn_on(vitals.keep("taking Kafka connections", door.run()), self.threads.control());
        if let Some(door) = grpc {
            door.mount(&self.shared);
        }
        self.shared.ground.readiness.serve(
            cluster.quorum().clone(),
            cluster.node_id(),
            cluster.registry().clone(),
        );
        Ok(())
    }

    /// Where Kafka clients connect.
    #[must_use]
    pub fn kafka_address(&self) -> SocketAddr {
        self.kafka_address
    }

    /// Where gRPC clients connect, if they may.
    #[must_use]
    pub fn grpc_address(&self) -> Option<SocketAddr> {
        self.grpc_address
    }

    /// Where metrics and health are served, if they are.
    #[must_use]
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// Where other brokers connect, if they may.
    #[must_use]
    pub fn peer_address(&self) -> Option<SocketAddr> {
        self.peer_address
    }

    /// Returns when the broker cannot go on, with the reason: the disk of its metadata failed, the cluster knows another broker under its id,
    /// or a task or thread that it cannot be without has panicked. The process should end then.
    pub fn failed(&self) -> impl Future<Output = String> + Send + 'static {
        self.shared.cluster.failed()
    }

    /// Stops: has other brokers take over what this one leads, takes no more connections, lets requests in progress finish within `shutdown.timeout.ms`, then closes everything. Blocks until
    /// that is done.
    pub fn stop(self) {
        self.close(self.shared.config.shutdown_timeout.duration());
    }

    fn close(&self, timeout: Duration) {
        // Not a second time.
        if self.shared.ground.drain.has_begun() {
            return;
        }
        let (shared, tasks) = (Arc::clone(&self.shared), self.tasks.clone());
        let closed = self.threads.wait_for(async move {
            let until = Instant::now() + timeout;
            // First, while clients are still told where to go.
            shared.cluster.hand_over(timeout / 2).await;
            shared.ground.drain.begin();
            tasks.close();
            if timeout_at(until, tasks.wait()).await.is_err() && !timeout.is_zero() {
                tracing::warn!(connections = tasks.len(), "requests in progress did not finish in time");
            }
            shared.groups.stop();
            shared.cluster.stop().await;
        });
        if closed.is_none() {
            tracing::error!("the control thread has ended before the broker was closed");
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.close(Duration::ZERO);
    }
}

/// A broker that is no member of its cluster yet.
struct Starting<'s> {
    context: LogContext,
    data_dirs: Arc<[DataDir]>,
    /// Where others are told to connect.
    endpoints: Vec<ClusterEndpoint>,
    /// Where other brokers connect.
    peers: Option<TcpListener>,
    ground: &'s Ground,
    threads: &'s Threads,
}

impl Starting<'_> {
    /// Becomes a member of the cluster, however long that takes, and opens the logs. The broker leads none of them yet.
    fn join(self, config: BrokerConfig, stopping: &Drain) -> Result<Arc<Shared>, StartError> {
        let Starting { context, data_dirs, endpoints, peers, ground, threads } = self;
        ground.readiness.waits_for("this broker joins its cluster");
        let joining = joining(&config, &context, &data_dirs, endpoints, ground)?;
        let on = (threads.control(), threads.cores());
        let open = |peers| PeerDoor::open(peers, &joining.seat, &ground.vitals, on);
        let peer_door = peers.map(open);
        let seat = joining.seat.clone();
        let stopped = stopping.clone();
        let (joined, panicked) =
            (Member::join(joining, async move { stopped.begun().await }), ground.vitals.failed());
        let joined = threads.wait_for(async move {
            tokio::select! {
                joined = joined => joined,
                reason = panicked => Err(StartError::Failed { reason }),
            }
        });
        let member = joined.ok_or(StartError::Ended)??;
        let controller = begin_to_decide(&member, &config, peer_door.as_ref(), &seat);

        ground.readiness.waits_for("logs are being opened");
        let opening = Opening {
            data_dirs,
            config: &config,
            random: context.random,
            clock: context.clock.clone(),
            cores: threads.cores().iter().map(|core| core.handle.clone()).collect(),
        };
        let cluster = Cluster::open(member, controller, opening)?;
        let shared = Arc::new(Shared::new(config, context.clock, cluster, ground.clone()));
        shared.ground.metrics.state.set(shared.observed());
        if let Some(door) = &peer_door {
            door.mount(peer_services(&shared, &seat));
        }
        Ok(shared)
    }
}

/// Closes the doors of a broker that does not come to serve.
fn part(ground: &Ground, tasks: &TaskTracker, threads: &Threads) {
    ground.drain.begin();
    tasks.close();
    let tasks = tasks.clone();
    // Whoever does not go within that time is cut off with the threads.
    threads.wait_for(async move { tokio::time::timeout(PARTING, tasks.wait()).await.is_ok() });
}

/// What other brokers may ask of this one once it is a member. Everything is behind the check of who calls, `seat.identity_check()`.
fn peer_services(shared: &Arc<Shared>, seat: &Seat) -> Routes {
    let mut routes = Routes::builder();
    grpc::add_forwarded(&mut routes, shared, seat.identity_check());
    let replicas = shared.cluster.replica_service(shared.clock.clone());
    routes.add_service(replicas.into_server(seat.identity_check()));
    routes.routes()
}

/// This broker's share in deciding, which other brokers need while it still opens its logs. Needs a tokio runtime.
fn begin_to_decide(
    member: &Member,
    config: &BrokerConfig,
    door: Option<&PeerDoor>,
    seat: &Seat,
) -> Controller {
    let interval = config.leader_rebalance_interval.duration();
    let rules = ControllerRules {
        own: member.id,
        session: config.broker_session_timeout.duration(),
        rebalance_interval: (!interval.is_zero()).then_some(interval),
        feature_level_max: FEATURE_LEVELS.1,
    };
    let controller = Controller::spawn(member.quorum.clone(), rules);
    if let Some(door) = door {
        let mut routes = Routes::builder();
        controller.add_service(&mut routes, seat.identity_check());
        door.mount_controller(routes.routes());
    }
    controller
}

/// What this broker tells its cluster.
fn joining(
    config: &BrokerConfig,
    context: &LogContext,
    data_dirs: &Arc<[DataDir]>,
    endpoints: Vec<ClusterEndpoint>,
    ground: &Ground,
) -> Result<Joining, StartError> {
    let mut holds_partitions = false;
    for dir in &**data_dirs {
        holds_partitions |= !dir.partitions()?.is_empty();
    }
    // Settings have one directory at least.
    let first = data_dirs.first().ok_or(StartError::Ended)?;
    let address = |host: &str, port: u16| Address { host: host.to_owned(), port };
    let for_peers = endpoints.iter().find(|endpoint| endpoint.listener == BROKER_LISTENER);
    let quorum = QuorumOptions {
        context: context.clone(),
        data_dir: first.path().to_owned(),
        directory_id: first.id(),
        holds_partitions,
        node_id: BrokerId(config.node_id),
        cluster_id: config.cluster_id,
        deadline: METADATA_DEADLINE,
        snapshots: SnapshotRule::default(),
        voters: config
            .cluster_voters
            .iter()
            .map(|voter| (BrokerId(voter.id), address(&voter.address.host, voter.address.port)))
            .collect(),
        address: for_peers.map(|endpoint| address(&endpoint.host, endpoint.port)),
        timing: QuorumTiming {
            heartbeat: config.quorum_heartbeat.duration(),
            election_timeout: config.quorum_election_timeout.duration(),
        },
        vitals: ground.vitals.clone(),
    };
    Ok(Joining {
        seat: Seat::new(&quorum),
        quorum,
        data_dirs: Arc::clone(data_dirs),
        rack: config.broker_rack.clone(),
        in_sync_defaults: in_sync_defaults(config.file_settings()),
        endpoints,
        readiness: Arc::clone(&ground.readiness),
    })
}

/// Where other brokers are told to connect: what the settings say, or what they say of this broker to others, or where it listens.
fn peer_endpoint(config: &BrokerConfig, bound: SocketAddr) -> Result<Endpoint, StartError> {
    let own = config.cluster_voters.iter().find(|voter| voter.id == config.node_id);
    let named = config.cluster_advertised.as_ref().or(own.map(|own| &own.address));
    let listened = HostPort::from(bound);
    advertised("cluster", named.or(config.cluster_listen.as_ref()).unwrap_or(&listened), bound)
}

/// A socket with an address of its own. Connections are refused there until it is listened on.
struct Bound {
    socket: TcpSocket,
    address: SocketAddr,
    /// The setting, and what it says.
    key: &'static str,
    wanted: HostPort,
}

impl Bound {
    fn to(key: &'static str, wanted: &HostPort) -> Result<Bound, StartError> {
        let bound = bind(wanted).and_then(|socket| Ok((socket.local_addr()?, socket)));
        let (address, socket) = bound.map_err(|e| cannot_listen(key, wanted, e))?;
        Ok(Bound { socket, address, key, wanted: wanted.clone() })
    }

    fn listen(self) -> Result<TcpListener, StartError> {
        self.socket.listen(BACKLOG).map_err(|e| cannot_listen(self.key, &self.wanted, e))
    }
}

fn cannot_listen(key: &'static str, wanted: &HostPort, source: io::Error) -> StartError {
    match source.kind() {
        io::ErrorKind::AddrInUse => StartError::AddressInUse { key, address: wanted.clone() },
        _ => StartError::Listen { key, address: wanted.clone(), source },
    }
}

fn bind(wanted: &HostPort) -> io::Result<TcpSocket> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (wanted.host.as_str(), wanted.port).to_socket_addrs()? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A broker that is started again finds connections of the one before in TIME_WAIT.
        socket.set_reuseaddr(true)?;
        match socket.bind(address) {
            Ok(()) => return Ok(socket),
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// What clients are told: the name they dialled by configuration, with the port that was really taken.
fn advertised(door: &'static str, named: &HostPort, bound: SocketAddr) -> Result<Endpoint, StartError> {
    if named.is_wildcard() {
        return Err(StartError::NothingToAdvertise { door, address: named.clone() });
    }
    let port = if named.port == 0 { bound.port() } else { named.port };
    Ok(Endpoint { host: named.host.clone(), port })
}

fn endpoint(listener: &str, advertised: &Endpoint) -> ClusterEndpoint {
    ClusterEndpoint { listener: listener.to_owned(), host: advertised.host.clone(), port: advertised.port }
}
