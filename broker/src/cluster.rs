//! This broker's share in the cluster: the metadata that all agree on, and the partitions that it holds because of them. Knows no door.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use floodmark_proto::ids::{BrokerEpoch, BrokerId, Offset};
use floodmark_proto::kafka::ErrorCode;
use floodmark_replication::cluster::image::Settings;
use floodmark_replication::cluster::{ClusterImage, Command, Output};
use floodmark_replication::controller::{Controller, Wants};
use floodmark_replication::fetcher::{FetcherOptions, Fetchers};
use floodmark_replication::isr_proposals::{IsrOptions, IsrProposals};
use floodmark_replication::lease::Lease;
use floodmark_replication::partition::{PartitionHandle, Role};
use floodmark_replication::quorum::QuorumHandle;
use floodmark_replication::registry::{Periods, Registry, RegistryOptions};
use floodmark_replication::rpc::Peers;
use floodmark_replication::rpc::replica_server::ReplicaService;
use floodmark_storage::LogConfig;
use floodmark_storage::clock::Clock;
use floodmark_storage::data_dir::DataDir;
use floodmark_storage::random::Random;
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::BrokerConfig;
use crate::error::StartError;
use crate::heartbeat::{Heartbeats, Pulse};
use crate::lost_replicas;
use crate::member::{Member, complete_registration};
use crate::ops::error::OpError;
use crate::ops::topics::{TopicDefaults, TopicKey, find};
use crate::readiness::Readiness;

/// Threads that sync logs. More of them help where syncs of many partitions wait for one disk that takes several at a time.
const DISK_THREADS: usize = 4;

/// How long closing logs may take; each takes a few syncs.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a broker that is to go waits for answers to what clients brought, in which time they are told to come again. Replicas in sync
/// have everything within milliseconds.
const LEAVE_TIME_MAX: Duration = Duration::from_secs(1);
/// How often it looks.
const LEAVE_LOOK_AFTER: Duration = Duration::from_millis(10);

/// How often a broker that waits to be let in says so.
const TELL_AFTER: Duration = Duration::from_secs(5);

/// Metadata and partitions.
#[derive(Debug)]
pub(crate) struct Cluster {
    member: Member,
    registry: Registry,
    /// Carries each new image to the registry.
    follower: JoinHandle<()>,
    heartbeats: Heartbeats,
    /// Says which logs have failed.
    losses: JoinHandle<()>,
    /// Registers once more where the cluster came to keep more.
    completing: JoinHandle<()>,
    /// `broker.session.timeout.ms`.
    session: Duration,
    copying: Copying,
    random: Random,
    lease: Lease,
    file_settings: Settings,
    /// As many as the settings name.
    voters: usize,
    /// `num.partitions`.
    partitions: i32,
    /// `default.replication.factor`.
    replication_factor: i16,
}

/// A data directory as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogDir {
    pub(crate) path: PathBuf,
    /// `None` where the system does not say.
    pub(crate) available_bytes: Option<u64>,
}

/// What this broker copies from others, and others from it.
#[derive(Debug)]
struct Copying {
    fetchers: Fetchers,
    in_sync: IsrProposals,
    /// Ends the calls of followers.
    stop: CancellationToken,
}

/// What opening partitions needs, beside the member whose they are.
pub(crate) struct Opening<'a> {
    pub(crate) data_dirs: Arc<[DataDir]>,
    pub(crate) config: &'a BrokerConfig,
    pub(crate) random: Random,
    pub(crate) clock: Clock,
    /// Where what is copied from others arrives.
    pub(crate) cores: Vec<Handle>,
}

impl Copying {
    fn begin(
        member: &Member,
        registry: &Registry,
        config: &BrokerConfig,
        (random, clock, runtimes): (Random, Clock, Vec<Handle>),
    ) -> Copying {
        let fetchers = Fetchers::start(FetcherOptions {
            node: member.id,
            broker_epoch: member.epoch,
            registry: registry.clone(),
            images: member.quorum.watch(),
            peers: member.quorum.peers().clone(),
            reply_bytes_max: u32::try_from(config.replica_fetch_bytes_max.0).unwrap_or(u32::MAX),
            wait_max: config.replica_fetch_wait_max.duration(),
            catchup_bytes_per_second: config.replica_catchup_bytes_per_second.0,
            random,
            runtimes,
        });
        let in_sync = IsrProposals::start(IsrOptions {
            node: member.id,
            registry: registry.clone(),
            quorum: member.quorum.clone(),
            clock,
            lag_max: config.replica_lag_time_max.duration(),
        });
        Copying { fetchers, in_sync, stop: CancellationToken::new() }
    }

