//! Brokers as far as copying needs them: a registry, a listener, fetchers; and an image that the test changes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use floodmark_proto::batch::{BatchBuilder, BatchHeader, NewRecord, RecordBatch};
use floodmark_proto::ids::{BrokerEpoch, BrokerId, ClusterId, LeaderEpoch, Offset, TopicId};
use floodmark_storage::clock::{Clock, Stopwatch};
use floodmark_storage::data_dir::DataDir;
use floodmark_storage::fs::SimDisk;
use floodmark_storage::fs::sim::Fault;
use floodmark_storage::log::LogContext;
use floodmark_storage::random::Random;
use floodmark_storage::{LogConfig, ReadLimits, TailBudget};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::cluster::image::Settings;
use crate::cluster::{ClusterImage, Command, Endpoint, Output, apply};
use crate::fetcher::{FetcherOptions, Fetchers};
use crate::partition::{AppendOptions, PartitionHandle};
use crate::quorum::FEATURE_LEVELS;
use crate::registry::{Periods, Registry, RegistryOptions};
use crate::rpc::replica_server::ReplicaService;
use crate::rpc::{BROKER_LISTENER, IdentityCheck, PeerIdentity, Peers};

/// Patience of tests; nothing takes as long that goes well.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Each cluster has an id of its own, by which brokers tell strangers from their own: a port that a broker of one test has left may be that of
/// another test's broker next.
static CLUSTERS: AtomicU64 = AtomicU64::new(0);
/// Each start of a broker is another one, whatever port it gets.
static STARTS: AtomicU64 = AtomicU64::new(0);

/// Runs a test on a runtime of its own.
pub(super) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(2 * PATIENCE, test).await.expect("the test hangs") });
    runtime.shutdown_timeout(Duration::from_secs(5));
}

/// Returns once `condition` holds.
pub(super) async fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = Stopwatch::start();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What all brokers agree on.
pub(super) struct Cluster {
    image: watch::Sender<Arc<ClusterImage>>,
}

impl Cluster {
    pub(super) fn new() -> Cluster {
        let number = CLUSTERS.fetch_add(1, Ordering::Relaxed);
        let id = u128::from(std::process::id()) << 64 | u128::from(number);
        let id = ClusterId::from_bytes(id.to_be_bytes());
        Cluster { image: watch::Sender::new(Arc::new(ClusterImage::new(id))) }
    }

    /// Who a broker of this cluster is to the others.
    pub(super) fn identity(&self, broker: i32) -> PeerIdentity {
        PeerIdentity { cluster_id: self.image().cluster_id(), broker: BrokerId(broker) }
    }

    pub(super) fn image(&self) -> Arc<ClusterImage> {
        Arc::clone(&self.image.borrow())
    }

    pub(super) fn images(&self) -> watch::Receiver<Arc<ClusterImage>> {
        self.image.subscribe()
    }

    /// The leader of partitions in which nobody else is in sync leads in another epoch; nobody sees what was between.
    pub(super) fn lead_anew(&self, broker: i32) {
        let epoch = self.image().broker(BrokerId(broker)).unwrap().epoch;
        let mut image = ClusterImage::clone(&self.image());
        let broker = BrokerId(broker);
        for command in [Command::FenceBroker { broker, epoch }, Command::UnfenceBroker { broker, epoch }] {
            let (next, outcome) = apply(&image, &command);
            outcome.unwrap();
            image = next;
        }
        self.image.send_replace(Arc::new(image));
    }

    pub(super) fn change(&self, command: Command) -> Output {
        let (next, outcome) = apply(&self.image(), &command);
        let outcome = outcome.unwrap();
        self.image.send_replace(Arc::new(next));
        outcome
    }

    /// A broker starts at this address.
    pub(super) fn register(&self, broker: i32, port: u16) -> BrokerEpoch {
        let endpoint = Endpoint { listener: BROKER_LISTENER.to_owned(), host: "127.0.0.1".to_owned(), port };
        let register = Command::RegisterBroker {
            broker: BrokerId(broker),
            incarnation: uuid::Uuid::from_u128(u128::from(STARTS.fetch_add(1, Ordering::Relaxed)) + 1),
            rack: None,
            endpoints: vec![endpoint],
            feature_levels: FEATURE_LEVELS,
            directories: vec![uuid::Uuid::from_u128(broker as u128 + 1)],
            in_sync_defaults: None,
        };
        let Output::BrokerRegistered { epoch } = self.change(register) else { panic!("not registered") };
        self.change(Command::UnfenceBroker { broker: BrokerId(broker), epoch });
        epoch
    }

    pub(super) fn fence(&self, broker: i32) {
        let epoch = self.image().broker(BrokerId(broker)).unwrap().epoch;
        self.change(Command::FenceBroker { broker: BrokerId(broker), epoch });
    }

