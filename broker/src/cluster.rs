//! This broker's share in the cluster: the metadata that all agree on, and the partitions that it holds because of them. Knows no door.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use floodmark_proto::ids::{BrokerEpoch, BrokerId};
use floodmark_proto::kafka::ErrorCode;
use floodmark_replication::cluster::image::Settings;
use floodmark_replication::cluster::{ClusterImage, Command, Output};
use floodmark_replication::lease::Lease;
use floodmark_replication::partition::{PartitionHandle, Role};
use floodmark_replication::quorum::QuorumHandle;
use floodmark_replication::registry::{Periods, Registry, RegistryOptions};
use floodmark_replication::rpc::Peers;
use floodmark_storage::LogConfig;
use floodmark_storage::data_dir::DataDir;
use floodmark_storage::random::Random;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::Instant;

use crate::config::BrokerConfig;
use crate::error::StartError;
use crate::member::Member;
use crate::ops::error::OpError;
use crate::ops::topics::{TopicDefaults, TopicKey, find};

/// Threads that sync logs. More of them help where syncs of many partitions wait for one disk that takes several at a time.
const DISK_THREADS: usize = 4;

/// How long closing logs may take; each takes a few syncs.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(30);

/// Metadata and partitions.
#[derive(Debug)]
pub(crate) struct Cluster {
    member: Member,
    registry: Registry,
    /// Carries each new image to the registry.
    follower: JoinHandle<()>,
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

impl Cluster {
    /// Opens the partitions that the cluster gives to `member`. It leads none of them yet. Blocks; needs a tokio runtime.
    pub(crate) fn open(
        member: Member,
        data_dirs: Vec<DataDir>,
        config: &BrokerConfig,
        random: Random,
    ) -> Result<Cluster, StartError> {
        let image = member.quorum.image();
        let options = RegistryOptions {
            node: member.id,
            data_dirs,
            disk_threads: DISK_THREADS,
            log: LogConfig::default(),
            file_settings: config.file_settings().clone(),
            periods: Periods::default(),
        };
        let (registry, unusable) = Registry::open(options, &image)?;
        for partition in unusable {
            tracing::error!(error = %partition, "a partition cannot be used");
        }
        let follower = registry.spawn_follower(member.quorum.watch());
        let voters = config.cluster_voters.len();
        let replication_factor = i16::try_from(config.default_replication_factor).unwrap_or(i16::MAX);
        let (partitions, file_settings) = (config.num_partitions, config.file_settings().clone());
        // A broker whose quorum is itself is followed by nobody.
        let lease = Lease::default();
        lease.hold();
        Ok(Cluster {
            member,
            registry,
            follower,
            random,
            lease,
            file_settings,
            voters,
            partitions,
            replication_factor,
        })
    }

    /// Leads from here on; returns once the partitions know.
    pub(crate) async fn serve(&self) -> Result<(), StartError> {
        self.member.serve().await?;
        self.registry.reconciled(self.image().version()).await;
        Ok(())
    }

    /// Lets go of every leadership, then closes logs and metadata.
    pub(crate) async fn stop(&self) {
        self.member.fence().await;
        self.follower.abort();
        let registry = self.registry.clone();
        match spawn_blocking(move || registry.close(CLOSING_TIMEOUT)).await {
            Ok(closed) if closed.uncleanly == 0 => {}
            Ok(closed) => tracing::warn!(logs = closed.uncleanly, "not closed; the next start recovers them"),
            Err(_) => tracing::error!("closing the logs panicked"),
        }
        self.member.leave().await;
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
        self.member.quorum.leader()
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

    /// Fails where this broker does not lead the partition, or can no longer be sure that it does.
    pub(crate) fn check_leads(&self, partition: &PartitionHandle) -> Result<(), ErrorCode> {
        let leads = matches!(partition.duty().role, Role::Leader { .. }) && self.lease.is_held();
        if leads { Ok(()) } else { Err(ErrorCode::NotLeaderOrFollower) }
    }

    /// The data directories and what is left in them. Asks the disk.
    pub(crate) fn log_dirs(&self) -> Vec<LogDir> {
        let dirs = self.registry.data_dirs().iter();
        dirs.map(|dir| LogDir { path: dir.path().to_owned(), available_bytes: dir.available_bytes().ok() })
            .collect()
    }
}
