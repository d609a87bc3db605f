//! A leader whose follower the test plays, and a real quorum that decides.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use floodmark_proto::batch::{BatchBuilder, NewRecord};
use floodmark_proto::ids::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, TopicId};
use floodmark_storage::clock::{Clock, Stopwatch};
use floodmark_storage::data_dir::{DataDir, DirectoryId};
use floodmark_storage::fs::SimDisk;
use floodmark_storage::fs::sim::{Fault, FaultKind, FaultOn};
use floodmark_storage::log::LogContext;
use floodmark_storage::random::Random;
use floodmark_storage::{LogConfig, TailBudget};

use super::{IsrOptions, IsrProposals};
use crate::cluster::image::Settings;
use crate::cluster::{Command, Output};
use crate::partition::{AppendOptions, PartitionHandle, ReplicaFetch};
use crate::quorum::{FEATURE_LEVELS, QuorumHandle, QuorumOptions, QuorumTiming, SnapshotRule};
use crate::registry::{Periods, Registry, RegistryOptions};

const LAG: Duration = Duration::from_millis(500);

/// Broker 1, which leads, and what it needs.
struct Leading {
    quorum: QuorumHandle,
    registry: Registry,
    clock: Clock,
    topic: TopicId,
    /// Of broker 2.
    follower: BrokerEpoch,
}

impl Leading {
    /// Where its log cannot be opened at first, for want of a descriptor, that is so until images are followed.
    async fn start(opens_at_once: bool) -> Leading {
        let clock = Clock::manual(1_000_000);
        let disk = SimDisk::new();
        let context = LogContext {
            disk: Arc::new(disk.clone()),
            clock: clock.clone(),
            random: Random::seeded(3),
            tail_budget: TailBudget::new(1 << 20),
        };
        let data_dir = DataDir::open(context.clone(), Path::new("d")).unwrap();
        let quorum = QuorumHandle::start(QuorumOptions {
            context,
            data_dir: "d".into(),
            directory_id: DirectoryId(uuid::Uuid::from_u128(5)),
            holds_partitions: false,
            node_id: BrokerId(1),
            cluster_id: None,
            deadline: Duration::from_secs(30),
            snapshots: SnapshotRule::default(),
            voters: Vec::new(),
            address: None,
            timing: QuorumTiming::default(),
            vitals: crate::vital::Vitals::default(),
        });
        let quorum = quorum.await.unwrap();
        register(&quorum, 1).await;
        let follower = register(&quorum, 2).await;
        let topic = TopicId::from_bytes([7; 16]).unwrap();
        let assignments = vec![vec![BrokerId(1), BrokerId(2)]];
        let settings = Vec::new();
        let create = Command::CreateTopic { name: "t".to_owned(), id: topic, assignments, settings };
        quorum.propose(create).await.unwrap();
        let options = RegistryOptions {
            node: BrokerId(1),
            data_dirs: [data_dir].into(),
            disk_threads: 1,
            log: LogConfig { prewrite_bytes: 0, ..LogConfig::default() },
            file_settings: Settings::new(),
            periods: Periods::default(),
            vitals: crate::vital::Vitals::default(),
        };
        if !opens_at_once {
            disk.inject(Fault {
                on: FaultOn::Open,
                path_ends: "t-0/log.manifest.tmp".to_owned(),
                after: 0,
                times: 1,
                kind: FaultKind::NoDescriptor,
            });
        }
        let (registry, unusable) = Registry::open(options, &quorum.image()).unwrap();
        assert_eq!((unusable.is_empty(), disk.faults_taken()), (opens_at_once, u64::from(!opens_at_once)));
        Leading { quorum, registry, clock, topic, follower }
    }

    fn partition(&self) -> PartitionHandle {
        self.registry.get(self.topic, 0).unwrap()
    }

    fn in_sync(&self) -> Vec<i32> {
        let image = self.quorum.image();
        let partition = image.topic_by_id(self.topic).unwrap().partition(0).unwrap();
        partition.isr.iter().map(|broker| broker.0).collect()
    }