    fn end(&self) {
        self.stop.cancel();
        self.in_sync.stop();
        self.fetchers.stop();
    }
}

impl Cluster {
    /// Opens the partitions that the cluster gives to `member`, and copies what it follows. It leads none of them yet. Blocks; needs a tokio
    /// runtime.
    pub(crate) fn open(
        member: Member,
        controller: Controller,
        opening: Opening<'_>,
    ) -> Result<Cluster, StartError> {
        let Opening { data_dirs, config, random, clock, cores } = opening;
        let image = member.quorum.image();
        let options = RegistryOptions {
            node: member.id,
            data_dirs,
            disk_threads: DISK_THREADS,
            log: LogConfig::default(),
            file_settings: config.file_settings().clone(),
            periods: Periods::default(),
            vitals: member.quorum.vitals().clone(),
        };
        let (registry, unusable) = Registry::open(options, &image)?;
        for partition in unusable {
            tracing::error!(error = %partition, "a partition cannot be used");
        }
        let follower = registry.spawn_follower(member.quorum.watch());
        let copying = Copying::begin(&member, &registry, config, (random.clone(), clock, cores));
        let voters = config.cluster_voters.len();
        let replication_factor = i16::try_from(config.default_replication_factor).unwrap_or(i16::MAX);
        let (partitions, file_settings) = (config.num_partitions, config.file_settings().clone());
        let lease = Lease::default();
        let heartbeats = Heartbeats::spawn(Pulse {
            quorum: member.quorum.clone(),
            controller,
            broker: member.id,
            epoch: member.epoch,
            interval: config.broker_heartbeat_interval.duration(),
            session: config.broker_session_timeout.duration(),
            lease: lease.clone(),
            heard: registry.heard(),
        });
        let (quorum, known) = (member.quorum.clone(), (member.id, member.epoch));
        let vitals = quorum.vitals().clone();
        let telling = lost_replicas::tell(quorum, known, registry.clone());
        let losses = tokio::spawn(vitals.keep("looking for failed logs", telling));
        let completing = complete_registration(member.quorum.clone(), known, member.registration.clone());
        let completing = tokio::spawn(vitals.keep("completing the registration", completing));
        Ok(Cluster {
            member,
            registry,
            follower,
            heartbeats,
            losses,
            completing,
            session: config.broker_session_timeout.duration(),
            copying,
            random,
            lease,
            file_settings,
            voters,
            partitions,
            replication_factor,
        })
    }

    /// Asks to be let in, and returns once this broker may lead and its partitions know, however long that takes.
    pub(crate) async fn serve(&self, readiness: &Readiness) -> Result<(), StartError> {
        let id = self.member.id;
        let damaged = self.registry.take_damaged();
        // Nobody knows what a damaged one lacks. Where others have it, it comes from them.
        let is_held =
            |topic, index| self.registry.get(topic, index).is_some() && !damaged.contains(&(topic, index));
        lost_replicas::tell_of_return(&self.image(), id, &self.member.missing);
        let lost = lost_replicas::unopened(&self.image(), id, is_held);
        if !lost.is_empty() {
            lost_replicas::tell_at_start(&self.image(), &lost, self.registry.data_dirs());
            self.member.lose(lost).await?;
        }
        readiness.waits_for("the controller has not let this broker serve yet");
        self.heartbeats.want(Wants::Serve);
        tokio::select! {
            () = self.let_in() => {}
            reason = self.heartbeats.refused() => return Err(StartError::NotRegistered { reason }),
        }
        self.registry.reconciled(self.image().version()).await;
        Ok(())
    }

