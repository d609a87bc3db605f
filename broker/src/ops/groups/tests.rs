//! A broker whose partition of the offsets topic cannot be opened at first.

use std::path::Path;

use floodmark_proto::ids::TopicId;
use floodmark_replication::cluster::image::Settings;
use floodmark_replication::cluster::{Command, Output};
use floodmark_replication::quorum::{FEATURE_LEVELS, QuorumOptions, QuorumTiming, SnapshotRule};
use floodmark_replication::registry::{Periods, RegistryOptions};
use floodmark_replication::vital::Vitals;
use floodmark_storage::data_dir::{DataDir, DirectoryId};
use floodmark_storage::fs::SimDisk;
use floodmark_storage::fs::sim::{Fault, FaultKind, FaultOn};
use floodmark_storage::log::LogContext;
use floodmark_storage::{LogConfig, TailBudget};

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

async fn quorum_of_one(context: LogContext) -> QuorumHandle {
    let options = QuorumOptions {
        context,
        data_dir: "d".into(),
        directory_id: DirectoryId(uuid::Uuid::from_u128(5)),
        holds_partitions: false,
        node_id: BrokerId(1),
        cluster_id: None,
        deadline: PATIENCE,
        snapshots: SnapshotRule::default(),
        voters: Vec::new(),
        address: None,
        timing: QuorumTiming::default(),
        vitals: Vitals::default(),
    };
    let quorum = QuorumHandle::start(options).await.unwrap();
    let register = Command::RegisterBroker {
        broker: BrokerId(1),
        incarnation: uuid::Uuid::from_u128(1),
        rack: None,
        endpoints: Vec::new(),
        feature_levels: FEATURE_LEVELS,
        directories: Vec::new(),
        in_sync_defaults: None,
    };
    let Output::BrokerRegistered { epoch } = quorum.propose(register).await.unwrap() else { panic!() };
    quorum.propose(Command::UnfenceBroker { broker: BrokerId(1), epoch }).await.unwrap();
    let create = Command::CreateTopic {
        name: OFFSETS_TOPIC.to_owned(),
        id: TopicId::from_bytes([7; 16]).unwrap(),
        assignments: vec![vec![BrokerId(1)]],
        settings: Vec::new(),
    };
    quorum.propose(create).await.unwrap();
    quorum
}

/// Fails when only an image has a broker look at what it leads: this partition could not be opened when the image came.
#[test]
fn groups_of_a_partition_that_is_opened_late_are_taken_over() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let disk = SimDisk::new();
        let context = LogContext {
            disk: Arc::new(disk.clone()),
            clock: Clock::System,
            random: Random::seeded(3),
            tail_budget: TailBudget::new(1 << 20),
        };
        let data_dir = DataDir::open(context.clone(), Path::new("d")).unwrap();
        let quorum = quorum_of_one(context).await;
        disk.inject(Fault {
            on: FaultOn::Open,
            path_ends: "__consumer_offsets-0/log.manifest.tmp".to_owned(),
            after: 0,
            times: 1,
            kind: FaultKind::NoSpace,
        });
        let options = RegistryOptions {
            node: BrokerId(1),
            data_dirs: [data_dir].into(),
            disk_threads: 1,
            log: LogConfig { prewrite_bytes: 0, ..LogConfig::default() },
            file_settings: Settings::new(),
            periods: Periods::default(),
            vitals: Vitals::default(),
        };
        let (registry, unusable) = Registry::open(options, &quorum.image()).unwrap();
        assert_eq!(unusable.len(), 1, "{unusable:?}");
        let lease = Lease::default();
        lease.hold();
        let coordinator = Coordinator::new(
            GroupSettings::default(),
            Clock::System,
            Random::seeded(5),
            lease,
            Vitals::default(),
        );
        let following = tokio::spawn(follow(coordinator.clone(), quorum.clone(), registry.clone()));
        let asked = || coordinator.fetch_offsets("g", WhichOffsets::Of(&[]), false);
        let begun = Instant::now();
        while asked() != Err(GroupError::NotCoordinator) {
            assert!(begun.elapsed() < PATIENCE, "{:?}", asked());
            sleep(POLL).await;
        }
        // From here on it is tried again, and no image comes.
        let opening = registry.spawn_follower(quorum.watch());
        while let Err(e) = asked() {
            assert!(begun.elapsed() < PATIENCE, "{e:?}");
            sleep(POLL).await;
        }
        following.abort();
        opening.abort();
        quorum.shutdown().await.unwrap();
    });
}