    /// Broker 2 says that it has everything up to `end`, on its disk, and that it knows the partition as it is.
    fn follower_has(&self, end: i64) {
        let partition = self.partition();
        let said = ReplicaFetch {
            replica: BrokerId(2),
            broker_epoch: self.follower,
            leader_epoch: partition.leader_epoch(),
            partition_epoch: partition.duty().partition_epoch,
            fetch_offset: Offset(end),
            last_fetched_epoch: (end > 0).then_some(LeaderEpoch(0)),
            synced_end: Offset(end),
            log_start: Offset(0),
        };
        partition.on_replica_position(&said, self.clock.steady_ms()).unwrap();
    }

    /// Time passes until those are in sync.
    async fn until_in_sync(&self, expected: &[i32]) {
        let begun = Stopwatch::start();
        while self.in_sync() != expected {
            assert!(begun.elapsed() < Duration::from_secs(30), "in sync are {:?}", self.in_sync());
            self.clock.advance_ms(50);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.registry.reconciled(self.quorum.image().version()).await;
    }
}

async fn in_time(test: impl Future<Output = ()>) {
    tokio::time::timeout(Duration::from_secs(120), test).await.expect("the test hangs");
}

async fn register(quorum: &QuorumHandle, broker: i32) -> BrokerEpoch {
    let broker = BrokerId(broker);
    let register = Command::RegisterBroker {
        broker,
        incarnation: uuid::Uuid::from_u128(broker.0 as u128),
        rack: None,
        endpoints: Vec::new(),
        feature_levels: FEATURE_LEVELS,
        directories: Vec::new(),
        in_sync_defaults: None,
    };
    let Output::BrokerRegistered { epoch } = quorum.propose(register).await.unwrap() else {
        panic!("not registered")
    };
    quorum.propose(Command::UnfenceBroker { broker, epoch }).await.unwrap();
    epoch
}

#[test]
fn who_lags_leaves_and_who_has_everything_comes_back() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(in_time(async {
        let leading = Leading::start(true).await;
        let follower = leading.registry.spawn_follower(leading.quorum.watch());
        let proposals = IsrProposals::start(IsrOptions {
            node: BrokerId(1),
            registry: leading.registry.clone(),
            quorum: leading.quorum.clone(),
            clock: leading.clock.clone(),
            lag_max: LAG,
        });
        leading.follower_has(0);
        // Having everything, it stays, however long it says nothing.
        for _ in 0..40 {
            leading.clock.advance_ms(100);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(leading.in_sync(), [1, 2]);
        let mut builder = BatchBuilder::new();
        builder.push(&NewRecord { timestamp: 1, key: None, value: Some(b"v"), headers: &[] }).unwrap();
        let options = AppendOptions { needs_min_isr: false, ..AppendOptions::CLIENT };
        let appended = leading.partition().append(vec![builder.build().unwrap()], options).await.unwrap();
        let committed = leading.partition().committed(appended.end, appended.epoch);
        leading.until_in_sync(&[1]).await;
        // Nobody waits any more for one that is not in sync.
        tokio::time::timeout(Duration::from_secs(30), committed).await.unwrap().unwrap();
        leading.follower_has(1);
        leading.until_in_sync(&[1, 2]).await;
        proposals.stop();
        follower.abort();
        leading.quorum.shutdown().await.unwrap();
    }));
}

/// Fails when only an image has the leader of a partition looked at: this one could not be opened when the image came.
#[test]
fn a_leader_that_was_opened_late_leaves_out_who_lags_all_the_same() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(in_time(async {
        let leading = Leading::start(false).await;
        let proposals = IsrProposals::start(IsrOptions {
            node: BrokerId(1),
            registry: leading.registry.clone(),
            quorum: leading.quorum.clone(),
            clock: leading.clock.clone(),
            lag_max: LAG,
        });
        // It has looked, in vain.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let follower = leading.registry.spawn_follower(leading.quorum.watch());
        leading.until_in_sync(&[1]).await;
        proposals.stop();
        follower.abort();
        leading.quorum.shutdown().await.unwrap();
    }));
}