    async fn let_in(&self) {
        let mut images = self.member.quorum.watch();
        loop {
            let is_live = images.borrow_and_update().is_live(self.member.id);
            if is_live && self.lease.is_held() {
                return;
            }
            tokio::select! {
                // The sender lives as long as the quorum.
                changed = images.changed() => if changed.is_err() { std::future::pending().await },
                () = self.lease.held(), if is_live => {}
                () = sleep(TELL_AFTER) => tracing::info!("waiting for the controller to let this broker serve"),
            }
        }
    }

    /// Has others take over what this broker leads, as far as they can within `limit`.
    pub(crate) async fn hand_over(&self, limit: Duration) {
        let id = self.member.id;
        let mut images = self.member.quorum.watch();
        if limit.is_zero() || !images.borrow().brokers().any(|other| other.id != id && !other.fenced) {
            return;
        }
        self.take_leave(limit.min(LEAVE_TIME_MAX)).await;
        self.heartbeats.want(Wants::Stop);
        let handed_over = async {
            while !is_handed_over(&images.borrow_and_update(), id) {
                if images.changed().await.is_err() {
                    return;
                }
            }
        };
        let has_ended = tokio::select! {
            ended = timeout(limit, handed_over) => ended.is_ok(),
            () = self.nobody_decides() => false,
        };
        if !has_ended {
            tracing::warn!("not everything that this broker leads was taken over in time");
        }
    }

    /// Takes nothing more from clients, and has what they have brought answered while this broker leads.
    async fn take_leave(&self, limit: Duration) {
        let left: Vec<PartitionHandle> =
            self.registry.all().into_iter().filter(PartitionHandle::take_leave).collect();
        let until = Instant::now() + limit;
        // What was let in a moment before is in the log then. What groups write goes on, and is not waited for.
        sleep(LEAVE_LOOK_AFTER).await;
        let ends: Vec<Offset> = left.iter().map(PartitionHandle::log_end).collect();
        let is_answered = |(partition, end): (&PartitionHandle, &Offset)| partition.high_watermark() >= *end;
        while !left.iter().zip(&ends).all(is_answered) && Instant::now() < until {
            sleep(LEAVE_LOOK_AFTER).await;
        }
    }

    /// Returns when the quorum has had no leader for a session: the others stop, too, or are gone.
    async fn nobody_decides(&self) {
        let mut since = Instant::now();
        while since.elapsed() < self.session {
            sleep(self.session / 8).await;
            if self.member.quorum.heard_leader().is_some() {
                since = Instant::now();
            }
        }
    }

    /// Lets go of every leadership, then closes logs and metadata.
    pub(crate) async fn stop(&self) {
        self.heartbeats.end();
        // From here on others may be given everything.
        self.lease.give_up();
        self.losses.abort();
        self.completing.abort();
        self.member.fence().await;
        self.copying.end();
        self.follower.abort();
        let registry = self.registry.clone();
        match spawn_blocking(move || registry.close(CLOSING_TIMEOUT)).await {
            Ok(closed) if closed.uncleanly == 0 => {}
            Ok(closed) => tracing::warn!(logs = closed.uncleanly, "not closed; the next start recovers them"),
            Err(_) => tracing::error!("closing the logs panicked"),
        }
        self.member.leave().await;
    }