    pub(super) fn unfence(&self, broker: i32) {
        let epoch = self.image().broker(BrokerId(broker)).unwrap().epoch;
        self.change(Command::UnfenceBroker { broker: BrokerId(broker), epoch });
    }

    pub(super) fn create(&self, name: &str, id: u8, partitions: usize, replicas: &[i32]) -> TopicId {
        self.create_with(name, id, partitions, replicas, &[])
    }

    pub(super) fn create_with(
        &self,
        name: &str,
        id: u8,
        partitions: usize,
        replicas: &[i32],
        settings: &[(&str, &str)],
    ) -> TopicId {
        let id = TopicId::from_bytes([id; 16]).unwrap();
        let assignment: Vec<_> = replicas.iter().copied().map(BrokerId).collect();
        let settings = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let assignments = vec![assignment; partitions];
        self.change(Command::CreateTopic { name: name.to_owned(), id, assignments, settings });
        id
    }

    /// The leader says who is in sync.
    pub(super) fn change_isr(&self, topic: TopicId, isr: &[i32]) {
        let image = self.image();
        let partition = image.topic_by_id(topic).unwrap().partition(0).unwrap();
        let with_epoch = |id: &i32| (BrokerId(*id), image.broker(BrokerId(*id)).unwrap().epoch);
        self.change(Command::ChangeIsr {
            topic,
            partition: 0,
            leader: partition.leader.unwrap(),
            leader_epoch: partition.leader_epoch,
            partition_epoch: partition.partition_epoch,
            isr: isr.iter().map(with_epoch).collect(),
        });
    }

    pub(super) fn leader_epoch(&self, topic: TopicId) -> LeaderEpoch {
        self.image().topic_by_id(topic).unwrap().partition(0).unwrap().leader_epoch
    }
}

/// How a broker is set up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setup {
    pub(super) tail_bytes: u64,
    pub(super) reply_bytes_max: u32,
    pub(super) catchup_bytes_per_second: u64,
    pub(super) wait_max: Duration,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            tail_bytes: 1 << 20,
            reply_bytes_max: 1 << 20,
            catchup_bytes_per_second: 0,
            wait_max: Duration::from_millis(200),
        }
    }
}

/// A broker.
pub(super) struct Node {
    pub(super) id: BrokerId,
    pub(super) epoch: BrokerEpoch,
    pub(super) registry: Registry,
    disk: SimDisk,
    setup: Setup,
    follower: JoinHandle<()>,
    server: JoinHandle<()>,
    stop: CancellationToken,
    fetchers: Option<(Fetchers, Peers)>,
}

impl Node {
    /// Starts with an empty disk. It copies nothing before [`Node::copy`].
    pub(super) async fn start(cluster: &Cluster, id: i32, setup: Setup) -> Node {
        Node::start_on(SimDisk::new(), cluster, id, setup).await
    }