    /// Returns when this broker cannot go on, with the reason.
    pub(crate) fn failed(&self) -> impl Future<Output = String> + Send + 'static {
        let quorum = self.member.quorum.clone();
        let refused = self.heartbeats.refused();
        let panicked = quorum.vitals().failed();
        async move {
            tokio::select! {
                e = quorum.failed() => e.to_string(),
                reason = refused => reason,
                reason = panicked => reason,
            }
        }
    }

    /// What other brokers copy from this one.
    pub(crate) fn replica_service(&self, clock: Clock) -> ReplicaService {
        ReplicaService::new(self.registry.clone(), clock, self.copying.stop.clone())
    }

    /// What the cluster has agreed on, as it is known here.
    pub(crate) fn image(&self) -> Arc<ClusterImage> {
        self.member.quorum.image()
    }

    /// The partitions on this broker.
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// This broker's number.
    pub(crate) fn node_id(&self) -> BrokerId {
        self.member.id
    }

    /// The registration of this start.
    pub(crate) fn broker_epoch(&self) -> BrokerEpoch {
        self.member.epoch
    }

    /// The quorum, for whoever watches over it.
    pub(crate) fn quorum(&self) -> &QuorumHandle {
        &self.member.quorum
    }

    /// How long what is known here is not old.
    pub(crate) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// The other brokers; `None` where this one is alone for good, because it has no `cluster.listen`.
    pub(crate) fn peers(&self) -> Option<&Peers> {
        self.member.is_reachable.then(|| self.member.quorum.peers())
    }

    /// Who decides for the cluster, where that is known.
    pub(crate) fn controller_id(&self) -> Option<BrokerId> {
        self.member.quorum.heard_leader()
    }

    /// Fails where nobody decides for the cluster. What is known here may be old then, so that it answers nothing about what would be done.
    pub(crate) fn check_decides(&self) -> Result<(), OpError> {
        if self.controller_id().is_some() {
            return Ok(());
        }
        let message = "nobody leads the metadata quorum: a majority of the voters must run and reach each other before anything is decided";
        Err(OpError::new(ErrorCode::NotController, message))
    }

    pub(crate) fn random(&self) -> &Random {
        &self.random
    }

    /// This broker's own defaults for topic settings, by the names that brokers have for them.
    pub(crate) fn file_settings(&self) -> &Settings {
        &self.file_settings
    }

    /// What a topic has where its maker does not say.
    pub(crate) fn topic_defaults(&self) -> TopicDefaults<'_> {
        TopicDefaults {
            broker: self.member.id,
            partitions: self.partitions,
            replication_factor: self.replication_factor,
            voters: self.voters,
            file: &self.file_settings,
        }
    }

    /// Has the cluster change; returns once this broker's image shows it.
    pub(crate) async fn propose(&self, command: Command, deadline: Instant) -> Result<Output, OpError> {
        let within = deadline.saturating_duration_since(Instant::now());
        Ok(self.member.quorum.propose_within(command, within).await?)
    }

    /// The partition that a request means, where this broker holds it.
    pub(crate) fn partition(&self, topic: TopicKey<'_>, index: i32) -> Result<PartitionHandle, ErrorCode> {
        let image = self.image();
        let topic = find(&image, topic).map_err(|e| e.code)?;
        if let Some(partition) = self.registry.get(topic.id, index) {
            return Ok(partition);
        }
        if self.registry.unusable(topic.id, index).is_some() {
            return Err(ErrorCode::KafkaStorageError);
        }
        let exists = u32::try_from(index).is_ok_and(|index| topic.partition(index).is_some());
        Err(if exists { ErrorCode::NotLeaderOrFollower } else { ErrorCode::UnknownTopicOrPartition })
    }

    /// The same, where this broker leads it and nobody else can have been given it: for what must not be old.
    pub(crate) fn led(&self, topic: TopicKey<'_>, index: i32) -> Result<PartitionHandle, ErrorCode> {
        let partition = self.partition(topic, index)?;
        self.check_leads(&partition)?;
        Ok(partition)
    }

    /// Fails where this broker does not lead the partition, or can no longer be sure that it does. The lease is asked first: under one that
    /// was granted on the strength of a newer image the partition has heard of the leaders in that.
    pub(crate) fn check_leads(&self, partition: &PartitionHandle) -> Result<(), ErrorCode> {
        let leads = self.lease.is_held() && matches!(partition.role(), Role::Leader { .. });
        if leads { Ok(()) } else { Err(ErrorCode::NotLeaderOrFollower) }
    }

    /// The data directories and what is left in them. Asks the disk.
    pub(crate) fn log_dirs(&self) -> Vec<LogDir> {
        let dirs = self.registry.data_dirs().iter();
        dirs.map(|dir| LogDir { path: dir.path().to_owned(), available_bytes: dir.available_bytes().ok() })
            .collect()
    }
}

/// True where this broker leads nothing that another one could.
fn is_handed_over(image: &ClusterImage, id: BrokerId) -> bool {
    let is_known = image.broker(id).is_none_or(|broker| broker.stopping || broker.fenced);
    let mut led = image.topics().flat_map(|topic| topic.partitions.values());
    is_known && !led.any(|partition| partition.leader == Some(id) && partition.heir(image).is_some())
}