    async fn start_on(disk: SimDisk, cluster: &Cluster, id: i32, setup: Setup) -> Node {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let epoch = cluster.register(id, port);
        let id = BrokerId(id);
        let context = LogContext {
            disk: Arc::new(disk.clone()),
            clock: Clock::System,
            random: Random::seeded(id.0 as u64),
            tail_budget: TailBudget::new(setup.tail_bytes),
        };
        let options = RegistryOptions {
            node: id,
            data_dirs: [open_once_free(&context).await].into(),
            disk_threads: 2,
            log: LogConfig { prewrite_bytes: 0, ..LogConfig::default() },
            file_settings: Settings::new(),
            periods: Periods::default(),
            vitals: crate::vital::Vitals::default(),
        };
        let (registry, unusable) = Registry::open(options, &cluster.image()).unwrap();
        assert!(unusable.is_empty(), "{unusable:?}");
        let follower = registry.spawn_follower(cluster.images());
        let (check, stop) = (IdentityCheck::new(), CancellationToken::new());
        check.be(cluster.identity(id.0));
        let service = ReplicaService::new(registry.clone(), Clock::System, stop.clone());
        let serving = Server::builder()
            .add_service(service.into_server(check))
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.clone().cancelled_owned());
        let server = tokio::spawn(async move { serving.await.unwrap() });
        Node { id, epoch, registry, disk, setup, follower, server, stop, fetchers: None }
    }

    pub(super) fn copy(&mut self, cluster: &Cluster) {
        let options = self.fetcher_options(cluster);
        let peers = options.peers.clone();
        self.fetchers = Some((Fetchers::start(options), peers));
    }

    pub(super) fn fetcher_options(&self, cluster: &Cluster) -> FetcherOptions {
        let peers = Peers::new(cluster.identity(self.id.0), BTreeMap::new());
        peers.follow(cluster.images());
        FetcherOptions {
            node: self.id,
            broker_epoch: self.epoch,
            registry: self.registry.clone(),
            images: cluster.images(),
            peers,
            reply_bytes_max: self.setup.reply_bytes_max,
            wait_max: self.setup.wait_max,
            catchup_bytes_per_second: self.setup.catchup_bytes_per_second,
            random: Random::seeded(9),
            runtimes: Vec::new(),
        }
    }

    /// Its disk does so the next time it is asked.
    pub(super) fn inject(&self, fault: Fault) {
        self.disk.inject(fault);
    }

    /// Copies no more, once this returns: a task that is told to end goes on until it waits for something.
    pub(super) async fn stop_copying(&mut self) {
        let Some((fetchers, peers)) = self.fetchers.take() else { return };
        drop(fetchers);
        until("nobody copies any more", || peers.is_last()).await;
    }

    /// Ends; what is on the disk stays.
    pub(super) async fn stop(mut self) -> SimDisk {
        self.stop_copying().await;
        self.stop.cancel();
        self.server.await.unwrap();
        self.follower.abort();
        let registry = self.registry.clone();
        tokio::task::spawn_blocking(move || registry.close(PATIENCE)).await.unwrap();
        self.disk
    }

    /// Starts again on the same disk.
    pub(super) async fn restart(self, cluster: &Cluster) -> Node {
        let (id, setup) = (self.id.0, self.setup);
        cluster.fence(id);
        let disk = self.stop().await;
        Node::start_on(disk, cluster, id, setup).await
    }

    pub(super) async fn partition(&self, cluster: &Cluster, topic: TopicId, index: i32) -> PartitionHandle {
        self.registry.reconciled(cluster.image().version()).await;
        let why = || panic!("it holds no partition {index}: {:?}", self.registry.unusable(topic, index));
        self.registry.get(topic, index).unwrap_or_else(why)
    }
}

/// Opens the data directory of a broker, of whose former life a task may be about to end: its lock goes with the last one.
async fn open_once_free(context: &LogContext) -> DataDir {
    let begun = Stopwatch::start();
    loop {
        match DataDir::open(context.clone(), Path::new("d")) {
            Err(e) if begun.elapsed() < PATIENCE => {
                tracing::debug!(error = %e, "not free yet");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            opened => return opened.unwrap(),
        }
    }
}

pub(super) fn batch(value: &[u8]) -> RecordBatch {
    let mut builder = BatchBuilder::new();
    builder.push(&NewRecord { timestamp: 1, key: None, value: Some(value), headers: &[] }).unwrap();
    builder.build().unwrap()
}

/// A value that is told apart from those of other seeds.
pub(super) fn value(seed: u64, bytes: usize) -> Vec<u8> {
    let random = Random::seeded(seed);
    let mut value = Vec::with_capacity(bytes + 8);
    while value.len() < bytes {
        value.extend(random.next_u64().to_le_bytes());
    }
    value.truncate(bytes);
    value
}

/// Appends on the leader; returns the end once it is in the log.
pub(super) async fn append(partition: &PartitionHandle, value: &[u8]) -> Offset {
    let options = AppendOptions { needs_min_isr: false, ..AppendOptions::CLIENT };
    let appended = partition.append(vec![batch(value)], options).await.unwrap();
    appended.batches[0].as_ref().unwrap();
    appended.end
}

/// Every byte of a log.
pub(super) fn bytes_of_log(partition: &PartitionHandle) -> Vec<u8> {
    let (reader, mut all) = (partition.reader(), Vec::new());
    let mut from = reader.start();
    while from < reader.end() {
        let limits = ReadLimits { max_bytes: 1 << 20, below: reader.end() };
        let pieces: Vec<Bytes> = reader.read(from, limits).unwrap();
        assert!(!pieces.is_empty() || from >= reader.end(), "nothing is read at {from} of {}", reader.end());
        for piece in pieces {
            let mut rest = &piece[..];
            while !rest.is_empty() {
                let header = BatchHeader::parse(rest).unwrap();
                from = header.next_offset();
                rest = &rest[header.size_bytes()..];
            }
            all.extend_from_slice(&piece);
        }
    }
    all
}

/// Returns once both logs have the same bytes, and the copy knows as much to be committed.
pub(super) async fn until_equal(leader: &PartitionHandle, copy: &PartitionHandle) {
    until("the copy has what the leader has", || copy.log_end() == leader.log_end()).await;
    assert!(bytes_of_log(leader) == bytes_of_log(copy), "the logs differ");
    assert_eq!(leader.log_start(), copy.log_start());
    until("the copy knows what is committed", || copy.high_watermark() == leader.high_watermark()).await;
}
